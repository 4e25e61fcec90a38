//! A pipeline for benchmarks: a dry-run packet filter, one announced session, an upstream on loopback.
#![allow(dead_code)] // Every benchmark takes what it needs.

use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;

use staunch::clock;
use staunch::config::{Environment, Loaded};
use staunch::daemon::build::{self, Built};
use staunch::listen::{Fast, Service};
use staunch::model::Transport;
use staunch::pipeline::Pipeline;
use tokio::runtime::Runtime;

/// Where the benchmark's session asks from.
pub const FROM: &str = "127.0.0.9:4000";

/// A pipeline with all its stages, and what keeps it alive.
pub struct Bench {
    pub pipeline: Arc<Pipeline>,
    pub runtime: Runtime,
    pub file: std::path::PathBuf,
    _dir: tempfile::TempDir,
}

impl Bench {
    pub fn new() -> Self {
        Self::with("")
    }

    /// With more written in the configuration; compiled tables are kept as a daemon keeps them.
    pub fn with(more: &str) -> Self {
        let dir = tempfile::tempdir().expect("directory");
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("runtime");
        let file = config(dir.path(), upstream());
        let text = std::fs::read_to_string(&file).expect("configuration") + more;
        std::fs::write(&file, text).expect("configuration");
        let loaded = Self::load(&file);
        let Built { pipeline, .. } = runtime.block_on(build::pipeline(loaded, 4096)).expect("pipeline");
        Self { pipeline, runtime, file, _dir: dir }
    }

    fn load(file: &std::path::Path) -> Loaded {
        let environment = Environment { keep_tables: true, ..Environment::system() };
        staunch::config::load_in(file, &environment).expect("configuration loads").0
    }

    /// Reads the configuration again and puts it in force, as the daemon does it: what was in force goes when nobody
    /// uses it any more.
    pub fn reload(&self) {
        let loaded = Self::load(&self.file);
        let old = self.pipeline.live.load_full();
        self.runtime.block_on(build::apply(&self.pipeline, loaded, None)).expect("in force");
        while Arc::strong_count(&old) > 1 {
            std::thread::sleep(std::time::Duration::from_millis(1));
        }
    }

    /// The walk on the listener's thread; the length of the reply.
    pub fn fast(&self, packet: &[u8], from: SocketAddr, out: &mut Vec<u8>) -> usize {
        out.clear();
        match self.pipeline.fast(packet, from, Transport::Udp, clock::now(), out) {
            Fast::Reply => out.len(),
            _ => panic!("this query is answered on the spot"),
        }
    }

    /// The whole walk, waiting included; the length of the reply.
    pub fn whole(&self, packet: &[u8], from: SocketAddr, out: &mut Vec<u8>) -> usize {
        out.clear();
        match self.pipeline.fast(packet, from, Transport::Udp, clock::now(), out) {
            Fast::Deferred(deferred) => {
                self.runtime.block_on(self.pipeline.finish(deferred)).map_or(0, |reply| reply.len())
            }
            Fast::Reply => out.len(),
            Fast::Drop => 0,
        }
    }
}

/// A query as stubs send it, with EDNS as in dig.
pub fn query(name: &str, id: u16) -> Vec<u8> {
    let mut packet = vec![0, 0, 1, 0, 0, 1, 0, 0, 0, 0, 0, 1];
    packet[..2].copy_from_slice(&id.to_be_bytes());
    for label in name.split('.') {
        packet.push(label.len() as u8);
        packet.extend_from_slice(label.as_bytes());
    }
    packet.extend_from_slice(&[0, 0, 1, 0, 1]);
    packet.extend_from_slice(&[0, 0, 41, 4, 208, 0, 0, 0, 0, 0, 0]);
    packet
}

/// Answers every question with four addresses.
pub fn upstream() -> SocketAddr {
    let socket = UdpSocket::bind("127.0.0.1:0").expect("socket");
    let address = socket.local_addr().expect("address");
    std::thread::spawn(move || {
        let mut buffer = [0; 1500];
        while let Ok((length, from)) = socket.recv_from(&mut buffer) {
            let packet = &buffer[..length];
            let end = 12 + packet[12..].iter().position(|b| *b == 0).unwrap_or(0) + 5;
            let mut reply = packet[..end].to_vec();
            reply[2..12].copy_from_slice(&[0x81, 0x80, 0, 1, 0, 4, 0, 0, 0, 0]);
            for n in 1..=4 {
                reply.extend_from_slice(&[0xc0, 12, 0, 1, 0, 1, 0, 0, 1, 44, 0, 4, 198, 51, 100, n]);
            }
            if socket.send_to(&reply, from).is_err() {
                return;
            }
        }
    });
    address
}

pub fn config(dir: &std::path::Path, upstream: SocketAddr) -> std::path::PathBuf {
    let file = dir.join("staunch.toml");
    let text = format!(
        r#"
version = 1
[server]
listen = ["127.0.0.1:0"]
state_dir = "{dir}"
metrics = "off"
[policy]
mode = "enforce"
[upstream]
servers = ["{upstream}"]
[enforce]
backend = "dry-run"
[events]
file = "off"
[[session]]
id = "bench"
addresses = ["127.0.0.9"]
type = "interactive"
[[rule]]
id = "denied"
action = "deny"
names = ["denied.example.org"]
owner = "bench"
reason = "the refusal that is measured"
review_by = "2099-01-01"
[[rule]]
id = "misses"
action = "allow"
names = ["*.misses.example"]
budget_bits = 8388607
owner = "bench"
reason = "more names than any session may ask"
review_by = "2099-01-01"
"#,
        dir = dir.display(),
    );
    std::fs::write(&file, text).expect("configuration");
    file
}
