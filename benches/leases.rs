//! What leases cost: the time a query waits for one through the whole walk, beside a resolver that fills nftables sets too; a
//! hundred thousand of them resident; ten thousand of them after a restart and after the table was deleted.
//!
//! `cargo bench --bench leases`. Needs root, and makes a network namespace of its own. Every resolver is asked the same way,
//! over UDP on loopback, a fresh name each time, in turns, so that what else the machine does is shared among them.

mod support;

use std::io::BufRead;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::time::{Duration, Instant};

use support::query;

/// Queries of one resolver in one turn.
const TURN: u32 = 500;
const TURNS: u32 = 8;
/// Addresses in one answer of the names that fill the set.
const MANY: u32 = 4;
const RESIDENT: usize = 100_000;
const RECONCILED: usize = 10_000;
/// Sessions that fill, and behind them those that are measured.
const FILLERS: u8 = 53;

fn main() {
    // SAFETY: takes no pointers; concerns the network namespace of this process alone.
    if unsafe { libc::unshare(libc::CLONE_NEWNET) } != 0 {
        println!("SKIPPED: a network namespace needs root");
        return;
    }
    run(&["ip", "link", "set", "lo", "up"]);
    let upstream = upstream();
    let dir = tempfile::tempdir().expect("directory");
    walk(dir.path(), upstream);
    resident(dir.path(), upstream);
    reconciled(dir.path(), upstream);
}

/// The whole walk with and without the packet filter, of ours and of a peer.
fn walk(dir: &Path, upstream: SocketAddr) {
    run(&["nft", "add table inet peer; add set inet peer pins { type ipv4_addr; }"]);
    let mut sides = vec![
        ("staunch, dry-run", Server::staunch(dir, "dry-run", 5301, upstream), None),
        ("staunch, nft", Server::staunch(dir, "nft", 5302, upstream), Some(0)),
    ];
    if Command::new("dnsmasq").arg("--version").output().is_ok() {
        sides.push(("dnsmasq, no set", Server::dnsmasq(5303, upstream, false), None));
        sides.push(("dnsmasq, nftset", Server::dnsmasq(5304, upstream, true), Some(2)));
    } else {
        println!("SKIPPED: the peer, dnsmasq, is not installed");
    }
    let mut times = vec![Vec::new(); sides.len()];
    for turn in 0..TURNS {
        for ((_, server, _), times) in sides.iter().zip(&mut times) {
            let client = Client::new(FILLERS + 1 + turn as u8, server.address);
            times.extend((0..TURN).map(|_| client.ask("one")));
        }
    }
    println!("a fresh name through the whole walk, {} queries each:", TURN * TURNS);
    let quantiles: Vec<[f64; 2]> = times.iter_mut().map(|times| quantiles(times)).collect();
    for ((what, _, without), [p50, p99]) in sides.iter().zip(&quantiles) {
        print!("FIGURE: {what}: p50 {p50:.0} us, p99 {p99:.0} us");
        if let Some([base50, base99]) = without.map(|without: usize| quantiles[without]) {
            print!("; its packet filter makes it {:.2} and {:.2} times as long", p50 / base50, p99 / base99);
        }
        println!();
    }
    if let [_, [ours50, ours99], _, [peer50, peer99]] = quantiles[..] {
        println!("FIGURE: ours with leases over the peer with sets: {:.2} and {:.2}", ours50 / peer50, ours99 / peer99);
    }
}

/// A hundred thousand leases: their memory, and the walk beside them.
fn resident(dir: &Path, upstream: SocketAddr) {
    let server = Server::staunch(dir, "nft", 5305, upstream);
    let fresh = |session: u8| {
        let client = Client::new(session, server.address);
        quantiles(&mut (0..2000).map(|_| client.ask("one")).collect::<Vec<_>>())
    };
    let empty = fresh(FILLERS + 20);
    let (before, kernel) = (server.resident_kib(), slab_kib());
    let filled = server.fill(RESIDENT);
    let per = |kib: u64, before: u64| (kib.saturating_sub(before) * 1024) as f64 / filled as f64;
    println!(
        "FIGURE: {filled} leases resident take {:.0} octets each in the service, its cache and ledgers included, and {:.0} in the kernel",
        per(server.resident_kib(), before),
        per(slab_kib(), kernel)
    );
    let [p50, p99] = fresh(FILLERS + 21);
    println!(
        "FIGURE: a fresh name beside {filled} leases: p50 {p50:.0} us, p99 {p99:.0} us; {:.2} and {:.2} times as without",
        p50 / empty[0],
        p99 / empty[1]
    );
}

/// Ten thousand leases after the process was killed, and after its table was deleted.
fn reconciled(dir: &Path, upstream: SocketAddr) {
    let mut server = Server::staunch(dir, "nft", 5306, upstream);
    let filled = server.fill(RECONCILED);
    let count = || {
        let listed = Command::new("nft").args(["list", "set", "inet", "staunch", "web4"]).output().expect("nft runs");
        String::from_utf8_lossy(&listed.stdout).matches(" expires ").count()
    };
    let before = count();
    assert_eq!(before, filled, "what was pinned is in the kernel");
    drop(server.child.take());
    let start = Instant::now();
    server.spawn();
    let ready = start.elapsed();
    println!("FIGURE: ready {:.0} ms after its start with {filled} leases left by a killed process", ms(ready));
    assert_eq!(count(), filled, "nothing was lost");
    // Its owner flag keeps others from deleting the table while it runs; so the deletion comes between two runs.
    drop(server.child.take());
    run(&["nft", "delete", "table", "inet", "staunch"]);
    let start = Instant::now();
    server.spawn();
    println!("FIGURE: ready {:.0} ms after its start without any table", ms(start.elapsed()));
}

fn ms(time: Duration) -> f64 {
    time.as_secs_f64() * 1000.0
}

/// Median and 99th percentile, microseconds.
fn quantiles(times: &mut [Duration]) -> [f64; 2] {
    times.sort_unstable();
    let at = |part: usize| times[(times.len() - 1) * part / 100].as_secs_f64() * 1e6;
    [at(50), at(99)]
}

fn run(command: &[&str]) {
    let done = Command::new(command[0]).args(&command[1..]).status().expect("the command runs");
    assert!(done.success(), "{command:?}");
}

/// What the kernel's own tables take, all of this machine.
fn slab_kib() -> u64 {
    let text = std::fs::read_to_string("/proc/meminfo").expect("memory information");
    field(&text, "Slab:") + field(&text, "VmallocUsed:")
}

fn field(text: &str, name: &str) -> u64 {
    let line = text.lines().find(|line| line.starts_with(name)).expect("the field");
    line.split_whitespace().nth(1).and_then(|n| n.parse().ok()).expect("a number")
}

/// A resolver under measurement.
struct Server {
    child: Option<Running>,
    address: SocketAddr,
    command: Vec<String>,
    /// Whether it says on standard error when it is ready.
    tells: bool,
}

/// Ended with what holds it.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Server {
    fn staunch(dir: &Path, backend: &str, port: u16, upstream: SocketAddr) -> Self {
        let state = dir.join(port.to_string());
        std::fs::create_dir_all(&state).expect("directory");
        let sessions: String = (1..=254)
            .map(|n| {
                format!("[[session]]\nid = \"s{n}\"\naddresses = [\"127.0.1.{n}\"]\ntype = \"interactive\"\nowner = \"o{n}\"\n")
            })
            .collect();
        let text = format!(
            "version = 1\n[server]\nlisten = [\"127.0.0.1:{port}\"]\nstate_dir = {state:?}\nmetrics = \"off\"\n\
             [policy]\nmode = \"enforce\"\n[upstream]\nservers = [\"{upstream}\"]\n\
             [enforce]\nbackend = \"{backend}\"\ninterfaces = [\"veth-none\"]\nlockdown = \"off\"\n[events]\nfile = \"off\"\n\
             [[rule]]\nid = \"all\"\naction = \"allow\"\nnames = [\"*.misses.example\"]\nbudget_bits = 8388607\n\
             owner = \"bench\"\nreason = \"more names than any session asks\"\nreview_by = \"2099-01-01\"\n{sessions}"
        );
        let file = state.join("staunch.toml");
        std::fs::write(&file, text).expect("configuration");
        let command = [env!("CARGO_BIN_EXE_staunch"), "serve", "--config"].map(String::from);
        let command = command.into_iter().chain([file.display().to_string()]).collect();
        Self::start(command, port, true)
    }

    fn dnsmasq(port: u16, upstream: SocketAddr, sets: bool) -> Self {
        let mut command: Vec<String> = ["dnsmasq", "--keep-in-foreground", "--conf-file=/dev/null", "--no-resolv"]
            .into_iter()
            .chain(["--no-hosts", "--pid-file=", "--user=root", "--listen-address=127.0.0.1", "--bind-interfaces"])
            .map(String::from)
            .collect();
        command.push(format!("--port={port}"));
        command.push(format!("--server={}#{}", upstream.ip(), upstream.port()));
        if sets {
            command.push("--nftset=/misses.example/4#inet#peer#pins".into());
        }
        Self::start(command, port, false)
    }

    fn start(command: Vec<String>, port: u16, tells: bool) -> Self {
        let mut server = Self { child: None, address: ([127, 0, 0, 1], port).into(), command, tells };
        server.spawn();
        server
    }

    /// Starts it and waits until it is ready.
    fn spawn(&mut self) {
        let mut command = Command::new(&self.command[0]);
        command.args(&self.command[1..]).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("the resolver starts");
        let said = child.stderr.take().expect("a pipe");
        self.child = Some(Running(child));
        let mut lines = std::io::BufReader::new(said).lines().map_while(Result::ok);
        if self.tells {
            let mut heard = Vec::new();
            let ready = lines.by_ref().inspect(|line| heard.push(line.clone())).any(|line| line.contains(" ready "));
            assert!(ready, "not ready: {heard:#?}");
        } else {
            std::thread::sleep(Duration::from_millis(500));
        }
        // A pipe that nobody reads would stop it.
        std::thread::spawn(move || lines.for_each(drop));
    }

    /// Has sessions resolve names until about so many leases are there; gives how many there are.
    fn fill(&self, leases: usize) -> usize {
        let each = MANY as usize;
        let queries = leases.div_ceil(each);
        for n in 0..queries {
            Client::new(1 + (n % usize::from(FILLERS)) as u8, self.address).ask("many");
        }
        queries * each
    }

    fn resident_kib(&self) -> u64 {
        let pid = self.child.as_ref().expect("it runs").0.id();
        field(&std::fs::read_to_string(format!("/proc/{pid}/status")).expect("its status"), "VmRSS:")
    }
}

/// A session's stub.
struct Client(UdpSocket);

impl Client {
    fn new(session: u8, server: SocketAddr) -> Self {
        let socket = UdpSocket::bind((Ipv4Addr::new(127, 0, 1, session), 0)).expect("socket");
        socket.connect(server).expect("connected");
        socket.set_read_timeout(Some(Duration::from_secs(3))).expect("timeout");
        Self(socket)
    }

    /// Asks for a name that nobody has asked for; how long the answer took.
    fn ask(&self, kind: &str) -> Duration {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let n = NEXT.fetch_add(1, Relaxed);
        let packet = query(&format!("{kind}.d{n}.misses.example"), n as u16);
        let start = Instant::now();
        self.0.send(&packet).expect("sent");
        let mut reply = [0; 1500];
        let length = self.0.recv(&mut reply).expect("an answer in time");
        let took = start.elapsed();
        assert!(
            length > 12 && reply[3] & 15 == 0 && reply[7] > 0,
            "no address: {}",
            String::from_utf8_lossy(&reply[12..length])
        );
        took
    }
}

/// Answers names that start with `one` with one address and others with four, of documentation ranges, in turn.
fn upstream() -> SocketAddr {
    let socket = UdpSocket::bind("127.0.0.1:0").expect("socket");
    let address = socket.local_addr().expect("address");
    std::thread::spawn(move || {
        let (mut buffer, mut next) = ([0; 1500], 0u32);
        while let Ok((length, from)) = socket.recv_from(&mut buffer) {
            let packet = &buffer[..length];
            let end = 12 + packet[12..].iter().position(|b| *b == 0).unwrap_or(0) + 5;
            let addresses = if packet[12..].starts_with(b"\x03one") { 1 } else { MANY };
            let mut reply = packet[..end].to_vec();
            reply[2..12].copy_from_slice(&[0x81, 0x80, 0, 1, 0, addresses as u8, 0, 0, 0, 0]);
            for _ in 0..addresses {
                // The same address comes back to a session after 768 others.
                let [.., last] = next.to_be_bytes();
                let [a, b, c] = [[192, 0, 2], [198, 51, 100], [203, 0, 113]][(next / 256 % 3) as usize];
                reply.extend_from_slice(&[0xc0, 12, 0, 1, 0, 1, 0, 0, 1, 44, 0, 4, a, b, c, last]);
                next += 1;
            }
            if socket.send_to(&reply, from).is_err() {
                return;
            }
        }
    });
    address
}
