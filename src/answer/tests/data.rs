//! Data as it is written out, and its limits.

use staunch_scoring::NameBuf;

use super::super::*;
use super::*;

/// What tunnels send back passes untouched: policy decides about tunnels, not the scrubber.
#[test]
fn odd_but_on_chain_data_is_kept_octet_by_octet() {
    let q = "t.example.com";
    let octets: Vec<u8> = (0..=255).collect();
    let mut mx = vec![0, 10];
    mx.extend(wire("hGpQ5-xX_.yZ.Example.COM"));
    let mut srv = vec![0, 1, 0, 2, 0, 53];
    srv.extend(wire("AbC.dEf.gh"));
    let mut txt = vec![255];
    txt.extend(&octets[..255]);
    let rows: [(Qtype, &[u8]); 7] = [
        (Qtype::NULL, &octets),
        (Qtype::TXT, &txt),
        (Qtype::KEY, &octets),
        (Qtype(65399), &octets),
        (Qtype(65399), &[]),
        (Qtype::MX, &mx),
        (Qtype::SRV, &srv),
    ];
    for (qtype, data) in rows {
        let vetted = Build::new(q, qtype).an(q, qtype, 0, data).vet(&AnswerRules::default());
        assert_eq!((vetted.kind, vetted.answer.answers, vetted.answer.ttl), (Kind::Positive, 1, 0), "{qtype}");
        assert!(!vetted.cacheable, "TTL 0 is not kept");
        assert!(vetted.answer.body.ends_with(data), "{qtype} data changed");
    }
    let vetted = Build::new(q, Qtype::A).an(q, Qtype::CNAME, 0, &wire("hXyZ0aB.Qq")).vet(&AnswerRules::default());
    assert_eq!(vetted.answer.answers, 1, "an alias alone answers an A question");
    assert!(vetted.answer.body.ends_with(&wire("hXyZ0aB.Qq")));
}

#[test]
fn many_names_are_compressed_without_touching_their_spelling() {
    let q = "example.com";
    let mut build = Build::new(q, Qtype::MX);
    for i in 0..10u8 {
        let mut data = vec![0, i];
        data.extend(wire(&format!("Mx{i}.Mail.Example.com")));
        build = build.an(q, Qtype::MX, 60, &data);
    }
    let vetted = build.vet(&AnswerRules::default());
    let reply = parsed(&vetted, q, Qtype::MX);
    for (i, record) in reply.answers.iter().enumerate() {
        assert_eq!(record.data.to_string(), format!("{i} Mx{i}.Mail.Example.com."));
    }
    assert!(vetted.answer.body.len() < 10 * 24 + 24, "{} octets", vetted.answer.body.len());
    for at in &vetted.answer.ttl_at {
        let at = usize::from(*at);
        assert_eq!(vetted.answer.body[at..at + 4], 60u32.to_be_bytes());
    }
}

#[test]
fn service_records_lose_ech_and_hints() {
    let q = "s.example.com";
    let param = |key: u16, value: &[u8]| [&key.to_be_bytes()[..], &(value.len() as u16).to_be_bytes(), value].concat();
    let record = |priority: u16, target: &str, params: &[Vec<u8>]| {
        [&priority.to_be_bytes()[..], &wire(target), &params.concat()].concat()
    };
    let full = record(
        1,
        ".",
        &[
            param(0, &[0, 1, 0, 4, 0, 5]),
            param(1, b"\x02h2"),
            param(4, &[203, 0, 113, 5, 10, 0, 0, 1]),
            param(5, b"echconfig"),
            param(6, &[0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]),
        ],
    );
    let stripped = record(1, ".", &[param(0, &[0, 1]), param(1, b"\x02h2")]);
    let answer = |rules: &AnswerRules, data: &[u8]| {
        Build::new(q, Qtype::HTTPS)
            .flags(0x81a0)
            .an(q, Qtype::HTTPS, 300, data)
            .an(q, Qtype::RRSIG, 300, &[&65u16.to_be_bytes()[..], &[0; 17], &[1, 2]].concat())
            .vet_do(rules, true)
    };
    let vetted = answer(&AnswerRules::default(), &full);
    assert!(vetted.answer.body.ends_with(&stripped));
    assert_eq!((vetted.answer.answers, vetted.answer.authentic_data), (1, false), "an edited set keeps no signature");
    assert_eq!(vetted.answer.pins.len(), 0);
    assert_eq!(vetted.rebinding, [ip("10.0.0.1")], "an inside hint is evidence");

    let kept = AnswerRules { strip_hints: false, ..AnswerRules::default() };
    let vetted = answer(&kept, &full);
    assert_eq!(*vetted.answer.pins, [ip("203.0.113.5"), ip("2001:db8::1")]);
    let guarded = record(
        1,
        ".",
        &[
            param(0, &[0, 1, 0, 4]),
            param(1, b"\x02h2"),
            param(4, &[203, 0, 113, 5]),
            param(6, &[0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]),
        ],
    );
    assert!(vetted.answer.body.ends_with(&guarded));

    let plain = record(1, "svc.example.net", &[param(1, b"\x02h2"), param(3, &[1, 187])]);
    let vetted = answer(&AnswerRules::default(), &plain);
    assert_eq!((vetted.answer.answers, vetted.answer.authentic_data), (2, true), "unedited: signature and AD stay");
    assert_eq!(vetted.names, [NameBuf::from_text("svc.example.net").expect("name")]);

    let alias = answer(&AnswerRules::default(), &record(0, "svc.example.net", &[]));
    assert!(alias.answer.body.windows(wire("svc.example.net").len()).any(|w| w == wire("svc.example.net")));
    let smuggled = answer(&AnswerRules::default(), &record(0, "svc.example.net", &[param(65400, b"data")]));
    assert!(smuggled.answer.body.ends_with(&wire("svc.example.net")), "an alias has no parameters");

    let inside = answer(&AnswerRules::default(), &record(1, "x.internal", &[]));
    assert_eq!((inside.answer.answers, inside.kind), (0, Kind::NoData));
    assert!(inside.internal_alias, "and says why");
    for bad in [record(1, ".", &[param(4, &[1]), param(1, b"")]), vec![0], vec![]] {
        let vetted = answer(&AnswerRules::default(), &bad);
        assert_eq!((vetted.answer.answers, vetted.kind), (0, Kind::Failure), "there is something, and who knows what");
    }
}

#[test]
fn signatures_come_only_when_asked_and_only_over_what_is_shown() {
    let q = "a.example.com";
    let sig = |covered: Qtype| [&covered.0.to_be_bytes()[..], &[0; 16], &[0], b"signature"].concat();
    let build = Build::new(q, Qtype::A)
        .flags(0x81a0)
        .cname(q, "b.example.com")
        .an(q, Qtype::RRSIG, 300, &sig(Qtype::CNAME))
        .a("b.example.com", [203, 0, 113, 1])
        .an("b.example.com", Qtype::RRSIG, 300, &sig(Qtype::A))
        .an("b.example.com", Qtype::RRSIG, 300, &sig(Qtype::TXT))
        .an("c.example.com", Qtype::RRSIG, 300, &sig(Qtype::A));
    let with = build.vet_do(&AnswerRules::default(), true);
    assert_eq!((with.answer.answers, with.answer.authentic_data), (4, true));
    let without = build.vet(&AnswerRules::default());
    assert_eq!((without.answer.answers, without.answer.authentic_data), (2, true));
    let hidden = build.a("b.example.com", [10, 0, 0, 1]).vet_do(&AnswerRules::default(), true);
    assert_eq!((hidden.answer.answers, hidden.answer.authentic_data), (3, false), "the A set is no longer as signed");
}

#[test]
fn any_shows_what_stands_at_the_name() {
    let q = "a.example.com";
    let build = Build::new(q, Qtype::ANY)
        .a(q, [203, 0, 113, 1])
        .a(q, [10, 0, 0, 1])
        .an(q, Qtype::TXT, 60, b"\x01x")
        .an(q, Qtype(250), 60, b"tsig")
        .a("b.example.com", [203, 0, 113, 66]);
    let vetted = build.vet(&AnswerRules::default());
    assert_eq!(shown(&vetted, q, Qtype::ANY).len(), 2);
    assert_eq!(*vetted.answer.pins, [ip("203.0.113.1")]);
    assert_eq!(vetted.answer.ttl, 60);
}

#[test]
fn ttls_are_capped_and_the_smallest_counts() {
    let q = "a.example.com";
    let rules = AnswerRules { max_ttl: 100, ..AnswerRules::default() };
    for (ttls, expected) in [([300, 200], 100), ([300, 50], 50), ([0x8000_0001, 300], 0)] {
        let build = Build::new(q, Qtype::A).an(q, Qtype::A, ttls[0], &[203, 0, 113, 1]).an(
            q,
            Qtype::A,
            ttls[1],
            &[203, 0, 113, 2],
        );
        let vetted = build.vet(&rules);
        assert_eq!(vetted.answer.ttl, expected);
        assert!(parsed(&vetted, q, Qtype::A).answers.iter().all(|r| r.ttl <= 100));
    }
}

#[test]
fn large_answers_are_bounded() {
    let q = "a.example.com";
    let mut build = Build::new(q, Qtype::A);
    for i in 0..200u8 {
        build = build.a(q, [203, 0, 113, i]);
    }
    let vetted = build.vet(&AnswerRules::default());
    assert_eq!(usize::from(vetted.answer.answers), MAX_ADDRESSES);
    assert_eq!(vetted.answer.pins.len(), MAX_ADDRESSES);

    let mut build = Build::new(q, Qtype::TXT);
    for i in 0..=MAX_RECORDS as u16 {
        build = build.an(q, Qtype::TXT, 1, &[&[2], &i.to_be_bytes()[..]].concat());
    }
    let asked = Asked { qname: build.qname.as_ref(), qtype: Qtype::TXT, dnssec_ok: false };
    assert_eq!(vet(&build.octets(), asked, &AnswerRules::default()).err(), Some(VetError::TooLarge));
}

/// RFC 2181 section 5. Names are the same in whatever case and form; what of them differs in nothing else is one record.
#[test]
fn a_record_of_any_type_that_comes_twice_is_shown_once() {
    let q = "a.example.com";
    let service = [&[0, 1][..], &wire("svc.example"), &[0, 3, 0, 2, 1, 187]].concat();
    let signature = [&[0, 1, 13, 3][..], &[0; 14], &wire("example.com"), &[7; 9]].concat();
    let rows: Vec<(&str, Qtype, Vec<u8>, Vec<u8>)> = vec![
        ("A", Qtype::A, vec![203, 0, 113, 1], vec![203, 0, 113, 1]),
        ("TXT", Qtype::TXT, b"\x01x".to_vec(), b"\x01x".to_vec()),
        ("MX", Qtype::MX, [&[0, 9][..], &wire("mx.example.com")].concat(), b"\0\x09\x02MX\xc0\x0e".to_vec()),
        ("HTTPS", Qtype::HTTPS, service.clone(), service),
        ("a type without a name", Qtype(65_400), vec![7; 9], vec![7; 9]),
        ("a signature", Qtype::RRSIG, signature.clone(), signature),
    ];
    let rules = AnswerRules { strip_hints: false, ..AnswerRules::default() };
    for (what, qtype, once, again) in rows {
        let build = Build::new(q, qtype).flags(0x81a0).an(q, qtype, 300, &once).an("A.Example.com", qtype, 60, &again);
        let vetted = build.vet(&rules);
        assert_eq!((vetted.answer.answers, vetted.dropped, vetted.answer.ttl), (1, 0, 60), "{what}");
        assert!(vetted.answer.authentic_data, "{what}");
    }
    let alias = Build::new(q, Qtype::A).flags(0x81a0).cname(q, "b.example.com").cname(q, "B.example.com");
    let vetted = alias.a("b.example.com", [203, 0, 113, 1]).vet(&rules);
    assert_eq!((vetted.answer.answers, vetted.dropped, vetted.answer.authentic_data), (2, 0, true));
    // What differs only in what is taken out is one behind that.
    let hinted = |last: u8| [&[0, 1][..], &wire("svc.example"), &[0, 4, 0, 4, 203, 0, 113, last]].concat();
    let twin = Build::new(q, Qtype::HTTPS).an(q, Qtype::HTTPS, 300, &hinted(1)).an(q, Qtype::HTTPS, 300, &hinted(2));
    assert_eq!((twin.vet(&rules).answer.answers, twin.vet(&AnswerRules::default()).answer.answers), (2, 1));
    // Other data is another record, whatever else is the same.
    let vetted = Build::new(q, Qtype::TXT).an(q, Qtype::TXT, 300, b"\x01x").an(q, Qtype::TXT, 300, b"\x01X");
    assert_eq!(vetted.vet(&rules).answer.answers, 2);
}

/// All that a stream carries is shown, but for the room that our own OPT record takes.
#[test]
fn an_answer_may_fill_a_stream() {
    let q = "a.example.com";
    let vetted = |octets: usize| {
        let chunks = vec![255; octets / 256 * 256];
        let rest = octets % 256;
        let last = std::iter::once(rest as u8 - 1).chain(std::iter::repeat_n(b'x', rest - 1));
        let build = Build::new(q, Qtype::TXT).an(q, Qtype::TXT, 1, &chunks.into_iter().chain(last).collect::<Vec<_>>());
        let asked = Asked { qname: build.qname.as_ref(), qtype: Qtype::TXT, dnssec_ok: false };
        vet(&build.octets(), asked, &AnswerRules::default()).map(|vetted| vetted.answer.body.len())
    };
    // Header, question, and the head of a record whose owner points to it.
    let whole = 65_535 - 64 - (12 + 15 + 4);
    assert_eq!(vetted(whole - 12).ok(), Some(whole));
    assert_eq!(vetted(whole - 11).err(), Some(VetError::TooLarge));
}

#[test]
fn compressed_responses_read_the_same() {
    // As an upstream sends it: pointers everywhere, also inside data.
    let mut octets = vec![0, 1, 0x81, 0x80, 0, 1, 0, 2, 0, 0, 0, 0];
    octets.extend(wire("www.Example.com"));
    octets.extend([0, 1, 0, 1]);
    octets.extend([0xc0, 12, 0, 5, 0, 1, 0, 0, 0, 60, 0, 6, 3]);
    octets.extend(b"cdn");
    octets.extend([0xc0, 16]);
    let target = octets.len() - 6;
    octets.extend([0xc0, target as u8, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4, 203, 0, 113, 1]);
    let name = NameBuf::from_text("www.example.com").expect("name");
    let asked = Asked { qname: name.as_ref(), qtype: Qtype::A, dnssec_ok: false };
    let vetted = vet(&octets, asked, &AnswerRules::default()).expect("whole");
    assert_eq!(
        shown(&vetted, "www.example.com", Qtype::A),
        ["www.example.com. CNAME cdn.Example.com.", "cdn.example.com. A 203.0.113.1"]
    );
    // A pointer at itself, and two that point at each other.
    for pointer in [target as u8, target as u8 + 4] {
        let mut bent = octets.clone();
        bent[target + 4..target + 6].copy_from_slice(&[0xc0, pointer]);
        assert!(
            matches!(vet(&bent, asked, &AnswerRules::default()), Ok(v) if v.answer.pins.is_empty()) || {
                vet(&bent, asked, &AnswerRules::default()).is_err()
            }
        );
    }
}
