//! A gateway between a sandbox and a server, in network namespaces made and removed here, for tests of the packet filter.
#![allow(dead_code)] // Every test takes what it needs.

#[allow(clippy::duplicate_mod, reason = "some programs have a world beside this, and some have not")]
#[path = "../world/skip.rs"]
mod skip;

use std::fs::File;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::AsRawFd;
use std::process::Command as Process;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use socket2::{Domain, Socket, Type};
use staunch::enforce::{BackendKind, Class, Command, Config, Enforcer, Error, Nft};
use staunch::ports::{Port, Ports};

pub const SECOND: Duration = Duration::from_secs(1);
/// A dial that is refused, and not dropped, ends before its first packet would have been sent once more, which is after a second.
pub const AT_ONCE: Duration = Duration::from_millis(900);
pub const AGENT: &str = "10.77.1.2";
pub const OTHER: &str = "10.77.1.3";
pub const SERVER: &str = "203.0.113.10";
pub const SERVER_2: &str = "203.0.113.11";
pub const AGENT_6: &str = "2001:db8:1::2";
pub const SERVER_6: &str = "2001:db8:2::10";
pub const SERVER_6_2: &str = "2001:db8:2::11";

pub fn ip(text: &str) -> IpAddr {
    text.parse().expect("test address")
}

/// Whether namespaces cannot be had here; says so.
pub fn skip() -> bool {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let tools = ["ip", "nft"].iter().all(|t| Process::new(t).arg("-V").output().is_ok_and(|o| o.status.success()));
    let name = format!("st{}-try{}", std::process::id(), NEXT.fetch_add(1, Relaxed));
    if tools && run(&["ip", "netns", "add", &name]).is_ok() {
        let _ = run(&["ip", "netns", "del", &name]);
        return false;
    }
    skip::lacking("root, network namespaces, ip and nft");
    true
}

pub fn run(command: &[&str]) -> Result<String, String> {
    let output = Process::new(command[0]).args(&command[1..]).output().map_err(|error| error.to_string())?;
    if output.status.success() {
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    } else {
        Err(format!("{command:?}: {}", String::from_utf8_lossy(&output.stderr)))
    }
}

#[track_caller]
pub fn ok(command: &[&str]) {
    run(command).unwrap_or_else(|error| panic!("{error}"));
}

/// Three namespaces, and a server that sends without end on TCP port 80 and echoes on UDP port 53.
pub struct World {
    prefix: String,
}

impl World {
    pub fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let world = Self { prefix: format!("st{}-{}", std::process::id(), NEXT.fetch_add(1, Relaxed)) };
        let (a, g, s) = (world.ns("a"), world.ns("g"), world.ns("s"));
        for ns in [&a, &g, &s] {
            ok(&["ip", "netns", "add", ns]);
            ok(&["ip", "-n", ns, "link", "set", "lo", "up"]);
        }
        for (name, to) in [("veth-agent", &a), ("veth-out", &s)] {
            ok(&["ip", "-n", &g, "link", "add", name, "type", "veth", "peer", "name", "eth0", "netns", to]);
            ok(&["ip", "-n", &g, "link", "set", name, "up"]);
            ok(&["ip", "-n", to, "link", "set", "eth0", "up"]);
        }
        for (ns, device, addresses) in [
            (&a, "eth0", ["10.77.1.2/24", "10.77.1.3/24", "2001:db8:1::2/64"].as_slice()),
            (&g, "veth-agent", ["10.77.1.1/24", "2001:db8:1::1/64"].as_slice()),
            (&g, "veth-out", ["203.0.113.1/24", "2001:db8:2::1/64"].as_slice()),
            (&s, "eth0", ["203.0.113.10/24", "203.0.113.11/24", "2001:db8:2::10/64", "2001:db8:2::11/64"].as_slice()),
        ] {
            for address in addresses {
                let mut command = vec!["ip", "-n", ns, "addr", "add", address, "dev", device];
                command.extend(address.contains(':').then_some("nodad"));
                ok(&command);
            }
        }
        for (ns, via4, via6) in [(&a, "10.77.1.1", "2001:db8:1::1"), (&s, "203.0.113.1", "2001:db8:2::1")] {
            ok(&["ip", "-n", ns, "route", "add", "default", "via", via4]);
            ok(&["ip", "-n", ns, "-6", "route", "add", "default", "via", via6]);
        }
        world.inside("g", || {
            std::fs::write("/proc/sys/net/ipv4/ip_forward", "1").expect("forwarding");
            std::fs::write("/proc/sys/net/ipv6/conf/all/forwarding", "1").expect("forwarding");
        });
        world.inside("s", serve);
        world
    }

    pub fn ns(&self, which: &str) -> String {
        format!("{}{which}", self.prefix)
    }

    /// Starts a thread in a namespace.
    pub fn spawn<T: Send + 'static>(&self, which: &str, work: impl FnOnce() -> T + Send + 'static) -> JoinHandle<T> {
        let path = format!("/run/netns/{}", self.ns(which));
        std::thread::spawn(move || {
            let namespace = File::open(path).expect("namespace");
            // SAFETY: the descriptor is open across the call, and only this thread changes its namespace.
            let done = unsafe { libc::setns(namespace.as_raw_fd(), libc::CLONE_NEWNET) };
            assert_eq!(done, 0, "setns: {}", io::Error::last_os_error());
            work()
        })
    }

    pub fn inside<T: Send + 'static>(&self, which: &str, work: impl FnOnce() -> T + Send + 'static) -> T {
        self.spawn(which, work).join().expect("thread in namespace")
    }

    /// Connects from the agent's namespace, from a source address; how long it took beside the result.
    pub fn dial(&self, from: &str, to: &str) -> (io::Result<TcpStream>, Duration) {
        let (from, to) = (SocketAddr::new(ip(from), 0), SocketAddr::new(ip(to), 80));
        self.inside("a", move || dial(from, to))
    }

    #[track_caller]
    pub fn connects(&self, from: &str, to: &str) -> TcpStream {
        let (stream, took) = self.dial(from, to);
        stream.unwrap_or_else(|error| panic!("{from} to {to} must connect: {error} after {took:?}"))
    }

    #[track_caller]
    pub fn refused(&self, from: &str, to: &str) {
        let (stream, took) = self.dial(from, to);
        let Err(error) = stream else { panic!("{from} to {to} must be refused") };
        let heard = matches!(error.kind(), ErrorKind::ConnectionRefused | ErrorKind::HostUnreachable);
        assert!(heard, "{from} to {to}: a refusal must be heard, not {error}");
        assert!(took < AT_ONCE, "{from} to {to}: refused after {took:?}");
    }

    pub fn start(&self, change: impl FnOnce(Nft) -> Nft + Send + 'static) -> Enforcer {
        self.try_start(config(), change).expect("enforcement in the gateway's namespace")
    }

    pub fn try_start(
        &self,
        config: Config,
        change: impl FnOnce(Nft) -> Nft + Send + 'static,
    ) -> Result<Enforcer, Error> {
        self.inside("g", move || {
            let backend = change(Nft::new(&config)?);
            Enforcer::start_with(Box::new(backend), config.queue)
        })
    }

    pub fn nft(&self, arguments: &[&str]) -> Result<String, String> {
        let ns = self.ns("g");
        let mut command = vec!["ip", "netns", "exec", &ns, "nft"];
        command.extend(arguments);
        run(&command)
    }

    /// What is left of an element's lifetime in the kernel, by the nft tool.
    pub fn expires(&self, set: &str, element: &str) -> Option<Duration> {
        let text = self.nft(&["list", "set", "inet", "staunch", set]).ok()?;
        let rest = text.split_once(element)?.1.split([',', '}']).next()?;
        Some(duration(rest.split_once("expires ")?.1.trim()))
    }

    pub fn holds(&self, set: &str, element: &str) -> bool {
        self.nft(&["list", "set", "inet", "staunch", set]).is_ok_and(|text| text.contains(element))
    }
}

impl Drop for World {
    fn drop(&mut self) {
        for which in ["a", "g", "s"] {
            let _ = run(&["ip", "netns", "del", &self.ns(which)]);
        }
    }
}

pub fn serve() {
    for address in ["0.0.0.0:80", "[::]:80"] {
        let listener = listen(address.parse().expect("address")).expect("listen");
        std::thread::spawn(move || {
            for mut stream in listener.incoming().flatten() {
                if let Ok(mut from) = stream.try_clone() {
                    std::thread::spawn(move || while from.read(&mut [0; 64 << 10]).is_ok_and(|n| n > 0) {});
                }
                std::thread::spawn(move || {
                    while stream.write_all(&[7; 4096]).is_ok() {
                        std::thread::sleep(Duration::from_millis(2));
                    }
                });
            }
        });
    }
    // Each address its own, so that an echo comes from where it was sent to.
    for address in [SERVER, SERVER_2, SERVER_6, SERVER_6_2] {
        let socket = UdpSocket::bind((ip(address), 53)).expect("bind");
        std::thread::spawn(move || {
            let mut buffer = [0; 512];
            while let Ok((length, from)) = socket.recv_from(&mut buffer) {
                let _ = socket.send_to(&buffer[..length], from);
            }
        });
    }
}

pub fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.bind(&address.into())?;
    socket.listen(1024)?;
    Ok(socket.into())
}

pub fn dial(from: SocketAddr, to: SocketAddr) -> (io::Result<TcpStream>, Duration) {
    let start = Instant::now();
    let result = Socket::new(Domain::for_address(to), Type::STREAM, None).and_then(|socket| {
        socket.bind(&from.into())?;
        socket.connect_timeout(&to.into(), 3 * SECOND)?;
        Ok(TcpStream::from(socket))
    });
    (result, start.elapsed())
}

/// Reads the nft tool's `1m29s996ms`.
pub fn duration(text: &str) -> Duration {
    let (mut total, mut rest) = (0, text);
    while let Some(digits) = rest.find(|c: char| !c.is_ascii_digit()).filter(|n| *n > 0) {
        let (number, behind) = rest.split_at(digits);
        let unit = behind.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(behind.len());
        let factor = match &behind[..unit] {
            "d" => 86_400_000,
            "h" => 3_600_000,
            "m" => 60_000,
            "s" => 1_000,
            "ms" => 1,
            other => panic!("unit {other} in {text}"),
        };
        total += number.parse::<u64>().expect("digits") * factor;
        rest = &behind[unit..];
    }
    Duration::from_millis(total)
}

pub fn config() -> Config {
    Config {
        backend: BackendKind::Nft,
        table: "staunch".into(),
        interfaces: vec!["veth-agent".into()],
        outside: Default::default(),
        guard_unknown: false,
        deadline: Duration::from_millis(50),
        queue: 4096,
        capacity: 131_072,
        own_table: true,
        journal: None,
    }
}

pub fn pin(session: &str, to: &str, lifetime: Duration) -> Command {
    pins(session, &[to], lifetime)
}

pub fn pins(session: &str, to: &[&str], lifetime: Duration) -> Command {
    pin_ports(ip(session), to.iter().map(|to| ip(to)).collect(), Port::tcp(80), lifetime)
}

pub fn pin_ports(session: IpAddr, destinations: Vec<IpAddr>, port: Port, lifetime: Duration) -> Command {
    let ports = Ports::these([port]).expect("ports");
    Command::Pin { session, destinations, ports, volume: None, lifetime }
}

pub fn lease(session: &str, to: &str, ports: Ports, volume: Option<u64>) -> Command {
    Command::Pin { session: ip(session), destinations: vec![ip(to)], ports, volume, lifetime: 60 * SECOND }
}

pub fn guard(session: &str) -> Command {
    Command::Guard { session: ip(session), class: Class(1) }
}

#[track_caller]
pub fn apply(enforcer: &Enforcer, command: Command) {
    let text = format!("{command:?}");
    let result = enforcer.submit(command).and_then(|ticket| ticket.wait_blocking(5 * SECOND));
    result.unwrap_or_else(|error| panic!("{text}: {error}"));
}

pub fn as_is(nft: Nft) -> Nft {
    nft
}

/// Waits until something holds, at most `patience`; how long it took.
pub fn within(patience: Duration, mut holds: impl FnMut() -> bool) -> Option<Duration> {
    let start = Instant::now();
    while start.elapsed() < patience {
        if holds() {
            return Some(start.elapsed());
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    None
}

/// Reads a good deal of what the server sends.
pub fn reads(mut stream: TcpStream) -> io::Result<()> {
    stream.set_read_timeout(Some(SECOND))?;
    stream.read_exact(&mut vec![0; 256 << 10])
}

/// Reads until the flow ends; octets read and how it ended.
pub fn read_to_end(mut stream: TcpStream) -> (usize, Option<ErrorKind>, Instant) {
    stream.set_read_timeout(Some(2 * SECOND)).expect("timeout");
    let (mut total, mut buffer) = (0, vec![0; 64 << 10]);
    loop {
        match stream.read(&mut buffer) {
            Ok(0) => return (total, None, Instant::now()),
            Ok(n) => total += n,
            Err(error) => return (total, Some(error.kind()), Instant::now()),
        }
    }
}
