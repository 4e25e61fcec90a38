//! Whole answers: what stands there, what does not, aliases over zones.

use super::*;
use crate::validate::{Bogus, Unchecked};

const BOGUS: Verdict = Verdict::Bogus(Bogus::NoProof);
/// By nobody who may.
const UNSIGNED: Verdict = Verdict::Bogus(Bogus::NoSignature);
const SECURE: Verdict = Verdict::Secure { ttl: 300 };

/// What it is, name, type, whether the name is denied, the records that deny, the verdict.
type Case = (&'static str, &'static str, u16, bool, Vec<Rec>, Verdict);

/// A net in which `zone.example` says that nothing below it begins a zone.
fn net() -> Net {
    let mut net = Net::new();
    for name in ["x", "a.b", "b", "one.wild", "wild", "old", "x.old", "alias", "ent", "deep.ent", "www"] {
        // A span over the whole zone, so that it covers each.
        let proof = net.zones["zone.example"].each(&[nsec("zone.example", "zone.example", &[SOA, NS])]);
        net.put(&format!("{name}.zone.example"), DS, Reply::no_data(proof));
    }
    net
}

fn of_zone(net: &Net, records: &[Rec]) -> Vec<Rec> {
    net.zones["zone.example"].each(records)
}

#[test]
fn what_is_not_there_is_proved_by_spans() {
    let net = net();
    let with_soa = |records: &[Rec]| of_zone(&net, &[&[soa("zone.example")], records].concat());
    let z = |owner: &str, next: &str, types: &[u16]| {
        let full = |name: &str| if name == "@" { "zone.example".into() } else { format!("{name}.zone.example") };
        nsec(&full(owner), &full(next), types)
    };
    let cases: Vec<Case> = vec![
        // Types that do not exist.
        ("its own record", "x", MX, false, vec![z("x", "z", &[A])], SECURE),
        ("its own record, with the type", "x", A, false, vec![z("x", "z", &[A])], BOGUS),
        ("its own record, an alias", "x", MX, false, vec![z("x", "z", &[CNAME])], BOGUS),
        ("its own record, a delegation", "x", MX, false, vec![z("x", "z", &[NS])], BOGUS),
        ("of a delegation, DS", "x", DS, false, vec![nsec("x.zone.example", "z.zone.example", &[NS])], SECURE),
        ("of a child, DS", "x", DS, false, vec![nsec("x.zone.example", "z.zone.example", &[NS, SOA])], BOGUS),
        ("of the apex, NS and SOA", "@", MX, false, vec![z("@", "a", &[NS, SOA])], SECURE),
        ("an empty name", "b", A, false, vec![z("a", "x.b", &[A])], SECURE),
        ("nothing", "x", MX, false, vec![], BOGUS),
        ("another's record", "x", MX, false, vec![z("y", "z", &[A])], BOGUS),
        ("a wildcard's record", "x", MX, false, vec![z("w", "y", &[A]), z("*", "a", &[A])], SECURE),
        ("a wildcard's record, with the type", "x", MX, false, vec![z("w", "y", &[A]), z("*", "a", &[MX])], BOGUS),
        ("a wildcard's record alone", "x", MX, false, vec![z("*", "a", &[A])], BOGUS),
        // Names that do not exist.
        ("span and wildcard in two", "x", A, true, vec![z("w", "y", &[A]), z("@", "a", &[NS, SOA])], SECURE),
        ("span and wildcard in one", "x", A, true, vec![z("@", "@", &[NS, SOA])], SECURE),
        ("span without the wildcard", "x", A, true, vec![z("w", "y", &[A])], BOGUS),
        ("a wildcard that exists", "x", A, true, vec![z("w", "y", &[A]), z("*", "a", &[A])], BOGUS),
        ("a name that exists", "x", A, true, vec![z("x", "y", &[A]), z("@", "a", &[NS, SOA])], BOGUS),
        ("an empty name is no absence", "b", A, true, vec![z("a", "x.b", &[A]), z("@", "a", &[NS, SOA])], BOGUS),
        ("deeper", "a.b", A, true, vec![z("a", "c", &[A]), z("@", "a", &[NS, SOA])], SECURE),
        // RFC 6840 section 4.1: who delegates says nothing of what is below.
        ("a delegation above", "a.b", A, true, vec![z("b", "c", &[NS]), z("@", "a", &[NS, SOA])], BOGUS),
        ("a DNAME above", "a.b", A, true, vec![z("b", "c", &[DNAME]), z("@", "a", &[NS, SOA])], BOGUS),
        ("the apex of the zone above", "a.b", A, true, vec![nsec("example", "z.example", &[NS, SOA])], UNSIGNED),
        // Not of this zone.
        ("a span out of the zone", "x", A, true, vec![nsec("w.zone.example", "z.example", &[A])], BOGUS),
    ];
    for (what, label, qtype, is_name, records, verdict) in cases {
        let mut net = net.anew();
        let qname = if label == "@" { "zone.example".into() } else { format!("{label}.zone.example") };
        let authority = with_soa(&records);
        let reply = if is_name { Reply::no_name(authority) } else { Reply::no_data(authority) };
        assert_eq!(net.verdict(&qname, qtype, &reply), verdict, "{what}");
    }
}

#[test]
fn what_is_not_there_is_proved_by_hashes() {
    let net = net();
    let of = |owner: &str, types: &[u16]| nsec3_of("zone.example", owner, types);
    let over = |name: &str, flags| nsec3_over("zone.example", name, flags);
    let apex = || of("zone.example", &[NS, SOA]);
    let (x, ab) = ("x.zone.example", "a.b.zone.example");
    let wild = "*.zone.example";
    let cases: Vec<Case> = vec![
        ("its own", x, MX, false, vec![of(x, &[A])], SECURE),
        ("its own, with the type", x, A, false, vec![of(x, &[A])], BOGUS),
        ("its own, an alias", x, MX, false, vec![of(x, &[CNAME])], BOGUS),
        ("its own, a delegation", x, MX, false, vec![of(x, &[NS])], BOGUS),
        ("of a delegation, DS", x, DS, false, vec![of(x, &[NS])], SECURE),
        ("opted out, DS", x, DS, false, vec![apex(), over(x, 1)], Verdict::Insecure(None)),
        ("not opted out, DS", x, DS, false, vec![apex(), over(x, 0)], BOGUS),
        ("a wildcard's", x, MX, false, vec![apex(), over(x, 0), of(wild, &[A])], SECURE),
        ("a wildcard's, with the type", x, MX, false, vec![apex(), over(x, 0), of(wild, &[MX])], BOGUS),
        ("a wildcard's, name not covered", x, MX, false, vec![apex(), of(wild, &[A])], BOGUS),
        ("name and wildcard", x, A, true, vec![apex(), over(x, 0), over(wild, 0)], SECURE),
        ("opted out", x, A, true, vec![apex(), over(x, 1), over(wild, 0)], Verdict::Insecure(None)),
        ("without the encloser", x, A, true, vec![over(x, 0), over(wild, 0)], BOGUS),
        ("without the wildcard", x, A, true, vec![apex(), over(x, 0)], BOGUS),
        ("without the next closer", x, A, true, vec![apex(), over(wild, 0)], BOGUS),
        ("a wildcard that exists", x, A, true, vec![apex(), over(x, 0), of(wild, &[A])], BOGUS),
        ("deeper", ab, A, true, vec![apex(), over("b.zone.example", 0), over(wild, 0)], SECURE),
        ("deeper, next closer of another", ab, A, true, vec![apex(), over(ab, 0), over(wild, 0)], BOGUS),
        (
            "an encloser that delegates",
            ab,
            A,
            true,
            vec![of("b.zone.example", &[NS]), over(ab, 0), over("*.b.zone.example", 0)],
            BOGUS,
        ),
        (
            "an encloser that is a DNAME's",
            ab,
            A,
            true,
            vec![of("b.zone.example", &[DNAME]), over(ab, 0), over("*.b.zone.example", 0)],
            BOGUS,
        ),
        (
            "too many iterations",
            x,
            A,
            true,
            vec![nsec3("zone.example", [1; 20], [2; 20], 0, 151, &[A])],
            Verdict::Insecure(Some(Unchecked::Iterations)),
        ),
        ("another zone's", x, A, true, vec![nsec3_of("example", "example", &[NS, SOA])], UNSIGNED),
    ];
    for (what, qname, qtype, is_name, records, verdict) in cases {
        let mut net = net.anew();
        let authority = of_zone(&net, &[&[soa("zone.example")], &records[..]].concat());
        let reply = if is_name { Reply::no_name(authority) } else { Reply::no_data(authority) };
        assert_eq!(net.verdict(qname, qtype, &reply), verdict, "{what}");
    }
}

#[test]
fn all_that_is_shown_of_a_denial_must_be_signed() {
    let net = net();
    let proof = nsec("x.zone.example", "z.zone.example", &[A]);
    let signed = |records: &[Rec]| of_zone(&net, records);
    for (what, authority, verdict) in [
        ("both", signed(&[soa("zone.example"), proof.clone()]), SECURE),
        ("no SOA", signed(std::slice::from_ref(&proof)), SECURE),
        (
            "an unsigned SOA",
            [vec![soa("zone.example")], signed(std::slice::from_ref(&proof))].concat(),
            Verdict::Bogus(Bogus::NoSignature),
        ),
        (
            "another SOA that is closer to the name",
            [signed(&[soa("zone.example"), proof.clone()]), vec![soa("x.zone.example")]].concat(),
            Verdict::Bogus(Bogus::NoSignature),
        ),
        (
            "another's SOA alone",
            [signed(std::slice::from_ref(&proof)), vec![soa("example")]].concat(),
            Verdict::Bogus(Bogus::NoSignature),
        ),
        (
            "an SOA of elsewhere",
            [signed(&[soa("zone.example"), proof.clone()]), vec![soa("else.example")]].concat(),
            SECURE,
        ),
        (
            "an unsigned proof",
            [signed(&[soa("zone.example")]), vec![proof.clone()]].concat(),
            Verdict::Bogus(Bogus::NoSignature),
        ),
        (
            "a proof in force no more",
            vec![
                proof.clone(),
                net.zones["zone.example"].sign(
                    std::slice::from_ref(&proof),
                    How { inception: SECONDS - 9000, expiration: SECONDS - 8000, ..How::default() },
                ),
            ],
            Verdict::Bogus(Bogus::Expired),
        ),
    ] {
        assert_eq!(net.anew().verdict("x.zone.example", MX, &Reply::no_data(authority)), verdict, "{what}");
    }
}

/// BIND sends once for each thing that it proves what proves several, and the copies differ in their TTLs.
#[test]
fn a_proof_that_comes_twice_is_one() {
    let net = net();
    let again = |records: Vec<Rec>| {
        let later = records.clone().into_iter().map(|(owner, rtype, _, data)| (owner, rtype, 200, data));
        records.into_iter().chain(later).collect::<Vec<Rec>>()
    };
    let by_name = again(of_zone(&net, &[nsec("zone.example", "zone.example", &[SOA, NS])]));
    let hashes = [
        nsec3_of("zone.example", "zone.example", &[SOA, NS]),
        nsec3_over("zone.example", "x.zone.example", 0),
        nsec3_over("zone.example", "*.zone.example", 0),
    ];
    let by_hash = again(of_zone(&net, &hashes));
    for (what, authority) in [("names", by_name), ("hashes", by_hash)] {
        let verdict = net.anew().verdict("x.zone.example", A, &Reply::no_name(authority));
        assert_eq!(verdict, Verdict::Secure { ttl: 200 }, "{what}");
    }
    // Two that say different things are none.
    let differing = [nsec("a.zone.example", "z.zone.example", &[A]), nsec("a.zone.example", "y.zone.example", &[A])];
    let reply = Reply::no_name(net.zones["zone.example"].signed(&differing));
    assert_eq!(net.anew().verdict("x.zone.example", A, &reply), BOGUS);
}

#[test]
fn a_wildcards_records_need_the_proof_that_nothing_is_closer() {
    let net = net();
    let record = a("one.wild.zone.example");
    let zone = &net.zones["zone.example"];
    let expanded = |labels| {
        vec![record.clone(), zone.sign(std::slice::from_ref(&record), How { labels: Some(labels), ..How::default() })]
    };
    let n = |owner: &str, next: &str| nsec(&format!("{owner}.zone.example"), &format!("{next}.zone.example"), &[A]);
    for (what, labels, records, verdict) in [
        ("nothing", 3, vec![], BOGUS),
        ("the name", 3, vec![n("*.wild", "z")], SECURE),
        ("another name", 3, vec![n("x", "z")], BOGUS),
        ("a closer encloser than the wildcard's", 2, vec![n("a.wild", "z.wild")], BOGUS),
        ("the zone's own wildcard", 2, vec![n("u", "x")], SECURE),
        ("a hash", 3, vec![nsec3_over("zone.example", "one.wild.zone.example", 0)], SECURE),
        ("a hash, opted out", 3, vec![nsec3_over("zone.example", "one.wild.zone.example", 1)], Verdict::Insecure(None)),
        ("a hash of the encloser", 3, vec![nsec3_over("zone.example", "wild.zone.example", 0)], BOGUS),
        ("a hash at the right depth", 2, vec![nsec3_over("zone.example", "wild.zone.example", 0)], SECURE),
    ] {
        let mut net = net.anew();
        let reply = Reply { rcode: 0, answers: expanded(labels), authority: of_zone(&net, &records) };
        assert_eq!(net.verdict("one.wild.zone.example", A, &reply), verdict, "{what}");
    }
    // Above the zone there is no wildcard of it.
    let reply = Reply { answers: expanded(1), authority: of_zone(&net, &[n("u", "x")]), ..Reply::default() };
    assert_eq!(net.anew().verdict("one.wild.zone.example", A, &reply), Verdict::Bogus(Bogus::Signature));
}

#[test]
fn every_step_of_a_chain_counts() {
    let net = net();
    let alias = |to: &str| rec("alias.zone.example", CNAME, wire(to));
    let signed = |zone: &str, record: Rec| net.zones[zone].signed(&[record]);
    let to_test = signed("zone.example", alias("www.test"));
    let to_plain = signed("zone.example", alias("www.plain.example"));
    let dname = rec("old.zone.example", DNAME, wire("test"));
    let made = rec("x.old.zone.example", CNAME, wire("x.test"));
    let long = format!("{}.old", ["a"; 63].join("."));
    let longer = rec("old.zone.example", DNAME, wire(&["b"; 80].join(".")));
    let too_long = |answers| Reply { rcode: 6, answers, ..Reply::default() };
    let good = signed("test", a("www.test"));
    let mut forged = good.clone();
    forged[0].3[0] = 1;
    let denial = net.zones["test"].each(&[soa("test"), nsec("test", "test", &[NS, SOA])]);
    let no_cut = Reply::no_data(denial.clone());
    let of = |answers: &[Vec<Rec>]| Reply::answer(answers.concat());
    let cases: Vec<(&str, &str, Reply, Verdict)> = vec![
        ("both", "alias", of(&[to_test.clone(), good.clone()]), SECURE),
        (
            "the alias alone unsigned",
            "alias",
            of(&[vec![alias("www.test")], good.clone()]),
            Verdict::Bogus(Bogus::NoSignature),
        ),
        ("its target forged", "alias", of(&[to_test.clone(), forged]), Verdict::Bogus(Bogus::Signature)),
        (
            "its target unsigned",
            "alias",
            of(&[to_test.clone(), vec![a("www.test")]]),
            Verdict::Bogus(Bogus::NoSignature),
        ),
        ("into an insecure zone", "alias", of(&[to_plain, vec![a("www.plain.example")]]), Verdict::Insecure(None)),
        (
            "its target does not exist",
            "alias",
            Reply { rcode: 3, answers: to_test.clone(), authority: denial.clone() },
            SECURE,
        ),
        (
            "its target does not exist, unproved",
            "alias",
            Reply { rcode: 3, answers: to_test.clone(), ..Reply::default() },
            BOGUS,
        ),
        ("its target is not there at all", "alias", of(&[to_test]), BOGUS),
        (
            "a DNAME and what is made of it",
            "x.old",
            of(&[signed("zone.example", dname.clone()), vec![made.clone()], signed("test", a("x.test"))]),
            SECURE,
        ),
        ("a DNAME alone", "x.old", of(&[signed("zone.example", dname.clone()), signed("test", a("x.test"))]), SECURE),
        (
            "a DNAME unsigned",
            "x.old",
            of(&[vec![dname.clone(), made], signed("test", a("x.test"))]),
            Verdict::Bogus(Bogus::NoSignature),
        ),
        ("a DNAME that makes too long a name", &long, too_long(signed("zone.example", longer.clone())), SECURE),
        ("the same, unsigned", &long, too_long(vec![longer]), Verdict::Bogus(Bogus::NoSignature)),
        (
            "an alias that the DNAME does not make",
            "x.old",
            of(&[
                signed("zone.example", dname),
                vec![rec("x.old.zone.example", CNAME, wire("y.test"))],
                signed("test", a("y.test")),
            ]),
            BOGUS,
        ),
    ];
    for (what, label, reply, verdict) in cases {
        let mut net = net.anew();
        for name in ["www.test", "x.test"] {
            net.put(name, DS, no_cut.clone());
        }
        assert_eq!(net.verdict(&format!("{label}.zone.example"), A, &reply), verdict, "{what}");
    }
}

/// Each is a wait as long as an exchange.
#[test]
fn zones_of_one_chain_are_looked_up_at_the_same_time() {
    let mut net = net();
    let zone = &net.zones["zone.example"];
    let alias = zone.signed(&[rec("alias.zone.example", CNAME, wire("www.test"))]);
    let reply = Reply::answer([alias, net.zones["test"].signed(&[a("www.test")])].concat());
    let (verdict, work) = net.judge("alias.zone.example", A, &reply);
    assert_eq!((verdict, work.lookups(), net.waits), (SECURE, 7, 2), "{:?}", net.asked);
    // What is lacking has half of the look-ups to itself.
    let mut few = net.anew();
    few.validator = Validator::new(net.validator.configured.clone(), Limits { lookups: 7, ..Limits::default() });
    let (verdict, work) = few.judge("alias.zone.example", A, &reply);
    assert_eq!((verdict, work.lookups(), few.waits), (SECURE, 7, 5), "{:?}", few.asked);
    // Where nothing is signed nobody knows where the way ends.
    let plain = Reply::answer(vec![a("www.plain.example")]);
    let mut net = net.anew();
    let (verdict, work) = net.judge("www.plain.example", A, &plain);
    assert_eq!((verdict, work.lookups(), net.waits), (Verdict::Insecure(None), 4, 2), "{:?}", net.asked);
}

#[test]
fn that_a_zone_cannot_be_checked_is_told_wherever_it_stands_on_the_chain() {
    let mut net = net();
    let ds = net.zones["."].signed(&[rec("test", DS, net.zones["test"].ds(200, 2))]);
    net.put("test", DS, Reply::answer(ds));
    let alias = net.zones["zone.example"].signed(&[rec("alias.zone.example", CNAME, wire("www.test"))]);
    let verdict = Verdict::Insecure(Some(Unchecked::Algorithms));
    let reply = Reply::answer([alias.clone(), net.zones["test"].signed(&[a("www.test")])].concat());
    assert_eq!(net.verdict("alias.zone.example", A, &reply), verdict);
    let reply = Reply::answer([alias, vec![a("www.test")]].concat());
    assert_eq!(net.anew().verdict("alias.zone.example", A, &reply), verdict, "its signatures left out");
}

#[test]
fn questions_of_special_types_are_judged_as_they_can_be() {
    let net = net();
    let zone = &net.zones["zone.example"];
    let ds = net.zones["example"].signed(&[rec("zone.example", DS, zone.ds(15, 2))]);
    assert_eq!(net.anew().verdict("zone.example", DS, &Reply::answer(ds.clone())), SECURE);
    assert_eq!(
        net.anew().verdict("zone.example", DS, &Reply::answer(ds[..1].to_vec())),
        Verdict::Bogus(Bogus::NoSignature)
    );
    assert_eq!(net.anew().verdict("zone.example", DNSKEY, &net.replies[&("zone.example".into(), DNSKEY)]), SECURE);
    // Below an unsigned delegation its DS question is still the parent's.
    assert_eq!(net.anew().verdict("plain.example", DS, &net.replies[&("plain.example".into(), DS)]), SECURE);
    // The root has no parent to ask: what it says of its own is all there is.
    let root = &net.zones["."];
    for (types, verdict) in [(&[NS, SOA, DNSKEY][..], SECURE), (&[NS, SOA, DS], BOGUS)] {
        let denial = root.each(&[soa("."), nsec(".", "example", types)]);
        assert_eq!(net.anew().verdict(".", DS, &Reply::no_data(denial)), verdict, "{types:?}");
    }
    let hashed = root.each(&[soa("."), nsec3_of("", ".", &[NS, SOA, DNSKEY])]);
    assert_eq!(net.anew().verdict(".", DS, &Reply::no_data(hashed)), SECURE);
    assert_eq!(net.anew().verdict(".", DS, &Reply::no_data(vec![soa(".")])), BOGUS);
    let all = [
        zone.signed(&[a("x.zone.example")]),
        zone.signed(&[rec("x.zone.example", MX, [vec![0, 1], wire("x.test")].concat())]),
    ];
    assert_eq!(net.anew().verdict("x.zone.example", 255, &Reply::answer(all.concat())), SECURE);
    let one = [all[0].clone(), all[1][..1].to_vec()];
    assert_eq!(
        net.anew().verdict("x.zone.example", 255, &Reply::answer(one.concat())),
        Verdict::Bogus(Bogus::NoSignature)
    );
    // Signatures are signed by nobody.
    let signature = vec![all[0][1].clone()];
    assert_eq!(net.anew().verdict("x.zone.example", RRSIG, &Reply::answer(signature)), Verdict::Insecure(None));
}

/// RFC 6672 sections 3.1 and 5.3.1: the alias that a DNAME makes has no signature, and is what was asked for.
#[test]
fn an_alias_that_a_dname_makes_answers_who_asks_for_it() {
    let net = net();
    let dname = net.zones["zone.example"].signed(&[rec("old.zone.example", DNAME, wire("test"))]);
    let made = |to: &str| vec![rec("x.old.zone.example", CNAME, wire(to))];
    let denial = net.zones["test"].each(&[soa("test"), nsec("test", "test", &[NS, SOA])]);
    let of = |answers: &[Vec<Rec>], authority: &[Rec]| Reply {
        rcode: 0,
        answers: answers.concat(),
        authority: authority.to_vec(),
    };
    let unsigned = vec![dname[0].clone()];
    for (what, qtype, reply, verdict) in [
        ("both", CNAME, of(&[dname.clone(), made("x.test")], &[]), SECURE),
        ("the DNAME alone", CNAME, of(std::slice::from_ref(&dname), &[]), SECURE),
        ("unsigned", CNAME, of(&[unsigned, made("x.test")], &[]), UNSIGNED),
        ("all types", 255, of(&[dname.clone(), made("x.test")], &[]), SECURE),
        ("another type", A, of(&[dname.clone(), made("x.test")], &[]), BOGUS),
        ("the target denied", CNAME, Reply { rcode: 3, ..of(&[dname.clone(), made("x.test")], &denial) }, SECURE),
        ("the target denied, unproved", CNAME, of(&[dname, made("x.test")], &[soa("test")]), BOGUS),
    ] {
        let mut net = net.anew();
        net.put("x.test", DS, Reply::no_data(denial.clone()));
        assert_eq!(net.verdict("x.old.zone.example", qtype, &reply), verdict, "{what}");
    }
}

/// A wildcard has an NSEC record of its own, which is shown as any of its records is; where it denies it is none.
#[test]
fn the_nsec_record_of_a_wildcard_answers_who_asks_for_it() {
    let net = net();
    let zone = &net.zones["zone.example"];
    let expanded = |next: &str, labels| {
        let record = nsec("one.wild.zone.example", next, &[A]);
        let how = How { labels: Some(labels), ..How::default() };
        vec![record.clone(), zone.sign(&[record], how)]
    };
    let proof = of_zone(&net, &[nsec("*.wild.zone.example", "z.zone.example", &[A])]);
    for (what, qtype, answers, authority, verdict) in [
        ("with its proof", NSEC, expanded("here.wild.zone.example", 3), proof, SECURE),
        ("without", NSEC, expanded("here.wild.zone.example", 3), vec![], BOGUS),
        ("its own proof", NSEC, expanded("z.zone.example", 3), vec![], SECURE),
        ("the same of a wildcard further up", NSEC, expanded("z.wild.zone.example", 2), vec![], BOGUS),
        ("as a denial", MX, vec![], expanded("z.zone.example", 3), Verdict::Bogus(Bogus::Signature)),
    ] {
        let reply = Reply { rcode: 0, answers, authority };
        assert_eq!(net.anew().verdict("one.wild.zone.example", qtype, &reply), verdict, "{what}");
    }
}
