//! What scoring costs on the hot path: split, assess and commit of one forwarded query.
//!
//! `cargo bench --bench scoring`. The budget is 1,000 ns for a payload part of 60 octets.

use std::hint::black_box;
use std::time::{Duration, Instant};

use criterion::{Criterion, criterion_group, criterion_main};
use staunch_scoring::model::Model;
use staunch_scoring::{Budgets, Facts, Listing, NameBuf, Outcome, Params, Scorer, SessionState, Split};

/// New names asked of one state before it is started over.
const POOL: usize = 200;

/// A session with some history: a hundred names under forty domains.
fn busy(scorer: &Scorer) -> SessionState {
    let mut state = SessionState::new(0x5eed);
    for i in 0..100 {
        let name = NameBuf::from_text(&format!("host-{i}.domain-{}.example", i % 40)).expect("name");
        walk(scorer, &mut state, &name, 1);
    }
    state
}

fn walk(scorer: &Scorer, state: &mut SessionState, name: &NameBuf, qtype: u16) {
    let facts = Facts {
        now: 0,
        qname: name.as_ref(),
        split: Split::of(name.as_ref()),
        qtype,
        flags: 0,
        qtypes_allowed: 3,
        listing: Listing::Unlisted,
        registered_days: None,
        first_seen_days: Some(100.0),
        group_seen_days: None,
        group: None,
        cached: false,
        at_hand: false,
        budgets: &Budgets::default(),
        params: &Params::default(),
    };
    let assessment = scorer.assess(state, &facts);
    scorer.commit(state, &facts, black_box(&assessment), Outcome::Forwarded);
}

fn scoring(c: &mut Criterion) {
    let scorer = Scorer::new();
    let state = busy(&scorer);
    let id = "k3x9q0vz71bdw5".repeat(16);
    let names: [(&str, &dyn Fn(usize) -> String); 6] = [
        ("short benign name", &|i| format!("h{i}.example.com")),
        ("payload of 60 octets", &|i| format!("{i:03}{}.tunnel.example", &id[..56])),
        ("payload of 60 octets under a platform", &|i| format!("{i:03}{}.user.github.io", &id[..56])),
        ("255 octets", &|i| format!("{i:03}{}.{}.{}.{}.example", &id[..60], &id[..63], &id[..63], &id[..53])),
        ("255 octets, all escaped", &|i| format!("{i:03}{0}.{0}.{0}.{1}", "\\200".repeat(60), "\\200".repeat(58))),
        ("127 labels", &|i| format!("{}.{}", (b'a' + (i / 36) as u8) as char, vec!["a"; 126].join("."))),
    ];
    for (what, text) in names {
        let pool: Vec<NameBuf> = (0..POOL).map(|i| NameBuf::from_text(&text(i)).expect("name")).collect();
        let octets = pool[0].as_ref().wire_len();
        c.bench_function(&format!("new name, {what} ({octets} octets)"), |b| {
            b.iter_custom(|times| {
                let mut spent = Duration::ZERO;
                let mut left = times as usize;
                while left > 0 {
                    // Each batch starts from the same history; making it is not measured.
                    let mut state = state.clone();
                    let batch = left.min(POOL);
                    let start = Instant::now();
                    for name in &pool[..batch] {
                        walk(&scorer, &mut state, black_box(name), 1);
                    }
                    spent += start.elapsed();
                    left -= batch;
                }
                spent
            });
        });
        let mut repeated = state.clone();
        c.bench_function(&format!("known name, {what}"), |b| {
            b.iter(|| walk(&scorer, &mut repeated, black_box(&pool[0]), 28));
        });
    }
    let label = NameBuf::from_text("k3x9q0vz71bdw5".repeat(4).split_at(50).0).expect("name");
    let payload = &label.as_ref().as_wire()[..51];
    c.bench_function("model, payload of 50 octets", |b| b.iter(|| Model::shipped().cost(black_box(payload))));
    let name = NameBuf::from_text("a.b.user.github.io").expect("name");
    c.bench_function("suffix split", |b| b.iter(|| Split::of(black_box(name.as_ref()))));
}

criterion_group!(benches, scoring);
criterion_main!(benches);
