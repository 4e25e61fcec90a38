//! A wildcard's answer to one name, read as its answer to another.

use staunch_scoring::NameRef;

use super::message::Message;
use super::vet::vet_message;
use super::{AnswerRules, Asked, VetError, Vetted, WireAnswer, rdata};

/// Takes from `response`, which answers `sibling`, what a wildcard would have answered to `asked` (RFC 4592 section
/// 2.2.1): the same records under the name asked for, vetted for that name. Never marked as authentic, since nothing was
/// proved of that name.
///
/// # Errors
/// As [`super::vet`].
pub fn vet_sibling(
    response: &[u8],
    sibling: NameRef<'_>,
    asked: Asked<'_>,
    rules: &AnswerRules,
) -> Result<Vetted, VetError> {
    let mut message = Message::read(response)?;
    if message.qname() != sibling.as_wire() {
        return Err(VetError::WrongQuestion);
    }
    message.ask_as(asked.qname);
    let mut vetted = vet_message(&message, asked, rules)?;
    vetted.answer.authentic_data = false;
    vetted.whole = false;
    Ok(vetted)
}

/// Whether two answers to the question `asked` hold the same records in their answer sections, in whatever order and
/// with whatever TTLs, and the same response code.
pub fn says_the_same(a: &WireAnswer, b: &WireAnswer, asked: Asked<'_>) -> bool {
    a.rcode == b.rcode && a.answers == b.answers && records(a, asked).is_some_and(|of| Some(of) == records(b, asked))
}

/// A record without its TTL: owner, type, data. Names in canonical form: a server may spell those in data as the question
/// is spelled.
type Bare = (Vec<u8>, u16, Vec<u8>);

/// The records of an answer section without TTLs, sorted. `None` is an answer that cannot be read, which
/// no vetted one is.
fn records(answer: &WireAnswer, asked: Asked<'_>) -> Option<Vec<Bare>> {
    let octets = answer.as_message(asked);
    let message = Message::read(&octets).ok()?;
    let mut all = Vec::with_capacity(message.answers().len());
    for record in message.answers() {
        all.push((message.owner(record).to_vec(), record.rtype, rdata::canonical(&message, record)?));
    }
    all.sort();
    Some(all)
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr};

    use staunch_scoring::NameBuf;

    use super::super::Kind;
    use super::*;
    use crate::model::Qtype;

    fn name(text: &str) -> NameBuf {
        NameBuf::from_text(text).expect("name")
    }

    /// A response to `qname` of type A: `records` as owner, type and data; an owner of `None` is a pointer to the
    /// question.
    fn response(qname: &str, rcode: u8, records: &[(Option<&str>, u16, Vec<u8>)]) -> Vec<u8> {
        let mut out = vec![0, 7, 0x81, 0xa0 | rcode, 0, 1];
        out.extend((records.len() as u16).to_be_bytes());
        out.extend([0; 4]);
        out.extend_from_slice(name(qname).as_ref().as_wire());
        out.extend([0, 1, 0, 1]);
        for (i, (owner, rtype, data)) in records.iter().enumerate() {
            match owner {
                None => out.extend([0xc0, 12]),
                Some(owner) => out.extend_from_slice(name(owner).as_ref().as_wire()),
            }
            out.extend(rtype.to_be_bytes());
            out.extend([0, 1]);
            out.extend((300 + i as u32).to_be_bytes());
            out.extend((data.len() as u16).to_be_bytes());
            out.extend_from_slice(data);
        }
        out
    }

    fn a(last: u8) -> Vec<u8> {
        vec![203, 0, 113, last]
    }

    fn asked(qname: &NameBuf) -> Asked<'_> {
        Asked { qname: qname.as_ref(), qtype: Qtype::A, dnssec_ok: false }
    }

    fn read(response: &[u8], sibling: &str, qname: &NameBuf) -> Vetted {
        vet_sibling(response, name(sibling).as_ref(), asked(qname), &AnswerRules::default()).expect("vetted")
    }

    fn holds(octets: &[u8], part: &[u8]) -> bool {
        octets.windows(part.len()).any(|w| w == part)
    }

    #[test]
    fn the_records_move_to_the_name_asked_for() {
        let long = name("a-much-longer-name-than-the-siblings.deep.zone.example");
        let response = response("qrandomqrandom.zone.example", 0, &[(None, 1, a(1)), (None, 1, a(2))]);
        let vetted = read(&response, "qrandomqrandom.zone.example", &long);
        assert_eq!((vetted.kind, vetted.answer.answers, vetted.answer.ttl), (Kind::Positive, 2, 300));
        assert_eq!(*vetted.answer.pins, [1, 2].map(|n| IpAddr::V4(Ipv4Addr::new(203, 0, 113, n))));
        assert!(!vetted.answer.authentic_data, "nothing was proved of that name");
        assert!(!holds(&vetted.answer.body, b"qrandom"), "nothing of the sibling is shown");
        let all = records(&vetted.answer, asked(&long)).expect("readable");
        assert!(all.iter().all(|(owner, ..)| owner == long.as_ref().as_wire()));
    }

    #[test]
    fn a_chain_is_followed_from_the_name_asked_for() {
        let target = name("edge.other.example").as_ref().as_wire().to_vec();
        let sibling = "qrandomqrandom.zone.example";
        let chain = response(sibling, 0, &[(Some("edge.other.example"), 1, a(9)), (None, 5, target)]);
        let asked = name("x.zone.example");
        let vetted = read(&chain, sibling, &asked);
        assert_eq!((vetted.answer.answers, vetted.answer.pins.len()), (2, 1));
        assert_eq!(vetted.names, [name("edge.other.example")], "lists judge the hop as ever");
        // An alias that leads back to the name asked for is a loop for that name.
        let back = response(sibling, 0, &[(None, 5, asked.as_ref().as_wire().to_vec())]);
        assert_eq!(read(&back, sibling, &asked).kind, Kind::Failure);
    }

    #[test]
    fn a_response_to_another_sibling_is_refused() {
        let response = response("other.zone.example", 0, &[(None, 1, a(1))]);
        let asked_name = name("x.zone.example");
        let sibling = name("qrandomqrandom.zone.example");
        let result = vet_sibling(&response, sibling.as_ref(), asked(&asked_name), &AnswerRules::default());
        assert_eq!(result, Err(VetError::WrongQuestion));
    }

    #[test]
    fn order_and_ttl_do_not_count_data_and_aliases_do() {
        let asked_name = name("x.zone.example");
        let of = |sibling: &str, records: &[(Option<&str>, u16, Vec<u8>)]| {
            read(&response(sibling, 0, records), sibling, &asked_name).answer
        };
        let same = |a: &WireAnswer, b: &WireAnswer| says_the_same(a, b, asked(&asked_name));
        let first = of("aaaaaaaaaaaaaa.zone.example", &[(None, 1, a(1)), (None, 1, a(2))]);
        assert!(same(&first, &of("bbbbbbbbbbbbbb.zone.example", &[(None, 1, a(2)), (None, 1, a(1))])));
        assert!(!same(&first, &of("bbbbbbbbbbbbbb.zone.example", &[(None, 1, a(1)), (None, 1, a(3))])));
        assert!(!same(&first, &of("bbbbbbbbbbbbbb.zone.example", &[(None, 1, a(1))])));
        let alias = |of_name: &str| name(of_name).as_ref().as_wire().to_vec();
        let edge = |sibling: &str, to: &str| of(sibling, &[(None, 5, alias(to)), (Some(to), 1, a(1))]);
        let one = edge("aaaaaaaaaaaaaa.zone.example", "edge.other.example");
        assert!(same(&one, &edge("bbbbbbbbbbbbbb.zone.example", "edge.other.example")));
        // Nor does spelling: a server may give names in data the letter case of the question.
        let spelled = |sibling: &str, target: &[u8]| {
            of(sibling, &[(None, 5, target.to_vec()), (Some("edge.zone.example"), 1, a(1))])
        };
        let lower = spelled("aaaaaaaaaaaaaa.zone.example", b"\x04edge\x04zone\x07example\0");
        assert!(same(&lower, &spelled("bbbbbbbbbbbbbb.zone.example", b"\x04edge\x04ZoNe\x07eXample\0")));
        // What a DNAME or a server makes from the name asked for is not the same for two names.
        assert!(!same(&one, &edge("bbbbbbbbbbbbbb.zone.example", "bbbbbbbbbbbbbb.other.example")));
    }
}
