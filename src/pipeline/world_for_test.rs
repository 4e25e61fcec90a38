//! A pipeline by a configuration of its own, and an upstream on loopback that remembers what it was asked.

use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::sync::Arc;

use parking_lot::Mutex;

use super::{Live, Pipeline, Waiting};
use crate::config::Loaded;
use crate::daemon::{Start, build};
use crate::listen::{Fast, Service};
use crate::model::{Now, Qtype, Transport};

/// What the upstream says to a question.
#[derive(Debug, Clone, Copy)]
pub(super) enum Says {
    /// One address, 203.0.113.`last`, for `ttl` seconds.
    Address { ttl: u32, last: u8 },
    /// An HTTPS record with the hints 203.0.113.5 and 2001:db8::5.
    Service,
    /// One record of this type.
    Record(Qtype, &'static [u8]),
    /// A response code and nothing else.
    Code(u8),
}

pub(super) struct World {
    pub(super) pipeline: Arc<Pipeline>,
    pub(super) dir: tempfile::TempDir,
    /// The configuration.
    pub(super) text: String,
    heard: Arc<Mutex<Vec<String>>>,
    _events: std::thread::JoinHandle<()>,
}

impl World {
    /// With further settings of the policy and tables of the configuration, and an upstream that says `says(n)` to the nth question, from 1.
    pub(super) async fn new(tables: &str, says: impl Fn(usize) -> Says + Send + 'static) -> Self {
        let heard = Arc::<Mutex<Vec<String>>>::default();
        let dir = tempfile::tempdir().expect("directory");
        let text = format!(
            "version = 1\n[server]\nlisten = [\"127.0.0.1:0\"]\n[upstream]\nservers = [\"{}\"]\n\
             [enforce]\nbackend = \"dry-run\"\ndeadline_ms = 5000\n[policy]\nmode = \"enforce\"\n{tables}",
            upstream(heard.clone(), says)
        );
        let built = build::pipeline(load(&dir, &text), 64).await.expect("a pipeline");
        Self { pipeline: built.pipeline, dir, text, heard, _events: built.events }
    }

    /// The same directory and configuration, anew.
    pub(super) async fn again(dir: tempfile::TempDir, text: String) -> Self {
        let built = build::pipeline(load(&dir, &text), 64).await.expect("a pipeline");
        Self { pipeline: built.pipeline, dir, text, heard: Arc::default(), _events: built.events }
    }

    /// Puts another configuration in force.
    pub(super) async fn reload(&self, text: &str) {
        build::apply(&self.pipeline, load(&self.dir, text), None).await.expect("a reload");
    }

    /// The same behind a reload that stopped half-way: nobody knows of which parts of it are done.
    pub(super) async fn reload_behind(&self, text: &str, whole: Arc<Live>) {
        build::apply(&self.pipeline, load(&self.dir, text), Some(whole)).await.expect("a reload");
    }

    /// Names that the upstream was asked for, in order.
    pub(super) fn heard(&self) -> Vec<String> {
        self.heard.lock().clone()
    }

    /// How many questions the upstream was asked.
    pub(super) fn asked(&self) -> usize {
        self.heard.lock().len()
    }

    /// Asks, as far as that goes without waiting: what waits, or the reply.
    pub(super) fn begin(&self, from: IpAddr, packet: &[u8], now: Now) -> Result<Waiting, Vec<u8>> {
        let mut out = Vec::new();
        match self.pipeline.fast(packet, (from, 5353).into(), Transport::Udp, now, &mut out) {
            Fast::Reply => Err(out),
            Fast::Deferred(waiting) => Ok(waiting),
            Fast::Drop => panic!("no reply"),
        }
    }

    /// Asks; the reply.
    pub(super) async fn ask(&self, from: IpAddr, packet: &[u8], now: Now) -> Vec<u8> {
        match self.begin(from, packet, now) {
            Err(reply) => reply,
            Ok(waiting) => self.end(waiting).await,
        }
    }

    /// The reply to what has waited.
    pub(super) async fn end(&self, waiting: Waiting) -> Vec<u8> {
        self.pipeline.finish(waiting).await.expect("a reply")
    }
}

/// A query for a name, with an OPT record.
pub(super) fn packet(name: &str, qtype: Qtype) -> Vec<u8> {
    let mut packet = vec![7, 7, 1, 0, 0, 1, 0, 0, 0, 0, 0, 1];
    for label in name.split('.') {
        packet.push(label.len() as u8);
        packet.extend_from_slice(label.as_bytes());
    }
    packet.push(0);
    packet.extend_from_slice(&qtype.0.to_be_bytes());
    packet.extend_from_slice(&[0, 1, 0, 0, 41, 4, 208, 0, 0, 0, 0, 0, 0]);
    packet
}

/// Response code and number of answers of a reply.
pub(super) fn outcome(reply: &[u8]) -> (u8, u8) {
    (reply[3] & 0xf, reply[7])
}

pub(super) fn block_on(future: impl Future<Output = ()>) {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .expect("a runtime")
        .block_on(future);
}

/// Reads a configuration with its state in this directory.
pub(super) fn load(dir: &tempfile::TempDir, text: &str) -> Loaded {
    let file = dir.path().join("staunch.toml");
    std::fs::write(&file, text).expect("configuration");
    let start = Start { config: Some(file), state_dir: Some(dir.path().join("state")), socket: None };
    build::load(&start).expect("a configuration")
}

fn upstream(heard: Arc<Mutex<Vec<String>>>, says: impl Fn(usize) -> Says + Send + 'static) -> SocketAddr {
    let socket = UdpSocket::bind("127.0.0.1:0").expect("socket");
    let address = socket.local_addr().expect("address");
    std::thread::spawn(move || {
        let mut buffer = [0; 1500];
        while let Ok((length, from)) = socket.recv_from(&mut buffer) {
            let end = 12 + buffer[12..length].iter().position(|b| *b == 0).expect("a root");
            let mut name = String::new();
            let mut at = 12;
            while at < end {
                let label = at + 1..at + 1 + usize::from(buffer[at]);
                at = label.end;
                name.push_str(&String::from_utf8_lossy(&buffer[label]).to_lowercase());
                name.push('.');
            }
            // Our own question whether it lives is none.
            let nth = {
                let mut heard = heard.lock();
                if !name.is_empty() {
                    heard.push(name);
                }
                heard.len()
            };
            let mut reply = buffer[..end + 5].to_vec();
            let (code, answers) = if let Says::Code(code) = says(nth) { (code, 0) } else { (0, 1) };
            reply[2..12].copy_from_slice(&[0x81, 0x80 | code, 0, 1, 0, answers, 0, 0, 0, 0]);
            if let Says::Address { ttl, last } = says(nth) {
                reply.extend_from_slice(&[0xc0, 12, 0, 1, 0, 1]);
                reply.extend_from_slice(&ttl.to_be_bytes());
                reply.extend_from_slice(&[0, 4, 203, 0, 113, last]);
            }
            if matches!(says(nth), Says::Service) {
                reply.extend_from_slice(&[0xc0, 12, 0, 65, 0, 1, 0, 0, 1, 44, 0, 31, 0, 1, 0]);
                reply.extend_from_slice(&[0, 4, 0, 4, 203, 0, 113, 5, 0, 6, 0, 16, 32, 1, 13, 184]);
                reply.extend_from_slice(&[0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 5]);
            }
            if let Says::Record(rtype, data) = says(nth) {
                reply.extend_from_slice(&[0xc0, 12]);
                reply.extend_from_slice(&rtype.0.to_be_bytes());
                reply.extend_from_slice(&[0, 1, 0, 0, 1, 44, 0, data.len() as u8]);
                reply.extend_from_slice(data);
            }
            let _ = socket.send_to(&reply, from);
        }
    });
    address
}
