use std::net::{Ipv4Addr, Ipv6Addr};

use hickory_proto::op::{Message, ResponseCode};
use hickory_proto::rr::{RData, RecordType};
use hickory_proto::serialize::binary::BinDecodable;
use proptest::prelude::*;
use staunch_scoring::NameBuf;

use super::*;
use crate::nat64::Nat64;
use crate::wire::{self, Edns, Options, Parsed};

/// A query as a stub would send it; `payload` is the EDNS payload size, if any.
fn packet(name: &[u8], qtype: u16, payload: Option<u16>, dnssec_ok: bool) -> Vec<u8> {
    let mut out = b"\xca\xfe\x01\x10\0\x01\0\0\0\0\0".to_vec();
    out.push(u8::from(payload.is_some()));
    out.extend(name);
    out.extend(qtype.to_be_bytes());
    out.extend([0, 1]);
    if let Some(payload) = payload {
        out.extend([0, 0, 41]);
        out.extend(payload.to_be_bytes());
        out.extend([0, 0, u8::from(dnssec_ok) << 7, 0, 0, 0]);
    }
    out
}

fn query(packet: &[u8]) -> Query<'_> {
    match wire::parse(packet) {
        Parsed::Query(query) => query,
        other => panic!("{other:?}"),
    }
}

fn name(text: &str) -> NameBuf {
    NameBuf::from_text(text).expect("test name")
}

/// Reads a reply with an independent parser and checks what every reply must have.
fn read(out: &[u8], query: &Query<'_>) -> Message {
    let message = Message::from_bytes(out).expect("well-formed reply");
    assert_eq!(message.id, query.id);
    assert!(message.recursion_available && message.recursion_desired && !message.authoritative);
    assert_eq!(message.checking_disabled, query.checking_disabled);
    assert_eq!(&out[12..12 + query.question.len()], query.question, "the question as spelled");
    assert_eq!(message.edns.is_some(), query.edns.is_some());
    if let (Some(ours), Some(theirs)) = (&message.edns, &query.edns) {
        assert_eq!(ours.max_payload(), UDP_MAX);
        assert_eq!(ours.flags().dnssec_ok, theirs.dnssec_ok);
    }
    message
}

/// Info codes and texts of a reply, read octet by octet. OPT is the last record of every reply.
fn reasons(out: &[u8], options_len: usize) -> Vec<(u16, String)> {
    let mut rest = &out[out.len() - options_len..];
    let mut found = Vec::new();
    while let [code_high, code_low, high, low, ede_high, ede_low, tail @ ..] = rest {
        assert_eq!((*code_high, *code_low), (0, 15));
        let text_len = usize::from(u16::from_be_bytes([*high, *low])) - 2;
        let (text, after) = tail.split_at(text_len);
        found.push((u16::from_be_bytes([*ede_high, *ede_low]), String::from_utf8(text.to_vec()).expect("UTF-8")));
        rest = after;
    }
    assert!(rest.is_empty());
    found
}

const WWW: &[u8] = b"\x03wWw\x04eViL\x07eXample\0";

fn blocked<'a>(owner: &'a NameBuf, text: &'a str) -> Refusal<'a> {
    Refusal { rcode: 3, soa_owner: owner.as_ref(), negative_ttl: 5, ede: Ede::Blocked, text, txt: true }
}

#[test]
fn a_refusal_is_heard() {
    let owner = name("evil.example");
    let text = "case c0123456789ab: blocked by policy";
    let packet = packet(WWW, 1, Some(4096), true);
    let query = query(&packet);
    let mut out = Vec::with_capacity(1232);
    refusal(&mut out, &query, &blocked(&owner, text));
    let message = read(&out, &query);
    assert_eq!(message.response_code, ResponseCode::NXDomain);
    assert!(message.answers.is_empty());
    let soa = &message.authorities[0];
    assert_eq!(soa.name.to_string().to_lowercase(), "evil.example.");
    assert_eq!(soa.ttl, 5);
    let RData::SOA(data) = &soa.data else { panic!("not a SOA") };
    assert_eq!(data.minimum, 5, "RFC 2308: the negative TTL");
    assert_eq!(data.mname.to_string(), "staunch.invalid.");
    assert_eq!(reasons(&out, 6 + text.len()), [(15, text.to_owned())]);
    assert_eq!(out.capacity(), 1232, "the buffer was not moved");
}

#[test]
fn a_refusal_is_readable_as_txt() {
    let owner = name("evil.example");
    let packet = packet(WWW, 16, None, false);
    let query = query(&packet);
    let mut out = Vec::new();
    refusal(&mut out, &query, &blocked(&owner, "case c0123456789ab"));
    let message = read(&out, &query);
    assert_eq!(message.response_code, ResponseCode::NoError);
    assert_eq!(message.answers[0].ttl, 5);
    assert_eq!(message.answers[0].name.to_string(), "wWw.eViL.eXample.");
    assert_eq!(message.answers[0].data.to_string(), "case c0123456789ab");
    refusal(&mut out, &query, &Refusal { txt: false, rcode: 0, ..blocked(&owner, "x") });
    let message = read(&out, &query);
    assert!(message.answers.is_empty() && message.authorities.len() == 1, "NODATA");
}

#[test]
fn a_foreign_soa_owner_becomes_the_qname() {
    let owner = name("other.example");
    let packet = packet(WWW, 1, None, false);
    let query = query(&packet);
    let mut out = Vec::new();
    refusal(&mut out, &query, &blocked(&owner, "x"));
    assert_eq!(read(&out, &query).authorities[0].name.to_string(), "wWw.eViL.eXample.");
}

#[test]
fn text_is_cut_at_characters_and_to_the_datagram() {
    let long = "é".repeat(150); // 300 octets
    let owner = name(".");
    let label = [b"\x3f".as_slice(), &[b'a'; 63]].concat();
    let longest = [label.repeat(3), b"\x3d".to_vec(), vec![b'b'; 61], vec![0]].concat();
    assert_eq!(longest.len(), 255);
    for qtype in [1, 16] {
        for payload in [None, Some(512), Some(600), Some(1232)] {
            let packet = packet(&longest, qtype, payload, false);
            let query = query(&packet);
            let mut out = Vec::new();
            refusal(&mut out, &query, &blocked(&owner, &long));
            let message = read(&out, &query);
            assert!(out.len() <= limit(&query, Transport::Udp), "{} octets, payload {payload:?}", out.len());
            if qtype == 16 {
                assert_eq!(message.answers[0].data.to_string(), "é".repeat(100));
            }
        }
    }
}

/// A client that has sent a cookie takes no reply without (RFC 7873 section 5.3).
#[test]
fn a_cookie_finds_room_beside_the_longest_name_and_text() {
    let label = [b"\x3f".as_slice(), &[b'a'; 63]].concat();
    let longest = [label.repeat(3), b"\x3d".to_vec(), vec![b'b'; 61], vec![0]].concat();
    let (owner, long) = (name("."), "x".repeat(300));
    let page = [IpAddr::V6(Ipv6Addr::LOCALHOST); SINKHOLE_ADDRESSES];
    for (payload, text, shown) in [(512, 189, 7), (540, 200, 8)] {
        let reply_of = |qtype: u16, write: &dyn Fn(&mut Vec<u8>, &Query<'_>)| {
            let mut packet = packet(&longest, qtype, Some(payload), false);
            let end = packet.len();
            packet[end - 1] = 12;
            packet.extend(b"\0\x0a\0\x08clientco");
            let query = query(&packet);
            let mut out = Vec::new();
            write(&mut out, &query);
            assert!(add_option(&mut out, 10, &[7; crate::cookie::COOKIE], payload.into()), "{} octets", out.len());
            read(&out, &query)
        };
        let refused = reply_of(16, &|out, query| refusal(out, query, &blocked(&owner, &long)));
        assert_eq!(refused.answers[0].data.to_string(), "x".repeat(text), "payload {payload}");
        let sunk = reply_of(28, &|out, query| sinkhole_address(out, query, &page, 5, Ede::Blocked, &long));
        assert_eq!(sunk.answers.len(), shown, "payload {payload}");
        for qtype in [1, 255] {
            assert!(reply_of(qtype, &|out, query| refusal(out, query, &blocked(&owner, &long))).answers.is_empty());
            reply_of(qtype, &|out, query| servfail(out, query, Ede::Other, &long));
            reply_of(qtype, &|out, query| any_hinfo(out, query));
        }
    }
}

#[test]
fn servfail_says_why() {
    let packet = packet(WWW, 28, Some(1232), false);
    let query = query(&packet);
    let mut out = Vec::new();
    servfail(&mut out, &query, Ede::NetworkError, "192.0.2.53: timed out");
    assert_eq!(read(&out, &query).response_code, ResponseCode::ServFail);
    assert_eq!(reasons(&out, 27), [(23, "192.0.2.53: timed out".to_owned())]);
}

#[test]
fn a_sinkhole_shows_its_family_and_says_forged() {
    let addresses =
        [IpAddr::V4(Ipv4Addr::new(192, 0, 2, 80)), IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 80))];
    let mut out = Vec::new();
    for (qtype, shown) in [(1, Some("192.0.2.80")), (28, Some("2001:db8::50")), (65, None)] {
        let packet = packet(WWW, qtype, Some(1232), false);
        let query = query(&packet);
        sinkhole_address(&mut out, &query, &addresses, 5, Ede::Blocked, "case");
        let message = read(&out, &query);
        assert_eq!(message.response_code, ResponseCode::NoError);
        assert_eq!(message.answers.first().map(|r| r.data.to_string()).as_deref(), shown);
        assert_eq!(message.authorities.len(), usize::from(shown.is_none()));
        assert_eq!(reasons(&out, 16), [(4, String::new()), (15, "case".to_owned())]);
    }
}

/// An A answer of `n` records owned by the question's name.
fn answer(n: u16, ttl: u32) -> WireAnswer {
    let mut body = Vec::new();
    let mut ttl_at = Vec::new();
    for i in 0..n {
        body.extend([0xc0, 12, 0, 1, 0, 1]);
        ttl_at.push(body.len() as u16);
        body.extend((ttl + u32::from(i)).to_be_bytes());
        body.extend([0, 4, 198, 51, 100, i as u8]);
    }
    WireAnswer {
        rcode: 0,
        authentic_data: true,
        ede: None,
        answers: n,
        authorities: 0,
        body: body.into(),
        ttl_at: ttl_at.into(),
        ttl,
        pins: Box::new([]),
        beyond: false,
    }
}

#[test]
fn an_answer_shows_its_age_and_no_more_than_the_pin() {
    let packet = packet(WWW, 1, None, false);
    let query = query(&packet);
    let mut out = Vec::new();
    for (age, cap, shown) in [(0, 3600, [100, 101]), (40, 3600, [60, 61]), (40, 30, [30, 30]), (101, 30, [0, 0])] {
        from_answer(&mut out, &query, &answer(2, 100), Transport::Udp, age, cap);
        let message = read(&out, &query);
        assert_eq!(message.answers.iter().map(|r| r.ttl).collect::<Vec<_>>(), shown, "age {age} cap {cap}");
        assert!(!message.authentic_data, "RFC 6840 section 5.8: not asked for");
    }
}

#[test]
fn a_stale_answer_says_so() {
    let mut out = Vec::new();
    for (text, transport) in [("Case c0.", Transport::Udp), ("", Transport::Tcp)] {
        let packet = packet(WWW, 1, Some(1232), false);
        let query = query(&packet);
        stale(&mut out, &query, &answer(2, 100), transport, 30, text);
        assert_eq!(read(&out, &query).answers.iter().map(|r| r.ttl).collect::<Vec<_>>(), [30, 30]);
        let option = [&[0, 15, 0, 2 + text.len() as u8, 0, 3], text.as_bytes()].concat();
        assert!(out.ends_with(&option), "the reason is the last of the message: {out:x?}");
    }
    let packet = packet(WWW, 1, None, false);
    let query = query(&packet);
    stale(&mut out, &query, &answer(1, 100), Transport::Udp, 30, "Case c0.");
    assert_eq!(read(&out, &query).answers.len(), 1, "without EDNS the answer alone");
}

#[test]
fn ad_is_shown_to_those_who_ask() {
    let with_do = packet(WWW, 1, Some(1232), true);
    let mut with_ad = packet(WWW, 1, None, false);
    with_ad[3] |= 0x20;
    let mut out = Vec::new();
    for packet in [with_do, with_ad] {
        let query = query(&packet);
        from_answer(&mut out, &query, &answer(1, 60), Transport::Udp, 0, 60);
        assert!(read(&out, &query).authentic_data);
        from_answer(&mut out, &query, &WireAnswer { authentic_data: false, ..answer(1, 60) }, Transport::Udp, 0, 60);
        assert!(!read(&out, &query).authentic_data);
        stale(&mut out, &query, &answer(1, 60), Transport::Udp, 30, "");
        assert!(!read(&out, &query).authentic_data, "past its time");
    }
}

#[test]
fn what_does_not_fit_a_datagram_is_asked_again_over_tcp() {
    let mut out = Vec::new();
    // 18 octets of name and 4 of type and class behind the header of 12; 16 a record; 11 of OPT.
    for (payload, fits) in [(None, 29), (Some(512), 29), (Some(800), 47), (Some(1232), 74), (Some(4096), 74)] {
        let packet = packet(WWW, 1, payload, false);
        let query = query(&packet);
        for (n, truncated) in [(fits, false), (fits + 1, true)] {
            from_answer(&mut out, &query, &answer(n, 60), Transport::Udp, 0, 60);
            let message = read(&out, &query);
            assert_eq!(message.truncation, truncated, "{n} records, payload {payload:?}");
            assert_eq!(message.answers.len(), if truncated { 0 } else { usize::from(n) });
            assert!(out.len() <= limit(&query, Transport::Udp));
        }
        from_answer(&mut out, &query, &answer(200, 60), Transport::Tcp, 0, 60);
        assert_eq!(read(&out, &query).answers.len(), 200);
    }
}

#[test]
fn an_answer_beyond_64k_fails_instead_of_being_cut() {
    let packet = packet(WWW, 1, Some(1232), false);
    let query = query(&packet);
    let mut out = Vec::new();
    let huge = WireAnswer { body: vec![0; 65_530].into(), ttl_at: Box::new([65_529]), ..answer(0, 0) };
    from_answer(&mut out, &query, &huge, Transport::Tcp, 0, 60);
    assert_eq!(read(&out, &query).response_code, ResponseCode::ServFail);
}

#[test]
fn any_gets_one_hinfo() {
    let packet = packet(WWW, 255, None, false);
    let query = query(&packet);
    let mut out = Vec::new();
    any_hinfo(&mut out, &query);
    let message = read(&out, &query);
    assert_eq!(message.answers.len(), 1);
    assert_eq!(message.answers[0].record_type(), RecordType::HINFO);
}

#[test]
fn rejections_are_small_and_honest() {
    let mut out = Vec::new();
    for (opcode, rcode, edns, question) in
        [(0, 16, true, WWW), (15, 4, false, &[][..]), (0, 5, false, WWW), (0, 1, true, &[][..])]
    {
        let question = [question, if question.is_empty() { &[] } else { &[0, 1, 0, 1] }].concat();
        let rejected = Reject {
            id: 7,
            opcode,
            recursion_desired: true,
            checking_disabled: false,
            rcode,
            edns: edns.then_some(Edns { udp_payload: 1232, dnssec_ok: true }),
            options: Options::default(),
            question: &question,
        };
        reject(&mut out, &rejected);
        assert_eq!(out[..2], [0, 7]);
        assert_eq!(out[2], 0x81 | opcode << 3);
        assert_eq!(out[3] & 0x0f, rcode as u8 & 0xf);
        assert_eq!(out[3] & 0x70, 0, "Z, AD and CD clear (RFC 8906 section 3.1.4)");
        assert_eq!(out.len(), 12 + question.len() + if edns { 11 } else { 0 });
        if edns {
            assert_eq!(out[out.len() - 6], (rcode >> 4) as u8, "upper bits of the response code");
            assert_eq!(out[out.len() - 5], 0, "our EDNS version");
            assert_eq!(out[out.len() - 4], 0x80, "DO is copied (RFC 3225 section 3)");
        }
        if opcode == 0 {
            Message::from_bytes(&out).expect("well-formed");
        }
    }
}

#[test]
fn local_answers_are_written() {
    let mut out = Vec::new();
    for (text, qtype, rcode, answers, authorities) in [
        ("localhost", Qtype::A, 0, vec!["127.0.0.1"], 0),
        ("localhost", Qtype::AAAA, 0, vec!["::1"], 0),
        ("localhost", Qtype::MX, 0, vec![], 1),
        ("x.test", Qtype::A, 3, vec![], 1),
        ("ipv4only.arpa", Qtype::A, 0, vec!["192.0.0.170", "192.0.0.171"], 0),
        ("ipv4only.arpa", Qtype::AAAA, 0, vec!["64:ff9b::c000:aa", "64:ff9b::c000:ab"], 0),
        ("1.0.0.127.in-addr.arpa", Qtype::PTR, 0, vec!["localhost."], 0),
        (".", Qtype::A, 0, vec![], 1),
    ] {
        let name = name(text);
        let packet = packet(name.as_ref().as_wire(), qtype.0, Some(1232), false);
        let query = query(&packet);
        let found = crate::local::special(name.as_ref(), qtype, &[]).expect("special");
        local(&mut out, &query, &found.behind(&[Nat64::WELL_KNOWN], name.as_ref(), qtype));
        let message = read(&out, &query);
        assert_eq!(u16::from(message.response_code), rcode, "{text}");
        assert_eq!(message.answers.iter().map(|r| r.data.to_string()).collect::<Vec<_>>(), answers, "{text}");
        assert_eq!(message.authorities.len(), authorities, "{text}");
    }
    let (expansion, search) = (name("www.example.com.corp.example"), [name("corp.example")]);
    let asked = packet(expansion.as_ref().as_wire(), 1, Some(1232), false);
    let found = crate::local::special(expansion.as_ref(), Qtype::A, &search).expect("an expansion");
    local(&mut out, &query(&asked), &found);
    let said = reason_in(&out);
    assert!(matches!(&said, Some((Ede::Other, text)) if text.contains("search suffix")), "{said:?}");
    let name = name("10.in-addr.arpa");
    let packet = packet(name.as_ref().as_wire(), 6, None, false);
    let query = query(&packet);
    local(&mut out, &query, &crate::local::special(name.as_ref(), Qtype::SOA, &[]).expect("special"));
    assert_eq!(read(&out, &query).answers[0].record_type(), RecordType::SOA);
}

proptest! {
    #[test]
    fn every_builder_is_total_and_stays_within_its_limit(
        labels in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 1..63), 0..4),
        qtype in 256..600u16,
        payload in proptest::option::of(any::<u16>()),
        text in ".{0,120}",
        body in proptest::collection::vec(any::<u8>(), 0..1500),
        ttl_at in proptest::collection::vec(any::<u16>(), 0..8),
    ) {
        let wire: Vec<u8> = labels.iter().flat_map(|l| [&[l.len() as u8], &l[..]].concat()).chain([0]).collect();
        let packet = packet(&wire, qtype, payload, false);
        let query = query(&packet);
        let limit = limit(&query, Transport::Udp);
        let mut out = Vec::new();
        let owner = name("example");
        refusal(&mut out, &query, &blocked(&owner, &text));
        prop_assert!(out.len() <= limit);
        read(&out, &query);
        servfail(&mut out, &query, Ede::Other, &text);
        prop_assert!(out.len() <= limit);
        read(&out, &query);
        let answer = WireAnswer { body: body.into(), ttl_at: ttl_at.into(), ..answer(0, 0) };
        from_answer(&mut out, &query, &answer, Transport::Udp, 1, 2);
        prop_assert!(out.len() <= limit);
    }
}

/// A stream has room for a reason where a datagram has none.
#[test]
fn a_reason_goes_with_a_large_answer_over_a_stream() {
    let packet = packet(WWW, 1, Some(512), false);
    let query = query(&packet);
    let mut out = Vec::new();
    stale(&mut out, &query, &answer(60, 60), Transport::Tcp, 30, "as it was");
    assert!(out.len() > 512 && read(&out, &query).answers.len() == 60);
    assert_eq!(reasons(&out, 6 + 9), [(3, "as it was".into())]);
}
