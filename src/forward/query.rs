//! The upstream query: written from judged fields alone, and the check that a response fits it.

// Octets from outside are read here: nothing may panic on them.
#![cfg_attr(
    not(test),
    warn(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic,
        clippy::unreachable,
        clippy::indexing_slicing,
        clippy::string_slice,
        clippy::arithmetic_side_effects
    )
)]

use staunch_scoring::name::MAX_NAME;
use staunch_scoring::{NameRef, QName};

use crate::model::Qtype;
use crate::policy::Permit;

/// Length of the header (RFC 1035 section 4.1.1).
const HEADER: usize = 12;
/// Longest query: header, question, OPT record.
const MAX_QUERY: usize = HEADER + MAX_NAME + 4 + 11;

/// What is asked: all that a permit says, and nothing else.
#[derive(Clone, Copy)]
pub(super) struct Ask {
    /// `None` is the root.
    qname: Option<QName>,
    qtype: Qtype,
    dnssec_ok: bool,
    checking_disabled: bool,
}

impl From<&Permit> for Ask {
    fn from(permit: &Permit) -> Self {
        Self {
            qname: Some(QName::copy_of(permit.qname())),
            qtype: permit.qtype(),
            dnssec_ok: permit.dnssec_ok(),
            checking_disabled: permit.checking_disabled(),
        }
    }
}

impl Ask {
    /// Are you there? Every resolver has the root's name servers at hand.
    pub(super) const PROBE: Self = Self { qname: None, qtype: Qtype::NS, dnssec_ok: false, checking_disabled: false };

    /// The name.
    pub(super) fn name(&self) -> NameRef<'_> {
        self.qname.as_ref().map_or(NameRef::ROOT, QName::as_ref)
    }

    /// Wire octets of the name.
    pub(super) fn qname(&self) -> &[u8] {
        self.qname.as_ref().map_or(&[0], |name| name.as_ref().as_wire())
    }

    /// Type, DO and CD in one number, for a key.
    pub(super) fn kind(&self) -> u32 {
        u32::from(self.qtype.0) << 2 | u32::from(self.dnssec_ok) << 1 | u32::from(self.checking_disabled)
    }
}

/// A query in wire form.
pub(super) struct Query {
    octets: [u8; MAX_QUERY],
    len: usize,
    question: usize,
}

impl Query {
    /// Writes the query: RD and AD, CD as permitted, one question of class IN, and an OPT record of our own with
    /// `payload`, DO as permitted and no options; without `payload` no OPT record at all.
    ///
    /// AD asks the upstream to say whether the answer is authentic (RFC 6840 section 5.7). It is always set, so that it
    /// tells nothing of the client, and one answer serves those who want to know and those who do not.
    pub(super) fn write(ask: &Ask, id: u16, payload: Option<u16>) -> Self {
        let mut query = Self { octets: [0; MAX_QUERY], len: 0, question: 0 };
        let flags = 0x0120 | u16::from(ask.checking_disabled) << 4;
        for word in [id, flags, 1, 0, 0, u16::from(payload.is_some())] {
            query.push(&word.to_be_bytes());
        }
        query.push(ask.qname());
        query.push(&ask.qtype.0.to_be_bytes());
        query.push(&1u16.to_be_bytes());
        query.question = query.len;
        if let Some(payload) = payload {
            query.push(&[0, 0, 41]);
            query.push(&payload.to_be_bytes());
            query.push(&[0, 0, u8::from(ask.dnssec_ok) << 7, 0, 0, 0]);
        }
        query
    }

    fn push(&mut self, octets: &[u8]) {
        let end = self.len.saturating_add(octets.len());
        // MAX_QUERY is the sum of the longest parts, so there is room.
        if let Some(to) = self.octets.get_mut(self.len..end) {
            to.copy_from_slice(octets);
            self.len = end;
        }
    }

    /// The octets to send.
    pub(super) fn octets(&self) -> &[u8] {
        self.octets.get(..self.len).unwrap_or_default()
    }

    /// How `octets` relate to this query.
    pub(super) fn fit(&self, octets: &[u8]) -> Fit {
        let ours = self.octets.get(..self.question).unwrap_or_default();
        let Some(((own, question), header)) = ours.split_first_chunk::<HEADER>().zip(octets.first_chunk::<HEADER>())
        else {
            return Fit::Foreign;
        };
        // Same id; a response (QR) of opcode 0.
        if header[..2] != own[..2] || header[2] & 0xf8 != 0x80 {
            return Fit::Foreign;
        }
        let rcode = header[3] & 0xf;
        // Servers that cannot parse a query may send back its header alone. Believed for this one query only.
        if rcode == 1 && header[4..6] == [0, 0] && octets.len() == HEADER {
            return Fit::Ours { rcode, truncated: false };
        }
        let one_question = header[4..6] == [0, 1];
        // Length octets of labels are below any letter, so folding the whole is folding the name alone: type and class
        // octets that are letters stand behind it and are compared exactly.
        let fits = octets.get(HEADER..self.question).and_then(|theirs| theirs.split_last_chunk::<4>()).is_some_and(
            |(name, kind)| {
                question
                    .split_last_chunk::<4>()
                    .is_some_and(|(own, wanted)| name.eq_ignore_ascii_case(own) && kind == wanted)
            },
        );
        if one_question && fits { Fit::Ours { rcode, truncated: header[2] & 0x02 != 0 } } else { Fit::Foreign }
    }
}

/// Whether a message answers a query.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fit {
    /// It does: id, question, QR and opcode agree.
    Ours {
        /// Response code of the header.
        rcode: u8,
        /// TC.
        truncated: bool,
    },
    /// It does not.
    Foreign,
}

#[cfg(test)]
mod tests {
    use hickory_proto::op::Message;
    use proptest::prelude::*;

    use super::*;

    fn ask(text: &str, qtype: Qtype) -> Ask {
        Ask::from(&Permit::for_test(text, qtype))
    }

    #[test]
    fn a_query_holds_the_permitted_fields_and_our_own_edns() {
        let query = Query::write(&ask("WwW.Example.COM", Qtype::A), 0xabcd, Some(1232));
        let mut expected = vec![0xab, 0xcd, 1, 0x20, 0, 1, 0, 0, 0, 0, 0, 1];
        expected.extend(b"\x03www\x07example\x03com\0\0\x01\0\x01");
        expected.extend([0, 0, 41, 4, 208, 0, 0, 0, 0, 0, 0]);
        assert_eq!(query.octets(), expected);
        let parsed = Message::from_vec(query.octets()).expect("a query parses");
        assert_eq!(parsed.edns.expect("EDNS").max_payload(), 1232);

        let bare = Query::write(&ask("www.example.com", Qtype::A), 1, None);
        assert_eq!((bare.octets().len(), bare.octets()[11]), (33, 0));
        let flagged = Ask { dnssec_ok: true, checking_disabled: true, ..ask("a", Qtype::TXT) };
        let parsed = Message::from_vec(Query::write(&flagged, 1, Some(1232)).octets()).expect("parses");
        assert!(parsed.metadata.checking_disabled && parsed.metadata.authentic_data);
        assert!(parsed.edns.expect("EDNS").flags().dnssec_ok);
        let probe = Query::write(&Ask::PROBE, 1, Some(1232));
        assert_eq!(probe.octets()[12..17], [0, 0, 2, 0, 1]);
    }

    #[test]
    fn the_longest_name_fits() {
        let name = format!("{}.{}", vec!["a".repeat(63); 3].join("."), "b".repeat(61));
        let query = Query::write(&ask(&name, Qtype::TXT), 1, Some(1232));
        assert_eq!(query.octets().len(), MAX_QUERY);
        assert!(Message::from_vec(query.octets()).is_ok());
    }

    #[test]
    fn only_the_exact_question_fits() {
        // A type whose octets are letters must not be folded.
        let query = Query::write(&ask("www.example.com", Qtype(0x4161)), 7, Some(1232));
        let mut good = query.octets().to_vec();
        good[2] = 0x81;
        let ours = Fit::Ours { rcode: 0, truncated: false };
        assert_eq!(query.fit(&good), ours);
        let mut folded = good.clone();
        folded[13] = b'W';
        assert_eq!(query.fit(&folded), ours, "letter case of the name does not count");
        for (at, value, what) in [
            (0, 9, "id"),
            (1, 8, "id"),
            (2, 0x01, "QR"),
            (2, 0x89, "opcode"),
            (5, 2, "two questions"),
            (5, 0, "no question"),
            (14, b'x', "name"),
            (12, 2, "label"),
            (29, 0x61, "type"),
            (30, 0x41, "type"),
            (32, 3, "class"),
        ] {
            let mut bent = good.clone();
            bent[at] = value;
            assert_eq!(query.fit(&bent), Fit::Foreign, "{what}");
        }
        for len in 0..33 {
            assert_eq!(query.fit(&good[..len]), Fit::Foreign, "{len} octets");
        }
        assert_eq!(query.fit(&[0, 7, 0x80, 1, 0, 0, 0, 0, 0, 0, 0, 0]), Fit::Ours { rcode: 1, truncated: false });
        assert_eq!(query.fit(&[0, 7, 0x80, 2, 0, 0, 0, 0, 0, 0, 0, 0]), Fit::Foreign);
    }

    proptest! {
        #[test]
        fn fit_is_total(octets in proptest::collection::vec(any::<u8>(), 0..80)) {
            let _ = Query::write(&ask("www.example.com", Qtype::A), 7, Some(1232)).fit(&octets);
        }
    }
}
