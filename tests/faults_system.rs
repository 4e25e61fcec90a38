//! What the machine below does to the daemon: a wall clock that is set, a disk that fails, hangs or is full, a kernel that refuses
//! orders to the packet filter, memory that is short; and all the rest at once, for a while.

mod world;

#[path = "faults_system/clock.rs"]
mod clock;
#[path = "faults_system/disk.rs"]
mod disk;
#[path = "faults_hostile/flood.rs"]
mod flood;
#[path = "faults_system/hang.rs"]
mod hang;
#[path = "faults_hostile/honest.rs"]
mod honest;
#[path = "faults_system/inject.rs"]
mod inject;
#[path = "faults_system/memory.rs"]
mod memory;
#[path = "faults_system/netlink.rs"]
mod netlink;
#[path = "faults_system/soak.rs"]
mod soak;

use std::io::{Read, Write};
use std::net::TcpStream;

use world::World;
use world::staunch::Staunch;

/// What the page for machines answers: the status line and the body.
fn page(world: &World, path: &str) -> (String, String) {
    let request = format!("GET {path} HTTP/1.0\r\nHost: localhost\r\n\r\n");
    let page = world.gw.blocking(|| {
        let mut stream = TcpStream::connect("127.0.0.1:9153").expect("the metrics page");
        stream.write_all(request.as_bytes()).expect("asked");
        let mut page = String::new();
        stream.read_to_string(&mut page).expect("the page");
        page
    });
    let (head, body) = page.split_once("\r\n\r\n").expect("a head and a body");
    (head.lines().next().unwrap_or_default().to_owned(), body.to_owned())
}

/// The metrics page's value of a series, as it is written there.
fn metric(world: &World, series: &str) -> f64 {
    let (_, page) = page(world, "/metrics");
    let named = |line: &&str| line.rsplit_once(' ').is_some_and(|(name, _)| name.trim_end_matches("{}") == series);
    let line = page.lines().find(named);
    line.and_then(|line| line.rsplit(' ').next()?.parse().ok()).unwrap_or_else(|| panic!("no {series} in {page}"))
}

/// Lines of the daemon's log that hold `text`.
fn logged(staunch: &Staunch, text: &str) -> usize {
    staunch.log().iter().filter(|line| line.contains(text)).count()
}

/// What a tool that is not there means: a failure where tests must not be skipped, else a word.
fn without(tool: &str) {
    world::skip::lacking(format!("{tool}: make setup"));
}
