//! A reply that was written before, given once more to the same question.

// Octets from outside are read here: nothing may panic on them.
#![cfg_attr(
    not(test),
    warn(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic,
        clippy::unreachable,
        clippy::indexing_slicing,
        clippy::string_slice
    )
)]

use crate::model::Transport;
use crate::wire::{Edns, HEADER, Query};

/// Longest reply that is kept, octets: what is longer is rare, and written anew each time.
const LONGEST: usize = 512;

/// A reply, and the kind of query it was written for.
#[derive(Debug)]
pub struct Rendered {
    shape: Shape,
    octets: Box<[u8]>,
}

/// All of a query that shows in a reply beside its id and its question.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Shape {
    edns: Option<Edns>,
    /// A cookie takes room.
    has_cookie: bool,
    transport: Transport,
    recursion_desired: bool,
    checking_disabled: bool,
    authentic_data: bool,
}

impl Shape {
    fn of(query: &Query<'_>, transport: Transport) -> Self {
        Self {
            edns: query.edns,
            has_cookie: !query.options.cookie.is_empty(),
            transport,
            recursion_desired: query.recursion_desired,
            checking_disabled: query.checking_disabled,
            authentic_data: query.authentic_data,
        }
    }
}

impl Rendered {
    /// Keeps the reply that was written for a query, if it is short.
    pub fn of(query: &Query<'_>, transport: Transport, reply: &[u8]) -> Option<Self> {
        (reply.len() <= LONGEST).then(|| Self { shape: Shape::of(query, transport), octets: reply.into() })
    }

    /// Writes it for a query of the same question, which may be spelled in another way. `false`: it is of another kind, and
    /// nothing is written.
    pub fn write(&self, out: &mut Vec<u8>, query: &Query<'_>, transport: Transport) -> bool {
        let question = HEADER..HEADER + query.question.len();
        if self.shape != Shape::of(query, transport) || self.octets.len() < question.end {
            return false;
        }
        out.clear();
        out.extend_from_slice(&self.octets);
        if let Some(id) = out.get_mut(..2) {
            id.copy_from_slice(&query.id.to_be_bytes());
        }
        if let Some(spelled) = out.get_mut(question) {
            spelled.copy_from_slice(query.question);
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Refusal, refusal};
    use super::*;
    use crate::model::{Ede, Qtype};
    use crate::wire::{Parsed, parse};

    /// A query for `name` with these flags, with EDNS of this payload if there is one.
    fn query(id: u16, name: &[u8], flags: u16, payload: Option<u16>) -> Vec<u8> {
        let mut octets: Vec<u8> =
            [id, flags, 1, 0, 0, u16::from(payload.is_some())].iter().flat_map(|w| w.to_be_bytes()).collect();
        octets.extend_from_slice(name);
        octets.extend_from_slice(&[0, 1, 0, 1]);
        if let Some(payload) = payload {
            octets.extend_from_slice(&[0, 0, 41]);
            octets.extend_from_slice(&payload.to_be_bytes());
            octets.extend_from_slice(&[0; 6]);
        }
        octets
    }

    fn fresh(query: &Query<'_>) -> Vec<u8> {
        let mut out = Vec::new();
        let owner = query.qname.as_ref();
        let said =
            Refusal { rcode: 3, soa_owner: owner, negative_ttl: 60, ede: Ede::Blocked, text: "case x", txt: false };
        refusal(&mut out, query, &said);
        out
    }

    #[test]
    fn a_kept_reply_is_what_would_be_written_anew() {
        let mut kept = 0;
        let shapes =
            || [0x0100, 0x0110, 0x0120].into_iter().flat_map(|flags| [None, Some(512), Some(1232)].map(|p| (flags, p)));
        for (flags, payload) in shapes() {
            let first = query(7, b"\x03www\x07refused\x07example\0", flags, payload);
            let Parsed::Query(first) = parse(&first) else { panic!("a query") };
            let rendered = Rendered::of(&first, Transport::Udp, &fresh(&first)).expect("short");
            for (flags, payload) in shapes() {
                let other = query(0x4711, b"\x03wWw\x07REFUSED\x07example\0", flags, payload);
                let Parsed::Query(other) = parse(&other) else { panic!("a query") };
                assert_eq!(other.qtype, Qtype::A);
                let mut out = b"what was there".to_vec();
                if rendered.write(&mut out, &other, Transport::Udp) {
                    assert_eq!(out, fresh(&other));
                    kept += 1;
                } else {
                    assert_eq!(out, b"what was there");
                }
                assert!(!rendered.write(&mut out, &other, Transport::Tcp));
            }
        }
        assert_eq!(kept, 9, "one shape each");
    }

    #[test]
    fn what_is_long_is_not_kept() {
        let octets = query(7, b"\x03www\x07refused\x07example\0", 0x0100, None);
        let Parsed::Query(asked) = parse(&octets) else { panic!("a query") };
        assert!(Rendered::of(&asked, Transport::Tcp, &[0; LONGEST]).is_some());
        assert!(Rendered::of(&asked, Transport::Tcp, &[0; LONGEST + 1]).is_none());
    }
}
