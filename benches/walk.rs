//! The whole walk of a query: packet in, reply out, with sessions, rules, lists, score, ledger, pins and the event.
//!
//! `cargo bench --bench walk`. The upstream of the miss is a server on loopback that answers at once.

mod support;

use std::hint::black_box;
use std::net::SocketAddr;
use std::time::Duration;

use criterion::{Criterion, criterion_group, criterion_main};
use support::{Bench, FROM, query};

fn walk(c: &mut Criterion) {
    let bench = Bench::new();
    let from: SocketAddr = FROM.parse().expect("address");
    let mut out = Vec::with_capacity(4096);
    let hit = query("www.example.org", 7);
    // Fills the cache and the pins once.
    bench.whole(&hit, from, &mut out);
    let mut group = c.benchmark_group("walk");
    group.bench_function("cache_hit_scored_and_pinned", |b| {
        b.iter(|| black_box(bench.fast(black_box(&hit), from, &mut out)));
    });
    let denied = query("x.denied.example.org", 8);
    group.bench_function("refusal_by_rule", |b| {
        b.iter(|| black_box(bench.fast(black_box(&denied), from, &mut out)));
    });
    group.measurement_time(Duration::from_secs(8));
    let mut n = 0u32;
    group.bench_function("miss_through_loopback_upstream", |b| {
        b.iter(|| {
            n += 1;
            let miss = query(&format!("h{}.d{}.misses.example", n % 7, n), 9);
            black_box(bench.whole(&miss, from, &mut out))
        });
    });
    group.finish();
}

criterion_group!(benches, walk);
criterion_main!(benches);
