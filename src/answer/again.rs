//! An answer that was vetted, read again: for a session that may be shown less of it than another.

use super::vet::{CLASS_IN, vet};
use super::{AnswerRules, Asked, WireAnswer};

impl WireAnswer {
    /// The same without the address hints of SVCB and HTTPS records, and without what they opened. `None` where it cannot be
    /// read, which no vetted answer to `asked` is.
    pub fn without_hints(&self, asked: Asked<'_>) -> Option<Self> {
        // All else was vetted, and is shown as it is.
        let rules = AnswerRules { strip_hints: true, ..AnswerRules::everything(asked.qname) };
        let answer = vet(&self.as_message(asked), asked, &rules).ok()?.answer;
        Some(Self { ttl: self.ttl, ede: self.ede, beyond: self.beyond, ..answer })
    }

    /// A response to `asked` that holds it.
    pub(super) fn as_message(&self, asked: Asked<'_>) -> Vec<u8> {
        let mut octets = vec![0, 0, 0x81, 0x80 | self.rcode & 0xf, 0, 1];
        octets.extend(self.answers.to_be_bytes());
        octets.extend(self.authorities.to_be_bytes());
        octets.extend([0; 2]);
        octets.extend_from_slice(asked.qname.as_wire());
        octets.extend(asked.qtype.0.to_be_bytes());
        octets.extend(CLASS_IN.to_be_bytes());
        octets.extend_from_slice(&self.body);
        octets
    }
}
