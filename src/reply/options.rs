//! What is done to a reply that is written already: EDNS options added, records left out.
//!
//! Every reply ends with its OPT record if it has one; so it is found by stepping over the records, and nothing else of
//! the message is touched. Total on any octets: what does not have that form stays as it is.

use crate::answer::skip_name;
use crate::wire::HEADER;

use super::{ARCOUNT, TC, count};

/// Octets of an OPT record without options.
const OPT: usize = 11;

/// Adds an option to the reply's OPT record. `false`, and nothing done, where there is none or the reply would be longer
/// than `limit` octets.
pub fn add_option(reply: &mut Vec<u8>, code: u16, data: &[u8], limit: usize) -> bool {
    if reply.len() + 4 + data.len() > limit.min(usize::from(u16::MAX)) {
        return false;
    }
    let Some(Ending { opt: Some(opt), .. }) = ending(reply) else { return false };
    let length_at = opt + OPT - 2;
    reply.extend_from_slice(&code.to_be_bytes());
    reply.extend_from_slice(&(data.len() as u16).to_be_bytes());
    reply.extend_from_slice(data);
    let length = reply.len() - length_at - 2;
    count(reply, length_at, length as u16); // the whole reply is below 64 KiB
    true
}

/// Leaves out all records but a bare OPT and says so (TC), so that the stub asks again over TCP, where its address is
/// proven.
pub fn curtail(reply: &mut Vec<u8>) {
    let Some(Ending { question, opt }) = ending(reply) else { return };
    let opt = opt.and_then(|at| reply.get(at..at + OPT)).and_then(|opt| <[u8; OPT]>::try_from(opt).ok());
    reply.truncate(question);
    if let Some(flags) = reply.get_mut(2) {
        *flags |= (TC >> 8) as u8;
    }
    for counter in [ARCOUNT - 4, ARCOUNT - 2, ARCOUNT] {
        count(reply, counter, 0);
    }
    if let Some(mut opt) = opt {
        count(&mut opt, OPT - 2, 0);
        reply.extend_from_slice(&opt);
        count(reply, ARCOUNT, 1);
    }
}

/// Where a reply's question ends and its OPT record begins.
struct Ending {
    question: usize,
    opt: Option<usize>,
}

fn ending(reply: &[u8]) -> Option<Ending> {
    // Its counts: questions, answers, authorities, additional records.
    let &[_, _, _, _, q, r, a, b, c, d, e, f] = reply.first_chunk::<HEADER>()?;
    let word = |high: u8, low: u8| u32::from(u16::from_be_bytes([high, low]));
    let mut at = HEADER;
    for _ in 0..word(q, r) {
        at = skip_name(reply, at).ok()? + 4;
    }
    let question = at;
    let mut last = None;
    for _ in 0..word(a, b) + word(c, d) + word(e, f) {
        let fixed = skip_name(reply, at).ok()?;
        let &[type_high, type_low, _, _, _, _, _, _, high, low] = reply.get(fixed..)?.first_chunk()?;
        last = (fixed == at + 1 && [type_high, type_low] == [0, 41]).then_some(at);
        at = fixed + 10 + usize::from(u16::from_be_bytes([high, low]));
    }
    (at == reply.len()).then_some(Ending { question, opt: last })
}

#[cfg(test)]
mod tests {
    use hickory_proto::op::Message;
    use proptest::prelude::*;

    use super::*;
    use crate::model::Ede;
    use crate::reply::{self, Refusal};
    use crate::wire::{self, Parsed, Query};

    fn with_query(edns: bool, test: impl FnOnce(&Query<'_>)) {
        let mut packet = vec![0xbe, 0xef, 1, 0, 0, 1, 0, 0, 0, 0, 0, u8::from(edns)];
        packet.extend(b"\x03wWw\x07example\x03com\0\0\x01\0\x01");
        if edns {
            packet.extend([0, 0, 41, 4, 208, 0, 0, 0, 0, 0, 0]);
        }
        let Parsed::Query(query) = wire::parse(&packet) else { panic!("rejected") };
        test(&query);
    }

    fn refusal(query: &Query<'_>) -> Vec<u8> {
        let (soa_owner, text) = (query.qname.as_ref(), "because");
        let refusal = Refusal { rcode: 3, soa_owner, negative_ttl: 5, ede: Ede::Blocked, text, txt: true };
        let mut out = Vec::new();
        reply::refusal(&mut out, query, &refusal);
        out
    }

    #[test]
    fn an_option_is_added_behind_the_others() {
        with_query(true, |query| {
            let plain = refusal(query);
            let mut more = plain.clone();
            assert!(add_option(&mut more, 11, &[0, 100], 1232));
            assert_eq!(more.len(), plain.len() + 6);
            assert_eq!(more[more.len() - 6..], [0, 11, 0, 2, 0, 100]);
            let message = Message::from_vec(&more).expect("parses");
            assert_eq!(message.edns.expect("EDNS").options().as_ref().len(), 2);
            assert_eq!(message.authorities.len(), 1);
            let mut full = plain.clone();
            assert!(!add_option(&mut full, 11, &[0, 100], plain.len() + 5));
            assert_eq!(full, plain);
        });
        with_query(false, |query| {
            let mut plain = refusal(query);
            assert!(!add_option(&mut plain, 11, &[0, 100], 1232), "no EDNS was asked for");
        });
    }

    #[test]
    fn a_curtailed_reply_is_the_question_cut_off() {
        for edns in [true, false] {
            with_query(edns, |query| {
                let mut short = refusal(query);
                curtail(&mut short);
                assert_eq!(short.len(), 12 + query.question.len() + if edns { OPT } else { 0 });
                let message = Message::from_vec(&short).expect("parses");
                assert!(message.metadata.truncation && message.authorities.is_empty());
                assert_eq!(message.edns.is_some(), edns);
                assert_eq!(&short[12..12 + query.question.len()], query.question);
            });
        }
    }

    proptest! {
        #[test]
        fn any_octets_are_survived(mut octets in proptest::collection::vec(any::<u8>(), 0..80), code in any::<u16>()) {
            let before = octets.clone();
            if !add_option(&mut octets, code, &[1, 2, 3], 1232) {
                prop_assert_eq!(&octets, &before);
            }
            curtail(&mut octets);
        }
    }
}
