//! What the wire costs a query: parsing, local names, writing the reply.

use std::hint::black_box;

use criterion::{Criterion, criterion_group, criterion_main};
use staunch::answer::WireAnswer;
use staunch::local;
use staunch::model::{Ede, Transport};
use staunch::reply::{self, Refusal};
use staunch::wire::{self, Parsed, Query};

const PLAIN: &[u8] = b"\0\x01\x01\0\0\x01\0\0\0\0\0\0\x03wWw\x07eXample\x03cOm\0\0\x01\0\x01";
const EDNS: &[u8] = b"\0\x01\x01\0\0\x01\0\0\0\0\0\x01\x03wWw\x07eXample\x03cOm\0\0\x01\0\x01\0\0\x29\x04\xd0\0\0\0\0\0\x0c\0\x0a\0\x08cookie!!";

fn query(packet: &[u8]) -> Query<'_> {
    match wire::parse(packet) {
        Parsed::Query(query) => query,
        other => panic!("{other:?}"),
    }
}

fn wire_costs(c: &mut Criterion) {
    c.bench_function("parse", |b| b.iter(|| black_box(wire::parse(black_box(PLAIN)))));
    c.bench_function("parse_edns", |b| b.iter(|| black_box(wire::parse(black_box(EDNS)))));
    let query = query(EDNS);
    c.bench_function("local_miss", |b| {
        b.iter(|| black_box(local::special(black_box(query.qname.as_ref()), query.qtype, &[])));
    });
    let mut out = Vec::with_capacity(usize::from(reply::UDP_MAX));
    let text = "case c0123456789ab: refused by policy";
    let soa_owner = query.qname.as_ref().strip_left(1);
    let refusal = Refusal { rcode: 3, soa_owner, negative_ttl: 5, ede: Ede::Blocked, text, txt: true };
    c.bench_function("refusal", |b| b.iter(|| reply::refusal(&mut out, black_box(&query), black_box(&refusal))));
    let record = b"\xc0\x0c\0\x01\0\x01\0\0\x0e\x10\0\x04\xc6\x33\x64\x01";
    let answer = WireAnswer {
        rcode: 0,
        authentic_data: false,
        ede: None,
        answers: 4,
        authorities: 0,
        body: record.repeat(4).into(),
        ttl_at: Box::new([6, 22, 38, 54]),
        ttl: 3600,
        pins: Box::new([]),
        beyond: false,
    };
    c.bench_function("answer_4_records", |b| {
        b.iter(|| reply::from_answer(&mut out, black_box(&query), black_box(&answer), Transport::Udp, 7, 300));
    });
}

criterion_group!(benches, wire_costs);
criterion_main!(benches);
