//! A signed internet: a root, two top-level domains and zones of every kind below them, signed anew for each test, on one
//! authoritative server; a resolver in front of it as the upstream; validating resolvers behind.

use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::world::ns::{Ns, Process};
use crate::world::{UPSTREAM, World};

/// The authoritative server of all zones.
pub const AUTHORITY: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 20);
/// Where the upstream's resolver really is; packets to [`UPSTREAM`] are led here.
pub const RESOLVER: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 54);
/// Port of validating resolvers on the loopback of their namespace.
pub const VALIDATOR_PORT: u16 = 5300;

/// What the tests run, and the package it comes from.
const TOOLS: [(&str, &str); 5] = [
    ("named", "bind9"),
    ("dnssec-signzone", "bind9-utils"),
    ("dnssec-keygen", "bind9-utils"),
    ("delv", "bind9-dnsutils"),
    ("unbound", "unbound"),
];

/// How a zone is signed.
#[derive(Clone, Copy, PartialEq)]
enum Signing {
    None,
    Nsec,
    Nsec3,
    /// With spans that leave out delegations without keys (RFC 5155 section 6).
    OptOut,
    /// The same of names hashed more often than once.
    Iterated,
    /// By signatures that ended a day ago.
    Expired,
    /// By signatures that begin in four days, which no allowance for clocks covers.
    Early,
}

/// The resolver that is upstream.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Kind {
    Unbound,
    Bind,
    /// An unbound that hands signatures on and checks none.
    Unchecked,
}

/// The running servers, ended when dropped.
pub struct Signed {
    dir: PathBuf,
    processes: Vec<(&'static str, Process)>,
}

/// Says what is missing; panics instead where skipping is a failure.
pub fn tools_are_there() -> bool {
    let there = |tool: &str| {
        let find = format!("PATH=$PATH:/usr/sbin:/sbin command -v {tool}");
        Command::new("sh").args(["-c", &find]).stdout(Stdio::null()).status().is_ok_and(|s| s.success())
    };
    let Some((tool, package)) = TOOLS.iter().find(|(tool, _)| !there(tool)) else { return true };
    crate::world::skip::lacking(format!("{tool}, of package {package} (scripts/setup.sh)"));
    false
}

impl Signed {
    /// Signs the zones and starts the authoritative server and a resolver of this kind, both outside.
    pub fn start(world: &World, kind: Kind) -> Self {
        let dir = world.path("signed");
        std::fs::create_dir_all(&dir).expect("a directory for the zones");
        let mut this = Self { dir, processes: Vec::new() };
        // Children first: their parents sign for their keys.
        for zone in ZONES.iter().rev() {
            this.sign(zone);
        }
        this.write_anchors();
        // BIND listens on addresses that an interface has, not on whole ranges that are routed here.
        world.net.ip(&[&format!("addr add {AUTHORITY}/32 dev lo"), &format!("addr add {RESOLVER}/32 dev lo")]);
        let authority = this.authority(world);
        let resolver = this.resolver(world, kind);
        this.processes = vec![("authority", authority), ("resolver", resolver)];
        let nat = format!(
            "table ip to_resolver {{ chain pre {{ type nat hook prerouting priority -100; policy accept;\n\
             ip daddr {UPSTREAM} udp dport 53 dnat to {RESOLVER}\nip daddr {UPSTREAM} tcp dport 53 dnat to {RESOLVER}\n}}\n}}\n"
        );
        std::fs::write(this.dir.join("nat.nft"), nat).expect("the rules written");
        let output = world.net.command("nft").arg("-f").arg(this.dir.join("nat.nft")).output().expect("nft runs");
        assert!(output.status.success(), "nft: {}", String::from_utf8_lossy(&output.stderr));
        this
    }

    /// A file of the root's key, as one record.
    pub fn anchor(&self) -> PathBuf {
        self.dir.join("anchor.unbound")
    }

    /// Starts a validating unbound on the loopback of `ns`, that asks `server` for everything.
    pub fn validator(&self, ns: &Ns, name: &str, server: Ipv4Addr) -> Process {
        let forward = format!("forward-zone:\n name: \".\"\n forward-addr: {server}\n");
        self.unbound(ns, name, "127.0.0.1", VALIDATOR_PORT, &forward)
    }

    /// The same with nothing at hand, asking by large datagrams alone.
    pub fn fresh_validator(&self, ns: &Ns, server: Ipv4Addr) -> Process {
        let more = format!(" edns-buffer-size: 4096\nforward-zone:\n name: \".\"\n forward-addr: {server}\n");
        self.unbound(ns, "fresh", "127.0.0.1", VALIDATOR_PORT, &more)
    }

    /// What delv, a validator of another make, says of a name when it asks `server` from `ns`; times left out.
    pub fn delv(&self, ns: &Ns, server: Ipv4Addr, name: &str, qtype: &str) -> String {
        let mut command = ns.command("delv");
        command.arg("-a").arg(self.dir.join("anchor.bind")).arg(format!("@{server}"));
        let output = command.args(["+root=.", "+nottl", "+nocrypto", name, qtype]).output().expect("delv runs");
        let text = [output.stdout, output.stderr].concat();
        String::from_utf8_lossy(&text).into_owned()
    }

    /// One zone: written, signed; its DS set left for its parent.
    fn sign(&self, zone: &str) {
        let (text, signing) = zone_text(zone);
        let plain = self.path(zone, "plain");
        std::fs::write(&plain, text).expect("the zone written");
        let signed = self.path(zone, "signed");
        if signing == Signing::None {
            std::fs::copy(&plain, &signed).expect("the zone copied");
            return;
        }
        // RSA in one zone, so that answers of a few records outgrow a datagram.
        let algorithm: &[&str] =
            if ["nsec.org", "trap.org"].contains(&zone) { &["RSASHA256", "-b", "2048"] } else { &["ECDSAP256SHA256"] };
        self.run("dnssec-keygen", &[&["-q", "-K", ".", "-f", "KSK", "-a"], algorithm, &[zone]].concat());
        match zone {
            // A second one, that no anchor names: its owner is about to roll it.
            "." => self.run("dnssec-keygen", &[&["-q", "-K", ".", "-f", "KSK", "-a"], algorithm, &[zone]].concat()),
            "trap.org" => self.add_keys_of_one_tag(zone),
            _ => {}
        }
        let signed_as = signed.to_str().expect("UTF-8").to_owned();
        let mut args = vec!["-S", "-z", "-g", "-q", "-K", ".", "-d", ".", "-o", zone, "-f", &signed_as];
        match signing {
            Signing::Nsec3 => args.extend(["-3", "abcd", "-H", "0"]),
            Signing::OptOut => args.extend(["-3", "-", "-H", "0", "-A"]),
            Signing::Iterated => args.extend(["-3", "-", "-H", "20"]),
            Signing::Expired => args.extend(["-P", "-s", "now-2592000", "-e", "now-172800"]),
            Signing::Early => args.extend(["-P", "-s", "now+345600", "-e", "now+2592000"]),
            Signing::None | Signing::Nsec => {}
        }
        if zone == "trap.org" {
            // The signer's own check stops at the first key of the tag.
            args.push("-P");
        }
        args.push(plain.to_str().expect("UTF-8"));
        self.run("dnssec-signzone", &args);
        let edit = |path: PathBuf, change: &dyn Fn(&str) -> String| {
            let text = std::fs::read_to_string(&path).expect("a file of the signer");
            let changed = change(&text);
            assert_ne!(text, changed, "{}", path.display());
            std::fs::write(path, changed).expect("the file written");
        };
        match zone {
            // Another address than the one that was signed.
            "nsec.org" => edit(signed, &|text| text.replace("203.0.113.66", "203.0.113.67")),
            // The parent vouches for a key that the zone does not have.
            "forged.org" => edit(self.dir.join("dsset-forged.org."), &|text| {
                let digest = text.trim_end().len() - 4;
                format!("{}0123\n", &text[..digest])
            }),
            "digest.org" => edit(self.dir.join("dsset-digest.org."), &|text| text.replace(" 13 2 ", " 13 200 ")),
            "algorithm.org" => edit(self.dir.join("dsset-algorithm.org."), &|text| text.replace(" 13 2 ", " 200 2 ")),
            _ => {}
        }
    }

    /// The file of a zone's key, the first by its name.
    fn key_file(&self, zone: &str) -> PathBuf {
        let prefix = if zone == "." { "K.+".into() } else { format!("K{zone}.+") };
        let files = std::fs::read_dir(&self.dir).expect("the directory");
        let is_key = |p: &PathBuf| {
            p.extension().is_some_and(|e| e == "key")
                && p.file_name().is_some_and(|n| n.to_string_lossy().starts_with(&prefix))
        };
        files.flatten().map(|entry| entry.path()).filter(is_key).min().expect("the zone's key")
    }

    /// Adds keys to `zone` that have the tag of its own and that nobody has the other half of.
    fn add_keys_of_one_tag(&self, zone: &str) {
        let file = self.key_file(zone);
        let stem = file.file_stem().expect("a name").to_string_lossy().into_owned();
        let tag: u16 = stem.rsplit('+').next().and_then(|tag| tag.parse().ok()).expect("a tag");
        let mut text = std::fs::read_to_string(self.path(zone, "plain")).expect("the zone");
        // The signer takes another key of the tag for it, and would leave it out.
        text.push_str(&std::fs::read_to_string(&file).expect("the key is text"));
        for seed in 1..=COLLIDING {
            let mut data = vec![1, 0, 3, 8, 3, 1, 0, 1, 0xc0 | seed];
            data.extend((0..253u16).map(|i| (i as u8).wrapping_mul(seed).wrapping_add(i as u8)));
            data.extend([0, 1]);
            // RFC 4034 appendix B; the last two octets bring the sum to what is wanted.
            let at = data.len() - 2;
            let sum = |data: &[u8]| {
                let sum = data
                    .iter()
                    .enumerate()
                    .fold(0u32, |sum, (i, o)| sum + (u32::from(*o) << if i % 2 == 0 { 8 } else { 0 }));
                (sum + (sum >> 16)) as u16
            };
            let last = (0..=u16::MAX).map(|word| word.to_be_bytes()).find(|word| {
                data[at..].copy_from_slice(word);
                sum(&data) == tag
            });
            assert!(last.is_some(), "every tag can be had");
            text.push_str(&format!("@ IN DNSKEY 256 3 8 {}\n", base64(&data[4..])));
        }
        std::fs::write(self.path(zone, "plain"), text).expect("written");
    }

    fn run(&self, program: &str, args: &[&str]) {
        let path = format!("{}:/usr/sbin:/sbin", std::env::var("PATH").unwrap_or_default());
        let mut command = Command::new(program);
        let output = command.args(args).current_dir(&self.dir).env("PATH", path).output().expect("the tool runs");
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{program} {}: {said}", args.join(" "));
    }

    fn path(&self, zone: &str, kind: &str) -> PathBuf {
        let name = if zone == "." { "root" } else { zone };
        self.dir.join(format!("{name}.{kind}"))
    }

    /// The root's key as unbound and BIND want it, and where the root is.
    fn write_anchors(&self) {
        let key = self.key_file(".");
        let text = std::fs::read_to_string(key).expect("the key is text");
        let line = text.lines().find(|line| !line.starts_with(';')).expect("the record");
        let key: Vec<&str> = line.split_whitespace().skip_while(|word| *word != "DNSKEY").skip(1).collect();
        let [flags, protocol, algorithm, data @ ..] = key.as_slice() else { panic!("a key: {line}") };
        let bind = format!("trust-anchors {{ . static-key {flags} {protocol} {algorithm} \"{}\"; }};\n", data.concat());
        std::fs::write(self.dir.join("anchor.bind"), bind).expect("written");
        std::fs::write(self.dir.join("anchor.unbound"), format!("{line}\n")).expect("written");
        let hints = format!(". 3600 IN NS ns.net.\nns.net. 3600 IN A {AUTHORITY}\n");
        std::fs::write(self.dir.join("root.hints"), hints).expect("written");
    }

    fn authority(&self, world: &World) -> Process {
        let zones: String = ZONES
            .iter()
            .map(|zone| {
                let file = self.path(zone, "signed");
                format!("zone {zone:?} {{ type primary; file {file:?}; }};\n")
            })
            .collect();
        let options = "recursion no; dnssec-validation no; minimal-responses no;";
        self.named(world, "authority", AUTHORITY, options, &zones)
    }

    fn resolver(&self, world: &World, kind: Kind) -> Process {
        let hints = self.dir.join("root.hints");
        match kind {
            Kind::Unbound | Kind::Unchecked => {
                let own =
                    if kind == Kind::Unchecked { " module-config: \"iterator\"\n max-udp-size: 4096\n" } else { "" };
                let more = format!(" root-hints: {hints:?}\n{own}");
                self.unbound(&world.net, "resolver", &RESOLVER.to_string(), 53, &more)
            }
            Kind::Bind => {
                let anchor = std::fs::read_to_string(self.dir.join("anchor.bind")).expect("the anchor");
                let more = format!("{anchor}zone \".\" {{ type hint; file {hints:?}; }};\n");
                let options = "recursion yes; allow-recursion { any; }; dnssec-validation yes; empty-zones-enable no;";
                self.named(world, "resolver", RESOLVER, options, &more)
            }
        }
    }

    fn named(&self, world: &World, name: &str, address: Ipv4Addr, options: &str, more: &str) -> Process {
        let dir = self.dir.join(name);
        std::fs::create_dir_all(&dir).expect("a directory");
        let text = format!(
            "options {{ directory {dir:?}; pid-file none; session-keyfile none; listen-on {{ {address}; }};\n\
             listen-on-v6 {{ none; }}; allow-query {{ any; }}; query-source address {address};\n\
             notify no; {options} }};\ncontrols {{ }};\n{more}"
        );
        let conf = self.dir.join(format!("{name}.conf"));
        std::fs::write(&conf, text).expect("written");
        let mut command = world.net.command("/usr/sbin/named");
        command.args(["-g", "-n", "1", "-c"]).arg(&conf);
        self.wait(command, name, "running")
    }

    fn unbound(&self, ns: &Ns, name: &str, address: &str, port: u16, more: &str) -> Process {
        let anchor = self.dir.join("anchor.unbound");
        // Every question has to go the whole way: nothing is answered from what denials of other names say.
        let text = format!(
            "server:\n do-daemonize: no\n chroot: \"\"\n username: \"\"\n pidfile: \"\"\n directory: {:?}\n\
             use-syslog: no\n logfile: \"\"\n verbosity: 1\n val-log-level: 2\n interface: {address}\n port: {port}\n\
             access-control: 0.0.0.0/0 allow\n do-ip6: no\n num-threads: 1\n trust-anchor-file: {anchor:?}\n\
             module-config: \"validator iterator\"\n aggressive-nsec: no\n harden-below-nxdomain: no\n{more}\
             remote-control:\n control-enable: no\n",
            self.dir
        );
        let conf = self.dir.join(format!("{name}.unbound"));
        std::fs::write(&conf, text).expect("written");
        let mut command = ns.command("/usr/sbin/unbound");
        command.arg("-d").arg("-c").arg(&conf);
        self.wait(command, name, "start of service")
    }

    fn wait(&self, command: Command, name: &str, says: &str) -> Process {
        let mut process = Process::start(command, self.dir.join(format!("{name}.log")));
        let ready = process.wait_for_log(says, Duration::from_secs(20));
        assert!(ready, "{name} does not run: {}", process.log());
        process
    }
}

impl Drop for Signed {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            return;
        }
        for (name, process) in &self.processes {
            let log = process.log();
            let lines: Vec<&str> = log.lines().collect();
            eprintln!("--- {name} said last:\n{}\n---", lines[lines.len().saturating_sub(15)..].join("\n"));
        }
    }
}

/// Further keys in `trap.org`: few enough that its own is found among them.
const COLLIDING: u8 = 12;

fn base64(octets: &[u8]) -> String {
    use base64::Engine;
    base64::engine::general_purpose::STANDARD.encode(octets)
}

/// Parents first.
const ZONES: [&str; 14] = [
    ".",
    "org",
    "net",
    "nsec.org",
    "nsec3.net",
    "plain.org",
    "plain.net",
    "forged.org",
    "expired.org",
    "early.org",
    "trap.org",
    "digest.org",
    "algorithm.org",
    "iterated.org",
];

/// What stands in a zone, and how it is signed.
fn zone_text(zone: &str) -> (String, Signing) {
    let dot = if zone == "." { "" } else { "." };
    let head =
        format!("$ORIGIN {zone}{dot}\n$TTL 600\n@ IN SOA ns.net. admin.net. 1 3600 600 86400 300\n@ IN NS ns.net.\n");
    let delegations =
        |names: &[&str]| -> String { names.iter().map(|name| format!("{name} IN NS ns.net.\n")).collect() };
    let hosts = format!(
        "www IN A 203.0.113.10\nwww IN AAAA 2001:db8:1::10\nhost.deep.ent IN A 203.0.113.11\n*.wild IN A 203.0.113.12\n\
         *.gone IN CNAME missing.{other}.\n*.alias IN CNAME www.{other}.\nchain IN CNAME hop.{other}.\n\
         hop IN CNAME www.{other}.\nlast IN CNAME none.{other}.\ninsecure IN CNAME www.plain.org.\n\
         tampered IN A 203.0.113.66\nbelow IN DNAME {other}.\ntoken IN CNAME text.{zone}.\n\
         text IN TXT \"a token\"\n",
        other = if zone == "nsec.org" { "nsec3.net" } else { "nsec.org" }
    );
    // RFC 9460: priority 1, target `.`, alpn=h2; the second with an ipv4hint and an ech of four octets.
    let services = "svc IN TYPE65 \\# 10 00010000010003026832\n\
                    ech IN TYPE65 \\# 26 0001000001000302683200040004cb00710a0005000401020304\n";
    let text: String = "x".repeat(250);
    let large: String = (0..8).map(|i| format!("large IN TXT \"{i}{text}\"\n")).collect();
    match zone {
        "." => (format!("{head}{}ns.net. IN A {AUTHORITY}\n", delegations(&["org", "net"])), Signing::Nsec),
        "org" => {
            let names =
                ["nsec", "plain", "forged", "expired", "early", "trap", "digest", "algorithm", "iterated"].as_slice();
            (head + &delegations(names), Signing::Nsec)
        }
        "net" => (format!("{head}{}ns IN A {AUTHORITY}\n", delegations(&["nsec3", "plain"])), Signing::OptOut),
        "plain.org" | "plain.net" => (head + "www IN A 203.0.113.13\n", Signing::None),
        "forged.org" => (head + "www IN A 203.0.113.14\n", Signing::Nsec),
        "trap.org" => (head + "www IN A 203.0.113.16\n", Signing::Nsec),
        "expired.org" => (head + "www IN A 203.0.113.15\n", Signing::Expired),
        "early.org" => (head + "www IN A 203.0.113.17\n", Signing::Early),
        "digest.org" | "algorithm.org" => (head + "www IN A 203.0.113.18\n", Signing::Nsec),
        "iterated.org" => (head + "www IN A 203.0.113.19\n", Signing::Iterated),
        _ => {
            let signing = if zone == "nsec.org" { Signing::Nsec } else { Signing::Nsec3 };
            (head + &hosts + services + &large, signing)
        }
    }
}
