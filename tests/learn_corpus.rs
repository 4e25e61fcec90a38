//! Measures the shipped distribution of scores on the open corpora, and holds the committed tables against it.
//!
//! `STAUNCH_CORPORA=DIR cargo test --release --test learn_corpus -- --nocapture` prints the tables of
//! `src/learn/shipped.rs`. Prints `SKIPPED:` where the corpora are absent.

#[path = "../scoring/tests/corpus/mod.rs"]
mod corpus;
#[path = "world/skip.rs"]
mod skip;

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};

use staunch::learn::{self, Book, Maxima, shipped};
use staunch::lists::Scope;
use staunch::model::SessionType;
use staunch_scoring::{Budgets, Facts, Listing, NameBuf, Outcome, Params, Scorer, SessionState, Split};

/// A name and type asked again within this time is answered from the cache: the forwarding floor.
const CACHED_SECONDS: f64 = 60.0;

fn directory() -> Option<PathBuf> {
    let beside = Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/corpora");
    corpus::directory().or_else(|| beside.join("benign_seq.jsonl.gz").is_file().then_some(beside))
}

#[test]
fn the_shipped_distribution_is_what_benign_sessions_show() {
    let Some(dir) = directory() else {
        return skip::skipped("no corpora; set STAUNCH_CORPORA");
    };
    let mut sessions: BTreeMap<String, Vec<corpus::Row>> = BTreeMap::new();
    for row in corpus::rows(&dir, "benign_seq").expect("readable") {
        sessions.entry(row.session.clone().unwrap_or_default()).or_default().push(row);
    }
    let (scorer, budgets, params) = (Scorer::new(), Budgets::default(), Params::default());
    // All of them, without the limit of pairs a session: what one session shows is measured whole.
    let (mut any, mut refusable) = ([0u32; 25], [0u32; 25]);
    let mut pairs = 0;
    let book = Book::default();
    for rows in sessions.values() {
        let mut state = SessionState::new(0x5eed);
        let mut cached: HashMap<(NameBuf, u16), f64> = HashMap::new();
        let mut best: HashMap<NameBuf, (f32, f32)> = HashMap::new();
        let mut maxima = Maxima::default();
        for row in rows {
            let (Some(name), qtype) = (corpus::scored_name(row), corpus::qtype(&row.qtype)) else { continue };
            let (seconds, split) = (row.t.unwrap_or(0.0), Split::of(name.as_ref()));
            let key = (name.clone(), qtype);
            let facts = Facts {
                now: (seconds * 1e3) as u64,
                qname: name.as_ref(),
                split,
                qtype,
                flags: 0,
                qtypes_allowed: 6,
                listing: Listing::Unlisted,
                registered_days: None,
                first_seen_days: None,
                group_seen_days: None,
                group: None,
                cached: cached.get(&key).is_some_and(|at| seconds - at < CACHED_SECONDS),
                at_hand: true,
                budgets: &budgets,
                params: &params,
            };
            let assessment = scorer.assess(&state, &facts);
            let allowance = state.allowance();
            maxima.note(Scope::of(SessionType::Interactive, None), &facts, &assessment, allowance);
            let score = assessment.score.max(0.0);
            let gated = if learn::refusable(&facts, &assessment, allowance) { score } else { 0.0 };
            let pair = best.entry(split.tenant(name.as_ref()).to_owned()).or_default();
            *pair = (pair.0.max(score), pair.1.max(gated));
            // As in monitor mode: everything is answered.
            let outcome = if facts.cached { Outcome::Cached } else { Outcome::Forwarded };
            scorer.commit(&mut state, &facts, &assessment, outcome);
            if outcome == Outcome::Forwarded {
                cached.insert(key, seconds);
            }
        }
        book.fold(&mut maxima, false, 1);
        pairs += best.len() as u32;
        for (score, gated) in best.into_values() {
            for at in 0..25 {
                any[at] += u32::from(score >= at as f32 / 2.0);
                refusable[at] += u32::from(gated >= at as f32 / 2.0);
            }
        }
    }
    println!(
        "sessions {}, pairs {pairs}, {:.1} to a session",
        sessions.len(),
        f64::from(pairs) / sessions.len() as f64
    );
    println!("pub const SCORING: &str = \"{}\";", learn::scoring());
    println!("pub const MEASURED: u32 = {pairs};");
    println!("pub const ANY: [u32; 25] = {any:?};");
    println!("pub const REFUSABLE: [u32; 25] = {refusable:?};");
    let (sketches, _) = book.sketches();
    let sketch = &sketches.first().expect("something was learned").1;
    println!(
        "learned from it: {} sessions, {} pairs, {} sessions barred",
        sketch.sessions,
        sketch.pairs(),
        sketch.barred
    );
    for (name, histogram) in [("tenant_bits", &sketch.tenant_bits), ("session_bits", &sketch.session_bits)] {
        println!("{name}: 90 % {:?}, 99 % {:?}", histogram.quantile(0.9), histogram.quantile(0.99));
    }
    assert_eq!(
        (pairs, any, refusable),
        (shipped::MEASURED, shipped::ANY, shipped::REFUSABLE),
        "take over the tables printed above"
    );
}
