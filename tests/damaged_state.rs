//! Octets of the state directory that were changed while nobody looked: the service starts, says so, and nothing that was closed
//! is open.

mod daemon;

use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::path::{Path, PathBuf};
use std::time::Duration;

use daemon::{Daemon, ENFORCE, code};

/// Starts, where `STAUNCH_DAMAGED_STARTS` says nothing else.
const STARTS: u64 = 40;
/// Sessions that are closed, and as many that are only announced.
const CLOSED: u8 = 6;

/// SplitMix64.
struct Chance(u64);

impl Chance {
    fn below(&mut self, n: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) % n as u64) as usize
    }
}

fn closed(n: u8) -> Ipv4Addr {
    Ipv4Addr::new(127, 0, 1, n + 1)
}

fn open(n: u8) -> Ipv4Addr {
    Ipv4Addr::new(127, 0, 2, n + 1)
}

/// Asks for a name that everybody may have: the response code.
fn asked(from: Ipv4Addr, server: SocketAddr) -> u8 {
    let socket = UdpSocket::bind((from, 0)).expect("loopback");
    socket.set_read_timeout(Some(Duration::from_secs(20))).expect("time limit");
    let mut query = vec![9, 9, 1, 0, 0, 1, 0, 0, 0, 0, 0, 1];
    query.extend_from_slice(b"\x03www\x04site\x07example\0\0\x01\0\x01\0\0\x29\x04\xd0\0\0\0\0\0\0");
    socket.send_to(&query, server).expect("sent");
    let mut reply = [0; 1500];
    let length = socket.recv(&mut reply).expect("a reply, not silence");
    assert!(length >= 12);
    reply[3] & 0xf
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).expect("directory");
    for entry in std::fs::read_dir(from).expect("state").flatten() {
        let (from, to) = (entry.path(), to.join(entry.file_name()));
        let kind = entry.file_type().expect("a kind");
        if kind.is_dir() {
            copy(&from, &to);
        } else if kind.is_file() {
            std::fs::copy(&from, &to).expect("copied");
        }
    }
}

/// Files below a directory that hold something.
fn files(dir: &Path) -> Vec<PathBuf> {
    let mut all: Vec<_> = std::fs::read_dir(dir).expect("a directory").flatten().map(|entry| entry.path()).collect();
    all.sort();
    let below = |path: PathBuf| if path.is_dir() { files(&path) } else { vec![path] };
    all.into_iter().flat_map(below).filter(|path| path.metadata().is_ok_and(|found| found.len() > 0)).collect()
}

#[test]
fn whatever_octets_of_a_state_are_changed_it_starts_says_so_and_opens_nothing() {
    let seed = std::env::var("STAUNCH_SEED").ok().and_then(|text| text.parse().ok()).unwrap_or(0x5eed);
    let starts = std::env::var("STAUNCH_DAMAGED_STARTS").ok().and_then(|text| text.parse().ok()).unwrap_or(STARTS);
    let mut daemon = Daemon::start(ENFORCE);
    for n in 0..CLOSED {
        for (id, address) in [(format!("shut{n}"), closed(n)), (format!("open{n}"), open(n))] {
            let announce = ["session", "announce", &id, "--address", &address.to_string(), "--type", "batch"];
            assert_eq!(code(&daemon.run(&announce)), 0);
            assert_eq!(asked(address, daemon.address), 0, "the control");
        }
        daemon.json(&["session", "quarantine", &format!("shut{n}"), "--reason", "a test"]);
    }
    // The index gathers for a second.
    std::thread::sleep(Duration::from_millis(2500));
    daemon.child.kill().expect("killed");
    daemon.child.wait().expect("ended");
    let (config, state) = (daemon.dir.path().join("staunch.toml"), daemon.dir.path().join("state"));

    let (mut told, mut hit, mut lost, mut chance) = (0, 0, 0, Chance(seed));
    for round in 0..starts {
        let damaged = daemon.dir.path().join("damaged");
        let _ = std::fs::remove_dir_all(&damaged);
        copy(&state, &damaged);
        // One part of it: what both hold is there as long as one of them can be read.
        let of_index = round % 2 == 1;
        let mut parts = files(&if of_index { damaged.join("index") } else { damaged.clone() });
        parts.retain(|path| {
            of_index || path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("journal-"))
        });
        let path = &parts[chance.below(parts.len())];
        let whole = std::fs::read(path).expect("read");
        let mut octets = whole.clone();
        while octets == whole {
            for _ in 0..=chance.below(4) {
                let at = chance.below(octets.len());
                octets[at] ^= 1 << chance.below(8);
            }
        }
        std::fs::write(path, octets).expect("written");
        let case = format!("seed {seed}, round {round}, {}", path.strip_prefix(&damaged).expect("below").display());

        let (mut child, address, said) = Daemon::spawn_on(&damaged, Some(&config));
        for n in 0..CLOSED {
            assert_eq!(asked(closed(n), address), 3, "{case}: a closed session is answered\n{said}");
            // One whose announcement was hit is nobody's, and refused until it is announced again.
            lost += u32::from(asked(open(n), address) != 0);
        }
        assert_eq!(asked(Ipv4Addr::LOCALHOST, address), 0, "{case}: the configured session\n{said}");
        hit += u32::from(!of_index);
        told += u32::from(said.contains("the state was damaged"));
        assert!(
            of_index || said.contains("the state was damaged"),
            "{case}: a change of the journal that nobody noticed\n{said}"
        );
        // What damage makes the index's own code do is caught, and the index built anew.
        assert!(of_index || !said.contains("panicked at"), "{case}: {said}");
        child.kill().expect("killed");
        child.wait().expect("ended");
    }
    println!(
        "FIGURE: {starts} starts on a state of which octets were changed: {told} told of damage, {hit} of them in the journal; 0 of {} \
         closed sessions open, {lost} announcements lost and refused",
        u64::from(CLOSED) * starts
    );
}
