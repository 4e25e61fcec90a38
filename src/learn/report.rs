//! What `staunch learn show` tells: samples, quantiles as far as they carry, and the thresholds that would follow.

use serde_json::{Map, Value, json};
use staunch_scoring::Params;

use super::book::Book;
use super::histogram::{Histogram, bin_of_nats};
use super::limits::upper_limit;
use super::settle::{Base, Enforced};
use super::sketch::Sketch;
use super::{Config, Source, scoring};
use crate::lists::Scope;

/// Shares told of each distribution; one that the sample does not carry is null.
const SHARES: [(&str, f64); 4] = [("50", 0.5), ("90", 0.9), ("99", 0.99), ("99.9", 0.999)];
/// The share whose upper edge is suggested as a budget.
const BUDGET_SHARE: f64 = 0.999;

/// The whole report. `time` writes Unix milliseconds as people read them.
pub fn report(book: &Book, config: &Config, bases: &[Base; Scope::COUNT], time: impl Fn(u64) -> String) -> Value {
    let (sketches, aside) = book.sketches();
    // With the switch on and nothing enforced: what a reload would put in force.
    let wanted = Config { thresholds: Source::Learned, ..config.clone() };
    let next = book.settle(&wanted, bases, Enforced::No).unwrap_or_default();
    let in_force = book.in_force();
    let profiles: Vec<_> = sketches
        .iter()
        .map(|(profile, sketch)| {
            let of = |all: &[super::Settled]| all.iter().find(|s| s.profile == *profile).map(|s| json!(s));
            let mut told = one(sketch, &time);
            told["profile"] = json!(profile);
            told["in_force"] = json!(of(&in_force));
            told["next"] = json!(of(&next));
            told
        })
        .collect();
    let aside: Vec<_> = aside
        .iter()
        .map(|aside| {
            let mut told = json!(aside);
            told["until"] = json!(time(aside.until));
            told
        })
        .collect();
    json!({
        "schema": 1,
        "thresholds": config.thresholds,
        "scoring": scoring(),
        "product": env!("CARGO_PKG_VERSION"),
        "minimum": { "sessions": config.min_sessions, "pairs": config.min_pairs },
        "pairs_per_alarm": config.pairs_per_alarm,
        "pairs_per_watch": config.pairs_per_watch,
        "bounds": { "sinkhole_min": config.sinkhole_min, "sinkhole_max": config.sinkhole_max },
        "shipped": { "sinkhole": Params::default().sinkhole, "watch": Params::default().watch },
        "profiles": profiles,
        "aside": aside,
    })
}

fn one(sketch: &Sketch, time: impl Fn(u64) -> String) -> Value {
    let (passed, pairs) = (sketch.refusable.at_or_above(bin_of_nats(Params::default().sinkhole)), sketch.pairs());
    let suggested = |histogram: &Histogram| histogram.quantile(BUDGET_SHARE).map(|quantile| quantile.below.ceil());
    json!({
        "sessions": sketch.sessions,
        "pairs": pairs,
        "since": time(sketch.since),
        "until": time(sketch.until),
        "left_out": { "sessions": sketch.barred, "pairs": sketch.left_out },
        "refused_by_shipped": {
            "pairs": passed,
            "sessions": sketch.over,
            "rate_at_most": upper_limit(passed as f64, pairs as f64),
        },
        "quantiles": {
            "score": quantiles(&sketch.any),
            "refusable_score": quantiles(&sketch.refusable),
            "tenant_bits": quantiles(&sketch.tenant_bits),
            "session_bits": quantiles(&sketch.session_bits),
        },
        "suggested_budgets": {
            "tenant": suggested(&sketch.tenant_bits),
            "session": suggested(&sketch.session_bits),
        },
    })
}

/// Upper edges of the bins that hold the quantiles, by percent.
fn quantiles(histogram: &Histogram) -> Value {
    let told =
        SHARES.iter().map(|(name, q)| ((*name).to_owned(), json!(histogram.quantile(*q).map(|found| found.below))));
    Value::Object(told.collect::<Map<_, _>>())
}
