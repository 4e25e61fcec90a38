//! The strict parser of queries, and every reply that is made from one.

use hickory_proto::op::{Message, MessageType};
use hickory_proto::rr::{DNSClass, RecordType};
use staunch::answer::WireAnswer;
use staunch::model::{Ede, Transport};
use staunch::probe;
use staunch::reply::{self, Refusal, SINKHOLE_ADDRESSES};
use staunch::wire::{self, Parsed, Query, Reject};
use staunch_scoring::{NameBuf, NameRef, QName};

use crate::dns;

/// Takes a packet.
pub fn run(packet: &[u8]) {
    as_an_answer(packet);
    match wire::parse(packet) {
        Parsed::Drop => assert!(packet.len() < wire::HEADER || packet[2] & 0x80 != 0, "silence without a reason"),
        Parsed::Reject(reject) => rejected(packet, &reject),
        Parsed::Query(query) => {
            accepted(packet, &query);
            spelled_otherwise(packet, &query);
            replies(&query);
        }
    }
}

/// The same octets behind a question of our own, as a reply to it.
fn as_an_answer(packet: &[u8]) {
    let question = probe::question("sdr0123456789abcdefghijk");
    let mut reply = question.clone();
    reply.extend(packet);
    assert!(!probe::answers(&reply, &question), "a question is no reply");
    reply[2] |= 0x80;
    reply[7] = 1;
    assert!(probe::answers(&reply, &question));
    if let Some(text) = probe::text_of(&reply, &question) {
        assert!(text.len() <= 255 && packet.windows(text.len().max(1)).any(|part| part.starts_with(text.as_bytes())));
    }
}

fn rejected(packet: &[u8], reject: &Reject<'_>) {
    let for_a_cookie = reject.rcode == 0 && reject.question.is_empty() && !reject.options.cookie.is_empty();
    assert!(matches!(reject.rcode, 1 | 4 | 5 | 16) || for_a_cookie, "{reject:?}");
    assert_eq!(reject.id.to_be_bytes(), packet[..2]);
    assert!(packet[wire::HEADER..].starts_with(reject.question), "the echo is the client's own");
    let mut out = Vec::new();
    reply::reject(&mut out, reject);
    assert!(out.len() <= usize::from(wire::UDP_MIN));
    assert_eq!(out[..2], packet[..2]);
    assert!(out[2] & 0x80 != 0, "a reply");
    assert_eq!(out.len(), wire::HEADER + reject.question.len() + if reject.edns.is_some() { 11 } else { 0 });
}

/// What hickory-proto reads of the same packet.
fn accepted(packet: &[u8], query: &Query<'_>) {
    let question = &packet[wire::HEADER..wire::HEADER + query.question.len()];
    assert_eq!(question, query.question);
    // We look at the lengths of options and not into them; hickory-proto does, and refuses some. Without them it has to
    // agree.
    let mut bare = packet[..wire::HEADER + query.question.len()].to_vec();
    bare.extend(&packet[bare.len()..][..if query.edns.is_some() { 9 } else { 0 }]);
    if query.edns.is_some() {
        bare.extend([0, 0]);
    }
    let message = Message::from_vec(packet).or_else(|_| Message::from_vec(&bare)).expect("hickory-proto reads it");
    let meta = &message.metadata;
    assert_eq!((meta.id, meta.message_type), (query.id, MessageType::Query));
    assert_eq!(meta.recursion_desired, query.recursion_desired);
    assert_eq!(meta.checking_disabled, query.checking_disabled);
    assert_eq!(meta.authentic_data, query.authentic_data);
    assert!(message.answers.is_empty() && message.authorities.is_empty() && message.additionals.is_empty());
    let [asked] = &message.queries[..] else { panic!("one question: {message:?}") };
    assert_eq!(asked.query_class(), DNSClass::IN);
    assert_eq!(asked.query_type(), RecordType::from(query.qtype.0));
    let labels: Vec<Vec<u8>> = asked.name().iter().map(<[u8]>::to_ascii_lowercase).collect();
    let ours: Vec<Vec<u8>> = query.qname.as_ref().labels().map(<[u8]>::to_vec).collect();
    assert_eq!(labels, ours);
    match (&message.edns, query.edns) {
        (None, None) => {}
        (Some(theirs), Some(ours)) => {
            assert_eq!(theirs.version(), 0);
            assert_eq!(theirs.max_payload().max(wire::UDP_MIN), ours.udp_payload);
            assert_eq!(theirs.flags().dnssec_ok, ours.dnssec_ok);
        }
        other => panic!("EDNS: {other:?}"),
    }
}

/// A name is one name however it is spelled, in a packet and as text: all that judges it is given is the same octets.
fn spelled_otherwise(packet: &[u8], query: &Query<'_>) {
    let end = wire::HEADER + query.question.len() - 4;
    for change in [u8::to_ascii_uppercase, u8::to_ascii_lowercase] {
        let mut packet = packet.to_vec();
        // Length octets are below any letter.
        packet[wire::HEADER..end].iter_mut().for_each(|octet| *octet = change(octet));
        let Parsed::Query(again) = wire::parse(&packet) else { panic!("accepted in one spelling alone") };
        assert_eq!(again.qname.as_ref(), query.qname.as_ref());
        assert_eq!((again.qtype, again.edns), (query.qtype, query.edns));
    }
    let name = query.qname.as_ref();
    assert_eq!(NameRef::from_wire(name.as_wire()), Ok(name), "canonical");
    let text = name.to_string();
    let every_octet: String = match name.is_root() {
        true => ".".into(),
        false => name.labels().map(|l| l.iter().map(|b| format!("\\{b:03}")).collect::<String>() + ".").collect(),
    };
    for text in [text.clone(), text.to_ascii_uppercase(), every_octet] {
        let read = NameBuf::from_text(&text).unwrap_or_else(|error| panic!("{text}: {error}"));
        assert_eq!(read.as_ref(), name, "{text}");
        assert_eq!(QName::from_text(&text).map(|name| name.as_ref().to_owned()), Ok(read));
    }
}

/// Every reply that can be made is whole, is to the question, and fits the client's datagram.
fn replies(query: &Query<'_>) {
    let text = "c0123456789ab refused: \u{e4}\u{20ac}".repeat(9);
    let parent = query.qname.as_ref().parent().unwrap_or(NameRef::ROOT);
    let mut out = Vec::new();
    let check = |what: &str, out: &[u8]| {
        assert!(out.len() <= reply::limit(query, Transport::Udp), "{what}: {} octets", out.len());
        let read = dns::read(out).unwrap_or_else(|| panic!("{what}: {out:?}"));
        assert_eq!((read.qtype, read.qclass, read.rest), (query.qtype.0, 1, 0), "{what}");
        assert_eq!(read.qname, query.qname.as_ref().as_wire(), "{what}");
        assert!(out[wire::HEADER..].starts_with(query.question), "{what}");
        assert_eq!(read.of(3).count(), usize::from(query.edns.is_some()), "{what}");
        Message::from_vec(out).unwrap_or_else(|error| panic!("{what}: {error}: {out:?}"))
    };
    for (txt, rcode) in [(false, 3), (true, 3), (false, 0)] {
        let ede = Ede::Blocked;
        let refusal = Refusal { rcode, soa_owner: parent, negative_ttl: 5, ede, text: &text, txt };
        reply::refusal(&mut out, query, &refusal);
        check("a refusal", &out);
    }
    reply::no_data(&mut out, query, parent, 30);
    check("no data", &out);
    reply::text(&mut out, query, "staunch=1");
    check("text", &out);
    reply::servfail(&mut out, query, Ede::Other, &text);
    check("a failure", &out);
    let addresses: Vec<_> = (0..12u8).flat_map(|n| [[192, 0, 2, n].into(), [n.into(); 8].into()]).collect();
    reply::sinkhole_address(&mut out, query, &addresses, 5, Ede::Blocked, &text);
    assert!(check("a sinkhole", &out).answers.len() <= SINKHOLE_ADDRESSES);
    reply::any_hinfo(&mut out, query);
    check("ANY", &out);
    // More than any datagram takes.
    let large = WireAnswer {
        rcode: 0,
        authentic_data: false,
        ede: None,
        answers: 1,
        authorities: 0,
        body: [&[0xc0, 12, 0, 10, 0, 1, 0, 0, 0, 9, 0x0f, 0xa0][..], &[7; 4000]].concat().into(),
        ttl_at: [6].into(),
        ttl: 9,
        pins: Box::default(),
        beyond: false,
    };
    reply::from_answer(&mut out, query, &large, Transport::Udp, 0, 60);
    assert!(check("too large", &out).metadata.truncation);
    reply::from_answer(&mut out, query, &large, Transport::Tcp, 4, 60);
    assert_eq!(dns::read(&out).expect("a whole message").records[0].ttl, 5);
}
