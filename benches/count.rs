//! Instructions of one scored, pinned answer from the cache and of one refusal, counted by valgrind: the same on every
//! run, however busy the machine is.
//!
//! `cargo bench --bench count`. Runs itself under callgrind twice with different numbers of rounds; the difference is
//! what the rounds cost.

mod support;

use std::net::SocketAddr;
use std::process::Command;

use support::{Bench, FROM, query};

const FEW: u64 = 2_000;
const MANY: u64 = 12_000;

fn main() {
    let mut args = std::env::args().skip(1).filter(|arg| arg != "--bench");
    if let (Some(name), Some(rounds)) = (args.next(), args.next()) {
        return rounds_of(&name, rounds.parse().expect("a number"));
    }
    if Command::new("valgrind").arg("--version").output().is_err() {
        println!("SKIPPED: valgrind is not installed");
        return;
    }
    for (what, name) in [("scored, pinned cache hit", "www.example.org"), ("refusal by rule", "x.denied.example.org")] {
        let (few, many) = (count(name, FEW), count(name, MANY));
        println!("FIGURE: {what}: {} instructions", many.saturating_sub(few) / (MANY - FEW));
    }
}

fn rounds_of(name: &str, rounds: u64) {
    let bench = Bench::new();
    let from: SocketAddr = FROM.parse().expect("address");
    let mut out = Vec::with_capacity(4096);
    let packet = query(name, 7);
    bench.whole(&packet, from, &mut out);
    counted(&bench, &packet, from, &mut out, rounds);
}

/// What callgrind counts.
#[inline(never)]
fn counted(bench: &Bench, packet: &[u8], from: SocketAddr, out: &mut Vec<u8>, rounds: u64) {
    for _ in 0..rounds {
        std::hint::black_box(bench.fast(std::hint::black_box(packet), from, out));
    }
}

/// Instructions of the thread that walks, in a whole run.
fn count(name: &str, rounds: u64) -> u64 {
    let dir = tempfile::tempdir().expect("directory");
    let output = Command::new("valgrind")
        .args(["--tool=callgrind", "--separate-threads=no", "--toggle-collect=*counted*"])
        .arg(format!("--callgrind-out-file={}", dir.path().join("out").display()))
        .arg(std::env::current_exe().expect("this program"))
        .args([name, &rounds.to_string()])
        .output()
        .expect("valgrind runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let said = String::from_utf8_lossy(&output.stderr);
    let collected = said.lines().find_map(|line| line.split("Collected :").nth(1));
    collected.and_then(|n| n.trim().parse().ok()).unwrap_or_else(|| panic!("no count in {said}"))
}
