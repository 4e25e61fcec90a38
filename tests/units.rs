//! The shipped systemd units: understood, narrow, and started by a real systemd in namespaces of its own.

mod world;

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use world::ns::Process;
use world::staunch::binary;
use world::{World, dns, wait_for};

const LIMIT: Duration = Duration::from_secs(40);
const TREE: &str = env!("CARGO_MANIFEST_DIR");

#[test]
fn each_unit_is_understood_and_as_narrow_as_it_says() {
    let output = Command::new(format!("{TREE}/scripts/check-units.sh")).output().expect("runs");
    let said = String::from_utf8_lossy(&output.stdout);
    print!("{said}");
    assert!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(said.matches("exposure level").count(), 5, "{said}");
}

/// A systemd in the world's gateway.
struct Init {
    process: Process,
    /// Its process id here, where it is not 1.
    pid: u32,
}

impl Init {
    fn boot(world: &World, config: &str, drop_ins: &[(&str, &str)]) -> Self {
        let etc = world.path("etc");
        let write = |path: &str, text: &str| {
            let path = etc.join(path);
            std::fs::create_dir_all(path.parent().expect("a parent")).expect("directory");
            std::fs::write(path, text).expect("written");
        };
        write("staunch/staunch.toml", config);
        for (path, text) in drop_ins {
            write(&format!("systemd/system/{path}"), text);
        }
        let root = world.path("root");
        std::fs::create_dir_all(&root).expect("directory");
        let mut command = world.gw.command("unshare");
        command.args(["-p", "-f", "-m", "-i", "-u", "-C", "--kill-child", "sh"]);
        command.arg(format!("{TREE}/tests/systemd/boot.sh")).arg(&root).arg(binary());
        command.arg(format!("{TREE}/deploy/systemd")).arg(&etc);
        let process = Process::start(command, world.path("boot.log"));
        let pid = wait_for(LIMIT, || {
            let children = format!("/proc/{0}/task/{0}/children", process.id());
            let child: u32 = std::fs::read_to_string(children).ok()?.split_whitespace().next()?.parse().ok()?;
            let name = std::fs::read_to_string(format!("/proc/{child}/comm")).ok()?;
            (name.trim_end() == "systemd").then_some(child)
        });
        let pid = pid.unwrap_or_else(|| panic!("systemd did not start:\n{}", process.log()));
        Self { process, pid }
    }

    fn run(&self, words: &[&str]) -> Output {
        let mut command = Command::new("nsenter");
        command.args(["-t", &self.pid.to_string(), "-m", "-p", "-n", "-r", "-w", "--"]);
        command.args(words).env("SYSTEMD_PAGER", "").output().expect("nsenter runs")
    }

    fn systemctl(&self, words: &[&str]) -> Output {
        self.run(&[&["/usr/bin/systemctl"], words].concat())
    }

    fn property(&self, unit: &str, name: &str) -> String {
        let output = self.systemctl(&["show", unit, "-P", name]);
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    }

    #[track_caller]
    fn wait_active(&self, unit: &str) {
        let active = wait_for(LIMIT, || (self.property(unit, "ActiveState") == "active").then_some(()));
        assert!(active.is_some(), "{unit} is {}\n{}", self.property(unit, "ActiveState"), self.journal());
    }

    fn journal(&self) -> String {
        let units = ["-u", "staunch.service", "-u", "staunch.socket", "-u", "staunch-lockdown.service"];
        let output = self.run(&[&["/usr/bin/journalctl", "--no-pager", "-o", "cat", "-n", "60"], &units[..]].concat());
        format!("{}\n{}", String::from_utf8_lossy(&output.stdout), self.process.log())
    }

    /// The main process of a unit as this program sees it, and its status(5); waits until there is one.
    fn status(&self, unit: &str) -> (u32, String) {
        let found = wait_for(LIMIT, || self.look(unit));
        found.unwrap_or_else(|| panic!("no main process of {unit}\n{}", self.journal()))
    }

    /// The same at this moment.
    fn look(&self, unit: &str) -> Option<(u32, String)> {
        let inside = self.property(unit, "MainPID");
        let mut found = None;
        for entry in std::fs::read_dir("/proc").expect("proc").flatten() {
            let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else { continue };
            let Ok(status) = std::fs::read_to_string(entry.path().join("status")) else { continue };
            let nested = status.lines().find_map(|line| line.strip_prefix("NSpid:"));
            let same = nested.is_some_and(|ids| ids.split_whitespace().next_back() == Some(inside.as_str()));
            if same && self.holds(pid) {
                found = Some((pid, status));
            }
        }
        found
    }

    /// Whether a process is in this systemd's namespace of processes.
    fn holds(&self, pid: u32) -> bool {
        let namespace = |pid: u32| std::fs::read_link(format!("/proc/{pid}/ns/pid")).ok();
        namespace(pid).is_some_and(|own| Some(own) == namespace(self.pid))
    }
}

fn field<'s>(status: &'s str, name: &str) -> &'s str {
    let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    line.unwrap_or_default().split_whitespace().next().unwrap_or_default()
}

fn signal(pid: u32, signal: i32) {
    // SAFETY: a plain system call on a process that this test has started.
    assert_eq!(unsafe { libc::kill(pid as i32, signal) }, 0);
}

const CONFIG: &str = r#"version = 1
[server]
listen = ["10.77.1.1:53"]
state_dir = "/var/lib/staunch"
admin_socket = "/run/staunch/admin.sock"
[policy]
mode = "enforce"
[upstream]
servers = ["203.0.113.53"]
[enforce]
backend = "nft"
interfaces = ["ag1"]
enforcer_socket = "/run/staunch-enforcer/enforcer.sock"
[[session]]
id = "agent-1"
addresses = ["10.77.1.2", "fd77:1::2"]
type = "interactive"
owner = "team-a"
"#;

#[test]
fn a_real_systemd_starts_the_units_and_they_do_what_they_say() {
    let Some(world) = World::create(1) else { return };
    if !Path::new("/lib/systemd/systemd").exists() {
        return world::skip::lacking("systemd");
    }
    // A shorter watchdog than the shipped one, so that the test can wait for it.
    let short = ("staunch.service.d/short.conf", "[Service]\nWatchdogSec=3\n");
    let init = Init::boot(&world, CONFIG, &[short, ("nftables.service", NFTABLES)]);
    init.wait_active("staunch.service");
    init.wait_active("staunch-lockdown.service");
    let agent = &world.agents[0];
    let answered = |name: &str| agent.ask(name, dns::rtype::A).is_ok_and(|reply| reply.addresses() == [world::WEB]);
    assert!(answered("www.site.example"), "{}", init.journal());

    // The resolver: a user of its own, no capability of any kind, a filter of system calls.
    let (first, status) = init.status("staunch.service");
    assert_ne!(field(&status, "Uid"), "0");
    for set in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
        assert_eq!(field(&status, set), "0000000000000000", "{set}");
    }
    assert_eq!((field(&status, "Seccomp"), field(&status, "NoNewPrivs")), ("2", "1"));
    let verb =
        |words: &[&str]| init.run(&[&["/usr/bin/staunch", "--socket", "/run/staunch/admin.sock"], words].concat());
    let healthy = || verb(&["healthcheck", "--address", "10.77.1.1:53"]);
    assert!(healthy().status.success(), "{:?}\n{}", healthy(), init.journal());

    // The rules around the sandbox stand.
    let stands = init.run(&["/usr/bin/staunch", "lockdown", "status", "--config", "/etc/staunch/staunch.toml"]);
    assert!(stands.status.success(), "{stands:?}");

    // A restart under questions loses none.
    let stop = AtomicBool::new(false);
    let (asked, lost) = std::thread::scope(|scope| {
        let asking = scope.spawn(|| {
            let (mut asked, mut lost) = (0, 0);
            while !stop.load(Relaxed) {
                asked += 1;
                lost += u32::from(!answered("www.site.example"));
            }
            (asked, lost)
        });
        let restarted = init.systemctl(&["restart", "staunch.service"]);
        assert!(restarted.status.success(), "{restarted:?}\n{}", init.journal());
        stop.store(true, Relaxed);
        asking.join().expect("no panic")
    });
    println!("FIGURE: {lost} of {asked} questions were lost in a restart by systemd");
    assert_eq!(lost, 0, "of {asked} questions");
    let (second, _) = init.status("staunch.service");
    assert_ne!(first, second);

    // A reload says whether the new configuration is in force.
    assert!(init.systemctl(&["reload", "staunch.service"]).status.success(), "{}", init.journal());

    // Killed, it comes back by itself; stuck, the watchdog ends it.
    for how in [libc::SIGKILL, libc::SIGSTOP] {
        let (before, _) = init.status("staunch.service");
        signal(before, how);
        let back = wait_for(LIMIT, || {
            let alive = init.property("staunch.service", "ActiveState") == "active";
            (alive && init.look("staunch.service").is_some_and(|(pid, _)| pid != before)).then_some(())
        });
        assert!(back.is_some(), "signal {how}: not started again\n{}", init.journal());
        assert!(answered("www.site.example"), "signal {how}");
    }
    enforcer(&init, agent);
    lockdown_behind_nftables(&init);
    // Whoever runs without an enforcer does not enable it; nothing else brings it in.
    let wants = || init.property("staunch.service", "Wants").contains("staunch-enforcer.service");
    assert!(wants(), "the resolver's start brings in the one that is enabled");
    assert!(init.systemctl(&["disable", "staunch-enforcer.service"]).status.success(), "{}", init.journal());
    assert!(!wants(), "and no other");

    // The lockdown outlives the service, and what it was applied by.
    assert!(
        init.systemctl(&["stop", "staunch.service", "staunch.socket", "staunch-lockdown.service"]).status.success()
    );
    let stands = init.run(&["/usr/bin/staunch", "lockdown", "status", "--config", "/etc/staunch/staunch.toml"]);
    assert!(stands.status.success(), "{stands:?}");
    assert!(!answered("www.site.example"), "nobody serves");
}

/// The enforcer: one capability, the resolver's user.
fn enforcer(init: &Init, agent: &world::Agent) {
    init.wait_active("staunch-enforcer.service");
    let (_, status) = init.status("staunch-enforcer.service");
    let (_, resolver) = init.status("staunch.service");
    assert_eq!(field(&status, "Uid"), field(&resolver, "Uid"), "the resolver's user");
    // What it needs to open its sockets it has given away.
    for set in ["CapPrm", "CapEff"] {
        assert_eq!(field(&status, set), "0000000000001000", "{set}: CAP_NET_ADMIN, bit 12, alone");
    }
    assert_eq!(field(&status, "CapBnd"), "0000000000003000", "CapBnd: and CAP_NET_RAW, bit 13, in the unit");
    assert_eq!(field(&status, "Seccomp"), "2");
    // Orders reach it: what was answered can be reached, and nothing else.
    let (dialled, _) = agent.dial(world::WEB.into(), 80);
    dialled.unwrap_or_else(|error| panic!("{error}\n{}", init.journal()));
    let (dialled, _) = agent.dial([198, 51, 100, 9].into(), 80);
    assert!(dialled.is_err(), "an address that nobody resolved");
}

/// The distribution's unit, with an empty ruleset of the host's own.
const NFTABLES: &str = "[Unit]\nDefaultDependencies=no\nBefore=network-pre.target\n[Service]\nType=oneshot\n\
    RemainAfterExit=yes\nExecStart=/usr/sbin/nft flush ruleset\nExecReload=/usr/sbin/nft flush ruleset\n\
    ExecStop=/usr/sbin/nft flush ruleset\n";

/// Whatever empties the ruleset by way of the distribution's unit, the lockdown stands again behind it.
fn lockdown_behind_nftables(init: &Init) {
    let words = ["/usr/bin/staunch", "lockdown", "status", "--config", "/etc/staunch/staunch.toml"];
    let stands = || init.run(&words).status.success().then_some(());
    // At the end more starts than a unit has in ten seconds by default.
    for verbs in [&["start"][..], &["restart"], &["reload"], &["stop", "start"], &["stop"], &["restart", "restart"]] {
        for verb in verbs {
            let done = init.systemctl(&[verb, "nftables.service"]);
            assert!(done.status.success(), "{verb}: {done:?}");
        }
        assert!(wait_for(LIMIT, stands).is_some(), "behind {verbs:?}: {:?}\n{}", init.run(&words), init.journal());
        // By a unit that knows of it, so that the next stop and reload reach it.
        init.wait_active("staunch-lockdown.service");
    }
}

#[test]
fn no_unit_is_named_that_does_not_exist() {
    let dir = PathBuf::from(format!("{TREE}/deploy/systemd"));
    let text = |name: &str| std::fs::read_to_string(dir.join(name)).expect("a unit");
    let units = std::fs::read_dir(&dir).expect("units").map(|file| file.expect("a unit").file_name());
    for name in units.map(|name| name.into_string().expect("UTF-8")) {
        let name = name.as_str();
        let unit = text(name);
        for word in unit.lines().filter(|line| !line.starts_with('#')).flat_map(|line| line.split(['=', ' '])) {
            if word.starts_with("staunch") && (word.ends_with(".service") || word.ends_with(".socket")) {
                assert!(dir.join(word).exists(), "{name} names {word}");
            }
        }
    }
}
