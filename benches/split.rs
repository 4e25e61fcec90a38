//! What a pin costs in process, and by an enforcer in a process of its own: from the order to the kernel's acknowledgement.
//!
//! `cargo bench --bench split`. Needs root, and makes a network namespace of its own. Both are asked in turns, one pin at a
//! time, each for an address that has none yet.

use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;
use std::process::{Child, Command as Process, Stdio};
use std::time::{Duration, Instant};

use staunch::enforce::{BackendKind, Class, Command, Config, Enforcer, Outside};
use staunch::ports::{Port, Ports};

const TURN: u32 = 250;
const TURNS: u32 = 20;
/// Leases that stand when the enforcer is killed.
const RESIDENT: u32 = 100_000;
/// Of one session.
const DESTINATIONS: u32 = 50;
const SECOND: Duration = Duration::from_secs(1);

/// Ended with what holds it.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn main() {
    // Each in a namespace of its own: what the one changes is nothing that the other has to look at.
    if !unshared() {
        println!("SKIPPED: a network namespace needs root");
        return;
    }
    let in_process = Enforcer::start(config("own", None)).expect("starts");
    assert!(unshared());
    let dir = tempfile::tempdir().expect("directory");
    let socket = dir.path().join("enforcer.sock");
    let file = dir.path().join("staunch.toml");
    let text = format!("version = 1\n[enforce]\nbackend = \"nft\"\ntable = \"apart\"\nenforcer_socket = {socket:?}\n");
    std::fs::write(&file, text).expect("configuration");
    let start = || {
        let mut enforcer = Process::new(env!("CARGO_BIN_EXE_staunch"));
        enforcer.args(["enforcer", "--config"]).arg(&file);
        if std::env::var_os("STAUNCH_LOG").is_none() {
            enforcer.stderr(Stdio::null());
        }
        Running(enforcer.spawn().expect("the enforcer starts"))
    };
    let process = start();

    let sides = [
        ("in process", in_process),
        ("by the enforcer", Enforcer::start(config("apart", Some(socket))).expect("starts")),
    ];
    let mut times = [Vec::new(), Vec::new()];
    for turn in 0..TURNS {
        for ((_, enforcer), times) in sides.iter().zip(&mut times) {
            let session = IpAddr::from([10, 77, 1, 2 + turn as u8]);
            let order = |command| enforcer.submit(command).expect("taken").wait_blocking(SECOND).expect("carried out");
            order(Command::Guard { session, class: Class(1) });
            for n in 0..TURN {
                let destinations = vec![Ipv4Addr::from(0xc633_6400 + n).into()];
                let pin =
                    Command::Pin { session, destinations, ports: Ports::web(), volume: None, lifetime: 600 * SECOND };
                let begun = Instant::now();
                order(pin);
                times.push(begun.elapsed());
            }
        }
    }
    for ((what, _), times) in sides.iter().zip(&mut times) {
        times.sort_unstable();
        let at = |part: usize| times[(times.len() - 1) * part / 100].as_secs_f64() * 1e6;
        println!("FIGURE: a pin of three ports {what}: p50 {:.1} us, p99 {:.1} us", at(50), at(99));
    }
    killed(&sides[1].1, process, start);
    for (_, enforcer) in &sides {
        let _ = enforcer.shutdown(false);
    }
}

/// Puts this thread, and processes that it starts, into a network namespace of their own.
fn unshared() -> bool {
    // SAFETY: takes no pointers; concerns the network namespace of this thread alone.
    let done = unsafe { libc::unshare(libc::CLONE_NEWNET) } == 0;
    done && Process::new("ip").args(["link", "set", "lo", "up"]).status().is_ok_and(|status| status.success())
}

fn config(table: &str, enforcer: Option<PathBuf>) -> Config {
    Config {
        backend: BackendKind::Nft,
        table: table.into(),
        interfaces: Vec::new(),
        guard_unknown: false,
        deadline: SECOND,
        queue: 4096,
        capacity: 262_144,
        own_table: true,
        journal: None,
        outside: Outside { enforcer, ..Outside::default() },
    }
}

/// How long an enforcer that was killed beside many leases takes to be back.
fn killed(resolver: &Enforcer, process: Running, start: impl Fn() -> Running) {
    let one = Ports::these([Port::tcp(443)]).expect("a port");
    let mut tickets = Vec::new();
    for n in 0..RESIDENT / DESTINATIONS {
        let session = IpAddr::from([10, 78, (n >> 8) as u8, n as u8]);
        let destinations = (0..DESTINATIONS).map(|to| Ipv4Addr::from(0xc633_6400 + to).into()).collect();
        let pin = Command::Pin { session, destinations, ports: one.clone(), volume: None, lifetime: 600 * SECOND };
        tickets.push(resolver.submit(Command::Guard { session, class: Class(1) }).expect("taken"));
        tickets.push(resolver.submit(pin).expect("taken"));
    }
    for ticket in tickets {
        ticket.wait_blocking(30 * SECOND).expect("carried out");
    }
    drop(process);
    let begun = Instant::now();
    let wait_until = |healthy: bool| {
        while resolver.healthy() != healthy {
            assert!(begun.elapsed() < 60 * SECOND, "never");
            std::thread::sleep(Duration::from_millis(1));
        }
        begun.elapsed().as_secs_f64() * 1e3
    };
    let denied = wait_until(false);
    let _process = start();
    let back = wait_until(true);
    println!(
        "FIGURE: beside {RESIDENT} leases: denied {denied:.0} ms after the enforcer was killed, in step again {:.0} ms after \
         another was started",
        back - denied
    );
}
