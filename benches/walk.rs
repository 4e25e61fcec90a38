//! The whole walk of a query: packet in, reply out, with sessions, rules, lists, score, ledger, pins and the event.
//!
//! `cargo bench --bench walk`. The upstream of the miss is a server on loopback that answers at once.

use std::hint::black_box;
use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::time::Duration;

use criterion::{Criterion, criterion_group, criterion_main};
use staunch::clock;
use staunch::daemon::build::{self, Built};
use staunch::listen::{Fast, Service};
use staunch::model::Transport;
use staunch::pipeline::Pipeline;

/// A query as stubs send it, with EDNS as in dig.
fn query(name: &str, id: u16) -> Vec<u8> {
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
fn upstream() -> SocketAddr {
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

fn config(dir: &std::path::Path, upstream: SocketAddr) -> std::path::PathBuf {
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
[profile.interactive.budgets]
tenant_soft = 1000000
tenant = 2000000
icann = 4000000
session = 8000000
[profile.interactive.params]
sinkhole = 1000.0
[[rule]]
id = "denied"
action = "deny"
names = ["denied.example.org"]
owner = "bench"
reason = "the refusal that is measured"
review_by = "2099-01-01"
"#,
        dir = dir.display(),
    );
    std::fs::write(&file, text).expect("configuration");
    file
}

fn walk(c: &mut Criterion) {
    let dir = tempfile::tempdir().expect("directory");
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("runtime");
    let (loaded, _) = staunch::config::load(&config(dir.path(), upstream())).expect("configuration loads");
    let Built { pipeline, .. } = runtime.block_on(build::pipeline(loaded)).expect("pipeline");
    let from: SocketAddr = "127.0.0.9:4000".parse().expect("address");
    let mut out = Vec::with_capacity(4096);

    // Fill the cache and the pins once.
    let hit = query("www.example.org", 7);
    runtime.block_on(answer(&pipeline, &hit, from, &mut out));
    let mut group = c.benchmark_group("walk");
    group.bench_function("cache_hit_scored_and_pinned", |b| {
        b.iter(|| {
            out.clear();
            match pipeline.fast(black_box(&hit), from, Transport::Udp, clock::now(), &mut out) {
                Fast::Reply => black_box(out.len()),
                _ => panic!("a cached and pinned answer is a reply"),
            }
        });
    });
    let denied = query("x.denied.example.org", 8);
    group.bench_function("refusal_by_rule", |b| {
        b.iter(|| {
            out.clear();
            match pipeline.fast(black_box(&denied), from, Transport::Udp, clock::now(), &mut out) {
                Fast::Reply => black_box(out.len()),
                _ => panic!("a refusal is a reply"),
            }
        });
    });
    group.measurement_time(Duration::from_secs(8));
    let mut n = 0u32;
    group.bench_function("miss_through_loopback_upstream", |b| {
        b.iter(|| {
            n += 1;
            let miss = query(&format!("h{}.d{}.example.net", n % 7, n), 9);
            runtime.block_on(answer(&pipeline, &miss, from, &mut out))
        });
    });
    group.finish();
}

async fn answer(pipeline: &Arc<Pipeline>, packet: &[u8], from: SocketAddr, out: &mut Vec<u8>) -> usize {
    out.clear();
    match pipeline.fast(packet, from, Transport::Udp, clock::now(), out) {
        Fast::Deferred(deferred) => pipeline.finish(deferred).await.map_or(0, |reply| reply.len()),
        Fast::Reply => out.len(),
        Fast::Drop => 0,
    }
}

criterion_group!(benches, walk);
criterion_main!(benches);
