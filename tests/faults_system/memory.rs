//! Little memory: in a control group of 192 MiB, with everything that may grow made to grow.

use std::io::Write;
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::flood::{flood, holds};
use crate::honest::Honest;
use crate::world::dns::{Data, Query, rtype};
use crate::world::staunch::{Config, Staunch};
use crate::world::{WEB, World};
use crate::{logged, metric};

/// Nobody serves this address: questions for names that are delegated to it stay open.
const NOWHERE: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 99);
/// What the group may hold, octets. The promise is made for 512 MiB and default limits.
const CAP: u64 = 192 << 20;

/// A control group with a limit of memory, of whichever version this machine has.
struct Group {
    path: PathBuf,
    is_v2: bool,
}

impl Group {
    fn create() -> Result<Self, String> {
        let name = format!("staunch-test-{}", std::process::id());
        let v2 = Path::new("/sys/fs/cgroup");
        let is_v2 = std::fs::read_to_string(v2.join("cgroup.controllers")).is_ok_and(|all| all.contains("memory"));
        let (root, file) =
            if is_v2 { (v2.to_owned(), "memory.max") } else { (v2.join("memory"), "memory.limit_in_bytes") };
        if is_v2 {
            let _ = std::fs::write(root.join("cgroup.subtree_control"), "+memory");
        }
        let path = root.join(name);
        let failed = |error: std::io::Error| format!("no control group with a limit of memory: {error}");
        std::fs::create_dir(&path).map_err(failed)?;
        let group = Self { path, is_v2 };
        std::fs::write(group.path.join(file), CAP.to_string()).map_err(failed)?;
        if is_v2 {
            // Nothing is to be put aside on a disk.
            let _ = std::fs::write(group.path.join("memory.swap.max"), "0");
        }
        Ok(group)
    }

    /// The most it has held, octets; what it holds now where the kernel does not keep that.
    fn most(&self) -> u64 {
        let files = if self.is_v2 { ["memory.peak", "memory.current"] } else { ["memory.max_usage_in_bytes"; 2] };
        let number = |file: &&str| std::fs::read_to_string(self.path.join(file)).ok()?.trim().parse().ok();
        files.iter().find_map(number).expect("what the group holds")
    }

    /// How many processes of it the kernel has killed for want of memory.
    fn killed(&self) -> u64 {
        let file = self.path.join(if self.is_v2 { "memory.events" } else { "memory.oom_control" });
        let text = std::fs::read_to_string(file).expect("events of the group");
        let line = text.lines().find_map(|line| line.strip_prefix("oom_kill "));
        line.and_then(|n| n.parse().ok()).expect("a count of kills")
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir(&self.path);
    }
}

#[test]
fn with_little_memory_nothing_grows_past_it() {
    let Some(world) = World::create(2) else { return };
    let group = match Group::create() {
        Ok(group) => group,
        // Whether a machine lets somebody make one is not a matter of installing something.
        Err(why) => return println!("SKIPPED: {why}"),
    };
    let [hostile, honest] = &world.agents[..] else { unreachable!("two sandboxes were made") };
    world.upstream.add_site("*.fresh.example", WEB.into());
    world.upstream.delegate("stuck.example", SocketAddr::from((NOWHERE, 5399)));
    world.upstream.add("*.large.example", 300, Data::Txt("x".repeat(12_000)));
    let staunch = Staunch::start_grouped(&world, &Config::monitor(), group.path.join("cgroup.procs"));
    let server = SocketAddr::from((hostile.gateway, 53));
    let (idle, _) = holds(&staunch);
    let steady = Honest::start(honest, "h");
    let (begun, mut turn, mut asked) = (Instant::now(), 0, 0);
    while begun.elapsed() < Duration::from_secs(12) {
        turn += 1;
        let time = Duration::from_millis(400);
        asked += flood(hostile, time, |n| format!("u{turn}x{n}.d{}.fresh.example", n % 4096)).0;
        asked += flood(hostile, time / 2, |n| format!("s{turn}x{n}.stuck.example")).0;
        asked += hostile.ns.blocking(|| large(server, turn));
    }
    let told = steady.stop();
    let (memory, descriptors) = holds(&staunch);
    let most = group.most();
    println!(
        "FIGURE: {} MiB of memory, {asked} hostile questions in {turn} turns: {idle:.0} to {memory:.0} MiB resident, the group at \
         most {} MiB with what the kernel keeps of files, {descriptors} descriptors; honest {}",
        CAP >> 20,
        most >> 20,
        told.line()
    );
    assert_eq!(group.killed(), 0, "{}", staunch.tail());
    assert!(staunch.pid().is_some_and(|pid| Path::new(&format!("/proc/{pid}")).exists()), "it runs");
    assert!(
        metric(&world, "staunch_sessions{state=\"active\"}") + metric(&world, "staunch_sessions{state=\"watched\"}")
            >= 2.0
    );
    assert!(memory < 0.9 * (CAP >> 20) as f64, "{memory} MiB");
    assert!(told.amiss() < 25.0 && told.p99() < 2000.0, "{}", told.line());
    assert_eq!(logged(&staunch, "panicked"), 0, "{}", staunch.tail());
}

/// Answers of 12 KiB over TCP, most of which nobody reads; how many were asked for.
fn large(server: SocketAddr, turn: usize) -> usize {
    let mut asked = 0;
    let mut held = Vec::new();
    for connection in 0..24 {
        let Ok(mut stream) = TcpStream::connect(server) else { continue };
        let _ = stream.set_nonblocking(true);
        for n in 0..16 {
            let query = Query::new(&format!("t{turn}c{connection}n{n}.large.example"), rtype::TXT).edns(1232).encode();
            asked += usize::from(stream.write_all(&[&(query.len() as u16).to_be_bytes(), &query[..]].concat()).is_ok());
        }
        held.push(stream);
    }
    std::thread::sleep(Duration::from_millis(200));
    asked
}
