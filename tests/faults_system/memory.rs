//! Little memory: in a control group of 192 MiB, with everything that may grow made to grow.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::Path;
use std::time::{Duration, Instant};

use crate::flood::{flood, holds};
use crate::honest::Honest;
use crate::world::cgroup::Cgroup;
use crate::world::dns::{Data, Query, rtype};
use crate::world::skip::skipped;
use crate::world::staunch::{Config, Staunch};
use crate::world::{WEB, World, wait_for};
use crate::{logged, metric};

/// Nobody serves this address: questions for names that are delegated to it stay open.
const NOWHERE: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 99);
/// What the group may hold, octets. The promise is made for 512 MiB and default limits.
const CAP: u64 = 192 << 20;

#[test]
fn with_little_memory_nothing_grows_past_it() {
    let Some(world) = World::create(2) else { return };
    let group = match Cgroup::memory(CAP) {
        Ok(group) => group,
        // Whether a machine lets somebody make one is not a matter of installing something.
        Err(why) => return skipped(why),
    };
    let [hostile, honest] = &world.agents[..] else { unreachable!("two sandboxes were made") };
    world.upstream.add_site("*.fresh.example", WEB.into());
    world.upstream.delegate("stuck.example", SocketAddr::from((NOWHERE, 5399)));
    world.upstream.add("*.large.example", 300, Data::Txt("x".repeat(12_000)));
    let staunch = Staunch::start_grouped(&world, &Config::monitor(), group.joined_by());
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

/// What the group of the next test may hold, octets: less than a cache of the size that is configured would take.
const TIGHT: u64 = 192 << 20;

#[test]
fn a_tenth_before_the_limit_the_cache_gives_back_and_answers_go_on() {
    let Some(world) = World::create(2) else { return };
    let group = match Cgroup::memory(TIGHT) {
        Ok(group) => group,
        Err(why) => return skipped(why),
    };
    let [hostile, honest] = &world.agents[..] else { unreachable!("two sandboxes were made") };
    world.upstream.add_site("*.fresh.example", WEB.into());
    world.upstream.add("*.large.example", 3600, Data::Txt("x".repeat(12_000)));
    // 256 MiB of answers, in a group of less.
    let config = Config::monitor().tables("[answer]\ncache_entries = 262144\n");
    let staunch = Staunch::start_grouped(&world, &config, group.joined_by());
    let value = |series: &str| metric(&world, series);
    let looked = wait_for(Duration::from_secs(5), || (value("staunch_memory_limit_octets") > 0.0).then_some(()));
    assert!(looked.is_some(), "the limit is found: {}", staunch.tail());
    assert_eq!(value("staunch_memory_limit_octets"), TIGHT as f64);
    let whole = value("staunch_cache_room_octets");
    assert!(whole > TIGHT as f64, "{whole}");

    let server = SocketAddr::from((hostile.gateway, 53));
    let steady = Honest::start(honest, "h");
    let (begun, mut filled, mut most_cached, mut most_held) = (Instant::now(), 0, 0.0f64, 0.0f64);
    // Until it has shrunk, and then for as long as it takes to find out that it holds.
    let mut shrunk_at = None;
    while begun.elapsed() < Duration::from_secs(90)
        && shrunk_at.is_none_or(|at: Instant| at.elapsed() < Duration::from_secs(8))
    {
        filled += 1;
        hostile.ns.blocking(|| read_large(server, filled));
        most_cached = most_cached.max(value("staunch_cache_octets"));
        most_held = most_held.max(value("staunch_memory_held_octets"));
        if value("staunch_cache_shrunk_total") > 0.0 {
            shrunk_at.get_or_insert_with(Instant::now);
        }
    }
    let told = steady.stop();
    let (shrunk, room, cached) =
        (value("staunch_cache_shrunk_total"), value("staunch_cache_room_octets"), value("staunch_cache_octets"));
    let mib = |octets: f64| octets / f64::from(1 << 20);
    println!(
        "FIGURE: {} MiB of memory, answers of 12 KiB for {:.0} s: the cache held {:.0} MiB at most, shrank {shrunk} times to room for \
         {:.0} of {:.0} MiB and holds {:.0}; {:.0} MiB held at most at a look, {} with pages of files; honest {}",
        TIGHT >> 20,
        begun.elapsed().as_secs_f64(),
        mib(most_cached),
        mib(room),
        mib(whole),
        mib(cached),
        mib(most_held),
        group.most() >> 20,
        told.line()
    );
    assert_eq!(group.killed(), 0, "{}", staunch.tail());
    assert!(staunch.pid().is_some_and(|pid| Path::new(&format!("/proc/{pid}")).exists()), "it runs");
    assert!(shrunk >= 1.0 && room < whole && cached <= room + 4096.0, "{shrunk} {room} of {whole}, {cached}");
    assert!(
        most_cached > cached && most_cached > 0.1 * TIGHT as f64,
        "there was something to give back: {most_cached}"
    );
    assert!(logged(&staunch, "memory is short") >= 1, "{}", staunch.tail());
    assert!(told.amiss() < 25.0 && told.p99() < 2000.0, "{}", told.line());
    assert_eq!(logged(&staunch, "panicked"), 0, "{}", staunch.tail());
}

/// Sixteen hundred answers of 12 KiB over TCP, all of them read.
fn read_large(server: SocketAddr, turn: usize) {
    for connection in 0..10 {
        let Ok(mut stream) = TcpStream::connect(server) else { continue };
        let _ = stream.set_read_timeout(Some(Duration::from_secs(5)));
        for batch in 0..20 {
            let names = (0..8).map(|n| format!("r{turn}c{connection}b{batch}n{n}.large.example"));
            for name in names {
                let query = Query::new(&name, rtype::TXT).edns(1232).encode();
                let framed = [&(query.len() as u16).to_be_bytes(), &query[..]].concat();
                if stream.write_all(&framed).is_err() {
                    return;
                }
            }
            for _ in 0..8 {
                let mut length = [0; 2];
                if stream.read_exact(&mut length).is_err() {
                    return;
                }
                let mut reply = vec![0; usize::from(u16::from_be_bytes(length))];
                if stream.read_exact(&mut reply).is_err() {
                    return;
                }
            }
        }
    }
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
