//! What a client that validates is shown of the authority section.

use staunch_scoring::{NameBuf, NameRef};

use super::*;

const NSEC: Qtype = Qtype(47);
const NSEC3: Qtype = Qtype(50);
/// Types a name may have: A, RRSIG, NSEC.
const TYPES: [u8; 8] = [0, 6, 0x40, 0, 0, 0, 0, 3];

fn sig(covered: Qtype, labels: u8, signer: &str) -> Vec<u8> {
    [&covered.0.to_be_bytes()[..], &[13, labels], &[0; 14], &wire(signer), b"signature"].concat()
}

fn nsec(next: &str) -> Vec<u8> {
    [&wire(next)[..], &TYPES].concat()
}

fn nsec3() -> Vec<u8> {
    [&[1, 0, 0, 0, 2, 0xab, 0xcd, 20][..], &[7; 20], &TYPES].concat()
}

/// An owner of an NSEC3 record.
fn hashed(n: u8, zone: &str) -> String {
    format!("{}.{zone}", char::from(b'a' + n).to_string().repeat(32))
}

trait Signed {
    fn soa(self, zone: &str) -> Self;
    fn proof(self, owner: &str, rtype: Qtype, ttl: u32, data: &[u8], signer: &str) -> Self;
}

impl Signed for Build {
    /// A signed SOA with a negative TTL of 300 seconds.
    fn soa(self, zone: &str) -> Self {
        self.rr(1, zone, Qtype::SOA, 900, &soa(300)).rr(1, zone, Qtype::RRSIG, 900, &sig(Qtype::SOA, 1, zone))
    }

    /// A record of the authority section with its signature.
    fn proof(self, owner: &str, rtype: Qtype, ttl: u32, data: &[u8], signer: &str) -> Self {
        let labels = owner.split('.').filter(|label| *label != "*").count() as u8;
        self.rr(1, owner, rtype, ttl, data).rr(1, owner, Qtype::RRSIG, ttl, &sig(rtype, labels, signer))
    }
}

/// Authority section as text: owner, type.
fn authority(vetted: &Vetted, qname: &str, qtype: Qtype) -> Vec<String> {
    let name = NameBuf::from_text(qname).expect("name");
    let reply = whole(&vetted.answer, name.as_ref().as_wire(), qtype.0);
    let message = super::super::message::Message::read(&reply).expect("own reply is whole");
    let text = |r: &super::super::message::Record| {
        let owner = NameRef::from_wire(message.owner(r)).expect("name");
        let rtype = match r.rtype {
            6 => "SOA",
            46 => "RRSIG",
            47 => "NSEC",
            50 => "NSEC3",
            _ => "?",
        };
        format!("{owner} {rtype}")
    };
    message.authorities().iter().map(text).collect()
}

fn nx(qname: &str) -> Build {
    Build::new(qname, Qtype::A).flags(0x81a3)
}

fn no_data(qname: &str) -> Build {
    Build::new(qname, Qtype::A).flags(0x81a0)
}

#[test]
fn a_denial_keeps_what_proves_it_and_nothing_without_do() {
    let q = "b.z.example";
    let rows: Vec<(&str, Build, &[&str])> = vec![
        (
            "the name and the wildcard do not exist",
            nx(q).soa("z.example").proof("a.z.example", NSEC, 300, &nsec("c.z.example"), "z.example").proof(
                "z.example",
                NSEC,
                300,
                &nsec("a.z.example"),
                "z.example",
            ),
            &["a.z.example NSEC", "a.z.example RRSIG", "z.example NSEC", "z.example RRSIG"],
        ),
        (
            "the name has other types",
            no_data(q).soa("z.example").proof(q, NSEC, 300, &nsec("c.z.example"), "z.example"),
            &["b.z.example NSEC", "b.z.example RRSIG"],
        ),
        (
            "there are only names below",
            no_data(q).soa("z.example").proof("a.z.example", NSEC, 300, &nsec("x.b.z.example"), "z.example"),
            &["a.z.example NSEC", "a.z.example RRSIG"],
        ),
        (
            "the wildcard has other types",
            no_data(q).soa("z.example").proof("a.z.example", NSEC, 300, &nsec("c.z.example"), "z.example").proof(
                "*.z.example",
                NSEC,
                300,
                &nsec("a.z.example"),
                "z.example",
            ),
            &["a.z.example NSEC", "a.z.example RRSIG", "*.z.example NSEC", "*.z.example RRSIG"],
        ),
        (
            "by hashes",
            (0..3).fold(nx(q).soa("z.example"), |build, n| {
                build.proof(&hashed(n, "z.example"), NSEC3, 300, &nsec3(), "z.example")
            }),
            &[
                "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa.z.example NSEC3",
                "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa.z.example RRSIG",
                "bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb.z.example NSEC3",
                "bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb.z.example RRSIG",
                "cccccccccccccccccccccccccccccccc.z.example NSEC3",
                "cccccccccccccccccccccccccccccccc.z.example RRSIG",
            ],
        ),
        (
            "by a record made for the question (RFC 9824)",
            no_data(q).soa("z.example").proof(q, NSEC, 300, &nsec("\0.b.z.example"), "z.example"),
            &["b.z.example NSEC", "b.z.example RRSIG"],
        ),
        (
            "in the root",
            nx("b").soa(".").proof("a", NSEC, 300, &nsec("c"), ".").proof(".", NSEC, 300, &nsec("a"), "."),
            &["a NSEC", "a RRSIG", ". NSEC", ". RRSIG"],
        ),
    ];
    for (what, build, expected) in rows {
        let q = build.qname.to_string();
        let zone = if q == "b" { "." } else { "z.example" };
        let vetted = build.vet_do(&AnswerRules::default(), true);
        let soa = [format!("{zone} SOA"), format!("{zone} RRSIG")];
        let all: Vec<String> = soa.iter().cloned().chain(expected.iter().map(|s| s.to_string())).collect();
        assert_eq!(authority(&vetted, &q, Qtype::A), all, "{what}");
        assert_eq!((vetted.answer.authentic_data, vetted.answer.ttl), (true, 300), "{what}");
        assert_eq!((vetted.answer.answers, vetted.answer.pins.len(), vetted.names.len()), (0, 0, 0), "{what}");

        let without = build.vet(&AnswerRules::default());
        assert_eq!(authority(&without, &q, Qtype::A), soa[..1], "{what}");
        assert_eq!((without.answer.authentic_data, without.kind), (true, vetted.kind), "{what}");
    }
}

/// Every row adds something to a good denial that proves nothing of it: it is not shown. What belongs to no proof of this takes
/// nothing away; where it may have been part of one, AD is withdrawn.
#[test]
fn what_proves_nothing_is_left_out() {
    let q = "b.z.example";
    let good = || {
        nx(q).soa("z.example").proof("a.z.example", NSEC, 300, &nsec("c.z.example"), "z.example").proof(
            "z.example",
            NSEC,
            300,
            &nsec("a.z.example"),
            "z.example",
        )
    };
    let expected = authority(&good().vet_do(&AnswerRules::default(), true), q, Qtype::A);
    assert_eq!(expected.len(), 6);
    let hash = hashed(0, "z.example");
    let rows: Vec<(&str, bool, Build)> = vec![
        ("of another zone", true, good().proof("a.y.example", NSEC, 300, &nsec("c.y.example"), "y.example")),
        ("of the parent", true, good().proof("a.example", NSEC, 300, &nsec("zz.example"), "example")),
        ("signed by another zone", false, good().proof("aa.z.example", NSEC, 300, &nsec("c.z.example"), "example")),
        ("leads out of the zone", true, good().proof("aa.z.example", NSEC, 300, &nsec("bank.example"), "z.example")),
        ("not signed", false, good().rr(1, "aa.z.example", NSEC, 300, &nsec("c.z.example"))),
        ("denies another name", true, good().proof("m.z.example", NSEC, 300, &nsec("n.z.example"), "z.example")),
        ("denies a name below", true, good().proof("x.b.z.example", NSEC, 300, &nsec("y.b.z.example"), "z.example")),
        ("types malformed", false, good().proof("aa.z.example", NSEC, 300, &wire("c.z.example"), "z.example")),
        ("a hash that is none", false, good().proof(&"x".repeat(32), NSEC3, 300, &nsec3(), ".")),
        ("a hash of another zone", true, good().proof(&hashed(0, "y.example"), NSEC3, 300, &nsec3(), "y.example")),
        ("a hash deeper", true, good().proof(&hashed(0, "x.z.example"), NSEC3, 300, &nsec3(), "z.example")),
        ("a hash cut short", false, good().proof(&hash, NSEC3, 300, &nsec3()[..20], "z.example")),
        ("another algorithm", false, good().proof(&hash, NSEC3, 300, &[&[2], &nsec3()[1..]].concat(), "z.example")),
        (
            "five signatures",
            false,
            (0..5).fold(good().rr(1, &hash, NSEC3, 300, &nsec3()), |build, n| {
                let sig = [sig(NSEC3, 3, "z.example"), vec![n]].concat();
                build.rr(1, &hash, Qtype::RRSIG, 300, &sig)
            }),
        ),
    ];
    for (what, authentic, build) in rows {
        let vetted = build.vet_do(&AnswerRules::default(), true);
        assert_eq!(authority(&vetted, q, Qtype::A), expected, "{what}");
        assert_eq!(vetted.answer.authentic_data, authentic, "{what}");
        assert_eq!((vetted.kind, vetted.answer.pins.len(), vetted.names.len()), (Kind::NxDomain, 0, 0), "{what}");
    }
    // A name has one NSEC record; the first that came is shown.
    let twice = good().proof("a.z.example", NSEC, 300, &nsec("d.z.example"), "z.example");
    let vetted = twice.vet_do(&AnswerRules::default(), true);
    let shown = authority(&vetted, q, Qtype::A);
    assert_eq!(shown.iter().filter(|r| *r == "a.z.example NSEC").count(), 1);
    assert!(!vetted.answer.authentic_data);

    let evil = [203, 0, 113, 66];
    let rows: Vec<(&str, Build)> = vec![
        ("addresses", good().proof("b.z.example", Qtype::A, 300, &evil, "z.example")),
        ("name servers", good().proof("z.example", Qtype::NS, 300, &wire("ns.evil.example"), "z.example")),
        ("another SOA", good().soa("y.example")),
        ("a second SOA", good().soa("example")),
        ("a lone signature", good().rr(1, "a.z.example", Qtype::RRSIG, 300, &sig(Qtype::A, 3, "z.example"))),
        ("a proof in the answer section", good().an("a.z.example", NSEC, 300, &nsec("c.z.example"))),
    ];
    for (what, build) in rows {
        let vetted = build.vet_do(&AnswerRules::default(), true);
        assert_eq!(authority(&vetted, q, Qtype::A), expected, "{what}");
        assert!(vetted.answer.pins.is_empty() && vetted.answer.answers == 0, "{what}");
    }
}

/// RFC 2181 section 5: what comes again with another TTL is the same record, which lives as long as the least of them says.
#[test]
fn a_record_that_comes_twice_is_one() {
    let q = "b.z.example";
    let twice = |build: Build, owner: &str, rtype: Qtype, data: &[u8]| {
        let once = build.proof(owner, rtype, 300, data, "z.example");
        (0..5).fold(once, |build, n| build.proof(owner, rtype, 90 - n, data, "z.example"))
    };
    let by_name = twice(nx(q).soa("z.example"), "a.z.example", NSEC, &nsec("c.z.example"));
    let by_hash = (0..3).fold(nx(q).soa("z.example").soa("z.example"), |build, n| {
        twice(build, &hashed(n, "z.example"), NSEC3, &nsec3())
    });
    for (build, count) in [(by_name, 4), (by_hash, 8)] {
        let vetted = build.vet_do(&AnswerRules::default(), true);
        let ttl = vetted.answer.ttl;
        assert_eq!((vetted.answer.authorities, vetted.answer.authentic_data, ttl), (count, true, 86));
    }
}

#[test]
fn without_a_zone_that_denies_there_is_no_proof() {
    let q = "b.z.example";
    let proof = |build: Build| build.proof("a.z.example", NSEC, 300, &nsec("c.z.example"), "z.example");
    for (what, authentic, build) in [
        ("no SOA", false, proof(nx(q))),
        ("a SOA of elsewhere", false, proof(nx(q).soa("y.example"))),
        // There is nothing to prove.
        ("a positive answer", true, proof(no_data(q).a(q, [203, 0, 113, 1]))),
        ("more than is looked at", true, (0..17).fold(no_data(q).a(q, [203, 0, 113, 1]), |build, _| proof(build))),
    ] {
        let vetted = build.vet_do(&AnswerRules::default(), true);
        assert_eq!((vetted.answer.authorities, vetted.answer.authentic_data), (0, authentic), "{what}");
    }
    assert!(!nx(q).vet(&AnswerRules::default()).answer.authentic_data, "a bare denial is not authentic");
    // An answer that the guard emptied is ours: nothing in it is proved.
    let vetted = proof(no_data(q).a(q, [10, 0, 0, 1]).soa("z.example")).vet_do(&AnswerRules::default(), true);
    assert_eq!((vetted.answer.authorities, vetted.answer.authentic_data), (1, false));
    assert!(!String::from_utf8_lossy(&vetted.answer.body).contains("signature"));
}

#[test]
fn a_wildcards_answer_keeps_the_proof_that_the_name_is_not_there() {
    let q = "b.w.z.example";
    let expanded =
        |labels: u8| no_data(q).a(q, [203, 0, 113, 1]).an(q, Qtype::RRSIG, 300, &sig(Qtype::A, labels, "z.example"));
    let by_name = |build: Build| build.proof("*.w.z.example", NSEC, 60, &nsec("z.z.example"), "z.example");
    let by_hash = |build: Build| build.proof(&hashed(0, "z.example"), NSEC3, 60, &nsec3(), "z.example");
    for (what, build, owner) in [
        ("by name", by_name(expanded(3)), "*.w.z.example NSEC".to_owned()),
        ("by hash", by_hash(expanded(3)), format!("{} NSEC3", hashed(0, "z.example"))),
    ] {
        let vetted = build.vet_do(&AnswerRules::default(), true);
        let shown = authority(&vetted, q, Qtype::A);
        assert_eq!((shown.len(), &shown[0]), (2, &owner), "{what}");
        assert_eq!((vetted.kind, vetted.answer.answers, vetted.answer.ttl), (Kind::Positive, 2, 60), "{what}");
        assert_eq!((vetted.answer.authentic_data, vetted.answer.pins.len()), (true, 1), "{what}");
        assert_eq!(build.vet(&AnswerRules::default()).answer.authorities, 0, "{what}");
    }
    for (what, authentic, build) in [
        ("no wildcard", true, by_name(expanded(4))),
        (
            "a zone of elsewhere",
            true,
            by_name(no_data(q).a(q, [203, 0, 113, 1]).an(q, Qtype::RRSIG, 300, &sig(Qtype::A, 3, "y.example"))),
        ),
        ("another name", false, expanded(3).proof("c.w.z.example", NSEC, 60, &nsec("d.w.z.example"), "z.example")),
    ] {
        let vetted = build.vet_do(&AnswerRules::default(), true);
        assert_eq!((vetted.answer.authorities, vetted.answer.authentic_data), (0, authentic), "{what}");
    }
    // A set that the guard has edited is shown without signature, and nothing is left to prove.
    let vetted = by_name(expanded(3).a(q, [10, 0, 0, 1])).vet_do(&AnswerRules::default(), true);
    assert_eq!((vetted.answer.answers, vetted.answer.authorities, vetted.answer.authentic_data), (1, 0, false));
}

/// An owner of an NSEC3 record of `z.example`, so far behind the hash of `name` in its last octet, and the record's data, which
/// leads to two behind.
fn spanning(name: &str, behind: i16) -> (String, Vec<u8>) {
    let name = NameBuf::from_text(name).expect("name");
    let hash = hash(&[0xab, 0xcd], 0, name.as_ref()).expect("a hash");
    let off = |behind: i16| {
        let mut hash = hash;
        hash[19] = u8::try_from(i16::from(hash[19]) + behind).expect("no carry");
        hash
    };
    let bits: Vec<u8> = off(behind).iter().flat_map(|octet| (0..8).rev().map(move |bit| octet >> bit & 1)).collect();
    let digit = |chunk: &[u8]| usize::from(chunk.iter().fold(0, |value, bit| value << 1 | bit));
    let label = bits.chunks(5).map(|chunk| char::from(b"0123456789abcdefghijklmnopqrstuv"[digit(chunk)]));
    let data = [&[1, 0, 0, 0, 2, 0xab, 0xcd, 20][..], &off(behind + 2), &TYPES].concat();
    (format!("{}.z.example", label.collect::<String>()), data)
}

/// Where one zone speaks of several things, what belongs to each is shown, and the rest takes nothing away (RFC 4035 sections
/// 3.1.3.3 and 5.3.4, RFC 5155 section 7.2.6): unbound adds that a delegation further down the chain has no key.
#[test]
fn of_more_hashes_than_a_proof_takes_those_that_belong_are_shown() {
    let with = |build: Build, hashes: &[&(String, Vec<u8>)]| {
        hashes.iter().fold(build, |build, (owner, data)| build.proof(owner, NSEC3, 300, data, "z.example"))
    };
    let q = "b.w.z.example";
    let expanded = || {
        no_data(q)
            .cname(q, "host.child.z.example")
            .an(q, Qtype::RRSIG, 300, &sig(Qtype::CNAME, 3, "z.example"))
            .a("host.child.z.example", [203, 0, 113, 1])
    };
    let (closer, delegation) = (spanning(q, -1), spanning("child.z.example", 0));
    let (other, another) = (spanning("z.example", 0), spanning("w.z.example", 0));
    for hashes in [
        &[&closer, &delegation][..],
        &[&other, &another, &closer, &delegation],
        &[&closer, &other, &another, &delegation],
    ] {
        let vetted = with(expanded(), hashes).vet_do(&AnswerRules::default(), true);
        let shown: Vec<String> = authority(&vetted, q, Qtype::A).into_iter().step_by(2).collect();
        assert_eq!(shown, [&closer, &delegation].map(|(owner, _)| format!("{owner} NSEC3")));
        assert_eq!((vetted.kind, vetted.answer.answers, vetted.answer.authentic_data), (Kind::Positive, 3, true));
    }
    // So it is by names: the wildcard's, the delegation's, and nothing else.
    let cut = |types: u8| [&wire("d.z.example")[..], &[0, 6, types, 0, 0, 0, 0, 3]].concat();
    for (owner, types, shown) in [
        ("child.z.example", 0x20, 4),
        ("host.child.z.example", 0x20, 4),
        ("z.example", 0x20, 2),
        ("aa.z.example", 0x20, 2),
        ("child.z.example", 0x40, 2),
        ("child.z.example", 0x22, 2),
    ] {
        let by_name = expanded().proof("*.w.z.example", NSEC, 60, &nsec("z.z.example"), "z.example");
        let vetted = by_name.proof(owner, NSEC, 60, &cut(types), "z.example").vet_do(&AnswerRules::default(), true);
        assert_eq!(authority(&vetted, q, Qtype::A).len(), shown, "{owner} {types:x}");
    }
    // Also of a denial, whichever of them come first.
    let q = "gone.z.example";
    let denial = [spanning("z.example", 0), spanning(q, -1), spanning("*.z.example", -1)];
    let hashes = [&delegation, &closer, &denial[0], &denial[1], &denial[2]];
    let vetted = with(nx(q).soa("z.example"), &hashes).vet_do(&AnswerRules::default(), true);
    let shown: Vec<String> = authority(&vetted, q, Qtype::A).into_iter().skip(2).step_by(2).collect();
    assert_eq!(shown, denial.clone().map(|(owner, _)| format!("{owner} NSEC3")));
    // That the name has no such type takes one.
    let own = spanning(q, 0);
    let vetted = with(no_data(q).soa("z.example"), &[&delegation, &closer, &denial[0], &own]);
    let shown = authority(&vetted.vet_do(&AnswerRules::default(), true), q, Qtype::A);
    assert_eq!(shown[2..], [format!("{} NSEC3", own.0), format!("{} RRSIG", own.0)]);
    // Iterations that nobody is to compute: as many as a proof takes, in the order they came.
    let costly = |(owner, data): &(String, Vec<u8>)| (owner.clone(), [&data[..2], &[1, 0], &data[4..]].concat());
    let hashes = [&other, &another, &delegation, &closer].map(costly);
    let vetted = with(expanded(), &hashes.each_ref()).vet_do(&AnswerRules::default(), true);
    assert_eq!(authority(&vetted, "b.w.z.example", Qtype::A).len(), 6);
}

#[test]
fn each_zone_of_a_chain_proves_its_own() {
    let q = "b.w.z.example";
    let build = nx(q)
        .cname(q, "gone.y.example")
        .an(q, Qtype::RRSIG, 300, &sig(Qtype::CNAME, 3, "z.example"))
        .proof("*.w.z.example", NSEC, 300, &nsec("z.z.example"), "z.example")
        .soa("y.example")
        .proof(&hashed(0, "y.example"), NSEC3, 300, &nsec3(), "y.example")
        .proof(&hashed(1, "y.example"), NSEC3, 300, &nsec3(), "y.example");
    let vetted = build.vet_do(&AnswerRules::default(), true);
    assert_eq!((vetted.kind, vetted.answer.answers, vetted.answer.authentic_data), (Kind::NxDomain, 2, true));
    let shown = authority(&vetted, q, Qtype::A);
    assert_eq!((shown.len(), shown[2].as_str()), (8, "*.w.z.example NSEC"));
    assert_eq!(vetted.names, [NameBuf::from_text("gone.y.example").expect("name")], "no name of a proof is a hop");
}

#[test]
fn an_absent_ds_is_proved_by_the_parent() {
    let q = "plain.example";
    let ds = || Build::new(q, Qtype::DS).flags(0x81a0).soa("example");
    let direct = ds().proof(q, NSEC, 300, &[&wire("s.example")[..], &[0, 6, 0x20, 0, 0, 0, 0, 3]].concat(), "example");
    let opt_out = (0..2).fold(ds(), |build, n| build.proof(&hashed(n, "example"), NSEC3, 300, &nsec3(), "example"));
    for (build, count) in [(direct, 4), (opt_out, 6)] {
        let vetted = build.vet_do(&AnswerRules::default(), true);
        assert_eq!((vetted.kind, vetted.answer.authorities), (Kind::NoData, count));
        assert!(vetted.answer.authentic_data);
    }
}

/// RFC 2308 section 5 and RFC 9077 section 3: nothing of a denial outlives the lesser of the SOA's TTL and its last field.
#[test]
fn a_denial_lives_as_long_as_its_shortest_part() {
    let q = "b.z.example";
    for (nsec_ttl, expected, shown) in [(3600, 300, 300), (30, 30, 30)] {
        let vetted = nx(q)
            .soa("z.example")
            .proof("a.z.example", NSEC, nsec_ttl, &nsec("c.z.example"), "z.example")
            .vet_do(&AnswerRules::default(), true);
        assert_eq!(vetted.answer.ttl, expected);
        let ttls: Vec<u32> = parsed(&vetted, q, Qtype::A).authorities.iter().map(|r| r.ttl).collect();
        assert_eq!(ttls, [300, 300, shown, shown]);
    }
    let capped = nx(q)
        .soa("z.example")
        .proof("a.z.example", NSEC, 3600, &nsec("c.z.example"), "z.example")
        .vet_do(&AnswerRules { max_ttl: 20, ..AnswerRules::default() }, true);
    assert!(parsed(&capped, q, Qtype::A).authorities.iter().all(|r| r.ttl == 20));
}

#[test]
fn a_proof_that_is_too_large_is_left_out_whole() {
    let q = "b.z.example";
    let expect = |what: &str, build: Build, shown: usize| {
        let vetted = build.vet_do(&AnswerRules::default(), true);
        assert_eq!((authority(&vetted, q, Qtype::A).len(), vetted.answer.authentic_data), (shown, false), "{what}");
    };
    let hashes = |n: u8| {
        (0..n).fold(nx(q).soa("z.example"), |build, n| {
            build.proof(&hashed(n, "z.example"), NSEC3, 300, &nsec3(), "z.example")
        })
    };
    expect("more hashes than a proof takes", hashes(4), 2);
    expect("more records than are looked at", hashes(17), 2);
    let long = |octets: usize| [sig(NSEC, 3, "z.example"), vec![0; octets]].concat();
    let with = |octets: usize| {
        nx(q).soa("z.example").rr(1, "a.z.example", NSEC, 300, &nsec("c.z.example")).rr(
            1,
            "a.z.example",
            Qtype::RRSIG,
            300,
            &long(octets),
        )
    };
    expect("a signature of 20,000 octets", with(20_000), 2);
    assert_eq!(with(4_000).vet_do(&AnswerRules::default(), true).answer.authorities, 4);
    // What is beyond the size of an honest proof counts as data.
    let counted = |octets: usize| with(octets).vet_do(&AnswerRules::default(), true).data_octets;
    assert_eq!((counted(0), counted(1_500)), (0, 0));
    assert!((2_000..2_500).contains(&counted(4_000)), "{}", counted(4_000));
    assert_eq!(with(4_000).vet(&AnswerRules::default()).data_octets, 0, "nothing of it is shown");
    let soa_signed = nx(q).rr(1, "z.example", Qtype::SOA, 900, &soa(300)).rr(
        1,
        "z.example",
        Qtype::RRSIG,
        900,
        &[sig(Qtype::SOA, 2, "z.example"), vec![0; 20_000]].concat(),
    );
    expect("the SOA's signature", soa_signed, 1);
}

#[test]
fn names_are_written_as_signatures_cover_them() {
    // Compression is for owners alone (RFC 3597 section 4), and spelling within data stays.
    let q = "b.z.example";
    let vetted = nx(q)
        .soa("z.example")
        .proof("A.z.example", NSEC, 300, &nsec("C.z.Example"), "z.example")
        .vet_do(&AnswerRules::default(), true);
    let body = &vetted.answer.body;
    assert!(body.windows(nsec("C.z.Example").len()).any(|w| w == nsec("C.z.Example")));
    assert!(body.ends_with(&sig(NSEC, 3, "z.example")));
    let reply = parsed(&vetted, q, Qtype::A);
    assert_eq!(reply.authorities.len(), 4, "another parser reads it");
    // 12-octet owners and more are pointers into the question.
    assert!(body.starts_with(&[0xc0, 14]), "{body:x?}");
}

/// Names of 255 octets on every side: the wildcard below the closest encloser does not fit, and is no part of the proof.
#[test]
fn the_longest_names_are_denied_too() {
    let label = "a".repeat(63);
    let zone = format!("{label}.{label}.{label}");
    let [q, before, behind] = ["m", "b", "x"].map(|first| format!("{}.{zone}", first.repeat(61)));
    let vetted =
        nx(&q).soa(&zone).proof(&before, NSEC, 300, &nsec(&behind), &zone).vet_do(&AnswerRules::default(), true);
    assert_eq!((vetted.answer.authorities, vetted.answer.authentic_data), (4, true));
    assert_eq!(parsed(&vetted, &q, Qtype::A).authorities.len(), 4);
    let deep = format!("{}bb.{zone}", "a.".repeat(29));
    let vetted = nx(&deep).soa(&zone).proof(&format!("{}bb.{zone}", "0."), NSEC, 300, &nsec(&behind), &zone);
    assert_eq!(vetted.vet_do(&AnswerRules::default(), true).answer.authorities, 4);
}
