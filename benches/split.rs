//! What a pin costs in process, and by an enforcer in a process of its own: from the order to the kernel's acknowledgement.
//!
//! `cargo bench --bench split`. Needs root, and makes a network namespace of its own. Both are asked in turns, one pin at a
//! time, each for an address that has none yet.

use std::net::{IpAddr, Ipv4Addr};
use std::process::{Child, Command as Process, Stdio};
use std::time::{Duration, Instant};

use staunch::enforce::{BackendKind, Class, Command, Config, Enforcer, Outside};
use staunch::ports::Ports;

const TURN: u32 = 250;
const TURNS: u32 = 20;
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
    // SAFETY: takes no pointers; concerns the network namespace of this process alone.
    if unsafe { libc::unshare(libc::CLONE_NEWNET) } != 0 {
        println!("SKIPPED: a network namespace needs root");
        return;
    }
    let up = Process::new("ip").args(["link", "set", "lo", "up"]).status().expect("ip runs");
    assert!(up.success());
    let dir = tempfile::tempdir().expect("directory");
    let socket = dir.path().join("enforcer.sock");
    let file = dir.path().join("staunch.toml");
    let text = format!("version = 1\n[enforce]\nbackend = \"nft\"\ntable = \"apart\"\nenforcer_socket = {socket:?}\n");
    std::fs::write(&file, text).expect("configuration");
    let mut enforcer = Process::new(env!("CARGO_BIN_EXE_staunch"));
    enforcer.args(["enforcer", "--config"]).arg(&file).stderr(Stdio::null());
    let _enforcer = Running(enforcer.spawn().expect("the enforcer starts"));

    let config = |table: &str, enforcer| Config {
        backend: BackendKind::Nft,
        table: table.into(),
        interfaces: Vec::new(),
        guard_unknown: false,
        deadline: SECOND,
        queue: 4096,
        capacity: 262_144,
        outside: Outside { enforcer, ..Outside::default() },
    };
    let sides = [
        ("in process", Enforcer::start(config("own", None)).expect("starts")),
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
    for (_, enforcer) in &sides {
        let _ = enforcer.shutdown(false);
    }
}
