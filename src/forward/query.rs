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

use std::net::SocketAddr;

use staunch_scoring::name::MAX_NAME;
use staunch_scoring::{NameRef, QName};

use super::{case, edns};
use crate::model::Qtype;
use crate::partition::{Partition, Sharing};
use crate::policy::Permit;

/// Length of the header (RFC 1035 section 4.1.1).
const HEADER: usize = 12;
/// Header, question, OPT record without options.
const LONGEST_BARE: usize = HEADER + MAX_NAME + 4 + 11;
/// Queries over TLS are padded to a multiple of this (RFC 8467 section 4.1).
const BLOCK: usize = 128;
/// Longest query: one over TLS, its options (keepalive, padding) included. Those over UDP and TCP carry a cookie of 44
/// octets at most in their place.
const MAX_QUERY: usize = (LONGEST_BARE + 8).next_multiple_of(BLOCK);

/// What is asked: all that a permit says, and nothing else.
#[derive(Clone, Copy)]
pub(super) struct Ask {
    /// `None` is the root.
    qname: Option<QName>,
    qtype: Qtype,
    dnssec_ok: bool,
    checking_disabled: bool,
    sharing: Sharing,
    /// Whom not to ask.
    besides: Option<SocketAddr>,
}

impl From<&Permit> for Ask {
    fn from(permit: &Permit) -> Self {
        Self {
            qname: Some(QName::copy_of(permit.qname())),
            qtype: permit.qtype(),
            dnssec_ok: permit.dnssec_ok(),
            checking_disabled: permit.checking_disabled(),
            sharing: permit.sharing(),
            besides: None,
        }
    }
}

impl Ask {
    /// Are you there? Every resolver has the root's name servers at hand.
    pub(super) const PROBE: Self = Self {
        qname: None,
        qtype: Qtype::NS,
        dnssec_ok: false,
        checking_disabled: false,
        sharing: Sharing { partition: Partition::ALL, private: false },
        besides: None,
    };

    /// How do you spell? A name with letters that is nobody's choice and that resolvers answer by themselves (RFC 9462
    /// section 6.4); any response will do.
    pub(super) fn trial() -> Self {
        Self { qname: QName::from_text("resolver.arpa").ok(), qtype: Qtype::SOA, ..Self::PROBE }
    }

    /// A look-up of our own, of a host that the configuration names, or of keys.
    pub(super) fn host(name: NameRef<'_>, qtype: Qtype) -> Self {
        let qname = (!name.is_root()).then(|| QName::copy_of(name));
        Self { qname, qtype, ..Self::PROBE }
    }

    /// With signatures, unchecked.
    pub(super) fn with_proofs(self) -> Self {
        Self { dnssec_ok: true, checking_disabled: true, ..self }
    }

    /// Shared within this partition alone.
    pub(super) fn within(self, partition: Partition) -> Self {
        Self { sharing: Sharing { partition, private: false }, ..self }
    }

    /// To be asked of anybody but the upstream at this address.
    pub(super) fn besides(self, other: SocketAddr) -> Self {
        Self { besides: Some(other), ..self }
    }

    /// Whether it may be asked of the upstream at this address.
    pub(super) fn is_for(&self, upstream: SocketAddr) -> bool {
        self.besides != Some(upstream)
    }

    /// The name.
    pub(super) fn name(&self) -> NameRef<'_> {
        self.qname.as_ref().map_or(NameRef::ROOT, QName::as_ref)
    }

    /// The type.
    pub(super) fn qtype(&self) -> Qtype {
        self.qtype
    }

    /// Wire octets of the name.
    pub(super) fn qname(&self) -> &[u8] {
        self.qname.as_ref().map_or(&[0], |name| name.as_ref().as_wire())
    }

    /// Spells the question of `response`, which is one to this, as it was asked before any letter case was drawn for it:
    /// names in its records may be pointers to that, and would be spelled by chance.
    pub(super) fn respell(&self, response: &mut [u8]) {
        let name = self.qname();
        // Not there where the header came back alone, whatever stands in its place.
        if response.get(4..6) != Some(&[0, 1][..]) {
            return;
        }
        if let Some(theirs) = response.get_mut(HEADER..).and_then(|rest| rest.get_mut(..name.len())) {
            theirs.copy_from_slice(name);
        }
    }

    /// With whom the outcome is shared.
    pub(super) fn sharing(&self) -> Sharing {
        self.sharing
    }

    /// Type, DO and CD in one number, for a key.
    pub(super) fn kind(&self) -> u32 {
        u32::from(self.qtype.0) << 2 | u32::from(self.dnssec_ok) << 1 | u32::from(self.checking_disabled)
    }

    /// Whether `other` asks the same of the same and shares what it gets.
    pub(super) fn is(&self, other: &Self) -> bool {
        self.qname() == other.qname()
            && self.besides == other.besides
            && (self.kind(), self.sharing.partition) == (other.kind(), other.sharing.partition)
    }
}

/// How a query is dressed: nothing in it is of the client.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Dress<'c> {
    /// UDP payload of the OPT record; without it there is no OPT record and no option.
    pub(super) payload: Option<u16>,
    /// Letter case of our own. The response must spell the name in just this way.
    pub(super) case: Case,
    /// Cookie option (RFC 7873): client part, then the server's where it is known.
    pub(super) cookie: Option<&'c [u8]>,
    /// Asks how long a connection may stay open (RFC 7828).
    pub(super) keepalive: bool,
    /// Padding (RFC 7830).
    pub(super) pad: bool,
}

/// Letter case of a query.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Case {
    /// Lower.
    #[default]
    Lower,
    /// Each letter as drawn.
    Mixed,
    /// As drawn, both cases at least once.
    Both,
}

/// A query in wire form.
pub(super) struct Query {
    octets: [u8; MAX_QUERY],
    len: usize,
    question: usize,
    is_cased: bool,
}

impl Query {
    /// Writes the query: RD and AD, CD as permitted, one question of class IN, and an OPT record of our own, DO as
    /// permitted, with the options of `dress`.
    ///
    /// AD asks the upstream to say whether the answer is authentic (RFC 6840 section 5.7). It is always set, so that it
    /// tells nothing of the client, and one answer serves those who want to know and those who do not.
    pub(super) fn write(ask: &Ask, id: u16, dress: Dress<'_>) -> Self {
        let mut query = Self { octets: [0; MAX_QUERY], len: 0, question: 0, is_cased: false };
        let flags = 0x0120 | u16::from(ask.checking_disabled) << 4;
        for word in [id, flags, 1, 0, 0, u16::from(dress.payload.is_some())] {
            query.push(&word.to_be_bytes());
        }
        query.push(ask.qname());
        if let Some(name) = query.octets.get_mut(HEADER..query.len) {
            query.is_cased = match dress.case {
                Case::Lower => false,
                Case::Mixed => case::mix(name),
                Case::Both => case::mix_both(name),
            };
        }
        query.push(&ask.qtype.0.to_be_bytes());
        query.push(&1u16.to_be_bytes());
        query.question = query.len;
        if let Some(payload) = dress.payload {
            query.push(&[0, 0, 41]);
            query.push(&payload.to_be_bytes());
            query.push(&[0, 0, u8::from(ask.dnssec_ok) << 7, 0, 0, 0]);
            let options = query.len;
            if let Some(cookie) = dress.cookie {
                query.push_option(edns::COOKIE, cookie);
            }
            if dress.keepalive {
                query.push_option(edns::KEEPALIVE, &[]);
            }
            if dress.pad {
                // With the option's own code and length.
                let over = query.len.saturating_add(4) % BLOCK;
                let padding = if over == 0 { 0 } else { BLOCK.saturating_sub(over) };
                query.push_option(edns::PADDING, [0; BLOCK].get(..padding).unwrap_or_default());
            }
            let length = query.len.saturating_sub(options) as u16;
            if let Some(field) = query.octets.get_mut(options.saturating_sub(2)..options) {
                field.copy_from_slice(&length.to_be_bytes());
            }
        }
        query
    }

    fn push_option(&mut self, code: u16, data: &[u8]) {
        self.push(&code.to_be_bytes());
        self.push(&(data.len() as u16).to_be_bytes());
        self.push(data);
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
        // Servers that cannot parse a query may send back its header alone, some with an OPT record of their own. Believed for
        // this one query only.
        if matches!(rcode, 1 | 4) && edns::is_header_alone(octets) {
            return Fit::Ours { rcode, truncated: false };
        }
        let theirs = octets.get(HEADER..self.question).unwrap_or_default();
        let Some(((name, kind), (wanted, wanted_kind))) =
            theirs.split_last_chunk::<4>().zip(question.split_last_chunk::<4>())
        else {
            return Fit::Foreign;
        };
        // Length octets of labels are below any letter, so folding the whole is folding the name alone: type and class
        // octets that are letters stand behind it and are compared exactly.
        if header[4..6] != [0, 1] || kind != wanted_kind || !name.eq_ignore_ascii_case(wanted) {
            return Fit::Foreign;
        }
        if self.is_cased && name != wanted {
            return Fit::Recased;
        }
        Fit::Ours { rcode, truncated: header[2] & 0x02 != 0 }
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
    /// All of it but the letter case that was drawn for it.
    Recased,
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

    fn plain(payload: Option<u16>) -> Dress<'static> {
        Dress { payload, ..Dress::default() }
    }

    #[test]
    fn a_query_holds_the_permitted_fields_and_our_own_edns() {
        let query = Query::write(&ask("WwW.Example.COM", Qtype::A), 0xabcd, plain(Some(1232)));
        let mut expected = vec![0xab, 0xcd, 1, 0x20, 0, 1, 0, 0, 0, 0, 0, 1];
        expected.extend(b"\x03www\x07example\x03com\0\0\x01\0\x01");
        expected.extend([0, 0, 41, 4, 208, 0, 0, 0, 0, 0, 0]);
        assert_eq!(query.octets(), expected);
        let parsed = Message::from_vec(query.octets()).expect("a query parses");
        assert_eq!(parsed.edns.expect("EDNS").max_payload(), 1232);

        let bare = Query::write(&ask("www.example.com", Qtype::A), 1, plain(None));
        assert_eq!((bare.octets().len(), bare.octets()[11]), (33, 0));
        let flagged = Ask { dnssec_ok: true, checking_disabled: true, ..ask("a", Qtype::TXT) };
        let parsed = Message::from_vec(Query::write(&flagged, 1, plain(Some(1232))).octets()).expect("parses");
        assert!(parsed.metadata.checking_disabled && parsed.metadata.authentic_data);
        assert!(parsed.edns.expect("EDNS").flags().dnssec_ok);
        let probe = Query::write(&Ask::PROBE, 1, plain(Some(1232)));
        assert_eq!(probe.octets()[12..17], [0, 0, 2, 0, 1]);
    }

    #[test]
    fn the_longest_name_fits() {
        let name = format!("{}.{}", vec!["a".repeat(63); 3].join("."), "b".repeat(61));
        let query = Query::write(&ask(&name, Qtype::TXT), 1, plain(Some(1232)));
        assert_eq!(query.octets().len(), LONGEST_BARE);
        assert!(Message::from_vec(query.octets()).is_ok());
        let cookie = [7; 40];
        let full = Dress { cookie: Some(&cookie), keepalive: true, ..plain(Some(1232)) };
        let padded = Dress { keepalive: true, pad: true, ..plain(Some(1232)) };
        for (dress, len) in [(full, LONGEST_BARE + 48), (padded, MAX_QUERY)] {
            let query = Query::write(&ask(&name, Qtype::TXT), 1, dress);
            assert_eq!(query.octets().len(), len);
            assert!(Message::from_vec(query.octets()).is_ok());
        }
    }

    #[test]
    fn options_stand_where_they_are_wanted_and_padding_fills_a_block() {
        let cookie = *b"8 octets";
        let dress = Dress { cookie: Some(&cookie), keepalive: true, ..plain(Some(1232)) };
        let query = Query::write(&ask("www.example.com", Qtype::A), 1, dress);
        assert_eq!(query.octets()[33 + 9..], *b"\x00\x10\x00\x0a\x00\x088 octets\x00\x0b\x00\x00");
        for len in 1..60 {
            let dress = Dress { pad: true, keepalive: true, ..plain(Some(1232)) };
            let query = Query::write(&ask(&format!("{}.example", "a".repeat(len)), Qtype::A), 1, dress);
            assert_eq!(query.octets().len(), 128, "label of {len}");
            assert!(Message::from_vec(query.octets()).is_ok());
        }
        let bare = Dress { payload: None, ..dress };
        assert_eq!(Query::write(&ask("www.example.com", Qtype::A), 1, bare).octets().len(), 33, "no OPT, no option");
    }

    #[test]
    fn a_case_that_was_drawn_must_come_back() {
        let dress = Dress { case: Case::Both, ..plain(Some(1232)) };
        let query = Query::write(&ask("wWw.eXample.com", Qtype::A), 7, dress);
        let name = &query.octets()[12..29];
        assert!(name.eq_ignore_ascii_case(b"\x03www\x07example\x03com\0") && *name != *b"\x03www\x07example\x03com\0");
        let mut good = query.octets().to_vec();
        good[2] = 0x81;
        assert_eq!(query.fit(&good), Fit::Ours { rcode: 0, truncated: false });
        good[13] ^= 0x20;
        assert_eq!(query.fit(&good), Fit::Recased);
        good[14] = b'x';
        assert_eq!(query.fit(&good), Fit::Foreign);
    }

    #[test]
    fn only_the_exact_question_fits() {
        // A type whose octets are letters must not be folded.
        let query = Query::write(&ask("www.example.com", Qtype(0x4161)), 7, plain(Some(1232)));
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
        for rcode in [1, 4] {
            let mut header = vec![0, 7, 0x80, rcode, 0, 0, 0, 0, 0, 0, 0, 0];
            assert_eq!(query.fit(&header), Fit::Ours { rcode, truncated: false });
            header[11] = 1;
            header.extend([0, 0, 41, 4, 208, 0, 0, 0, 0, 0, 0]);
            assert_eq!(query.fit(&header), Fit::Ours { rcode, truncated: false }, "with an OPT record");
            let mut kept = header.clone();
            ask("www.example.com", Qtype::A).respell(&mut kept);
            assert_eq!(kept, header, "there is no question to spell");
            header[1] = 8;
            assert_eq!(query.fit(&header), Fit::Foreign, "id");
        }
        assert_eq!(query.fit(&[0, 7, 0x80, 2, 0, 0, 0, 0, 0, 0, 0, 0]), Fit::Foreign);
    }

    proptest! {
        #[test]
        fn fit_is_total(octets in proptest::collection::vec(any::<u8>(), 0..80)) {
            let _ = Query::write(&ask("www.example.com", Qtype::A), 7, plain(Some(1232))).fit(&octets);
        }
    }
}
