//! Sessions, sketches and thresholds together: what is learned, from how much, and what an agent can do to it.

use staunch_scoring::{
    Assessment, Band, Bits, Budgets, Facts, Listing, NameBuf, Outcome, Params, Scorer, SessionState, Split,
};

use super::histogram::bin_of_nats;
use super::*;
use crate::lists::Scope;

const NOW: u64 = 1_780_000_000_000;
const BATCH: (SessionType, Option<Phase>) = (SessionType::Batch, None);

fn scope((kind, phase): (SessionType, Option<Phase>)) -> Scope {
    Scope::of(kind, phase)
}

fn bases() -> [Base; Scope::COUNT] {
    [Base { params: Params::default(), written: false, scored: true }; Scope::COUNT]
}

fn learned() -> Config {
    Config { thresholds: Source::Learned, ..Config::default() }
}

/// An assessment of a name that two families find as odd as asked for.
struct Template {
    budgets: Budgets,
    params: Params,
    assessment: Assessment,
}

impl Template {
    fn new() -> Self {
        let name = NameBuf::from_text("www.example.com").expect("name");
        let (budgets, params) = (Budgets::default(), Params::default());
        let assessment = Scorer::new().assess(&SessionState::new(1), &facts(&name, &budgets, &params));
        Self { budgets, params, assessment }
    }

    fn note(&self, maxima: &mut Maxima, at: Scope, tenant: u64, score: f32) {
        let mut assessment = self.assessment.clone();
        (assessment.score, assessment.agreeing) = (score, 2);
        let name = NameBuf::from_text(&format!("www.t{tenant}.example")).expect("name");
        maxima.note(at, &facts(&name, &self.budgets, &self.params), &assessment, Bits::ZERO);
    }
}

fn facts<'f>(name: &'f NameBuf, budgets: &'f Budgets, params: &'f Params) -> Facts<'f> {
    Facts {
        now: 0,
        qname: name.as_ref(),
        split: Split::of(name.as_ref()),
        qtype: 1,
        flags: 0,
        qtypes_allowed: 6,
        listing: Listing::Unlisted,
        registered_days: None,
        first_seen_days: None,
        group_seen_days: None,
        group: None,
        cached: false,
        at_hand: false,
        budgets,
        params,
    }
}

/// Folds `sessions` ordinary sessions of `pairs` tenants each, whose scores reach 2 nats; `odd` of them have one tenant
/// with the score given.
fn ordinary(book: &Book, at: (SessionType, Option<Phase>), sessions: u64, pairs: u64, odd: u64, score: f32) {
    let template = Template::new();
    for session in 0..sessions {
        let mut maxima = Maxima::default();
        for tenant in 0..pairs {
            let score = if session < odd && tenant == 0 { score } else { (tenant % 32) as f32 / 16.0 };
            template.note(&mut maxima, scope(at), tenant, score);
        }
        book.fold(&mut maxima, false, NOW);
    }
}

fn of<'s>(settled: &'s [Settled], profile: &str) -> &'s Settled {
    settled.iter().find(|s| s.profile == profile).expect("every profile is settled")
}

#[test]
fn a_session_counts_once_however_often_it_is_folded() {
    let (book, template) = (Book::default(), Template::new());
    let mut maxima = Maxima::default();
    for round in 0..50 {
        for tenant in 0..5 {
            template.note(&mut maxima, scope(BATCH), tenant, 0.5 + round as f32 / 50.0);
        }
        book.fold(&mut maxima, false, NOW + round);
        book.fold(&mut maxima, false, NOW + round);
    }
    let (sketches, _) = book.sketches();
    let (profile, sketch) = &sketches[0];
    assert_eq!((profile.as_str(), sketch.sessions, sketch.pairs()), ("batch", 1, 5));
    assert_eq!(sketch.refusable.at_or_above(bin_of_nats(1.4)), 5, "the largest score of each");
    assert_eq!((sketch.since, sketch.until), (NOW, NOW + 49));
    assert_eq!(sketch.session_bits.total(), 1);
}

#[test]
fn one_session_adds_one_value_for_a_tenant_and_64_at_most() {
    let (book, template) = (Book::default(), Template::new());
    let mut maxima = Maxima::default();
    for tenant in 0..10_000 {
        template.note(&mut maxima, scope(BATCH), tenant, 3.9);
        template.note(&mut maxima, scope(BATCH), tenant % 7, 3.9);
    }
    assert_eq!(maxima.pairs(), TENANTS);
    book.fold(&mut maxima, false, NOW);
    let (sketches, _) = book.sketches();
    assert_eq!(sketches[0].1.pairs(), TENANTS as u64);
    assert_eq!(sketches[0].1.left_out, 10_000 - TENANTS as u64, "the rest is counted as left out");
}

#[test]
fn a_session_that_would_be_closed_is_taken_out_with_all_it_had_added() {
    let (book, template) = (Book::default(), Template::new());
    ordinary(&book, BATCH, 3, 10, 0, 0.0);
    let before = book.sketches().0[0].1.clone();
    // By the pipeline's word, by policy's, and by two tenants above the shipped threshold.
    for way in 0..3 {
        let mut maxima = Maxima::default();
        for tenant in 0..20 {
            template.note(&mut maxima, scope(BATCH), tenant, 3.5);
        }
        template.note(&mut maxima, scope(BATCH), 99, 9.0);
        book.fold(&mut maxima, false, NOW);
        assert_eq!(book.sketches().0[0].1.pairs(), before.pairs() + 21, "one tenant alone may be odd");
        match way {
            0 => book.fold(&mut maxima, true, NOW),
            1 => maxima.bar(),
            _ => template.note(&mut maxima, scope(BATCH), 98, 4.0),
        }
        book.fold(&mut maxima, false, NOW);
        template.note(&mut maxima, scope(BATCH), 97, 3.0);
        book.fold(&mut maxima, false, NOW);
        let sketch = book.sketches().0[0].1.clone();
        assert_eq!(sketch.barred, way + 1, "counted once");
        assert_eq!((&sketch.any, &sketch.refusable), (&before.any, &before.refusable), "way {way}");
        assert_eq!((sketch.sessions, sketch.over), (before.sessions, 0));
    }
}

#[test]
fn a_type_whose_sessions_were_all_left_out_was_seen() {
    let (book, template) = (Book::default(), Template::new());
    let mut maxima = Maxima::default();
    template.note(&mut maxima, scope(BATCH), 1, 3.5);
    book.fold(&mut maxima, true, NOW);
    let settled = book.settle(&learned(), &bases(), Enforced::FromNowOn).expect("nothing to enforce by");
    let batch = of(&settled, "batch");
    assert!(
        batch.from == Origin::Shipped && batch.why.starts_with("1 sessions of this type were seen"),
        "{}",
        batch.why
    );
    assert!(of(&settled, "interactive").why.contains("no traffic"));
}

#[test]
fn thresholds_stay_until_the_sample_says_otherwise() {
    let book = Book::default();
    ordinary(&book, BATCH, 200, 15, 0, 0.0);
    let settled = book.settle(&learned(), &bases(), Enforced::FromNowOn).expect("enough");
    let batch = of(&settled, "batch");
    assert_eq!((batch.from, batch.sinkhole), (Origin::Learned, 4.0), "{}", batch.why);
    // None of 3,000 is below 1 in 1,001, which says nothing of 1 in 10,000.
    assert!(batch.why.contains("at most 1 in 1001") && batch.why.contains("stands"), "{}", batch.why);
    assert_eq!(batch.sample.as_ref().map(|s| (s.sessions, s.pairs)), Some((200, 3_000)));
    assert_eq!(of(&settled, "batch.build").from, Origin::Learned, "a phase without a sample takes its type's");
    assert!(of(&settled, "batch.build").why.contains("all phases"));
    let other = of(&settled, "interactive");
    assert_eq!((other.from, other.sinkhole), (Origin::Shipped, 4.0));
    assert!(other.why.contains("no traffic"), "{}", other.why);

    // A rate that is easier to show: one refused pair in a hundred.
    let easier = Config { pairs_per_alarm: 100, ..learned() };
    let batch = of(&book.settle(&easier, &bases(), Enforced::FromNowOn).expect("enough"), "batch").clone();
    assert!((3.0..4.0).contains(&batch.sinkhole), "goes down, inside the bounds: {batch:?}");
}

#[test]
fn a_sample_that_is_often_refused_raises_the_threshold_inside_its_bounds() {
    let book = Book::default();
    // One pair in sixty, in half of the sessions.
    ordinary(&book, BATCH, 400, 30, 200, 4.5);
    let settled = book.settle(&learned(), &bases(), Enforced::FromNowOn).expect("enough");
    let batch = of(&settled, "batch");
    assert!(batch.sinkhole > 4.5 && batch.sinkhole <= 4.5625, "just past what was seen: {batch:?}");
    let book = Book::default();
    ordinary(&book, BATCH, 400, 30, 200, 12.0);
    let settled = book.settle(&learned(), &bases(), Enforced::FromNowOn).expect("enough");
    assert_eq!(of(&settled, "batch").sinkhole, 6.0, "never past the bound");
}

#[test]
fn a_few_odd_sessions_raise_nothing() {
    for odd in [1, 4, 7] {
        let book = Book::default();
        // Seven in four hundred is fewer than one in fifty.
        ordinary(&book, BATCH, 400, 30, odd, 12.0);
        let settled = book.settle(&learned(), &bases(), Enforced::FromNowOn).expect("enough");
        assert_eq!(of(&settled, "batch").sinkhole, 4.0, "{odd}: {}", of(&settled, "batch").why);
    }
}

#[test]
fn an_agent_that_feeds_odd_names_gains_a_bounded_rise_and_no_bit_of_a_ledger() {
    let (book, template) = (Book::default(), Template::new());
    ordinary(&book, BATCH, 300, 30, 0, 0.0);
    // It runs in a third of all sessions, stays one short of being closed in each, and takes every place there is.
    for _ in 0..150 {
        let mut maxima = Maxima::default();
        template.note(&mut maxima, scope(BATCH), 0, 12.0);
        for tenant in 1..500 {
            template.note(&mut maxima, scope(BATCH), tenant, 3.9);
        }
        book.fold(&mut maxima, false, NOW);
    }
    let settled = book.settle(&learned(), &bases(), Enforced::FromNowOn).expect("enough");
    let config = learned();
    for threshold in &settled {
        assert!((config.sinkhole_min..=config.sinkhole_max).contains(&threshold.sinkhole), "{threshold:?}");
        assert!(threshold.watch <= threshold.sinkhole);
    }
    // Whoever floods a deployment with dull names cannot push the threshold under its bound either.
    let book = Book::default();
    ordinary(&book, BATCH, 10_000, 60, 0, 0.0);
    let settled = book.settle(&config, &bases(), Enforced::FromNowOn).expect("enough");
    assert!(
        (3.0..4.0).contains(&of(&settled, "batch").sinkhole),
        "the shipped distribution holds it back: {settled:?}"
    );
}

#[test]
fn too_small_a_sample_is_refused_by_name_where_it_would_be_enforced() {
    let book = Book::default();
    ordinary(&book, BATCH, 200, 10, 0, 0.0);
    ordinary(&book, (SessionType::Scheduled, Some(Phase::Run)), 3, 10, 0, 0.0);
    let mut config = learned();
    config.place = Place { file: "staunch.toml".into(), line: 7 };
    let short = book.settle(&config, &bases(), Enforced::FromNowOn).expect_err("too few");
    let told = NotLearned::new(&config, &short).to_string();
    for part in [
        "staunch.toml:7: learn.thresholds: type `batch` has been seen in 200 sessions and 2000 pairs",
        "staunch.toml:7: learn.thresholds: type `scheduled` has been seen in 3 sessions and 30 pairs",
        "200 sessions and 3000 pairs",
        "leave batch and scheduled out of learn.types",
    ] {
        assert!(told.contains(part), "{part} not in {told}");
    }
    let settled = book.settle(&config, &bases(), Enforced::No).expect("monitor mode goes on");
    assert_eq!(of(&settled, "batch").from, Origin::Shipped);
    assert!(of(&settled, "batch").why.contains("take 200 and 3000"));
    // What is not asked for is not missed: off, other types, written ones, and sessions that are not scored.
    let off = Config { thresholds: Source::Off, ..config.clone() };
    assert!(book.settle(&off, &bases(), Enforced::FromNowOn).is_ok());
    let others = Config { types: vec![SessionType::Interactive], ..config.clone() };
    assert!(book.settle(&others, &bases(), Enforced::FromNowOn).is_ok());
    let written = bases().map(|base| Base { written: true, ..base });
    assert!(book.settle(&config, &written, Enforced::FromNowOn).is_ok());
    let unscored = bases().map(|base| Base { scored: false, ..base });
    assert!(book.settle(&config, &unscored, Enforced::FromNowOn).is_ok());
}

#[test]
fn what_was_learned_comes_back_and_another_scoring_is_set_aside() {
    let book = Book::default();
    ordinary(&book, BATCH, 20, 10, 1, 5.0);
    let stored: Vec<_> = book.take_changes().into_iter().map(|(key, value)| (key, value.expect("a value"))).collect();
    assert_eq!(stored.len(), 1, "one profile was touched");
    assert!(book.take_changes().is_empty(), "handed on once");
    let again = Book::default();
    assert!(again.restore(&stored, Vec::new()).is_empty());
    assert_eq!(again.sketches().0, book.sketches().0);

    // As an earlier version of the product would have left it.
    let mut text: serde_json::Value = serde_json::from_slice(&stored[0].1).expect("JSON");
    text["scoring"] = "0123456789abcdef".into();
    let foreign = vec![("batch".to_owned(), text.to_string().into_bytes())];
    let other = Book::default();
    let changes = other.restore(&foreign, Vec::new());
    let (sketches, aside) = other.sketches();
    assert!(sketches.is_empty());
    assert_eq!((aside.len(), aside[0].pairs, aside[0].scoring.as_str()), (1, 200, "0123456789abcdef"));
    assert_eq!(
        changes.iter().map(|(key, value)| (key.as_str(), value.is_some())).collect::<Vec<_>>(),
        [("aside/batch", true), ("batch", false),]
    );
    // Back to the version it was learned under: it is in use again.
    let returned = vec![("aside/batch".to_owned(), stored[0].1.clone())];
    let back = Book::default();
    back.restore(&returned, Vec::new());
    assert_eq!(back.sketches().0, book.sketches().0);
    // And what nobody could have written is left out.
    for garbage in [&b"{"[..], b"", b"{\"format\":1}", b"\xff"] {
        let hurt = Book::default();
        hurt.restore(&[("batch".into(), garbage.to_vec())], Vec::new());
        assert!(hurt.sketches().0.is_empty());
    }
}

#[test]
fn thresholds_in_force_outlive_the_sketch_and_not_the_scoring() {
    let book = Book::default();
    ordinary(&book, BATCH, 400, 30, 200, 4.5);
    let settled = book.settle(&learned(), &bases(), Enforced::FromNowOn).expect("enough");
    let raised = of(&settled, "batch").sinkhole;
    book.put_in_force(settled);
    let kept = book.kept();
    assert_eq!(kept.len(), 4, "batch and its phases: {kept:?}");

    let again = Book::default();
    again.restore(&[], kept.clone());
    // The index is lost, and some traffic has come since.
    ordinary(&again, BATCH, 2, 10, 0, 0.0);
    let settled = again.settle(&learned(), &bases(), Enforced::FromNowOn).expect("the journal has the result");
    assert_eq!((of(&settled, "batch").from, of(&settled, "batch").sinkhole), (Origin::Kept, raised));
    let narrower = Config { sinkhole_max: 4.25, ..learned() };
    assert_eq!(of(&again.settle(&narrower, &bases(), Enforced::FromNowOn).expect("kept"), "batch").sinkhole, 4.25);

    let foreign = kept.into_iter().map(|kept| InForce { scoring: "other".into(), ..kept }).collect();
    let other = Book::default();
    other.restore(&[], foreign);
    ordinary(&other, BATCH, 2, 10, 0, 0.0);
    assert!(
        other.settle(&learned(), &bases(), Enforced::FromNowOn).is_err(),
        "another scoring's threshold means nothing"
    );
    // A deployment that was enforced before comes back all the same, and says by what.
    let back = other.settle(&learned(), &bases(), Enforced::AsBefore).expect("no refusal");
    let batch = of(&back, "batch");
    assert_eq!((batch.from, batch.sinkhole, batch.stands_in), (Origin::Shipped, Params::default().sinkhole, true));
    assert!(batch.why.contains("under another scoring"), "{}", batch.why);
    let strict = Config { min_pairs: 1 << 40, ..learned() };
    let back = again.settle(&strict, &bases(), Enforced::AsBefore).expect("no refusal");
    assert_eq!((of(&back, "batch").from, of(&back, "batch").sinkhole), (Origin::Kept, raised));
}

#[test]
fn a_reset_forgets_and_running_sessions_bring_nothing_back() {
    let (book, template) = (Book::default(), Template::new());
    let mut running = Maxima::default();
    (0..5).for_each(|tenant| template.note(&mut running, scope(BATCH), tenant, 1.0));
    book.fold(&mut running, false, NOW);
    ordinary(&book, BATCH, 2, 10, 0, 0.0);
    let (pairs, changes) = book.reset();
    assert_eq!((pairs, changes.len()), (25, 32));
    assert!(changes.iter().all(|(_, value)| value.is_none()));
    assert!(book.sketches().0.is_empty() && book.kept().is_empty());
    ordinary(&book, BATCH, 1, 4, 0, 0.0);
    template.note(&mut running, scope(BATCH), 77, 1.0);
    book.fold(&mut running, false, NOW);
    assert_eq!(book.sketches().0[0].1.pairs(), 4, "what it had reached before is not counted again");
    template.note(&mut running, scope(BATCH), 78, 1.0);
    book.fold(&mut running, false, NOW);
    assert_eq!(book.sketches().0[0].1.pairs(), 5, "what it does from now on is");
}

/// The scorer's gate and ours must not drift apart: whatever the score alone sinkholes is refusable, and what is
/// refusable past the threshold is sinkholed.
#[test]
fn refusable_is_the_scorers_own_gate() {
    let scorer = Scorer::new();
    let (budgets, params) = (Budgets::default(), Params::default());
    let mut state = SessionState::new(7);
    let mut seen = [0u32; 2];
    for n in 0u64..3_000 {
        let word = n.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let text = match n % 4 {
            0 => format!("www{}.site{}.example", n % 9, n % 50),
            1 => format!("{:x}.t.example", word),
            2 => format!("{:x}{:x}.u{}.example", word, word.rotate_left(17), n % 300),
            _ => format!("h{}.v{}.example", n % 400, n % 3),
        };
        let name = NameBuf::from_text(&text).expect("name");
        let mut facts = facts(&name, &budgets, &params);
        facts.cached = n % 11 == 0;
        facts.registered_days = (n % 5 == 0).then_some(1.0);
        let assessment = scorer.assess(&state, &facts);
        if !assessment.sticky && assessment.overdraw.is_none() && assessment.band != Band::Hold {
            let ours = refusable(&facts, &assessment, state.allowance()) && assessment.score >= params.sinkhole;
            let tried = assessment.before.tenant.plus(assessment.attempted) > budgets.tenant;
            assert!(tried || ours == (assessment.band >= Band::Sinkhole), "{text}: {ours} and {:?}", assessment.band);
            seen[usize::from(ours)] += 1;
        }
        scorer.commit(&mut state, &facts, &assessment, if facts.cached { Outcome::Cached } else { Outcome::Forwarded });
        // A tenant that is marked says nothing of the gate, so sessions are short.
        if n % 20 == 19 {
            state = SessionState::new(n);
        }
    }
    assert!(seen[0] > 500 && seen[1] > 20, "both kinds were met: {seen:?}");
}

#[test]
fn a_session_is_small() {
    let (template, mut maxima) = (Template::new(), Maxima::default());
    for (kind, phase) in SCOPES {
        (0..100).for_each(|tenant| template.note(&mut maxima, scope((kind, phase)), tenant, 1.0));
    }
    let octets = size_of::<Maxima>()
        + maxima.pairs.capacity() * size_of_val(&maxima.pairs[0])
        + maxima.parts.capacity() * size_of_val(&maxima.parts[0]);
    assert!(octets <= 2_048, "{octets}");
}
