//! Keys of a trust point as its owner rolls them, on days of a simulated clock (RFC 5011).

use std::time::Duration;

use super::*;
use crate::validate::{Bogus, Change, HOLD_DOWN, KeyState, Lack, Look, Rollover, RolloverError};

use KeyState::{Pending, Revoked, Trusted};

const DAY: u64 = 86_400_000;
const YEAR: u32 = 365 * 86_400;
const LASTING: How =
    How { labels: None, inception: SECONDS - 3600, expiration: SECONDS + 30 * YEAR, algorithm: 15, ttl: 300 };

fn on(day: u64) -> Now {
    Now { mono: NOW.mono + day * DAY, wall: Wall::at(NOW.wall.shown + day * DAY) }
}

/// The same key, marked as revoked.
fn marked(zone: &Zone) -> Zone {
    let mut dnskey = zone.dnskey.clone();
    dnskey[1] |= 0x80;
    Zone { dnskey, ..zone.clone() }
}

/// The root's keys, signed by some of them.
fn keys(keys: &[&Zone], signers: &[&Zone]) -> Reply {
    let records: Vec<Rec> = keys.iter().map(|zone| zone.keys()).collect();
    let signatures = signers.iter().map(|zone| zone.sign(&records, LASTING));
    Reply::answer([records.clone(), signatures.collect()].concat())
}

struct Root {
    net: Net,
    a: Zone,
    b: Zone,
}

impl Root {
    /// Its one anchor is the key `a`.
    fn new() -> Self {
        let mut net = Net::new();
        let (a, b) = (net.zones["."].clone(), Zone::new("."));
        let ds = a.sign(&[rec("test", DS, net.zones["test"].ds(15, 2))], LASTING);
        net.replies.get_mut(&("test".into(), DS)).expect("a delegation").answers[1] = ds;
        let lasting = |zone: &Zone, record: Rec| vec![record.clone(), zone.sign(&[record], LASTING)];
        let test = net.zones["test"].clone();
        net.put("test", DNSKEY, Reply::answer(lasting(&test, test.keys())));
        let validator = Validator::new(net.validator.configured.clone(), Limits::default());
        net.validator = validator.following(Rollover::default());
        Self { net, a, b }
    }

    fn look(&self, reply: &Reply, now: Now) -> Look {
        let mut known = Rollover::clone(&self.net.validator.rollover());
        let look = self.net.validator.look(&mut known, name(".").as_ref(), &reply.encode(".", DNSKEY), now);
        self.net.validator.follow(known);
        look
    }

    /// What becomes of which key on that day.
    fn day(&self, day: u64, reply: &Reply) -> Vec<(u16, Option<KeyState>)> {
        let Look { changes, .. } = self.look(reply, on(day));
        assert!(changes.iter().all(|change| change.zone == name(".")));
        changes.into_iter().map(|Change { tag, state, .. }| (tag, state)).collect()
    }

    /// Whether an answer is secure where the root's keys are these.
    fn verdict(&mut self, day: u64, reply: Reply) -> Verdict {
        self.net.put(".", DNSKEY, reply);
        self.net.now = on(day);
        let record = a("www.test");
        let signed = [record.clone(), self.net.zones["test"].sign(&[record], LASTING)];
        self.net.verdict("www.test", A, &Reply::answer(signed.to_vec()))
    }
}

const NO_KEY: Verdict = Verdict::Bogus(Bogus::NoKey);

#[test]
fn a_new_key_is_trusted_after_thirty_days_and_a_revoked_one_never_again() {
    let mut root = Root::new();
    let (a, b) = (root.a.clone(), root.b.clone());
    let tags = [&a, &b].map(|zone| tag_of(&zone.dnskey));
    let both = keys(&[&a, &b], &[&a]);
    assert_eq!(root.day(0, &both), [(tags[1], Some(Pending))]);
    assert_eq!(root.day(29, &both), []);
    assert_eq!(root.verdict(29, keys(&[&a, &b], &[&b])), NO_KEY);
    assert_eq!(root.day(30, &both), [(tags[1], Some(Trusted))]);
    assert!(is_secure(root.verdict(30, keys(&[&a, &b], &[&b]))));
    assert!(is_secure(root.verdict(31, both.clone())), "the configured one is as good as ever");
    // The old one goes for a while, which means nothing, and is then revoked.
    assert_eq!(root.day(40, &keys(&[&b], &[&b])), []);
    assert!(is_secure(root.verdict(41, both.clone())));
    assert_eq!(root.day(50, &keys(&[&marked(&a), &b], &[&marked(&a), &b])), [(tags[0], Some(Revoked))]);
    assert_eq!(root.verdict(50, both.clone()), NO_KEY, "though it is configured, and at once");
    assert_eq!(root.day(60, &both), []);
    assert_eq!(root.day(100, &keys(&[&a, &b], &[&a, &b])), []);
    assert_eq!(root.verdict(100, both), NO_KEY);
    assert!(is_secure(root.verdict(101, keys(&[&a, &b], &[&b]))));

    // All of it outlives the process.
    let known = root.net.validator.rollover();
    let text = known.to_string();
    assert_eq!(Rollover::read(&text).as_ref(), Ok(&*known), "{text}");
    let again = Validator::new(root.net.validator.configured.clone(), Limits::default());
    root.net.validator = again.following(Rollover::read(&text).expect("what was written"));
    assert_eq!(root.verdict(100, keys(&[&a, &b], &[&a])), NO_KEY);
    assert!(is_secure(root.verdict(101, keys(&[&a, &b], &[&b]))));
    assert_eq!([Pending, Trusted, Revoked].map(|state| known.count(state)), [0, 1, 1]);
}

#[test]
fn what_is_under_way_when_a_key_is_revoked_proves_nothing_behind_it() {
    let mut root = Root::new();
    let (a, b) = (root.a.clone(), root.b.clone());
    let old = keys(&[&a], &[&a]);
    let test = root.net.zones["test"].clone();
    let answer = Reply::answer(test.each(&[super::a("www.test")])).encode("www.test", A);
    let (rules, owned) = (AnswerRules::default(), name("www.test"));
    let asked = Asked { qname: owned.as_ref(), qtype: Qtype(A), dnssec_ok: true };
    let mut work = Work::new(Limits::default(), Partition::ALL);
    let (validator, mut learned) = (&root.net.validator, 0);
    let mut step = |until: usize, work: &mut Work| loop {
        let lack = match validator.judge(&answer, asked, &rules, NOW, work) {
            Step::Done(verdict) => return Err(verdict),
            Step::Ask(lack) => lack,
        };
        if learned == until {
            return Ok(lack);
        }
        let (of, rtype) = (lack.need().name().to_string(), lack.need().qtype().0);
        let reply = if of == "." { &old } else { &root.net.replies[&(of.clone(), rtype)] };
        assert_eq!(validator.learn(&lack, &reply.encode(&of, rtype), NOW, work), Ok(true));
        learned += 1;
    };
    // Two look-ups that the key vouches for: one for the zone's keys, and one for what those have signed.
    let of_anchor = step(0, &mut work).expect("the root's keys are lacking");
    let of_parent = step(1, &mut work).expect("a delegation is lacking");
    assert_eq!(root.day(0, &keys(&[&marked(&a), &b], &[&marked(&a)])), [(tag_of(&a.dnskey), Some(Revoked))]);
    let learn = |lack: &Lack, of: &str, rtype: u16, reply: &Reply| {
        let mut work = Work::new(Limits::default(), Partition::ALL);
        assert_eq!(root.net.validator.learn(lack, &reply.encode(of, rtype), NOW, &mut work), Ok(true));
    };
    learn(&of_anchor, ".", DNSKEY, &old);
    learn(&of_parent, "test", DS, &root.net.replies[&("test".into(), DS)]);
    assert_eq!(root.verdict(0, old), NO_KEY);
}

#[test]
fn who_follows_is_told_whether_other_keys_are_trusted_and_a_successor_knows_them() {
    let root = Root::new();
    let (a, b) = (root.a.clone(), root.b.clone());
    let validator = &root.net.validator;
    let mut known = Rollover::default();
    let mut seen = |reply: &Reply, day| {
        validator.look(&mut known, name(".").as_ref(), &reply.encode(".", DNSKEY), on(day));
        validator.follow(known.clone())
    };
    assert!(!seen(&keys(&[&a, &b], &[&a]), 0), "a key that stands is not trusted yet");
    assert!(seen(&keys(&[&a, &b], &[&a]), 30));
    assert!(!seen(&keys(&[&a, &b], &[&a]), 31));
    assert!(seen(&keys(&[&marked(&a), &b], &[&marked(&a), &b]), 40));
    // What was written last may be older than what is known.
    let made = || Validator::new(validator.configured.clone(), Limits::default());
    let next = made().following(Rollover::default());
    assert!(next.succeeds(validator));
    assert_eq!(next.rollover(), validator.rollover());
    assert!(!made().succeeds(validator), "it follows nothing");
}

#[test]
fn only_who_is_trusted_can_teach_anything() {
    let root = Root::new();
    let (a, b) = (root.a.clone(), root.b.clone());
    let mut forged = keys(&[&a, &b], &[&a]);
    *forged.answers[2].3.last_mut().expect("a signature") ^= 1;
    let mut late = keys(&[&a, &b], &[]);
    let records = late.answers.clone();
    late.answers.push(a.sign(&records, How { inception: SECONDS - 9000, expiration: SECONDS - 8000, ..LASTING }));
    let mut lower = b.clone();
    lower.dnskey[1] = 0;
    for (what, reply) in [
        ("by the new key alone", keys(&[&a, &b], &[&b])),
        ("by nobody", keys(&[&a, &b], &[])),
        ("a signature that does not verify", forged),
        ("one past its time", late),
        ("a new key that is no entry point", keys(&[&a, &lower], &[&a])),
        ("a key of nobody's is revoked", keys(&[&a, &marked(&b)], &[&a, &marked(&b)])),
        ("revoked by another key", keys(&[&marked(&a), &b], &[&b])),
        ("nothing", Reply::default()),
    ] {
        assert_eq!(
            root.look(&reply, on(0)),
            Look { changes: vec![], crowded: vec![], next: Duration::from_secs(3600) },
            "{what}"
        );
        assert_eq!(*root.net.validator.rollover(), Rollover::default(), "{what}");
    }
    let mut known = Rollover::default();
    let wrong = keys(&[&a, &b], &[&a]).encode("test", DNSKEY);
    for (zone, reply) in [(".", wrong.as_slice()), (".", b""), ("test", &wrong)] {
        let look = root.net.validator.look(&mut known, name(zone).as_ref(), reply, on(0));
        assert_eq!((look.changes, known.count(Pending)), (vec![], 0), "no anchor, or no reply to the question");
    }
}

#[test]
fn a_new_key_that_goes_begins_anew() {
    let root = Root::new();
    let (a, b) = (root.a.clone(), root.b.clone());
    let (both, tag) = (keys(&[&a, &b], &[&a]), tag_of(&b.dnskey));
    assert_eq!(root.day(0, &both), [(tag, Some(Pending))]);
    assert_eq!(root.day(20, &keys(&[&a], &[&a])), [(tag, None)]);
    assert_eq!(root.day(21, &both), [(tag, Some(Pending))]);
    assert_eq!(root.day(40, &both), []);
    // Where nothing is proved nothing is missing either.
    assert_eq!(root.day(41, &keys(&[&a], &[])), []);
    assert_eq!(root.day(51, &both), [(tag, Some(Trusted))]);
    // Somebody who sets the clock does not make the time pass.
    let other = Root::new();
    let both = keys(&[&other.a, &other.b], &[&other.a]);
    other.look(&both, on(0));
    let shown = on(31).wall.shown;
    let set = Now { mono: NOW.mono + 1000, wall: Wall { shown, steady: NOW.wall.steady + 1000 } };
    assert_eq!(other.look(&both, set).changes, []);
    assert_eq!(other.day(HOLD_DOWN / DAY, &both).len(), 1);
}

#[test]
fn revoking_the_only_key_leaves_nothing_proved() {
    let mut root = Root::new();
    let a = root.a.clone();
    assert_eq!(root.day(0, &keys(&[&marked(&a)], &[&marked(&a)])), [(tag_of(&a.dnskey), Some(Revoked))]);
    assert_eq!(root.verdict(0, keys(&[&a], &[&a])), NO_KEY, "bogus, not insecure");
}

#[test]
fn looks_are_as_far_apart_as_the_set_lasts_within_bounds() {
    let root = Root::new();
    for (ttl, hours) in [(300, 1), (86_400, 12), (20 * 86_400, 240), (90 * 86_400, 360)] {
        let record = (".".to_owned(), DNSKEY, ttl, root.a.dnskey.clone());
        let signed = root.a.sign(std::slice::from_ref(&record), How { ttl, ..LASTING });
        let look = root.look(&Reply::answer(vec![record, signed]), on(0));
        assert_eq!(look.next, Duration::from_secs(hours * 3600), "{ttl}");
    }
}

#[test]
fn keys_of_one_zone_are_bounded() {
    let root = Root::new();
    let many: Vec<Zone> = (0..20).map(|_| Zone::new(".")).collect();
    for (day, zones) in many.chunks(10).enumerate() {
        let all: Vec<&Zone> = [&root.a].into_iter().chain(zones).collect();
        root.day(day as u64 * 30, &keys(&all, &[&root.a]));
        root.day(day as u64 * 30 + 30, &keys(&all, &[&root.a]));
    }
    let known = root.net.validator.rollover();
    assert_eq!([Pending, Trusted].map(|state| known.count(state)), [0, 16]);
    let all: Vec<&Zone> = [&root.a].into_iter().chain(&many[10..]).collect();
    let told = root.look(&keys(&all, &[&root.a]), on(61)).crowded;
    assert_eq!(told.len(), 4, "those that found no room are told");
}

#[test]
fn keys_that_were_revoked_leave_room_for_new_ones() {
    let root = Root::new();
    // A year of rolls for each: the next key comes, is trusted, and the one before it is revoked.
    let mut zones: Vec<Zone> = vec![root.a.clone()];
    for year in 0..24 {
        let day = year * 365;
        let (old, new) = (zones[zones.len() - 1].clone(), Zone::new("."));
        let both = keys(&[&old, &new], &[&old]);
        let tag = tag_of(&new.dnskey);
        assert_eq!(root.day(day, &both), [(tag, Some(Pending))], "{year}");
        assert_eq!(root.day(day + 30, &both), [(tag, Some(Trusted))], "{year}");
        let gone = keys(&[&marked(&old), &new], &[&marked(&old), &new]);
        assert_eq!(root.day(day + 60, &gone), [(tag_of(&old.dnskey), Some(Revoked))], "{year}");
        zones.push(new);
    }
    let known = root.net.validator.rollover();
    // The configured one is never forgotten.
    assert_eq!([Pending, Trusted, Revoked].map(|state| known.count(state)), [0, 1, 17]);
    assert!(root.day(24 * 365, &keys(&[&zones[0], &zones[24]], &[&zones[0]])).is_empty(), "it teaches nothing");
}

#[test]
fn a_file_that_is_not_ours_is_none() {
    let line = ". 257 3 15 l02Woi0iS8Aa25FQkUd9RMzZHJpBoRQwAQEX1SxZJA4= pending 1767225600000";
    let known = Rollover::read(&format!("; remark\n\n{line}\n")).expect("one key");
    assert_eq!(known.count(Pending), 1);
    for bad in [
        line.replace("pending", "loved"),
        line.replace("15 l02", "15 !02"),
        line.replace("257", "0"),
        line.replace("257", "385"),
        line.replace(" 3 ", " 4 "),
        line.replace("1767225600000", "-1"),
        format!("{line} more"),
        line[..20].to_owned(),
        "\u{fffd}".to_owned(),
    ] {
        assert_eq!(Rollover::read(&format!("{line}\n{bad}\n")), Err(RolloverError(2)), "{bad}");
    }
    assert_eq!(Rollover::read(&format!("{line}\n").repeat(8193)), Err(RolloverError(8193)));
}
