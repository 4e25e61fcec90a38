//! Debian's servers, configured for policy zones, in the world's internet.

use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::world::ns::Process;
use crate::world::{UPSTREAM, World};

/// Where BIND answers.
pub const BIND: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 61);
/// Where unbound answers.
pub const UNBOUND: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 62);

/// Says what is missing; panics instead where skipping is a failure.
pub fn tools_are_there() -> bool {
    let there = |tool: &str| {
        let find = format!("PATH=$PATH:/usr/sbin:/sbin command -v {tool}");
        Command::new("sh").args(["-c", &find]).stdout(Stdio::null()).status().is_ok_and(|s| s.success())
    };
    let tools = [("named", "bind9"), ("unbound", "unbound"), ("nsupdate", "dnsutils")];
    let Some((tool, package)) = tools.iter().find(|(tool, _)| !there(tool)) else { return true };
    crate::world::skip::lacking(format!("{tool}, of package {package}"));
    false
}

/// A zone for the oracles.
pub struct PolicyZone {
    /// Its name.
    pub name: String,
    /// Its text.
    pub text: String,
    /// What is done whatever its records say: BIND's word; `given` for nothing.
    pub policy: &'static str,
}

impl PolicyZone {
    /// The zone's file in the world.
    pub fn write(&self, world: &World) -> PathBuf {
        let file = world.path(&format!("{}.zone", self.name));
        std::fs::write(&file, &self.text).expect("written");
        file
    }
}

fn wait(command: Command, world: &World, name: &str, says: &str) -> Process {
    let mut process = Process::start(command, world.path(&format!("{name}.log")));
    let ready = process.wait_for_log(says, Duration::from_secs(20));
    assert!(ready, "{name} does not run: {}", process.log());
    process
}

/// A BIND with this inside its options and behind them.
pub fn named(world: &World, name: &str, address: Ipv4Addr, options: &str, more: &str) -> Process {
    let dir = world.path(name);
    std::fs::create_dir_all(&dir).expect("a directory");
    let text = format!(
        "options {{ directory {dir:?}; pid-file none; session-keyfile none; listen-on {{ {address}; }};\n\
         listen-on-v6 {{ none; }}; allow-query {{ any; }}; query-source address {address}; {options} }};\n\
         controls {{ }};\n{more}"
    );
    let conf = world.path(&format!("{name}.conf"));
    std::fs::write(&conf, text).expect("written");
    // It listens on addresses of interfaces alone.
    let _ = world.net.sh(&format!("ip addr add {address}/32 dev lo"));
    let mut command = world.net.command("/usr/sbin/named");
    command.args(["-g", "-n", "1", "-c"]).arg(&conf);
    wait(command, world, name, "running")
}

/// A BIND that forwards to the world's upstream and rewrites by these zones.
pub fn bind_with(world: &World, zones: &[PolicyZone]) -> Process {
    let order: String = zones.iter().map(|z| format!("zone \"{}\" policy {}; ", z.name, z.policy)).collect();
    let files: String = zones
        .iter()
        .map(|z| format!("zone \"{}\" {{ type primary; file {:?}; }};\n", z.name, z.write(world)))
        .collect();
    // A name that a zone refuses is not asked for first, as with us.
    let options = format!(
        "recursion yes; allow-recursion {{ any; }}; notify no; dnssec-validation no; forward only;\n\
         forwarders {{ {UPSTREAM}; }}; empty-zones-enable no; qname-minimization off; minimal-responses yes;\n\
         response-policy {{ {order} }} nsip-enable no nsdname-enable no qname-wait-recurse no max-policy-ttl 3600;"
    );
    let mut bind = named(world, "bind-rpz", BIND, &options, &files);
    for zone in zones {
        let says = format!("rpz: {}: reload done: success", zone.name);
        assert!(bind.wait_for_log(&says, Duration::from_secs(20)), "{says}: {}", bind.log());
    }
    bind
}

/// An unbound that does the same.
pub fn unbound_with(world: &World, zones: &[PolicyZone]) -> Process {
    let zones: String = zones
        .iter()
        .map(|z| {
            let policy = match z.policy {
                "given" => String::new(),
                other => format!(" rpz-action-override: {other}\n"),
            };
            format!("rpz:\n name: \"{}\"\n zonefile: {:?}\n{policy}", z.name, z.write(world))
        })
        .collect();
    let text = format!(
        "server:\n do-daemonize: no\n chroot: \"\"\n username: \"\"\n pidfile: \"\"\n directory: {:?}\n\
         use-syslog: no\n logfile: \"\"\n verbosity: 1\n interface: {UNBOUND}\n access-control: 0.0.0.0/0 allow\n\
         do-ip6: no\n num-threads: 1\n module-config: \"respip iterator\"\n harden-below-nxdomain: no\n\
         minimal-responses: yes\n qname-minimisation: no\n local-zone: \"test.\" nodefault\n\
         outgoing-interface: {UNBOUND}\n{zones}forward-zone:\n name: \".\"\n forward-addr: {UPSTREAM}\n\
         remote-control:\n control-enable: no\n",
        world.dir()
    );
    let conf = world.path("unbound-rpz.conf");
    std::fs::write(&conf, text).expect("written");
    let mut command = world.net.command("/usr/sbin/unbound");
    command.arg("-d").arg("-c").arg(&conf);
    wait(command, world, "unbound-rpz", "start of service")
}
