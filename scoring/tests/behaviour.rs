//! What the scorer promises its caller: marks that stay, limits that hold, restarts that refund nothing.

mod session;

use session::{A, AAAA, BASE32, Random, Session};
use staunch_scoring::{
    Band, Bits, LedgerScope, Listing, NameBuf, SessionState, Signal, StateSnapshot,
    ledger::{MAX_ACCOUNTS, MAX_REFUSED_NAMES, MAX_SENT_NAMES},
};

/// Asks random names of `len` characters under `domain` until the band is reached; gives the number of queries.
fn until(session: &mut Session, domain: &str, len: usize, band: Band) -> usize {
    let mut random = Random(len as u64 + 1);
    for query in 1..=200 {
        if session.ask(&format!("{}.{domain}", random.text(BASE32, len)), A).band >= band {
            return query;
        }
    }
    panic!("200 names under {domain} never reached {band:?}");
}

#[test]
fn a_tunnel_is_refused_early_and_then_closes_the_session() {
    let mut session = Session::new();
    let first = until(&mut session, "tunnel.example", 30, Band::Sinkhole);
    assert!(first <= 5, "{first}");
    let mark = session.assess("www.tunnel.example", A);
    assert!(mark.sticky && mark.band == Band::Sinkhole, "the tenant stays refused: {mark:?}");
    assert_eq!(session.state.tenants_sinkholed(), 1);
    let charged = session.state.spent_session();
    assert!(until(&mut session, "tunnel.example", 31, Band::Quarantine) <= 15);
    assert_eq!(session.state.spent_session(), charged, "what was refused was not charged");
    let other = session.assess("www.example.org", A);
    assert_eq!(other.band, Band::Answer, "other tenants are not marked");
}

#[test]
fn monitor_mode_comes_to_the_same_verdicts() {
    let (mut enforced, mut watched) = (Session::new(), Session::new());
    let mut random = Random(12);
    let mut bands = Vec::new();
    for _ in 0..40 {
        let name = format!("{}.tunnel.example", random.text(BASE32, 30));
        bands.push((enforced.ask(&name, A).band, watched.watch(&name, A).band));
    }
    let first = |of: fn(&(Band, Band)) -> Band, band| bands.iter().position(|pair| of(pair) >= band);
    let at = |of: fn(&(Band, Band)) -> Band| {
        [Band::Sinkhole, Band::Quarantine].map(|band| first(of, band).expect("reached"))
    };
    let (enforced, watched) = (at(|pair| pair.0), at(|pair| pair.1));
    assert_eq!(enforced[0], watched[0]);
    // What is forwarded after all moves the event code a little, so the ledger's end may be a name apart.
    assert!(enforced[1].abs_diff(watched[1]) <= 1, "{enforced:?} {watched:?}");
}

#[test]
fn retries_of_a_refused_name_never_close_the_session() {
    let mut session = Session::new();
    until(&mut session, "tunnel.example", 30, Band::Sinkhole);
    for _ in 0..10_000 {
        assert_eq!(session.ask("next.tunnel.example", A).band, Band::Sinkhole);
    }
}

#[test]
fn the_second_sinkholed_tenant_closes_the_session() {
    let mut session = Session::new();
    until(&mut session, "one.example", 30, Band::Sinkhole);
    let mut random = Random(9);
    let last = (0..10)
        .map(|_| session.ask(&format!("{}.two.example", random.text(BASE32, 30)), A))
        .find(|got| got.band >= Band::Sinkhole)
        .expect("refused");
    assert_eq!((last.band, last.tenants_sinkholed), (Band::Quarantine, 2));
}

#[test]
fn assessing_changes_nothing_and_repeats_itself() {
    let mut session = Session::new();
    session.ask("www.example.com", A);
    let before = session.state.snapshot();
    let first = session.assess("abc.example.com", A);
    assert_eq!(first, session.assess("abc.example.com", A));
    assert_eq!(before, session.state.snapshot());
    assert_eq!(first.readings.map(|reading| reading.signal), Signal::ALL);
}

#[test]
fn a_name_is_paid_once_and_its_other_types_are_cheap() {
    let mut session = Session::new();
    let first = session.ask("shard-17.assets.example.com", A);
    let again = session.ask("shard-17.assets.example.com", AAAA);
    assert!(!first.charge.repeat && again.charge.repeat);
    assert!(first.charge.name >= first.information);
    assert!(again.charge.name < Bits::whole(5), "{:?}", again.charge);
    assert_eq!(again.names_sent, 1);
}

#[test]
fn what_does_not_leave_costs_nothing() {
    let mut session = Session::new();
    session.cached = true;
    for _ in 0..100 {
        let got = session.ask("some-cached-name.example.com", A);
        assert_eq!((got.charge.name, got.band), (Bits::ZERO, Band::Answer));
    }
    assert_eq!(session.state.spent_session(), Bits::ZERO);
    assert_eq!(session.state.names_sent(), 0);
}

#[test]
fn a_name_that_was_cached_when_judged_and_forwarded_after_all_is_charged() {
    let mut session = Session::new();
    session.cached = true;
    session.watch("late.example.com", A);
    assert!(session.state.spent_session() > Bits::ZERO);
}

#[test]
fn exact_names_cost_their_choice_and_are_never_refused() {
    let mut session = Session::new();
    session.listing = Listing::Exact { of: 1024 };
    session.types = 4;
    let long = format!("{}.example.com", "k3x9q0vz71bd".repeat(5));
    for i in 1..=500 {
        let got = session.ask(&long, A);
        assert_eq!(got.band, Band::Answer);
        assert_eq!(
            got.after.listed,
            Bits::whole(14 * i),
            "log2 of 1,024 names, of 4 types and of 4 combinations of flags"
        );
        assert_eq!((got.overdraw, got.after.session, got.after.tenant), (None, Bits::ZERO, Bits::ZERO));
        assert_ne!(got.readings[1].contribution, 0.0, "the readings are made all the same");
    }
    assert_eq!(session.state.spent_listed(), Bits::whole(7_000));
}

#[test]
fn a_rule_has_a_budget_of_its_own() {
    let mut session = Session::new();
    session.listing = Listing::Below { budget: Bits::whole(4_096) };
    let mut random = Random(3);
    let mut forwarded = 0;
    let last = loop {
        let got = session.ask(&format!("{}.reputation.example", random.text(BASE32, 26)), A);
        if got.band >= Band::Sinkhole {
            break got;
        }
        forwarded += 1;
    };
    assert!(forwarded > 20, "the default budget does not apply: {forwarded}");
    assert_eq!((last.band, last.overdraw), (Band::Sinkhole, Some(LedgerScope::Tenant)));
    assert_eq!(last.before.session, Bits::ZERO, "listed names are not the session's to pay");
    assert_eq!(session.state.tenants_sinkholed(), 0);
    session.listing = Listing::Unlisted;
    let unlisted = session.assess("www.reputation.example", A);
    assert_eq!(unlisted.band, Band::Answer, "what the rule's names cost is not held against others: {unlisted:?}");
}

#[test]
fn listed_names_of_a_sinkholed_tenant_are_answered() {
    let mut session = Session::new();
    until(&mut session, "tunnel.example", 30, Band::Sinkhole);
    for listing in [Listing::Exact { of: 3 }, Listing::Below { budget: Bits::whole(500) }] {
        session.listing = listing;
        assert!(session.assess("www.tunnel.example", A).band <= Band::Watch);
    }
}

#[test]
fn each_hard_budget_is_refused_before_it_is_passed() {
    let mut random = Random(77);
    let mut short = |n: usize| random.text(b"aeiou", n);
    // Without the score: only the ledger stops them.
    for (scope, tenants) in [(LedgerScope::Tenant, 1), (LedgerScope::Session, 1_000)] {
        let mut session = Session::new();
        session.params.sinkhole = f32::INFINITY;
        let last = (0..)
            .map(|i| session.ask(&format!("{}.{}-domain.example", short(4), i % tenants), A))
            .find(|got| got.band >= Band::Sinkhole)
            .expect("every budget ends");
        assert_eq!((last.overdraw, last.band), (Some(scope), Band::Quarantine), "{last:?}");
        assert!(last.before.tenant <= session.budgets.tenant && last.before.session <= session.budgets.session);
    }
    let mut session = Session::new();
    session.params.sinkhole = f32::INFINITY;
    session.budgets.session = Bits::whole(100_000);
    let last = (0..)
        .map(|_| session.ask(&format!("{}.github.io", random.text(b"aeiou", 6)), A))
        .find(|got| got.band >= Band::Sinkhole)
        .expect("every budget ends");
    assert_eq!((last.overdraw, last.band), (Some(LedgerScope::Icann), Band::Quarantine));
}

#[test]
fn an_operator_can_release_extend_and_allow() {
    let mut session = Session::new();
    until(&mut session, "tunnel.example", 30, Band::Quarantine);
    let spent = session.state.spent_session();
    session.state.release();
    assert_eq!(session.state.tenants_sinkholed(), 0);
    assert_eq!(session.state.spent_session(), spent, "what was told is told");
    let got = session.assess("www.tunnel.example", A);
    assert!(!got.sticky && got.band <= Band::Watch, "{got:?}");

    session.state.extend(Bits::whole(10_000));
    session.state.extend(Bits::whole(5_000));
    assert_eq!(session.state.allowance(), Bits::whole(15_000));
    let mut random = Random(4);
    for _ in 0..50 {
        let got = session.ask(&format!("{}.tunnel.example", random.text(BASE32, 30)), A);
        assert!(got.band <= Band::Watch, "within what the operator accepted: {got:?}");
    }

    let mut session = Session::new();
    until(&mut session, "tunnel.example", 30, Band::Sinkhole);
    session.state.forget_tenant(NameBuf::from_text("tunnel.example").expect("name").as_ref());
    assert_eq!(session.state.tenants_sinkholed(), 0);
    assert!(!session.assess("www.tunnel.example", A).sticky);
}

#[test]
fn a_restart_refunds_nothing() {
    let mut session = Session::new();
    for i in 0..60 {
        session.ask(&format!("host-{i}.site-{}.example", i % 25), A);
    }
    until(&mut session, "tunnel.example", 30, Band::Sinkhole);
    let text = serde_json::to_string(&session.state.snapshot()).expect("serialises");
    assert!(!text.contains("tunnel") && !text.contains("site-"), "hashes, no names");
    let snapshot: StateSnapshot = serde_json::from_str(&text).expect("reads back");
    let mut again = Session::new();
    again.state = SessionState::restore(&snapshot);
    for name in ["host-1.site-1.example", "new.site-1.example", "www.tunnel.example", "a.elsewhere.example"] {
        // The clock is not kept, so the time of the first query after a restart is not priced: less than 10 bits.
        let (kept, lived) = (again.assess(name, A), session.assess(name, A));
        assert_eq!((kept.before, kept.band, kept.agreeing), (lived.before, lived.band, lived.agreeing), "{name}");
        assert!(kept.charge.name <= lived.charge.name, "{name}");
        assert!(lived.charge.session.minus(kept.charge.session) < Bits::whole(10), "{name}");
    }
    assert_eq!(again.state.snapshot(), snapshot);
}

/// As it comes back from a disk.
fn read_back(state: &StateSnapshot) -> StateSnapshot {
    serde_json::from_str(&serde_json::to_string(state).expect("serialises")).expect("reads back")
}

/// A session that asks, is answered and refused, and every step that the journal is told of it.
fn in_steps(seed: u64) -> (Session, Vec<StateSnapshot>) {
    let mut session = Session::new();
    let mut random = Random(seed);
    let mut steps = Vec::new();
    for query in 0..400 {
        let domain = random.next() % 40;
        let name = match random.next() % 8 {
            0 => format!("{}.tunnel-{domain}.example", random.text(BASE32, 30)),
            1..3 => format!("www.site-{domain}.example"),
            _ => format!("host-{}.site-{domain}.example", random.next() % 90),
        };
        session.ask(&name, if random.next().is_multiple_of(3) { AAAA } else { A });
        if query == 200 {
            session.state.release();
        }
        if random.next().is_multiple_of(2) {
            steps.push(read_back(&session.state.step()));
        }
    }
    steps.push(read_back(&session.state.step()));
    (session, steps)
}

#[test]
fn steps_put_on_one_another_are_the_state() {
    for seed in 1..6 {
        let (session, steps) = in_steps(seed);
        let longest = steps.chunk_by(|_, next| !next.is_whole()).map(<[_]>::len).max();
        assert!(longest.is_some_and(|longest| longest > 8 && longest <= 32), "{longest:?}");
        let last_whole = steps.iter().rposition(StateSnapshot::is_whole).expect("the first is whole");
        // Where a reader begins does not matter, nor in which order he puts them together.
        let all = steps[1..].iter().cloned().fold(steps[0].clone(), StateSnapshot::then);
        let some = steps[last_whole..].iter().cloned().reduce(StateSnapshot::then).expect("some");
        let newer = steps[last_whole + 1..].iter().cloned().reduce(StateSnapshot::then);
        let nested = newer.map_or(steps[last_whole].clone(), |newer| steps[last_whole].clone().then(newer));
        for told in [all, some, nested] {
            assert!(told.is_complete());
            let mut again = Session::new();
            again.state = SessionState::restore(&read_back(&told));
            let mut lived = Session::new();
            lived.state = SessionState::restore(&read_back(&session.state.snapshot()));
            for domain in 0..40 {
                for name in ["www", "host-1", "host-77", "fresh"] {
                    let name = format!("{name}.site-{domain}.example");
                    assert_eq!(again.assess(&name, A), lived.assess(&name, A), "{name}");
                }
                let name = format!("x.tunnel-{domain}.example");
                assert_eq!(again.assess(&name, A), lived.assess(&name, A), "{name}");
            }
        }
    }
}

#[test]
fn a_missing_step_refunds_nothing() {
    let (_, steps) = in_steps(11);
    let from = steps.iter().rposition(StateSnapshot::is_whole).expect("the first is whole");
    let from =
        if from + 3 < steps.len() { from } else { steps[..from].iter().rposition(StateSnapshot::is_whole).unwrap() };
    let chain = &steps[from..];
    let until = chain.iter().skip(1).position(StateSnapshot::is_whole).map_or(chain.len(), |at| at + 1);
    let chain = &chain[..until];
    assert!(chain.len() > 3, "{}", chain.len());
    let mut lived = Session::new();
    lived.state = SessionState::restore(&chain.iter().cloned().reduce(StateSnapshot::then).expect("some"));
    // Any one of them is missing, the whole one too; of the last nobody can know.
    for missing in 0..chain.len() - 1 {
        let left = chain.iter().enumerate().filter(|(at, _)| *at != missing).map(|(_, step)| step.clone());
        let told = left.reduce(StateSnapshot::then).expect("some").alone();
        assert!(!told.is_complete(), "{missing}");
        let mut again = Session::new();
        again.state = SessionState::restore(&read_back(&told));
        assert!(again.state.overflowed(), "domains that may be missing share an account");
        assert_eq!(again.state.spent_session(), lived.state.spent_session());
        assert!(again.state.tenants_sinkholed() >= lived.state.tenants_sinkholed());
        for domain in 0..40 {
            for name in ["www.site", "host-1.site", "x.tunnel"] {
                let name = format!("{name}-{domain}.example");
                let (got, old) = (again.assess(&name, A).before, lived.assess(&name, A).before);
                assert!(got.tenant >= old.tenant && got.icann >= old.icann, "{missing} {name}: {got:?} {old:?}");
            }
        }
        // From here on the journal is told everything again, and the next restart refunds nothing either.
        let whole = again.state.step();
        assert!(whole.is_complete());
        let mut later = Session::new();
        later.state = SessionState::restore(&read_back(&whole));
        for name in ["www.site-3.example", "never.seen.example"] {
            assert_eq!(later.assess(name, A).before, again.assess(name, A).before);
        }
    }
}

#[test]
fn a_step_that_was_not_told_is_told_whole() {
    let mut session = Session::new();
    for i in 0..60 {
        session.ask(&format!("host-{i}.site-{}.example", i % 25), A);
    }
    assert!(session.state.step().is_whole(), "the first");
    session.ask("host-1.site-2.example", A);
    let step = session.state.step();
    assert!(!step.is_whole() && step.step() == 2);
    let octets = |state: &StateSnapshot| serde_json::to_string(state).expect("serialises").len();
    assert!(octets(&step) < 400 && octets(&session.state.snapshot()) > 1_500, "{}", octets(&step));
    session.state.retell();
    assert!(session.state.step().is_whole());
    session.ask("host-1.site-2.example", A);
    session.state.release();
    assert!(session.state.step().is_whole(), "what touches every account");
}

#[test]
fn a_snapshot_that_cannot_be_matched_is_kept_against_every_domain() {
    let mut session = Session::new();
    for i in 0..60 {
        session.ask(&format!("host-{i}.site-{}.example", i % 25), A);
    }
    let mut again = Session::new();
    again.state = SessionState::restore(&session.state.snapshot().of_another_build());
    assert!(again.state.overflowed());
    let (old, new) = (session.assess("new.site-1.example", A), again.assess("new.site-1.example", A));
    assert!(new.before.tenant > old.before.tenant, "the sum, not the one account");
    assert_eq!(new.before.session, old.before.session);
}

#[test]
fn memory_is_bounded_and_overflow_buys_nothing() {
    let idle = SessionState::new(1).size();
    assert!(idle <= 3 * 1024, "{idle}");
    let mut session = Session::new();
    session.ask("www.example.com", A);
    assert!(session.state.size() <= 3 * 1024, "{}", session.state.size());

    // As loose as can be, in monitor mode, so that only the tables' own limits are left.
    let worst = |session: &mut Session| {
        for i in 0..40_000u32 {
            session.watch(&format!("n{i}.d{}.example", i % 5_000), A);
        }
    };
    let mut session = Session::new();
    worst(&mut session);
    session.listing = Listing::Below { budget: Bits::MAX };
    worst(&mut session);
    session.listing = Listing::Unlisted;
    for i in 0..2_000 {
        session.ask(&format!("refused-{i}.d{i}.example"), A);
    }
    println!(
        "idle {idle}, worst {} octets ({MAX_ACCOUNTS} accounts, {MAX_SENT_NAMES} sent, {MAX_REFUSED_NAMES} refused)",
        session.state.size()
    );
    assert!(session.state.size() <= 64 * 1024, "{}", session.state.size());
    assert!(session.state.overflowed());
    let got = session.assess("fresh.domain-never-seen.example", A);
    assert_eq!(got.band, Band::Quarantine, "a domain beyond the table shares what the others spent: {got:?}");
}

#[test]
fn age_strengthens_but_never_decides() {
    let mut session = Session::new();
    session.registered_days = Some(0.5);
    let got = session.assess("www.brand-new.example", A);
    let age = got.readings.iter().find(|reading| reading.signal == Signal::DomainAge).expect("every signal reads");
    assert_eq!(age.contribution, 2.5);
    assert!(got.band <= Band::Watch, "{got:?}");
    let name = format!("{}.brand-new.example", "k3x9q0vz71bd".repeat(4));
    let new = session.assess(&name, A);
    session.registered_days = Some(5_000.0);
    let old = session.assess(&name, A);
    assert_eq!(new.score - old.score, 3.0);
    assert_eq!(new.band, Band::Sinkhole, "a long odd name in a domain of today: {new:?}");
    assert!(old.band <= Band::Watch, "{old:?}");
}

#[test]
fn hostile_names_are_assessed() {
    let mut session = Session::new();
    for text in [".", "com", "\\000.com", "\\255\\254.x.github.io", "a\\.b.example.com", "s3.amazonaws.com"] {
        let got = session.ask(text, A);
        assert!(got.charge.session > Bits::ZERO, "{text}");
    }
    let longest = format!("{}.{}", vec!["\\200".repeat(63); 3].join("."), "\\200".repeat(61));
    let got = session.assess(&longest, A);
    assert!(got.charge.name > Bits::whole(1_000), "{got:?}");
    session.ask(&vec!["a"; 127].join("."), A);
}
