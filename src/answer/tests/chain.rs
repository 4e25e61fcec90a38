//! What lies on the chain of the question.

use staunch_scoring::NameBuf;

use super::super::*;
use super::*;

/// Every row adds something to a good answer that does not belong to it; none may be shown or pinned.
#[test]
fn injected_records_are_left_out() {
    let q = "www.example.com";
    let good = || Build::new(q, Qtype::A).cname(q, "cdn.example.net").a("cdn.example.net", [203, 0, 113, 1]);
    let evil = [203, 0, 113, 66];
    let rows: Vec<(&str, Build)> = vec![
        ("unrelated A behind", good().a("bank.example.org", evil)),
        (
            "unrelated A in front",
            Build::new(q, Qtype::A)
                .a("bank.example.org", evil)
                .cname(q, "cdn.example.net")
                .a("cdn.example.net", [203, 0, 113, 1]),
        ),
        ("parent's A", good().a("example.com", evil)),
        ("A below the name", good().a("x.www.example.com", evil)),
        ("sibling's A", good().a("mail.example.com", evil)),
        ("second alias at the same name", good().cname(q, "evil.example.org").a("evil.example.org", evil)),
        ("alias off the chain", good().cname("bank.example.org", "evil.example.org").a("evil.example.org", evil)),
        ("address at the root", good().a(".", evil)),
        ("DNAME that covers another name", good().an("example.org", Qtype::DNAME, 300, &wire("evil.example"))),
        (
            "NS and glue in authority",
            good().rr(1, "com", Qtype::NS, 300, &wire("ns.evil")).rr(1, "ns.evil", Qtype::A, 300, &evil),
        ),
        ("A of the asked name in authority", good().rr(1, "cdn.example.net", Qtype::A, 300, &evil)),
        ("glue in additional", good().rr(2, "cdn.example.net", Qtype::A, 300, &evil)),
        ("A of the asked name in additional", good().rr(2, q, Qtype::A, 300, &evil)),
        ("other type at the chain's end", good().an("cdn.example.net", Qtype::TXT, 300, b"\x04evil")),
        ("SOA of a positive answer", good().rr(1, "example.net", Qtype::SOA, 300, &soa(60))),
        ("signature nobody asked for", good().an("cdn.example.net", Qtype::RRSIG, 300, &[0; 30])),
        ("address behind the alias' owner", good().an(q, Qtype::NS, 300, &wire("evil.example"))),
        ("short A", good().an("cdn.example.net", Qtype::A, 300, &evil[..3])),
    ];
    for (what, build) in rows {
        let vetted = build.vet(&AnswerRules::default());
        assert_eq!(
            shown(&vetted, q, Qtype::A),
            ["www.example.com. CNAME cdn.example.net.", "cdn.example.net. A 203.0.113.1"],
            "{what}"
        );
        assert_eq!(*vetted.answer.pins, [ip("203.0.113.1")], "{what}");
        assert_eq!(vetted.answer.authorities, 0, "{what}");
    }
}

#[test]
fn another_class_is_off_the_chain() {
    let build = Build::new("a.example", Qtype::A).a("a.example", [203, 0, 113, 1]);
    let mut octets = build.octets();
    // Class of the record: behind the question and the record's name and type.
    let at = 12 + 11 + 4 + 11 + 2;
    octets[at..at + 2].copy_from_slice(&3u16.to_be_bytes());
    let name = NameBuf::from_text("a.example").expect("name");
    let asked = Asked { qname: name.as_ref(), qtype: Qtype::A, dnssec_ok: false };
    let vetted = vet(&octets, asked, &AnswerRules::default()).expect("well-formed");
    assert_eq!((vetted.answer.answers, vetted.answer.pins.len(), vetted.kind), (0, 0, Kind::NoData));
}

#[test]
fn other_questions_are_refused() {
    let octets = Build::new("a.example", Qtype::A).a("a.example", [203, 0, 113, 1]).octets();
    let refused = |qname: &str, qtype, octets: &[u8]| {
        let name = NameBuf::from_text(qname).expect("name");
        vet(octets, Asked { qname: name.as_ref(), qtype, dnssec_ok: false }, &AnswerRules::default()).err()
    };
    assert_eq!(refused("a.example", Qtype::A, &octets), None);
    assert_eq!(refused("b.example", Qtype::A, &octets), Some(VetError::WrongQuestion));
    assert_eq!(refused("a.example", Qtype::AAAA, &octets), Some(VetError::WrongQuestion));
    for (at, value, error) in [
        (2, 0x01, VetError::WrongQuestion), // QR=0
        (2, 0xa9, VetError::WrongQuestion), // opcode 5
        (5, 2, VetError::WrongQuestion),    // two questions
        (2, 0x83, VetError::Truncated),
        (7, 9, VetError::Malformed), // more records claimed than there are
    ] {
        let mut bent = octets.clone();
        bent[at] = value;
        assert_eq!(refused("a.example", Qtype::A, &bent), Some(error), "octet {at}");
    }
}

#[test]
fn chains_are_followed_and_bounded() {
    let chain = |hops: usize| {
        let mut build = Build::new("h0.example", Qtype::A);
        // Backwards, since order in the section means nothing.
        for i in (0..hops).rev() {
            build = build.cname(&format!("h{i}.example"), &format!("h{}.example", i + 1));
        }
        build.a(&format!("h{hops}.example"), [203, 0, 113, 1]).vet(&AnswerRules::default())
    };
    for hops in [0, 1, MAX_HOPS] {
        let vetted = chain(hops);
        assert_eq!((vetted.kind, usize::from(vetted.answer.answers)), (Kind::Positive, hops + 1));
        assert_eq!(vetted.names.len(), hops, "every hop is reported");
        assert_eq!(parsed(&vetted, "h0.example", Qtype::A).answers.len(), hops + 1);
    }
    for hops in [MAX_HOPS + 1, 50] {
        let vetted = chain(hops);
        assert_eq!((vetted.kind, vetted.answer.rcode, vetted.answer.pins.len()), (Kind::Failure, 2, 0));
    }
    let itself = Build::new("a.example", Qtype::A).cname("a.example", "a.example").vet(&AnswerRules::default());
    assert_eq!(itself.kind, Kind::Failure);
    let ring = Build::new("a.example", Qtype::A).cname("a.example", "b.example").cname("b.example", "A.Example");
    assert_eq!(ring.vet(&AnswerRules::default()).kind, Kind::Failure);
}

#[test]
fn dname_is_followed_with_or_without_its_cname() {
    let base = || {
        Build::new("w.old.example", Qtype::A)
            .an("old.example", Qtype::DNAME, 300, &wire("new.example"))
            .a("w.new.example", [203, 0, 113, 1])
    };
    let expected =
        ["old.example. DNAME new.example.", "w.old.example. CNAME w.new.example.", "w.new.example. A 203.0.113.1"];
    let rules = AnswerRules::default();
    let rows = [
        ("made by us", base()),
        ("made by the upstream", base().cname("w.old.example", "w.new.example")),
        ("made by the upstream, for no time", base().an("w.old.example", Qtype::CNAME, 0, &wire("w.new.example"))),
        // Servers give what they take from the question the question's letter case.
        ("made by the upstream in letter case", base().cname("w.old.example", "W.nEw.example")),
        ("made to lie", base().cname("w.old.example", "evil.example").a("evil.example", [203, 0, 113, 66])),
    ];
    for (what, build) in rows {
        let vetted = build.vet(&rules);
        let mut shown = shown(&vetted, "w.old.example", Qtype::A);
        shown[0] = shown[0].replace("ANAME", "DNAME");
        assert_eq!(shown[1..], expected[1..], "{what}");
        assert!(shown[0].starts_with("old.example. "), "{what}: {}", shown[0]);
        assert_eq!(*vetted.answer.pins, [ip("203.0.113.1")], "{what}");
        assert_eq!((vetted.answer.ttl, vetted.cacheable), (300, true), "{what}: as the DNAME (RFC 6672 section 3.1)");
        assert_eq!(vetted.whole, what != "made to lie", "{what}");
    }
    // Two cover the name: the order they come in must not decide where it leads.
    let (high, low) = (("example", "up.example.net"), ("old.example", "new.example"));
    for pair in [[high, low], [low, high]] {
        let build = pair.iter().fold(Build::new("w.old.example", Qtype::A), |build, (owner, target)| {
            build.an(owner, Qtype::DNAME, 300, &wire(target))
        });
        let vetted = build.a("w.old.up.example.net", [203, 0, 113, 2]).vet(&rules);
        assert_eq!(*vetted.answer.pins, [ip("203.0.113.2")]);
    }
    let long = format!("{}.{}", ["a"; 100].join("."), "old.example");
    let target = ["b"; 100].join(".");
    let too_long = Build::new(&long, Qtype::A).an("old.example", Qtype::DNAME, 60, &wire(&target));
    let vetted = too_long.vet(&rules);
    assert_eq!(vetted.kind, Kind::Failure, "the substituted name does not fit, and the upstream does not say so");
}

/// RFC 6672 section 2.2.
#[test]
fn a_dname_that_makes_too_long_a_name_is_an_answer() {
    const YXDOMAIN: u16 = 0x8186;
    let rules = AnswerRules::default();
    let long = format!("{}.old.example", ["a"; 100].join("."));
    let dname = |question: &str| Build::new(question, Qtype::A).flags(YXDOMAIN);
    let target = wire(&["b"; 100].join("."));
    let good = dname(&long).an("old.example", Qtype::DNAME, 60, &target);
    let behind = dname("w.example").cname("w.example", &long).an("old.example", Qtype::DNAME, 60, &target);
    for (what, build, answers) in [("alone", good, 1), ("behind an alias", behind, 2)] {
        let more = build.a("bank.example", [203, 0, 113, 66]);
        let vetted = more.vet(&rules);
        let answer = &vetted.answer;
        assert_eq!((answer.rcode, answer.answers, answer.authorities, answer.ttl), (6, answers, 0, 60), "{what}");
        assert_eq!((vetted.kind, vetted.dropped, answer.pins.len()), (Kind::Positive, 1, 0), "{what}");
    }
    let none = [
        ("no DNAME", dname(&long).a(&long, [203, 0, 113, 66])),
        ("one that fits", dname("w.old.example").an("old.example", Qtype::DNAME, 60, &wire("new.example"))),
        ("one of another name", dname(&long).an("older.example", Qtype::DNAME, 60, &target)),
    ];
    for (what, build) in none {
        assert_eq!(build.vet(&rules).kind, Kind::Failure, "{what}");
    }
}

/// RFC 6672 section 2.3: nothing exists below a DNAME, so a CNAME there is its work, and no proof without it.
#[test]
fn a_question_for_aliases_below_a_dname_keeps_it() {
    let q = "w.old.example";
    let rules = AnswerRules::default();
    let base = |qtype| Build::new(q, qtype).an("old.example", Qtype::DNAME, 300, &wire("new.example"));
    let both = [Qtype::DNAME, Qtype::CNAME];
    let further = [Qtype::DNAME, Qtype::CNAME, Qtype::CNAME];
    let types = |vetted: &Vetted| vetted.answer.records().map(|(rtype, _)| rtype).collect::<Vec<_>>();
    for qtype in [Qtype::CNAME, Qtype::ANY] {
        let rows = [
            ("made by us", base(qtype), &both[..]),
            ("made by the upstream", base(qtype).cname(q, "w.new.example"), &both[..]),
            ("made to lie", base(qtype).cname(q, "evil.example"), &both[..]),
            (
                "looked further",
                base(qtype).cname(q, "w.new.example").cname("w.new.example", "end.example"),
                &further[..],
            ),
        ];
        for (what, build, expected) in rows {
            let vetted = build.flags(0x81a0).vet(&rules);
            assert_eq!(types(&vetted), expected, "{what}");
            assert_eq!((vetted.kind, vetted.answer.ttl, vetted.answer.authorities), (Kind::Positive, 300, 0), "{what}");
            let target = &shown(&vetted, q, qtype)[1];
            assert_eq!(target, "w.old.example. CNAME w.new.example.", "{what}");
            assert_eq!(vetted.names, [NameBuf::from_text("w.new.example").expect("name")], "{what}");
            assert_eq!(
                (vetted.answer.authentic_data, vetted.dropped),
                (what != "made to lie", u16::from(what == "made to lie"))
            );
        }
        let end = base(qtype).cname(q, "w.new.example").rr(1, "new.example", Qtype::SOA, 60, &soa(60)).vet(&rules);
        assert_eq!((types(&end), end.answer.authorities, end.answer.ttl), (both.to_vec(), 1, 60), "with what ends it");
        let gone = base(qtype).cname(q, "w.new.example").flags(0x8183).rr(1, "new.example", Qtype::SOA, 60, &soa(60));
        let gone = gone.vet(&rules);
        assert_eq!((gone.kind, types(&gone), gone.answer.authorities), (Kind::NxDomain, both.to_vec(), 1));
        let apart = AnswerRules { apart: vec![NameBuf::from_text("new.example").expect("name")], ..rules.clone() };
        let led = base(qtype).cname(q, "w.new.example").cname("w.new.example", "end.example").flags(0x8183).vet(&apart);
        assert_eq!((led.kind, types(&led), led.answer.rcode), (Kind::Positive, both.to_vec(), 0), "no word on others");
        assert!(!led.answer.beyond, "nobody asks where it leads");
        let inside = Build::new(q, qtype).an("old.example", Qtype::DNAME, 300, &wire("internal")).vet(&rules);
        assert!(inside.internal_alias && inside.answer.answers == 0);
    }
    // Without a DNAME the alias is the answer, and nothing is followed.
    let plain = Build::new(q, Qtype::CNAME).cname(q, "a.example").cname("a.example", "b.example").vet(&rules);
    assert_eq!(shown(&plain, q, Qtype::CNAME), ["w.old.example. CNAME a.example."]);
    assert!(plain.names.is_empty());
}

/// A name that one redirection makes may be below it again.
#[test]
fn a_dname_that_a_chain_meets_again_is_shown_once() {
    let rules = AnswerRules::default();
    let q = "w.a.a.example";
    let up = |qtype| Build::new(q, qtype).an("a.example", Qtype::DNAME, 300, &wire("example"));
    let vetted = up(Qtype::A).a("w.example", [203, 0, 113, 1]).vet(&rules);
    let chain = [
        "a.example. DNAME B2V4YW1wbGUA",
        "w.a.a.example. CNAME w.a.example.",
        "w.a.example. CNAME w.example.",
        "w.example. A 203.0.113.1",
    ];
    assert_eq!(shown(&vetted, q, Qtype::A), chain);
    assert_eq!((vetted.dropped, vetted.answer.pins.len()), (0, 1));
    // The first alias is what a question for aliases asks for.
    assert_eq!(shown(&up(Qtype::CNAME).vet(&rules), q, Qtype::CNAME), chain[..2]);
    let deeper = Build::new(q, Qtype::CNAME).an("a.example", Qtype::DNAME, 300, &wire("b.a.example")).vet(&rules);
    assert_eq!((deeper.kind, deeper.answer.answers), (Kind::Positive, 2));
    assert_eq!(shown(&deeper, q, Qtype::CNAME)[1], "w.a.a.example. CNAME w.a.b.a.example.");
    let further = up(Qtype::CNAME).cname(q, "w.a.example").cname("w.a.example", "w.example").flags(0x8183).vet(&rules);
    assert_eq!((further.kind, further.dropped), (Kind::NxDomain, 0), "as far as the upstream has looked");
    assert_eq!(shown(&further, q, Qtype::CNAME), chain[..3]);
    // Whoever follows it never comes to an end.
    let deeper = Build::new(q, Qtype::A).an("a.example", Qtype::DNAME, 300, &wire("b.a.example")).vet(&rules);
    assert_eq!(deeper.kind, Kind::Failure);
}

#[test]
fn an_alias_to_an_inside_name_leads_nowhere() {
    for target in [
        "localhost",
        "db.localhost",
        "printer.local",
        "metadata.internal",
        "gateway",
        "router.home.arpa",
        "1.0.0.10.in-addr.arpa",
        "168.192.in-addr.arpa",
        "1.0.0.127.in-addr.arpa",
        "8.e.f.ip6.arpa",
    ] {
        let vetted = Build::new("a.example.com", Qtype::A)
            .cname("a.example.com", "b.example.com")
            .cname("b.example.com", target)
            .a(target, [203, 0, 113, 1])
            .vet(&AnswerRules::default());
        assert!(vetted.internal_alias, "{target}");
        assert_eq!((vetted.answer.answers, vetted.answer.pins.len()), (0, 0), "{target}");
        assert_eq!(vetted.kind, Kind::NoData);
        assert!(!String::from_utf8_lossy(&vetted.answer.body).contains(target.split('.').next().expect("label")));
    }
    for target in ["internal.example.com", "local.example", "1.113.0.203.in-addr.arpa", "0-25.2.0.192.in-addr.arpa"] {
        let vetted = Build::new("a.example.com", Qtype::A)
            .cname("a.example.com", target)
            .a(target, [203, 0, 113, 1])
            .vet(&AnswerRules::default());
        assert_eq!((vetted.internal_alias, vetted.answer.answers), (false, 2), "{target}");
    }
}

#[test]
fn negative_answers_keep_one_fitting_soa() {
    let q = "x.sub.example.com";
    let rules = AnswerRules { max_ttl: 600, ..AnswerRules::default() };
    let nx = |owner: &str, ttl, minimum| {
        Build::new(q, Qtype::A).flags(0x8183).rr(1, owner, Qtype::SOA, ttl, &soa(minimum)).vet(&rules)
    };
    for (owner, ttl, minimum, expected) in [
        ("example.com", 300, 60, 60),
        ("example.com", 30, 60, 30),
        ("com", 9000, 9000, 600),
        (q, 5, 5, 5),
        (".", 7, 9, 7),
    ] {
        let vetted = nx(owner, ttl, minimum);
        assert_eq!((vetted.kind, vetted.answer.rcode, vetted.answer.ttl), (Kind::NxDomain, 3, expected));
        let reply = parsed(&vetted, q, Qtype::A);
        assert_eq!(reply.authorities[0].ttl, expected, "the SOA's own TTL is the negative one");
    }
    for owner in ["example.org", "a.x.sub.example.com", "mexample.com"] {
        let vetted = nx(owner, 300, 300);
        assert_eq!((vetted.answer.authorities, vetted.answer.ttl), (0, BARE_NEGATIVE_TTL), "{owner}");
    }
    let alias = Build::new(q, Qtype::A)
        .flags(0x8183)
        .cname(q, "gone.example.net")
        .a("gone.example.net", [203, 0, 113, 66])
        .rr(1, "example.net", Qtype::SOA, 50, &soa(50))
        .vet(&rules);
    assert_eq!((alias.kind, alias.answer.answers, alias.answer.authorities), (Kind::NxDomain, 1, 1));
    assert!(alias.answer.pins.is_empty(), "a name that does not exist has no address");
}

#[test]
fn failures_and_referrals_are_not_cached() {
    for rcode in [1, 2, 4, 5, 6, 9] {
        let vetted = Build::new("a.example", Qtype::A).flags(0x8180 | rcode).vet(&AnswerRules::default());
        assert_eq!((vetted.kind, vetted.answer.rcode, vetted.cacheable), (Kind::Failure, 2, false));
        assert_eq!(vetted.answer.ttl, FAILURE_TTL);
    }
    // BADVERS (16) has 0 in the header and 1 in the OPT record.
    let mut octets = Build::new("a.example", Qtype::A).octets();
    octets[11] = 1;
    octets.extend([0, 0, 41, 4, 208, 1, 0, 0, 0, 0, 0]);
    let name = NameBuf::from_text("a.example").expect("name");
    let asked = Asked { qname: name.as_ref(), qtype: Qtype::A, dnssec_ok: false };
    assert_eq!(vet(&octets, asked, &AnswerRules::default()).expect("whole").kind, Kind::Failure);
    let referral = Build::new("a.example", Qtype::A).flags(0x8100).rr(1, "example", Qtype::NS, 9, &wire("ns.example"));
    assert_eq!(referral.vet(&AnswerRules::default()).kind, Kind::Failure);
}

#[test]
fn of_a_zone_with_upstreams_of_its_own_nobody_elses_word_is_taken() {
    let zone = |text: &str| NameBuf::from_text(text).expect("a zone");
    let rules = AnswerRules {
        apart: vec![zone("corp.example"), zone("lab.corp.example"), zone("other.example")],
        ..AnswerRules::default()
    };
    let made_up = [203, 0, 113, 66];
    for rcode in [0u16, 3] {
        let build = Build::new("alias.pub.example", Qtype::A)
            .flags(0x8180 | rcode)
            .cname("alias.pub.example", "near.pub.example")
            .cname("near.pub.example", "wiki.corp.example")
            .cname("wiki.corp.example", "far.pub.example")
            .a("wiki.corp.example", made_up)
            .a("far.pub.example", made_up);
        let vetted = build.vet(&rules);
        let expected = ["alias.pub.example. CNAME near.pub.example.", "near.pub.example. CNAME wiki.corp.example."];
        assert_eq!(shown(&vetted, "alias.pub.example", Qtype::A), expected, "{rcode}");
        assert_eq!((vetted.answer.beyond, vetted.answer.rcode, vetted.kind), (true, 0, Kind::Positive), "{rcode}");
        assert_eq!((vetted.answer.ttl, vetted.answer.pins.len(), vetted.whole), (300, 0, false), "{rcode}");
        assert_eq!(vetted.names, [zone("near.pub.example"), zone("wiki.corp.example")], "lists judge where it leads");
    }
    for (what, asked, target, beyond) in [
        ("within the zone", "www.corp.example", "wiki.corp.example", false),
        ("out of it: those who know it resolve what it leads to", "www.corp.example", "cdn.example.net", false),
        ("into a zone within it", "www.corp.example", "x.lab.corp.example", true),
        ("out of that one", "x.lab.corp.example", "www.corp.example", true),
        ("into another", "www.corp.example", "www.other.example", true),
        ("a name that only ends like it", "www.pub.example", "notcorp.example", false),
    ] {
        let vetted = Build::new(asked, Qtype::A).cname(asked, target).a(target, [203, 0, 113, 5]).vet(&rules);
        assert_eq!((vetted.answer.beyond, vetted.answer.pins.is_empty()), (beyond, beyond), "{what}");
    }
}

/// Where who answers need not know what an alias leads to and says nothing of it, that is a question of its own.
#[test]
fn a_name_of_which_nothing_is_said_is_left_open() {
    let zone = |text: &str| NameBuf::from_text(text).expect("a zone");
    let rules = AnswerRules { apart: vec![zone("corp.example"), zone("lab.corp.example")], ..AnswerRules::default() };
    let (recursive, authoritative) = (0x8180u16, 0x8500);
    let soa_of = |owner: &'static str| move |build: Build| build.rr(1, owner, Qtype::SOA, 300, &soa(300));
    let nothing = |build: Build| build;
    let (near, far) = (soa_of("example.net"), soa_of("corp.example"));
    let (corp, lab, plain) = ("www.corp.example", "x.lab.corp.example", "www.pub.example");
    let out = "cdn.example.net";
    let there = |build: Build| build.a(out, [203, 0, 113, 5]);
    type Row<'r> = (&'r str, &'r str, Qtype, u16, &'r str, &'r dyn Fn(Build) -> Build, bool);
    let rows: Vec<Row<'_>> = vec![
        ("out of a zone", corp, Qtype::A, recursive, out, &nothing, true),
        ("the same, by its own server", corp, Qtype::A, authoritative, out, &nothing, true),
        ("the same, with the zone's SOA", corp, Qtype::A, authoritative, out, &far, true),
        ("the same, the target denied", corp, Qtype::A, recursive, out, &near, false),
        ("the same, the target there", corp, Qtype::A, recursive, out, &there, false),
        ("the same, the target not there", corp, Qtype::A, recursive | 3, out, &nothing, false),
        ("out of a zone into the one around it", lab, Qtype::A, recursive, corp, &nothing, true),
        ("within a zone", corp, Qtype::A, recursive, "wiki.corp.example", &nothing, false),
        ("the same, by its own server", corp, Qtype::A, authoritative, "wiki.corp.example", &nothing, true),
        ("the alias is asked for", corp, Qtype::CNAME, authoritative, out, &nothing, false),
        ("all is asked for", corp, Qtype::ANY, authoritative, out, &nothing, false),
        ("by a server that looks for nothing", plain, Qtype::A, authoritative, out, &nothing, true),
        ("by one that has found nothing", plain, Qtype::A, recursive, out, &nothing, false),
        ("to a name inside", corp, Qtype::A, authoritative, "router.internal", &nothing, false),
    ];
    for (what, asked, qtype, flags, target, more, beyond) in rows {
        let vetted = more(Build::new(asked, qtype).flags(flags).cname(asked, target)).vet(&rules);
        assert_eq!(vetted.answer.beyond, beyond, "{what}");
        if beyond {
            assert_eq!((vetted.kind, vetted.answer.rcode, vetted.answer.authorities), (Kind::Positive, 0, 0), "{what}");
            assert_eq!(vetted.names, [zone(target)], "{what}");
        }
    }
    // Without an alias there is nothing to lead on to.
    assert!(!Build::new(corp, Qtype::A).flags(authoritative).vet(&rules).answer.beyond);
}

/// An alias whose target cannot be read says nothing of whether there is anything: that is no denial.
#[test]
fn an_alias_that_leads_nowhere_readable_is_a_failure() {
    let (q, target) = ("a.b.example", wire("c.example"));
    let trailing = [&target[..], &[0]].concat();
    let long: Vec<u8> = [&[63][..], &[b'x'; 63]].concat().repeat(4).into_iter().chain([0]).collect();
    for (what, data) in [
        ("nothing", &[][..]),
        ("cut short", &target[..4]),
        ("more behind it", &trailing),
        ("longer than names may be", &long),
        ("a pointer forwards", &[0xc0, 0xff]),
    ] {
        for (owner, rtype) in [(q, Qtype::CNAME), ("b.example", Qtype::DNAME)] {
            for (asked, dnssec_ok) in [(Qtype::A, false), (Qtype::HTTPS, true), (Qtype::CNAME, false)] {
                let build = Build::new(q, asked).an(owner, rtype, 300, data);
                let vetted = build.vet_do(&AnswerRules::default(), dnssec_ok);
                assert_eq!((vetted.kind, vetted.answer.rcode), (Kind::Failure, 2), "{what} {rtype:?} {asked:?}");
            }
        }
        // Beside one that can be read it is as if it were not there.
        let beside = Build::new(q, Qtype::A).an(q, Qtype::CNAME, 300, data).cname(q, "c.example");
        let vetted = beside.a("c.example", [203, 0, 113, 1]).vet(&AnswerRules::default());
        assert_eq!((vetted.kind, vetted.answer.answers), (Kind::Positive, 2), "{what}");
        let elsewhere = Build::new(q, Qtype::A).an("z.example", Qtype::CNAME, 300, data).a(q, [203, 0, 113, 1]);
        assert_eq!(elsewhere.vet(&AnswerRules::default()).kind, Kind::Positive, "{what}");
    }
}

/// Of two who look up names both take what stands first, and servers shuffle. The alias is what a zone may have.
#[test]
fn what_stands_beside_an_alias_is_not_taken_in_whatever_order_they_stand() {
    let rules = AnswerRules::default();
    let (own, target) = ([203, 0, 113, 9], [203, 0, 113, 77]);
    let build = || Build::new("www.example", Qtype::A);
    let told = ["www.example. CNAME cdn.example.", "cdn.example. A 203.0.113.77"];
    for whole in [
        build().cname("www.example", "cdn.example").a("www.example", own).a("cdn.example", target),
        build().a("www.example", own).cname("www.example", "cdn.example").a("cdn.example", target),
        build().a("cdn.example", target).a("www.example", own).cname("www.example", "cdn.example"),
    ] {
        let vetted = whole.vet(&rules);
        assert_eq!(shown(&vetted, "www.example", Qtype::A), told);
        assert_eq!((&*vetted.answer.pins, vetted.dropped, vetted.whole), (&[ip("203.0.113.77")][..], 1, false));
    }
    // Where the alias leads was not said: it is a question of its own.
    for bare in [
        build().cname("www.example", "cdn.example").a("www.example", own),
        build().a("www.example", own).cname("www.example", "cdn.example"),
    ] {
        let vetted = bare.vet(&rules);
        assert_eq!(shown(&vetted, "www.example", Qtype::A), told[..1]);
        assert!(vetted.answer.beyond && vetted.answer.pins.is_empty());
    }
    // What belongs to the alias may stand beside it.
    let signed = Build::new("www.example", Qtype::NSEC).cname("www.example", "cdn.example").an(
        "www.example",
        Qtype::NSEC,
        300,
        &[&wire("x.example")[..], &[0, 1, 4]].concat(),
    );
    let vetted = signed.vet(&rules);
    assert_eq!((vetted.answer.answers, vetted.answer.beyond), (1, false));
}
