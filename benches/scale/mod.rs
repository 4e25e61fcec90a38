//! Ten million names: what loading, asking and swapping them costs.

use std::hint::black_box;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use staunch::config::{Environment, load_in};

use super::support::{Bench, FROM, config, query};
use super::{label, listed};

const MANY: u64 = 10_000_000;
/// Lists that the names are spread over.
const LISTS: u64 = 4;
/// Names that are asked for: more than any cache line is shared by.
const ASKED: u64 = 20_000;

/// Without words: everything, each part in a process of its own.
pub fn main(words: &[String]) {
    match words {
        [] => all(),
        [part, dir, count] => {
            let count = count.parse().expect("a number");
            match part.as_str() {
                "load" => load(Path::new(dir), count),
                "walk" => walk(Path::new(dir), count),
                "swap" => swap(Path::new(dir), count),
                other => panic!("no part {other}"),
            }
        }
        other => panic!("unexpected words {other:?}"),
    }
}

fn all() {
    let dir = tempfile::tempdir().expect("directory");
    for count in [1_000_000, MANY] {
        let octets = write_lists(dir.path(), count);
        println!("FIGURE: {count} names in {LISTS} lists, {:.1} MB of text", octets as f64 / 1e6);
        let state = dir.path().join("state");
        let _ = std::fs::remove_dir_all(&state);
        part("load", dir.path(), count);
        part("load", dir.path(), count);
    }
    for count in [0, 1_000_000, MANY] {
        write_lists(dir.path(), count);
        part("walk", dir.path(), count);
    }
    for count in [0, MANY] {
        write_lists(dir.path(), count);
        part("swap", dir.path(), count);
    }
}

fn part(what: &str, dir: &Path, count: u64) {
    let status = Command::new(std::env::current_exe().expect("this program"))
        .args(["scale", what, dir.to_str().expect("text"), &count.to_string()])
        .status()
        .expect("runs");
    assert!(status.success(), "{what} {count}");
}

/// Writes the lists; octets in all.
fn write_lists(dir: &Path, count: u64) -> u64 {
    use std::io::Write;
    (0..LISTS)
        .map(|list| {
            let file = std::fs::File::create(dir.join(format!("list-{list}.txt"))).expect("created");
            let mut out = std::io::BufWriter::new(file);
            writeln!(out, "# list {list}").expect("written");
            for n in (list * count / LISTS)..((list + 1) * count / LISTS) {
                writeln!(out, "{}", listed(n)).expect("written");
            }
            out.into_inner().expect("written").metadata().expect("file").len()
        })
        .sum()
}

/// The lists as a configuration names them.
fn written(dir: &Path, count: u64) -> String {
    if count == 0 {
        return "\n[[list]]\nid = \"none\"\npath = \"builtin:doh-resolvers\"\n".into();
    }
    let list =
        |n| format!("\n[[list]]\nid = \"list-{n}\"\npath = \"{}/list-{n}.txt\"\ncategory = \"bench\"\n", dir.display());
    (0..LISTS).map(list).collect()
}

/// Largest resident memory of this process so far, MiB.
fn peak_mib() -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("status");
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("a peak");
    line.trim().trim_end_matches("kB").trim().parse::<f64>().expect("a number") / 1024.0
}

/// Processor time of this process so far, seconds.
fn cpu_seconds() -> f64 {
    usage(libc::RUSAGE_SELF).0
}

/// Processor time in seconds, and how often something else was let run instead.
fn usage(who: libc::c_int) -> (f64, i64) {
    // SAFETY: all zeroes is a valid value, and the pointer is to our own.
    let usage = unsafe {
        let mut usage: libc::rusage = std::mem::zeroed();
        assert_eq!(libc::getrusage(who, &mut usage), 0);
        usage
    };
    let seconds = |time: libc::timeval| time.tv_sec as f64 + time.tv_usec as f64 / 1e6;
    (seconds(usage.ru_utime) + seconds(usage.ru_stime), usage.ru_nivcsw)
}

fn load(dir: &Path, count: u64) {
    let file = config(dir, "127.0.0.1:9".parse().expect("address"));
    let text = std::fs::read_to_string(&file).expect("read") + &written(dir, count);
    std::fs::write(&file, text).expect("written");
    let environment = Environment { keep_tables: true, state_dir: Some(dir.join("state")), ..Environment::system() };
    let kept = dir.join("state/lists").read_dir().is_ok_and(|dir| dir.count() > 1);
    let before = peak_mib();
    let start = Instant::now();
    let (loaded, _) = load_in(&file, &environment).expect("loads");
    let seconds = start.elapsed().as_secs_f64();
    let deny = &loaded.lists.deny;
    println!(
        "FIGURE: {count} names {}: {seconds:.2} s ({:.2} s of a processor), {:.1} octets a name, peak {:.0} MiB ({before:.0} before)",
        if kept { "mapped" } else { "compiled" },
        cpu_seconds(),
        deny.octets() as f64 / deny.len() as f64,
        peak_mib(),
    );
}

/// Names below a rule, none of them listed.
fn below(rule: &str, from: u64, count: u64) -> Vec<Vec<u8>> {
    (from..from + count).map(|n| query(&format!("{}.{}{n}.{rule}", label(n), label(n + 7)), 7)).collect()
}

fn walk(dir: &Path, count: u64) {
    let bench = Bench::with(&written(dir, count));
    let lists = &bench.pipeline.live.load().policy.lists;
    // The tables alone.
    let scope = staunch::lists::Scope::of(staunch::model::SessionType::Interactive, None);
    let wall = staunch::clock::now().wall;
    let names: Vec<staunch_scoring::NameBuf> =
        (0..200_000).map(|n| format!("www.{}{n}.com", label(n * 31)).parse().expect("name")).collect();
    let mut best = f64::MAX;
    for _ in 0..7 {
        // Time of this thread on a processor: what others on the machine take is not counted.
        let start = usage(libc::RUSAGE_THREAD).0;
        for name in &names {
            black_box(lists.look_up(black_box(name.as_ref()), scope, wall, staunch::lists::Trials::NONE));
        }
        best = best.min((usage(libc::RUSAGE_THREAD).0 - start) * 1e9 / names.len() as f64);
    }
    println!("FIGURE: {count} names: look-up of a missing name among rules and lists {best:.0} ns");
    let from: SocketAddr = FROM.parse().expect("address");
    let mut out = Vec::with_capacity(4096);
    let asked = below("denied.example.org", 0, ASKED);
    let mut best = f64::MAX;
    for _ in 0..15 {
        let start = usage(libc::RUSAGE_THREAD).0;
        for packet in &asked {
            black_box(bench.fast(black_box(packet), from, &mut out));
        }
        best = best.min((usage(libc::RUSAGE_THREAD).0 - start) * 1e9 / asked.len() as f64);
    }
    println!("FIGURE: {count} names: whole walk of a refusal {best:.0} ns, over {} names", asked.len());
    let mut best = f64::MAX;
    for round in 0..8 {
        let asked = below("misses.example", round * 1_000, 1_000);
        let start = Instant::now();
        for packet in &asked {
            black_box(bench.whole(black_box(packet), from, &mut out));
        }
        best = best.min(start.elapsed().as_nanos() as f64 / asked.len() as f64);
    }
    println!("FIGURE: {count} names: a name that is forwarded {:.1} us, upstream on loopback", best / 1e3);
}

fn swap(dir: &Path, count: u64) {
    const SWAPS: usize = 10;
    let bench = Bench::with(&written(dir, count));
    let from: SocketAddr = FROM.parse().expect("address");
    let denied = query("x.denied.example.org", 8);
    let stop = AtomicBool::new(false);
    let swapping = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let asker = scope.spawn(|| {
            let mut out = Vec::with_capacity(4096);
            let (mut quiet, mut busy) = (Vec::new(), Vec::new());
            while !stop.load(Ordering::Relaxed) {
                let now = swapping.load(Ordering::Relaxed);
                let before = usage(libc::RUSAGE_THREAD).1;
                let start = Instant::now();
                black_box(bench.fast(&denied, from, &mut out));
                let took = start.elapsed();
                let preempted = usage(libc::RUSAGE_THREAD).1 != before;
                let waits = if now { &mut busy } else { &mut quiet };
                waits.push((took, preempted));
            }
            (quiet, busy)
        });
        std::thread::sleep(Duration::from_secs(3));
        for _ in 0..SWAPS {
            // Reading is not what is measured: the old table is mapped, checked, and then swapped.
            swapping.store(true, Ordering::Relaxed);
            // As the daemon does it, behind all that answers.
            scope
                .spawn(|| {
                    // SAFETY: no pointers; 0 means the calling thread, which ends with this.
                    unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, 10) };
                    bench.reload();
                })
                .join()
                .expect("reloads");
            swapping.store(false, Ordering::Relaxed);
        }
        stop.store(true, Ordering::Relaxed);
        let (quiet, busy) = asker.join().expect("asks");
        for (what, mut waits) in [("without swaps", quiet), ("during swaps", busy)] {
            waits.sort_unstable();
            let at = |share: f64| waits.get((waits.len() as f64 * share) as usize).or(waits.last()).copied();
            let over = |preempted: bool| {
                let over = waits.iter().filter(|wait| wait.0 > Duration::from_millis(1) && wait.1 == preempted);
                over.count()
            };
            let own = waits.iter().filter(|wait| !wait.1).map(|wait| wait.0).max().unwrap_or_default();
            println!(
                "FIGURE: {count} names, {what}: {} queries, p50 {:?}, p99.99 {:?}, worst {:?}; where nobody else was let run \
                 worst {own:?}, {} over 1 ms (else {})",
                waits.len(),
                at(0.5).unwrap_or_default().0,
                at(0.9999).unwrap_or_default().0,
                waits.last().copied().unwrap_or_default().0,
                over(false),
                over(true),
            );
        }
    });
}
