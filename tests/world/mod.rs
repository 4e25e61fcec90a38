//! A small internet in network namespaces, for tests that need a real kernel and real tools.
//!
//! `agent N` is a sandbox with one path out: its veth to `gw`, where the resolver and the packet filter run. Behind `gw`
//! lies `net`: an upstream DNS server, web servers and the attacker's machines, all on documentation addresses, which
//! the resolver takes for public ones. Everything is removed on drop, after a panic too; what a killed run left behind
//! is removed by the next one.
//!
//! Knows nothing of the resolver's code: [`staunch`] drives the binary, [`relay`] is the plain forwarder that stands in
//! its place as the control of every test that wants to see something refused.
#![allow(dead_code)] // Every test takes what it needs.

pub mod capture;
pub mod cgroup;
pub mod client;
pub mod dns;
pub mod echo;
pub mod enforcer;
pub mod lockdown;
pub mod ns;
pub mod raw;
pub mod relay;
pub mod skip;
pub mod staunch;
pub mod tunnel;
pub mod upstream;
pub mod web;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use ns::Ns;
use upstream::Upstream;
use web::Web;

/// The upstream resolver's address.
pub const UPSTREAM: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 53);
/// An ordinary web server; every address of `198.51.100.0/24` and `203.0.113.0/24` answers on port 80.
pub const WEB: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 10);
/// The same over IPv6; every address of `2001:db8:1::/48` answers.
pub const WEB6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 1, 0, 0, 0, 0, 0x10);
/// The gateway's own address on the internet side.
pub const GATEWAY_OUTSIDE: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
/// Where the SOC's receiver listens, in `gw`.
pub const SOC: Ipv4Addr = Ipv4Addr::new(10, 77, 200, 2);
/// The gateway's interface on the internet side.
pub const OUTSIDE_INTERFACE: &str = "up0";

/// One sandbox.
pub struct Agent {
    /// Where it lives.
    pub ns: Ns,
    /// Its own address.
    pub address: Ipv4Addr,
    /// Its own IPv6 address.
    pub address6: Ipv6Addr,
    /// Its resolver and only way out.
    pub gateway: Ipv4Addr,
    /// The gateway's interface it is attached to.
    pub interface: String,
}

/// The whole of it.
pub struct World {
    /// Sandboxes, numbered from 1 in their addresses (`10.77.N.2`).
    pub agents: Vec<Agent>,
    /// The gateway.
    pub gw: Ns,
    /// The internet.
    pub net: Ns,
    /// The DNS outside.
    pub upstream: Upstream,
    /// The web outside.
    pub web: Web,
    dir: tempfile::TempDir,
}

impl World {
    /// Builds a world with `agents` sandboxes, or says why it cannot and gives `None`.
    ///
    /// Panics instead where `STAUNCH_REQUIRE_PRIVILEGE=1` is set, so that a CI run cannot pass by skipping.
    pub fn create(agents: u8) -> Option<Self> {
        if let Err(why) = privilege() {
            skip::lacking(why);
            return None;
        }
        ns::remove_stale();
        raise_file_limit();
        Some(Self::build(agents))
    }

    fn build(agents: u8) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let prefix = format!("{}{}-{}", ns::PREFIX, std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let dir = tempfile::Builder::new().prefix("staunch-world-").tempdir().expect("a temporary directory");
        let resolv = |name: &str, server: &str| {
            let path = dir.path().join(format!("{name}.resolv.conf"));
            std::fs::write(&path, format!("nameserver {server}\n")).expect("resolv.conf written");
            path
        };

        let gw = Ns::create(&format!("{prefix}-gw"), &resolv("gw", "203.0.113.53"));
        let net = Ns::create(&format!("{prefix}-net"), &resolv("net", "203.0.113.53"));
        for ns in [&gw, &net] {
            ns.sysctl("net/ipv4/ip_forward", "1");
            ns.sysctl("net/ipv6/conf/all/forwarding", "1");
        }
        gw.link(OUTSIDE_INTERFACE, &net, "eth0");
        gw.ip(&[
            "addr add 192.0.2.1/24 dev up0",
            "-6 addr add 2001:db8:ffff::1/64 dev up0 nodad",
            "addr add 10.77.200.2/32 dev lo",
            "route add default via 192.0.2.2",
            "-6 route add default via 2001:db8:ffff::2",
        ]);
        net.ip(&[
            "addr add 192.0.2.2/24 dev eth0",
            "-6 addr add 2001:db8:ffff::2/64 dev eth0 nodad",
            "route add 10.77.0.0/16 via 192.0.2.1",
            "-6 route add fd77::/16 via 2001:db8:ffff::1",
            // Whole ranges are local here, so that every address of them can be served without naming it.
            "route add local 203.0.113.0/24 dev lo",
            "route add local 198.51.100.0/24 dev lo",
            "route add local 10.20.0.0/16 dev lo",
            "-6 route add local 2001:db8:1::/48 dev lo",
        ]);

        let agents = (1..=agents)
            .map(|n| {
                let gateway = Ipv4Addr::new(10, 77, n, 1);
                let interface = format!("ag{n}");
                let agent = Ns::create(&format!("{prefix}-a{n}"), &resolv(&interface, &gateway.to_string()));
                gw.link(&interface, &agent, "eth0");
                gw.ip(&[
                    &format!("addr add {gateway}/24 dev {interface}"),
                    &format!("-6 addr add fd77:{n}::1/64 dev {interface} nodad"),
                ]);
                agent.ip(&[
                    &format!("addr add 10.77.{n}.2/24 dev eth0"),
                    &format!("-6 addr add fd77:{n}::2/64 dev eth0 nodad"),
                    &format!("route add default via {gateway}"),
                    &format!("-6 route add default via fd77:{n}::1"),
                ]);
                Agent {
                    ns: agent,
                    address: Ipv4Addr::new(10, 77, n, 2),
                    address6: Ipv6Addr::new(0xfd77, n.into(), 0, 0, 0, 0, 0, 2),
                    gateway,
                    interface,
                }
            })
            .collect();

        let upstream = Upstream::start(&net, SocketAddr::from((UPSTREAM, 53)));
        let web = Web::start(&net, 80);
        upstream.add_site("www.site.example", WEB.into());
        upstream.add_site("www.site.example", WEB6.into());
        Self { agents, gw, net, upstream, web, dir }
    }

    /// Where this world keeps its files.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// A path in [`Self::dir`].
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }
}

impl Agent {
    /// Asks the gateway's resolver over UDP; one try of two seconds, as a patient stub would.
    pub fn ask(&self, name: &str, qtype: u16) -> std::io::Result<dns::Message> {
        self.ask_raw(dns::Query::new(name, qtype).encode())
    }

    /// Asks over UDP with EDNS, so that a refusal can say why.
    pub fn ask_edns(&self, name: &str, qtype: u16) -> std::io::Result<dns::Message> {
        self.ask_raw(dns::Query::new(name, qtype).edns(1232).encode())
    }

    /// Sends these octets over UDP and reads the reply.
    pub fn ask_raw(&self, query: Vec<u8>) -> std::io::Result<dns::Message> {
        let server = SocketAddr::from((self.gateway, 53));
        self.ns.run(async move { client::udp(None, server, &query, Duration::from_secs(5)).await })
    }

    /// Asks over UDP from another address of this sandbox.
    pub fn ask_from(&self, from: Ipv4Addr, name: &str, qtype: u16) -> std::io::Result<dns::Message> {
        let server = SocketAddr::from((self.gateway, 53));
        let query = dns::Query::new(name, qtype).edns(1232).encode();
        self.ns.run(async move { client::udp(Some(from.into()), server, &query, Duration::from_secs(5)).await })
    }

    /// Asks over TCP.
    pub fn ask_tcp(&self, query: Vec<u8>) -> std::io::Result<dns::Message> {
        let server = SocketAddr::from((self.gateway, 53));
        self.ns.run(async move { client::tcp(server, &query, Duration::from_secs(5)).await })
    }

    /// Dials an address and says how it ended and how long it took.
    pub fn dial(&self, to: IpAddr, port: u16) -> (std::io::Result<()>, Duration) {
        let start = Instant::now();
        let end = self.ns.run(async move {
            let dial = tokio::net::TcpStream::connect(SocketAddr::new(to, port));
            match tokio::time::timeout(Duration::from_secs(5), dial).await {
                Ok(end) => end.map(drop),
                Err(_) => Err(std::io::ErrorKind::TimedOut.into()),
            }
        });
        (end, start.elapsed())
    }
}

/// Copies the libraries that a program is linked to, loader included, to where they are looked for below `root`.
pub fn copy_libraries(program: &Path, root: &Path) {
    let listed = std::process::Command::new("ldd").arg(program).output().expect("ldd runs");
    let listed = String::from_utf8_lossy(&listed.stdout).into_owned();
    for library in listed.split_whitespace().filter(|word| word.starts_with('/')).map(Path::new) {
        let to = root.join(library.strip_prefix("/").expect("absolute"));
        std::fs::create_dir_all(to.parent().expect("a parent")).expect("directory");
        std::fs::copy(library, &to).expect("copied");
    }
}

/// Polls until `probe` gives something or `limit` has passed.
pub fn wait_for<T>(limit: Duration, mut probe: impl FnMut() -> Option<T>) -> Option<T> {
    let start = Instant::now();
    loop {
        if let Some(found) = probe() {
            return Some(found);
        }
        if start.elapsed() > limit {
            return None;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// A number for tests that want chance but must be repeatable: SplitMix64.
pub struct Chance(pub u64);

impl Chance {
    /// The next 64 bits.
    pub fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `n`; `n` above 0.
    pub fn below(&mut self, n: u64) -> u64 {
        self.bits() % n
    }

    /// A label of `len` octets in Base32, as tunnels make them.
    pub fn label(&mut self, len: usize) -> String {
        (0..len).map(|_| b"abcdefghijklmnopqrstuvwxyz234567"[self.below(32) as usize] as char).collect()
    }
}

fn privilege() -> Result<(), String> {
    // SAFETY: geteuid takes nothing and cannot fail.
    if unsafe { libc::geteuid() } != 0 {
        return Err("network namespaces need root".into());
    }
    let probe = format!("{}{}-probe", ns::PREFIX, std::process::id());
    static ONCE: std::sync::OnceLock<Result<(), String>> = std::sync::OnceLock::new();
    ONCE.get_or_init(|| {
        ns::ip_root(&["netns", "add", &probe])?;
        ns::ip_root(&["netns", "del", &probe])
    })
    .clone()
}

fn raise_file_limit() {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: both calls read or write the one struct they are handed.
    unsafe {
        if libc::getrlimit(libc::RLIMIT_NOFILE, &mut limit) == 0 {
            limit.rlim_cur = limit.rlim_max.min(65_536);
            libc::setrlimit(libc::RLIMIT_NOFILE, &limit);
        }
    }
}
