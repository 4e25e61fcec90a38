//! Decoys by policy alone: which questions are candidates, what leaves in their place and what it costs, and how much
//! that saves on the open corpora.
//!
//! `STAUNCH_CORPORA=DIR cargo test --release --test decoy -- --nocapture` prints the table of ARCHITECTURE.md; without
//! the corpora it prints `SKIPPED:`.

#[path = "../scoring/tests/corpus/mod.rs"]
mod corpus;
#[path = "world/skip.rs"]
mod skip;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::Path;

use staunch::config::{Environment, load_text};
use staunch::decoy::{LABEL, RANDOM, STAND_IN};
use staunch::event::Verdict;
use staunch::lists::{Grants, HashKey};
use staunch::model::{Announcement, Mode, Now, Qtype, SessionId, SessionType, Wall};
use staunch::policy::{Ask, Decision, Permit, Policy, Suspect, UnknownSource};
use staunch::session::{Context, Inner};
use staunch::wire::{Edns, Query};
use staunch_scoring::{Bits, NameBuf, NameRef, Outcome, QName, Scorer, Split};

/// 2026-11-21T12:00:00Z.
const WALL: u64 = 1_795_262_400_000;
/// 40 characters of Base32, as tunnels make them.
const PAYLOAD: &str = "k3xm7qpw2zj5nvbt4hgl6ycd2fras7weuo3ixk5m";

fn policy(mode: &str, more: &str) -> Policy {
    let text = format!(
        "version = 1\n[upstream]\nservers = [\"192.0.2.1\"]\n[policy]\nmode = {mode:?}\n\
         [enforce]\nbackend = \"dry-run\"\n{more}"
    );
    let environment = Environment {
        resolv_conf: None,
        state_home: "/nonexistent".into(),
        state_dir: None,
        wall: WALL,
        entropy: [7; 24],
        keep_tables: false,
        checking: false,
    };
    let (loaded, _) = load_text(Path::new("policy.toml"), &text, &environment).expect("a configuration");
    Policy {
        lists: loaded.lists,
        profiles: loaded.profiles,
        mode: loaded.policy.mode,
        canary_percent: loaded.policy.canary_percent,
        unknown_source: UnknownSource::Profile,
        scorer: Scorer::new(),
        decoy: loaded.decoy,
    }
}

fn context() -> Context {
    let announcement = Announcement {
        id: SessionId::new("s").expect("an id"),
        addresses: vec!["10.0.0.1".parse().expect("an address")],
        kind: SessionType::Batch,
        phase: None,
        owner: None,
        search: Vec::new(),
    };
    Context::new(announcement, true)
}

fn now(seconds: f64) -> Now {
    let ms = (seconds * 1e3) as u64;
    Now { mono: ms, wall: Wall::at(WALL + ms) }
}

fn query(name: NameRef<'_>, qtype: Qtype) -> Query<'static> {
    Query {
        id: 0,
        recursion_desired: true,
        checking_disabled: false,
        authentic_data: false,
        qname: QName::copy_of(name),
        qtype,
        question: &[],
        edns: None,
        options: Default::default(),
    }
}

fn ask<'a>(query: &'a Query<'a>, grants: &'a Grants, now: Now, cached: bool) -> Ask<'a> {
    Ask {
        query,
        now,
        split: Split::of(query.qname.as_ref()),
        cached,
        at_hand: false,
        registered_days: None,
        first_seen_days: None,
        group_seen_days: None,
        group: None,
        grants,
        rpz: None,
        name_hash: 1,
    }
}

fn grants() -> Grants {
    Grants::new(HashKey::from_random([3; 24]))
}

/// The siblings' parent for a session that has asked nothing before.
fn parent_of(policy: &Policy, name: &str, qtype: Qtype, change: impl FnOnce(&mut Query<'_>)) -> Option<String> {
    let (inner, grants, name) = (Inner::new(1), grants(), NameBuf::from_text(name).expect("a name"));
    let mut query = query(name.as_ref(), qtype);
    change(&mut query);
    let decision = policy.decide(&context(), &inner, &ask(&query, &grants, now(1.0), false));
    policy.suspect(&inner, &decision).filter(|suspect| suspect.asks).map(|suspect| suspect.parent.to_string())
}

#[test]
fn candidates_and_their_parents() {
    let rules = format!(
        "[[rule]]\nid = \"r\"\naction = \"allow\"\nnames = [\"={PAYLOAD}.exact.example\", \"*.ruled.example\"]\n\
         owner = \"o\"\nreason = \"r\"\nreview_by = \"2099-01-01\"\n"
    );
    let policy = policy("enforce", &rules);
    let under = |rest: &str| format!("{PAYLOAD}.{rest}");
    let cases: [(String, Qtype, Option<&str>); 20] = [
        (under("zone.example"), Qtype::A, Some("zone.example")),
        (under("zone.example"), Qtype::AAAA, Some("zone.example")),
        (under("zone.example"), Qtype::HTTPS, Some("zone.example")),
        (under("zone.example"), Qtype::TXT, None),
        // Types whose answers are not a host's.
        (under("zone.example"), Qtype::MX, None),
        (under("zone.example"), Qtype::SRV, None),
        (under("zone.example"), Qtype::CNAME, None),
        // Short labels stay, so that the answer fits where a service is built in layers; long ones do not.
        (under("t1.zone.example"), Qtype::A, Some("t1.zone.example")),
        (under("eu-west-1.zone.example"), Qtype::A, Some("eu-west-1.zone.example")),
        (under("7.zone.example"), Qtype::A, Some("zone.example")),
        (format!("{}.{}.zone.example", &PAYLOAD[..18], &PAYLOAD[18..]), Qtype::A, Some("zone.example")),
        (format!("www.{PAYLOAD}.zone.example"), Qtype::A, Some("zone.example")),
        // Ordinary names.
        ("www.zone.example".into(), Qtype::A, None),
        ("static-assets-2.cdn.zone.example".into(), Qtype::A, None),
        ("zone.example".into(), Qtype::A, None),
        // Names by rules, of services, of reverse zones, and tenants of platforms by themselves.
        (under("exact.example"), Qtype::A, None),
        (under("ruled.example"), Qtype::A, None),
        (format!("_{PAYLOAD}._tcp.zone.example"), Qtype::TXT, None),
        ("4.3.2.1.5.6.7.8.9.a.b.c.d.e.f.0.1.2.3.4.5.6.7.8.9.a.b.c.8.b.d.0.ip6.arpa".into(), Qtype::A, None),
        (format!("{PAYLOAD}.github.io"), Qtype::A, None),
    ];
    for (name, qtype, parent) in cases {
        assert_eq!(parent_of(&policy, &name, qtype, |_| ()).as_deref(), parent, "{name} {qtype}");
    }
    let name = under("zone.example");
    let validating = |query: &mut Query<'_>| query.edns = Some(Edns { udp_payload: 1232, dnssec_ok: true });
    assert_eq!(parent_of(&policy, &name, Qtype::A, validating), None, "a validator needs its own name's proof");
    assert_eq!(parent_of(&policy, &name, Qtype::A, |q| q.checking_disabled = true), None);
}

#[test]
fn monitor_mode_and_the_switch_turn_them_off() {
    let name = format!("{PAYLOAD}.zone.example");
    for (mode, more, on) in
        [("enforce", "", true), ("monitor", "", false), ("enforce", "[decoy]\nenabled = false\n", false)]
    {
        assert_eq!(parent_of(&policy(mode, more), &name, Qtype::A, |_| ()).is_some(), on, "{mode} {more}");
    }
}

fn permit(policy: &Policy, inner: &mut Inner, name: &str, chance: u8) -> Option<([Permit; 2], Bits)> {
    let (context, grants, name) = (context(), grants(), NameBuf::from_text(name).expect("a name"));
    let query = query(name.as_ref(), Qtype::A);
    let decision = policy.decide(&context, inner, &ask(&query, &grants, now(1.0), false));
    let random = [[chance; RANDOM], [chance.wrapping_add(90); RANDOM]];
    let decoys = policy.permit_decoys(&context, inner, &decision, Qtype::A, now(1.0), &random)?;
    Some((decoys.permits, decoys.charged()))
}

#[test]
fn what_leaves_tells_nothing_of_the_name() {
    let policy = policy("enforce", "");
    let mut seen = BTreeSet::new();
    for length in [20, 33, 40] {
        let name = format!("{}.zone.example", &PAYLOAD[..length]);
        let (permits, charged) = permit(&policy, &mut Inner::new(1), &name, 17).expect("permits");
        for permit in &permits {
            let text = permit.qname().to_string();
            let label = text.strip_suffix(".zone.example").expect("a sibling below the parent");
            assert_eq!(label.len(), LABEL);
            assert!(!permit.dnssec_ok() && !permit.checking_disabled() && permit.qtype() == Qtype::A);
            assert!((0..=LABEL - 4).all(|at| !name.contains(&label[at..at + 4])), "{label} holds a part of {name}");
        }
        assert_ne!(permits[0].qname(), permits[1].qname());
        seen.insert((permits.map(|permit| permit.qname().to_string()), charged));
    }
    assert_eq!(seen.len(), 1, "names of every length leave the same behind, for the same price: {seen:?}");
}

#[test]
fn siblings_are_charged_before_they_leave_and_stop_at_the_ledger() {
    let policy = policy("enforce", "");
    let mut inner = Inner::new(1);
    let name = format!("{PAYLOAD}.zone.example");
    let before = inner.score.spent_session();
    let (_, charged) = permit(&policy, &mut inner, &name, 1).expect("permits");
    assert!(charged > Bits::whole(12) && charged < Bits::whole(48), "{charged}: a domain and one code below it");
    assert_eq!(inner.score.spent_session(), before.plus(charged));
    let (_, again) = permit(&policy, &mut inner, &name, 2).expect("permits");
    assert!(again < Bits::whole(8), "{again}: the same event once more");
    // A ledger with no room for them: the session's name fares as it would without decoys.
    let tight = "[profile.batch.budgets]\ntenant_soft = 2\ntenant = 2\nicann = 2\nsession = 2\n";
    assert!(permit(&self::policy("enforce", tight), &mut Inner::new(1), &name, 1).is_none());
}

#[test]
fn the_name_that_siblings_are_booked_under_is_nobodys() {
    let policy = policy("enforce", "");
    let (grants, context, inner) = (grants(), context(), Inner::new(1));
    for qtype in [Qtype::A, Qtype::TXT, Qtype::MX] {
        let wire = [STAND_IN, b"\x04zone\x07example\x00"].concat();
        let query = query(NameRef::from_wire(&wire).expect("a name"), qtype);
        let decision = policy.decide(&context, &inner, &ask(&query, &grants, now(1.0), false));
        assert_eq!(decision.applied, Verdict::Sinkhole, "{qtype}");
    }
}

#[test]
fn siblings_are_no_evidence_against_their_domain() {
    let policy = policy("enforce", "");
    let (grants, context) = (grants(), context());
    // The hosts of a database cluster, which have its id.
    let mut inner = Inner::new(1);
    let shard = |n: u8| format!("ac-k3j2h1g-shard-00-0{n}.ab1cd.zone.example");
    for (name, qtype) in [
        ("_database._tcp.cluster0.ab1cd.zone.example".to_owned(), Qtype(33)),
        ("cluster0.ab1cd.zone.example".to_owned(), Qtype::TXT),
        (shard(0), Qtype::A),
        (shard(0), Qtype::AAAA),
        (shard(1), Qtype::A),
        (shard(2), Qtype::A),
    ] {
        let host = NameBuf::from_text(&name).expect("a name");
        let query = query(host.as_ref(), qtype);
        permit(&policy, &mut inner, &name, 1);
        let decision = policy.decide(&context, &inner, &ask(&query, &grants, now(2.0), false));
        assert_eq!(decision.applied, Verdict::Answer, "{name} {qtype}: {:?}", decision.assessment.score);
        policy.commit(&mut inner, &decision, Outcome::Forwarded);
    }
}

#[test]
fn a_host_beside_what_was_asked_for_is_no_candidate_and_a_name_that_comes_again_is() {
    let policy = policy("enforce", "");
    let (grants, context, mut inner) = (grants(), context(), Inner::new(1));
    let name = format!("{PAYLOAD}.zone.example");
    permit(&policy, &mut inner, &name, 1).expect("permits");
    for (name, suspected) in [("www.zone.example", false), ("vpn.zone.example", false), (&*name, true)] {
        let asked = NameBuf::from_text(name).expect("a name");
        let query = query(asked.as_ref(), Qtype::A);
        let decision = policy.decide(&context, &inner, &ask(&query, &grants, now(400.0), false));
        assert_eq!(policy.suspect(&inner, &decision).is_some(), suspected, "{name}");
    }
}

/// What the zones of candidates are taken to be.
#[derive(Clone, Copy, PartialEq)]
enum Zones {
    /// No decoys at all.
    Off,
    /// Every one a wildcard whose answers hold 300 seconds.
    Wildcards,
    /// None a wildcard.
    Plain,
}

#[derive(Default)]
struct Tally {
    names: BTreeSet<(String, NameBuf)>,
    candidates: BTreeSet<(String, NameBuf)>,
    left: BTreeSet<(String, NameBuf)>,
    bits: f64,
    siblings: usize,
    quarantined: usize,
}

struct Run {
    inner: Inner,
    cached: HashMap<(NameBuf, u16), f64>,
    found: HashMap<(NameBuf, u16), f64>,
    closed: bool,
}

fn replay(rows: &[corpus::Row], policy: &Policy, zones: Zones) -> BTreeMap<String, Tally> {
    let (context, grants) = (context(), grants());
    let mut tallies: BTreeMap<String, Tally> = BTreeMap::new();
    let mut runs: HashMap<String, Run> = HashMap::new();
    for (i, row) in rows.iter().enumerate() {
        let Some(name) = corpus::scored_name(row) else { continue };
        let qtype = Qtype(corpus::qtype(&row.qtype));
        // A row of a list is a session of its own.
        let id = row.session.clone().unwrap_or_else(|| format!("row {i}"));
        let fresh = || Run { inner: Inner::new(7), cached: HashMap::new(), found: HashMap::new(), closed: false };
        let run = runs.entry(id.clone()).or_insert_with(fresh);
        let tally = tallies.entry(format!("{} {}", row.label, row.tool)).or_default();
        let seconds = row.t.unwrap_or(1.0);
        let key = (name.clone(), qtype.0);
        let cached = run.cached.get(&key).is_some_and(|at| seconds - at < 60.0);
        let query = query(name.as_ref(), qtype);
        let at = Now { mono: (seconds * 1e3) as u64, wall: Wall::at(WALL) };
        if run.closed {
            continue;
        }
        let decision = policy.decide(&context, &run.inner, &ask(&query, &grants, at, cached));
        if decision.applied == Verdict::Quarantine {
            (run.closed, tally.quarantined) = (true, tally.quarantined + 1);
        }
        if decision.applied != Verdict::Answer {
            policy.commit(&mut run.inner, &decision, Outcome::Refused);
            continue;
        }
        tally.names.insert((id.clone(), name.clone()));
        if let Some(Suspect { parent, asks }) = policy.suspect(&run.inner, &decision) {
            if asks {
                tally.candidates.insert((id.clone(), name.clone()));
            }
            let stand = (parent.to_owned(), qtype.0);
            let holds = if zones == Zones::Plain { 600.0 } else { 300.0 };
            let mut found = run.found.get(&stand).is_some_and(|since| seconds - since < holds);
            if zones != Zones::Off && asks && !found && run.inner.decoys.take(policy.decoy.per_session_hour, at.mono) {
                let random = [[1; RANDOM], [2; RANDOM]];
                let decoys = policy.permit_decoys(&context, &mut run.inner, &decision, qtype, at, &random);
                if let Some(decoys) = decoys {
                    tally.bits += decoys.charged().as_f64();
                    tally.siblings += if zones == Zones::Plain { 1 } else { 2 };
                    run.found.insert(stand, seconds);
                    found = true;
                }
            }
            if zones == Zones::Wildcards && found {
                run.cached.insert(key, seconds);
                continue;
            }
        }
        let again = policy.decide(&context, &run.inner, &ask(&query, &grants, at, cached));
        book(policy, run, &again, tally, &id, &key, seconds);
    }
    tallies
}

/// Forwards what is answered, as the walk would.
fn book(
    policy: &Policy,
    run: &mut Run,
    decision: &Decision<'_>,
    tally: &mut Tally,
    id: &str,
    key: &(NameBuf, u16),
    seconds: f64,
) {
    if decision.applied != Verdict::Answer {
        policy.commit(&mut run.inner, decision, Outcome::Refused);
        if decision.applied == Verdict::Quarantine {
            (run.closed, tally.quarantined) = (true, tally.quarantined + 1);
        }
        return;
    }
    tally.bits += decision.booked(Outcome::Forwarded).as_f64();
    let outcome = if decision.facts.cached { Outcome::Cached } else { Outcome::Forwarded };
    policy.commit(&mut run.inner, decision, outcome);
    if outcome == Outcome::Forwarded {
        run.cached.insert(key.clone(), seconds);
        tally.left.insert((id.to_owned(), key.0.clone()));
    }
}

#[test]
fn what_decoys_save_on_the_corpora() {
    let Some(dir) = corpus::directory() else {
        return skip::skipped("no corpora; set STAUNCH_CORPORA");
    };
    let policy = policy("enforce", "");
    assert_eq!(policy.mode, Mode::Enforce);
    println!(
        "| what | names answered | candidates | bits | left, wildcards | bits, wildcards | siblings, no wildcard |"
    );
    println!("|---|---|---|---|---|---|---|---|---|---|");
    for stem in ["benign_list", "benign_seq", "benign_odd", "tunnel", "lowslow"] {
        let mut rows = corpus::rows(&dir, stem).expect("a corpus");
        rows.sort_by(|a, b| a.t.unwrap_or(0.0).total_cmp(&b.t.unwrap_or(0.0)));
        let [off, wild, plain] = [Zones::Off, Zones::Wildcards, Zones::Plain].map(|z| replay(&rows, &policy, z));
        for (what, off) in &off {
            let (wild, plain) = (&wild[what], &plain[what]);
            println!(
                "| {what} | {} | {} | {:.0} | {} | {} | {:.0} | {} | {} | {} |",
                off.names.len(),
                off.candidates.len(),
                off.bits,
                off.quarantined,
                wild.left.len(),
                wild.bits,
                wild.quarantined,
                plain.siblings,
                plain.quarantined,
            );
            assert!(wild.left.is_disjoint(&wild.candidates) || wild.siblings > 64, "{what}: a candidate left");
            if what.starts_with("benign ") {
                assert!(plain.quarantined <= off.quarantined + 1, "{what}: {} sessions closed", plain.quarantined);
                assert!(wild.quarantined <= off.quarantined, "{what}: {} sessions closed", wild.quarantined);
            }
            if what == "benign plain-list" {
                assert!(off.candidates.len() * 1000 <= off.names.len(), "{} candidates", off.candidates.len());
            }
        }
    }
}
