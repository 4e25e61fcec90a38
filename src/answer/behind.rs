//! An answer that stands behind aliases of our own: what is known of the name they lead to, read as an answer to the first.

use staunch_scoring::NameRef;

use super::message::Message;
use super::vet::vet_message_behind;
use super::{AnswerRules, Asked, VetError, Vetted, WireAnswer};
use crate::model::Qtype;

/// An alias that is put in front of an answer: a CNAME at `owner`, to the owner of the next one, the last to the name that the
/// answer is about.
#[derive(Debug, Clone, Copy)]
pub struct Alias<'a> {
    /// Where it stands.
    pub owner: NameRef<'a>,
    /// Its TTL, seconds.
    pub ttl: u32,
}

/// As [`super::vet`], of a response to `asked` that is shown to who asked for the first alias's owner.
///
/// # Errors
/// As [`super::vet`].
pub fn vet_behind(
    response: &[u8],
    aliases: &[Alias<'_>],
    asked: Asked<'_>,
    rules: &AnswerRules,
) -> Result<Vetted, VetError> {
    let mut vetted = vet_message_behind(&Message::read(response)?, aliases, asked, rules)?;
    vetted.answer.authentic_data &= aliases.is_empty();
    vetted.whole &= aliases.is_empty();
    Ok(vetted)
}

impl WireAnswer {
    /// TTL of each alias in the answer section, seconds, in the order in which one leads to the next.
    pub fn alias_ttls(&self) -> impl Iterator<Item = u32> {
        let ttls = self.ttl_at.iter().filter_map(|at| self.body.get(usize::from(*at)..)?.first_chunk::<4>());
        let aliases = self.records().zip(ttls).filter(|((rtype, _), _)| *rtype == Qtype::CNAME);
        aliases.map(|(_, ttl)| u32::from_be_bytes(*ttl))
    }

    /// Type and data of each record in the answer section, as they stand there.
    pub fn records(&self) -> impl Iterator<Item = (Qtype, &[u8])> {
        self.ttl_at.iter().take(self.answers.into()).filter_map(|at| {
            let at = usize::from(*at);
            let rtype = self.body.get(at.checked_sub(4)?..)?.first_chunk::<2>()?;
            let length = self.body.get(at + 4..)?.first_chunk::<2>()?;
            let data = self.body.get(at + 6..at + 6 + usize::from(u16::from_be_bytes(*length)))?;
            Some((Qtype(u16::from_be_bytes(*rtype)), data))
        })
    }
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr};

    use hickory_proto::op::Message as Parsed;
    use staunch_scoring::NameBuf;

    use super::super::Kind;
    use super::*;

    fn name(text: &str) -> NameBuf {
        NameBuf::from_text(text).expect("name")
    }

    fn response(qname: &str, rcode: u8, addresses: &[[u8; 4]]) -> Vec<u8> {
        let mut out = vec![0, 7, 0x81, 0x80 | rcode, 0, 1, 0, addresses.len() as u8, 0, 0, 0, 0];
        out.extend_from_slice(name(qname).as_ref().as_wire());
        out.extend([0, 1, 0, 1]);
        for address in addresses {
            out.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 1, 44, 0, 4]);
            out.extend(address);
        }
        out
    }

    fn text(vetted: &Vetted, qname: &NameBuf) -> Vec<String> {
        let mut out = vec![0, 0, 0x80, vetted.answer.rcode, 0, 1];
        out.extend(vetted.answer.answers.to_be_bytes());
        out.extend(vetted.answer.authorities.to_be_bytes());
        out.extend([0, 0]);
        out.extend_from_slice(qname.as_ref().as_wire());
        out.extend([0, 1, 0, 1]);
        out.extend_from_slice(&vetted.answer.body);
        let message = Parsed::from_vec(&out).expect("a message");
        message.answers.iter().map(|r| format!("{} {} {}", r.name, r.record_type(), r.data)).collect()
    }

    #[test]
    fn aliases_stand_in_front_and_the_answer_is_vetted_as_ever() {
        let (first, second, last) = (name("a.site.example"), name("b.other.example"), name("www.garden.example"));
        let aliases = [Alias { owner: first.as_ref(), ttl: 5 }, Alias { owner: second.as_ref(), ttl: 7 }];
        let asked = Asked { qname: last.as_ref(), qtype: Qtype::A, dnssec_ok: false };
        let rules = AnswerRules::default();
        let response = response("www.garden.example", 0, &[[203, 0, 113, 9], [10, 0, 0, 1]]);
        let vetted = vet_behind(&response, &aliases, asked, &rules).expect("vetted");
        assert_eq!(
            text(&vetted, &first),
            [
                "a.site.example. CNAME b.other.example.",
                "b.other.example. CNAME www.garden.example.",
                "www.garden.example. A 203.0.113.9"
            ]
        );
        assert_eq!((vetted.answer.ttl, vetted.kind), (5, Kind::Positive));
        assert_eq!(*vetted.answer.pins, [IpAddr::V4(Ipv4Addr::new(203, 0, 113, 9))]);
        assert_eq!(vetted.rebinding, [IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1))]);
        let records: Vec<_> = vetted.answer.records().map(|(rtype, data)| (rtype, data.len())).collect();
        assert_eq!(records.iter().map(|r| r.0).collect::<Vec<_>>(), [Qtype::CNAME, Qtype::CNAME, Qtype::A]);
        assert_eq!(vetted.answer.records().last(), Some((Qtype::A, &[203, 0, 113, 9][..])));
    }

    #[test]
    fn what_does_not_exist_behind_an_alias_does_not_exist() {
        let (first, last) = (name("a.site.example"), name("gone.example"));
        let aliases = [Alias { owner: first.as_ref(), ttl: 5 }];
        let asked = Asked { qname: last.as_ref(), qtype: Qtype::A, dnssec_ok: false };
        let vetted = vet_behind(&response("gone.example", 3, &[]), &aliases, asked, &AnswerRules::default());
        let vetted = vetted.expect("vetted");
        assert_eq!((vetted.kind, vetted.answer.rcode, vetted.answer.answers), (Kind::NxDomain, 3, 1));
        assert_eq!(text(&vetted, &first), ["a.site.example. CNAME gone.example."]);
        let inside = response("gone.example", 0, &[[10, 0, 0, 1]]);
        let emptied = vet_behind(&inside, &aliases, asked, &AnswerRules::default()).expect("vetted");
        assert_eq!((emptied.kind, emptied.answer.answers), (Kind::NoData, 0));
        assert_eq!(text(&emptied, &first), [""; 0]);
    }
}
