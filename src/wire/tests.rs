use proptest::prelude::*;

use super::*;

const RD: u16 = 0x0100;
const PLAIN_OPT: &[u8] = &[0, 0, 41, 0x04, 0xd0, 0, 0, 0, 0, 0, 0];

/// A message from its parts.
fn message(flags: u16, counts: [u16; 4], sections: &[&[u8]]) -> Vec<u8> {
    let mut out = vec![0xbe, 0xef];
    out.extend(flags.to_be_bytes());
    for count in counts {
        out.extend(count.to_be_bytes());
    }
    out.extend(sections.concat());
    out
}

fn question(name: &str, qtype: u16, class: u16) -> Vec<u8> {
    let mut out = QName::from_text(name).expect("test name").as_ref().as_wire().to_vec();
    out.extend(qtype.to_be_bytes());
    out.extend(class.to_be_bytes());
    out
}

fn record(owner: &[u8], rtype: u16, class: u16, ttl: u32, rdata: &[u8]) -> Vec<u8> {
    let mut out = owner.to_vec();
    out.extend(rtype.to_be_bytes());
    out.extend(class.to_be_bytes());
    out.extend(ttl.to_be_bytes());
    out.extend((rdata.len() as u16).to_be_bytes());
    out.extend(rdata);
    out
}

/// Rebuilds the octets of a parsed query; the client's EDNS options are not part of it.
fn encode(query: &Query<'_>) -> Vec<u8> {
    let flags = u16::from(query.recursion_desired) << 8
        | u16::from(query.authentic_data) << 5
        | u16::from(query.checking_disabled) << 4;
    let opt = query.edns.map(|e| record(&[0], 41, e.udp_payload, u32::from(e.dnssec_ok) << 15, &[]));
    let mut out =
        message(flags, [1, 0, 0, u16::from(opt.is_some())], &[query.question, opt.as_deref().unwrap_or_default()]);
    out[..2].copy_from_slice(&query.id.to_be_bytes());
    out
}

/// Outcome in one word: the rcode of a rejection with `+opt` where it carries OPT, `drop`, or `query`.
fn outcome(packet: &[u8]) -> String {
    match parse(packet) {
        Parsed::Query(_) => "query".into(),
        Parsed::Drop => "drop".into(),
        Parsed::Reject(r) => format!("{}{}", r.rcode, if r.edns.is_some() { "+opt" } else { "" }),
    }
}

#[test]
fn a_query_is_read_whole() {
    let spelled = b"\x03wWw\x07eXample\x03Com\0\0\x1c\0\x01";
    let opt = record(&[0], 41, 4096, 0x8000, b"\0\x0a\0\x08cookie!!");
    let packet = message(RD | 0x0030, [1, 0, 0, 1], &[spelled, &opt]);
    let Parsed::Query(query) = parse(&packet) else { panic!("rejected") };
    assert_eq!(query.id, 0xbeef);
    assert!(query.recursion_desired && query.checking_disabled && query.authentic_data);
    assert_eq!(query.qname.as_ref().to_string(), "www.example.com", "folded for every comparison");
    assert_eq!(query.question, spelled, "kept as spelled for the echo");
    assert_eq!(query.qtype, Qtype::AAAA);
    assert_eq!(query.edns, Some(Edns { udp_payload: 4096, dnssec_ok: true }));
    assert_eq!(query.options, Options { cookie: b"cookie!!", keepalive: false });
}

#[test]
fn options_are_read_and_cookies_of_no_length_refused() {
    let q = question("example.com", 1, 1);
    let of = |rdata: &[u8]| message(RD, [1, 0, 0, 1], &[&q, &record(&[0], 41, 1232, 0, rdata)]);
    let cookie = |length: usize| [&[0, 10, 0, length as u8][..], &vec![7; length]].concat();
    for length in 0..60 {
        let right = length == 8 || (16..=40).contains(&length);
        assert_eq!(outcome(&of(&cookie(length))), if right { "query" } else { "1+opt" }, "{length} octets");
    }
    let first = of(&[cookie(8), cookie(16), vec![0, 11, 0, 0]].concat());
    let Parsed::Query(query) = parse(&first) else { panic!("rejected") };
    assert_eq!(query.options, Options { cookie: &[7; 8], keepalive: true });
    let later = of(&[cookie(8), cookie(9)].concat());
    assert_eq!(outcome(&later), "1+opt", "a malformed one is malformed wherever it stands");
}

#[test]
fn every_form_has_its_outcome() {
    let q = question("example.com", 1, 1);
    let long = format!("{}.{}", vec!["a".repeat(63); 3].join("."), "a".repeat(61));
    let signature = record(b"\x03key\0", 250, 255, 0, &[0; 16]);
    let sig0 = record(&[0], 24, 255, 0, &[0; 18]);
    let a_record = record(b"\xc0\x0c", 1, 1, 60, &[192, 0, 2, 1]);
    let soa = record(b"\xc0\x0c", 6, 1, 60, &[0; 22]);
    let opt = |payload: u16, ttl: u32, rdata: &[u8]| record(&[0], 41, payload, ttl, rdata);
    let v1 = opt(1232, 0x0001_0000, &[]);
    let rows: Vec<(&str, Vec<u8>, &str)> = vec![
        ("nothing", vec![], "drop"),
        ("eleven octets", vec![0; 11], "drop"),
        ("a response must not start a loop", message(RD | 0x8000, [1, 0, 0, 0], &[&q]), "drop"),
        ("plain", message(RD, [1, 0, 0, 0], &[&q]), "query"),
        ("RFC 8906 3.1.3 unknown opcode 15", message(15 << 11, [0; 4], &[]), "4"),
        ("NOTIFY is not for us", message(4 << 11, [1, 0, 0, 0], &[&question("a", 6, 1)]), "4"),
        ("UPDATE is not for us", message(5 << 11, [1, 0, 0, 0], &[&question("a", 6, 1)]), "4"),
        ("RFC 8906 3.1.4 unknown flag Z is ignored", message(RD | 0x0040, [1, 0, 0, 0], &[&q]), "query"),
        ("AA, TC, RA and a response code mean nothing here", message(RD | 0x0687, [1, 0, 0, 0], &[&q]), "query"),
        ("RFC 9619 no question", message(RD, [0; 4], &[]), "1"),
        ("RFC 9619 two questions", message(RD, [2, 0, 0, 0], &[&q, &q]), "1"),
        ("RFC 6891 6.1.1 EDNS is answered with EDNS", message(4 << 11, [1, 0, 0, 1], &[&q, PLAIN_OPT]), "4+opt"),
        ("RFC 6891 6.1.1 two questions", message(RD, [2, 0, 0, 1], &[&q, &q, PLAIN_OPT]), "1+opt"),
        ("RFC 7873 5.4 a cookie alone", message(RD, [0, 0, 0, 1], &[&opt(1232, 0, b"\0\x0a\0\x08cookie!!")]), "0+opt"),
        ("RFC 9619 no question and no cookie", message(RD, [0, 0, 0, 1], &[PLAIN_OPT]), "1+opt"),
        ("816 questions cost nothing", message(RD, [816, 0, 0, 0], &[&q.repeat(816)]), "1"),
        ("answer in a query", message(RD, [1, 1, 0, 0], &[&q, &a_record]), "1"),
        ("authority in a query", message(RD, [1, 0, 1, 0], &[&q, &soa]), "1"),
        ("compressed question", message(RD, [1, 0, 0, 0], &[b"\xc0\x0c\0\x01\0\x01"]), "1"),
        ("reserved label type", message(RD, [1, 0, 0, 0], &[b"\x41a\0\0\x01\0\x01"]), "1"),
        ("question ends early", message(RD, [1, 0, 0, 0], &[&q[..q.len() - 1]]), "1"),
        ("longest name", message(RD, [1, 0, 0, 0], &[&question(&long, 1, 1)]), "query"),
        ("root", message(RD, [1, 0, 0, 0], &[&question(".", 2, 1)]), "query"),
        ("octets behind the question", message(RD, [1, 0, 0, 0], &[&q, b"x"]), "1"),
        ("octets behind OPT", message(RD, [1, 0, 0, 1], &[&q, PLAIN_OPT, b"x"]), "1+opt"),
        ("EDNS", message(RD, [1, 0, 0, 1], &[&q, PLAIN_OPT]), "query"),
        ("counted but absent", message(RD, [1, 0, 0, 1], &[&q]), "1"),
        ("RFC 8906 3.2.2 unknown option", message(RD, [1, 0, 0, 1], &[&q, &opt(1232, 0, b"\0\x64\0\0")]), "query"),
        ("RFC 8906 3.2.3 unknown EDNS flag", message(RD, [1, 0, 0, 1], &[&q, &opt(1232, 0x40, &[])]), "query"),
        ("RFC 8906 3.2.1 unknown version", message(RD, [1, 0, 0, 1], &[&q, &v1]), "16+opt"),
        (
            "RFC 8906 3.2.4 unknown version with an option of its own",
            message(RD, [1, 0, 0, 1], &[&q, &opt(1232, 0x0001_0000, b"\0\x64\0")]),
            "16+opt",
        ),
        ("option overruns", message(RD, [1, 0, 0, 1], &[&q, &opt(1232, 0, b"\0\x64\0\x05abcd")]), "1+opt"),
        ("option header cut", message(RD, [1, 0, 0, 1], &[&q, &opt(1232, 0, b"\0\x64\0")]), "1+opt"),
        ("RFC 6891 6.1.1 two OPT", message(RD, [1, 0, 0, 2], &[&q, PLAIN_OPT, PLAIN_OPT]), "1+opt"),
        ("OPT not at the root", message(RD, [1, 0, 0, 1], &[&q, &record(b"\x01a\0", 41, 1232, 0, &[])]), "1+opt"),
        ("OPT at a pointer", message(RD, [1, 0, 0, 1], &[&q, &record(b"\xc0\x0c", 41, 1232, 0, &[])]), "1+opt"),
        ("other additional record", message(RD, [1, 0, 0, 1], &[&q, &a_record]), "1"),
        ("65,535 additional records", message(RD, [1, 0, 0, 0xffff], &[&q, PLAIN_OPT]), "1+opt"),
        ("TSIG", message(RD, [1, 0, 0, 1], &[&q, &signature]), "4"),
        ("TSIG behind OPT", message(RD, [1, 0, 0, 2], &[&q, PLAIN_OPT, &signature]), "4+opt"),
        ("TSIG not last", message(RD, [1, 0, 0, 2], &[&q, &signature, PLAIN_OPT]), "1"),
        ("SIG(0)", message(RD, [1, 0, 0, 1], &[&q, &sig0]), "4"),
        ("version.bind", message(RD, [1, 0, 0, 0], &[&question("version.bind", 16, 3)]), "5"),
        ("class ANY", message(RD, [1, 0, 0, 0], &[&question("example.com", 1, 255)]), "5"),
        ("RD=0 would show what others asked", message(0, [1, 0, 0, 1], &[&q, PLAIN_OPT]), "5+opt"),
        ("type 0", message(RD, [1, 0, 0, 0], &[&question("example.com", 0, 1)]), "1"),
        ("OPT as a type", message(RD, [1, 0, 0, 0], &[&question("example.com", 41, 1)]), "1"),
        ("RFC 9824 NXNAME", message(RD, [1, 0, 0, 0], &[&question("example.com", 128, 1)]), "1"),
        ("TKEY", message(RD, [1, 0, 0, 0], &[&question("example.com", 249, 1)]), "4"),
        ("IXFR", message(RD, [1, 0, 0, 0], &[&question("example.com", 251, 1)]), "5"),
        ("AXFR", message(RD, [1, 0, 0, 0], &[&question("example.com", 252, 1)]), "5"),
        ("MAILB", message(RD, [1, 0, 0, 0], &[&question("example.com", 253, 1)]), "4"),
        ("ANY is answered (RFC 8482)", message(RD, [1, 0, 0, 0], &[&question("example.com", 255, 1)]), "query"),
        ("unknown type (RFC 3597)", message(RD, [1, 0, 0, 0], &[&question("example.com", 65280, 1)]), "query"),
    ];
    for (why, packet, expected) in rows {
        assert_eq!(outcome(&packet), expected, "{why}");
    }
}

#[test]
fn what_is_refused_keeps_what_its_reply_must_show() {
    let opt = record(&[0], 41, 1232, 0x8000, b"\0\x0a\0\x08cookie!!");
    for packet in [
        message(0x0010, [1, 0, 0, 1], &[&question("example.com", 1, 1), &opt]),
        message(RD | 0x0010, [1, 0, 0, 1], &[&question("version.bind", 16, 3), &opt]),
        message(RD | 0x0010, [0, 0, 0, 1], &[&opt]),
        message(4 << 11 | 0x0010, [1, 0, 0, 1], &[&question("example.com", 6, 1), &opt]),
    ] {
        let Parsed::Reject(reject) = parse(&packet) else { panic!("{packet:?} is no query of ours") };
        assert!(reject.checking_disabled, "RFC 4035 section 3.2.2");
        assert_eq!(reject.edns, Some(Edns { udp_payload: 1232, dnssec_ok: true }), "RFC 3225 section 3");
        assert_eq!(reject.options, Options { cookie: b"cookie!!", keepalive: false }, "RFC 7873 section 5.2");
    }
}

#[test]
fn a_small_payload_means_512() {
    let opt = record(&[0], 41, 100, 0, &[]);
    let packet = message(RD, [1, 0, 0, 1], &[&question("a.example", 1, 1), &opt]);
    let Parsed::Query(query) = parse(&packet) else { panic!("rejected") };
    assert_eq!(query.edns.map(|e| e.udp_payload), Some(512));
}

#[test]
fn a_rejection_echoes_the_question_it_could_read() {
    let q = question("example.com", 1, 3);
    let packet = message(RD, [1, 0, 0, 0], &[&q]);
    let Parsed::Reject(reject) = parse(&packet) else { panic!("accepted") };
    assert_eq!((reject.id, reject.question, reject.recursion_desired), (0xbeef, &q[..], true));
}

/// A well-formed query, to be mutated.
fn good_query() -> impl Strategy<Value = Vec<u8>> {
    let labels = proptest::collection::vec(proptest::collection::vec(any::<u8>(), 1..20), 0..8);
    (labels, any::<u16>(), any::<u16>(), proptest::option::of((any::<u16>(), any::<u8>(), 0..40usize))).prop_map(
        |(labels, qtype, flags, edns)| {
            let mut name = Vec::new();
            for label in &labels {
                name.push(label.len() as u8);
                name.extend(label);
            }
            name.push(0);
            name.extend(qtype.to_be_bytes());
            name.extend([0, 1]);
            let opt = edns.map(|(payload, flags, len)| {
                let mut option = vec![0, 0xff, 0, len as u8];
                option.resize(4 + len, 7);
                record(&[0], 41, payload, u32::from(flags) << 8, &option)
            });
            message(
                flags & 0x07ff | RD,
                [1, 0, 0, u16::from(opt.is_some())],
                &[&name, opt.as_deref().unwrap_or_default()],
            )
        },
    )
}

/// What must hold of any packet whatever.
fn check(packet: &[u8]) -> Result<(), TestCaseError> {
    if let Parsed::Query(query) = parse(packet) {
        prop_assert!(query.recursion_desired);
        let again = encode(&query);
        let Parsed::Query(same) = parse(&again) else {
            return Err(TestCaseError::fail("own encoding rejected"));
        };
        prop_assert_eq!(format!("{query:?}"), format!("{same:?}"));
        prop_assert_eq!(encode(&same), again);
    }
    Ok(())
}

proptest! {
    #[test]
    fn any_octets_are_judged(packet in proptest::collection::vec(any::<u8>(), 0..600)) {
        check(&packet)?;
    }

    #[test]
    fn good_queries_survive_re_encoding(packet in good_query()) {
        check(&packet)?;
    }

    #[test]
    fn mutated_queries_are_judged(
        mut packet in good_query(),
        edits in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
        cut in any::<prop::sample::Index>(),
    ) {
        for (at, value) in edits {
            let at = at.index(packet.len());
            packet[at] = value;
        }
        check(&packet)?;
        packet.truncate(cut.index(packet.len() + 1));
        check(&packet)?;
    }
}
