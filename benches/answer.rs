//! What vetting an upstream's response and finding a kept answer cost.
//!
//! `cargo bench --bench answer`

use std::hint::black_box;

use criterion::{Criterion, criterion_group, criterion_main};
use hickory_proto::op::Message;
use staunch::answer::{AnswerRules, Asked, vet};
use staunch::cache::{Cache, Config, Key};
use staunch::model::Qtype;
use staunch::partition::Partition;
use staunch_scoring::NameBuf;

/// A response to `www.example.com` of type `qtype`, records given as they stand on the wire.
fn response(qtype: u8, records: &[&[u8]]) -> Vec<u8> {
    let mut out = vec![0, 1, 0x81, 0x80, 0, 1, 0, records.len() as u8, 0, 0, 0, 0];
    out.extend(b"\x03www\x07example\x03com\0\0");
    out.extend([qtype, 0, 1]);
    out.extend(records.concat());
    out
}

fn benches(c: &mut Criterion) {
    let name = NameBuf::from_text("www.example.com").expect("name");
    let rules = AnswerRules::default();
    let asked = |qtype| Asked { qname: name.as_ref(), qtype, dnssec_ok: false };

    let a = |owner: u8, last: u8| [0xc0, owner, 0, 1, 0, 1, 0, 0, 1, 44, 0, 4, 203, 0, 113, last];
    let four = response(1, &[&a(12, 1), &a(12, 2), &a(12, 3), &a(12, 4)]);
    let cname = b"\xc0\x0c\0\x05\0\x01\0\0\0\x3c\0\x0e\x03cdn\x07example\xc0\x18";
    // The alias' target stands 12 octets behind the question's end at 33.
    let chain = response(1, &[cname, &a(45, 1), &a(45, 2)]);
    let https = b"\xc0\x0c\0\x41\0\x01\0\0\0\x3c\0\x25\0\x01\0\0\x01\0\x03\x02h2\0\x04\0\x04\xcb\0\x71\x05\0\x05\0\x0f0123456789abcde";
    let https = response(65, &[&https[..]]);

    let stripped = vet(&https, asked(Qtype::HTTPS), &rules).expect("whole");
    assert_eq!((stripped.answer.answers, stripped.answer.pins.len()), (1, 0));
    assert_eq!(vet(&four, asked(Qtype::A), &rules).expect("whole").answer.answers, 4);
    assert_eq!(vet(&chain, asked(Qtype::A), &rules).expect("whole").answer.answers, 3);

    c.bench_function("vet four A", |b| b.iter(|| vet(black_box(&four), asked(Qtype::A), &rules)));
    c.bench_function("vet an alias and two A", |b| b.iter(|| vet(black_box(&chain), asked(Qtype::A), &rules)));
    c.bench_function("vet HTTPS with ech and hint", |b| b.iter(|| vet(black_box(&https), asked(Qtype::HTTPS), &rules)));
    c.bench_function("for comparison: hickory-proto parses four A", |b| b.iter(|| Message::from_vec(black_box(&four))));
    let cache = Cache::new(Config::of_entries(65_536));
    let key = Key {
        qname: name.as_ref(),
        qtype: Qtype::A,
        dnssec_ok: false,
        checking_disabled: false,
        partition: Partition::ALL,
    };
    cache.put(key, 0, vet(&four, asked(Qtype::A), &rules).expect("whole").answer, Box::default(), 0, 0, 0);
    assert!(cache.get(key, 1).is_some());
    c.bench_function("cache hit", |b| b.iter(|| cache.get(black_box(key), 1)));
}

criterion_group!(group, benches);
criterion_main!(group);
