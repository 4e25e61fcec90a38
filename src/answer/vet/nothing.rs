//! Answers in which nothing of the response is shown.

use super::super::chain::Chain;
use super::super::emit::Writer;
use super::super::{BARE_NEGATIVE_TTL, FAILURE_TTL, Kind, Vetted, WireAnswer};
use super::{RRSIG, SOA, Vetting, first};

/// SERVFAIL, with nothing in it.
pub(super) fn failure() -> Vetted {
    Vetted {
        answer: WireAnswer {
            rcode: 2,
            authentic_data: false,
            ede: None,
            answers: 0,
            authorities: 0,
            body: Box::default(),
            ttl_at: Box::default(),
            ttl: FAILURE_TTL,
            pins: Box::default(),
            beyond: false,
        },
        kind: Kind::Failure,
        cacheable: false,
        rebinding: Vec::new(),
        internal_alias: false,
        names: Vec::new(),
        dropped: 0,
        whole: false,
        data_octets: 0,
    }
}

impl Vetting<'_, '_> {
    /// Nothing may be shown: a negative answer of our own, aliases left out, so that the inside stays inside.
    pub(super) fn emptied(self, chain: &Chain) -> Vetted {
        let names = self.names(chain);
        let dropped = self.message.answers().iter().filter(|r| r.rtype != RRSIG).count().min(usize::from(u16::MAX));
        // Nothing but an address or a name of the inside empties an answer.
        let internal_alias = chain.internal || self.rebinding.is_empty();
        let qname = first(self.front, self.asked).as_wire();
        let mut to = Writer::behind(qname);
        let ttl = BARE_NEGATIVE_TTL.min(self.rules.max_ttl);
        let length_at = to.begin(qname, SOA, ttl);
        to.octets(b"\x0frebinding-guard\x07staunch\x07invalid\0\x06nobody\x07invalid\0");
        for value in [1, 3600, 600, 86400, ttl] {
            to.octets(&u32::to_be_bytes(value));
        }
        // One short record cannot be too large.
        let _ = to.end(length_at);
        let (body, ttl_at) = to.finish();
        Vetted {
            answer: WireAnswer {
                rcode: 0,
                authentic_data: false,
                ede: None,
                answers: 0,
                authorities: 1,
                body,
                ttl_at,
                ttl,
                pins: Box::default(),
                beyond: false,
            },
            kind: Kind::NoData,
            cacheable: ttl > 0,
            rebinding: self.rebinding,
            internal_alias,
            names,
            dropped: dropped as u16,
            whole: false,
            data_octets: 0,
        }
    }
}
