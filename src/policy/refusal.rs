//! What a refusal says: the EDE code and words from a fixed vocabulary, safe for a person and for a model to read.

use std::fmt::{self, Write};

use crate::model::{CaseId, Ede, Reason};

/// The info code of a reason (RFC 8914): 15 our own policy, 17 the sandbox owner's own list, 18 this client may not ask.
pub fn ede_of(reason: Reason) -> Ede {
    match reason {
        Reason::DenyRule | Reason::NotAllowed => Ede::Filtered,
        Reason::Quarantined | Reason::UnknownSource => Ede::Prohibited,
        Reason::DenyList
        | Reason::Rpz
        | Reason::TypeNotAllowed
        | Reason::BadHostName
        | Reason::Score
        | Reason::LedgerTenant
        | Reason::LedgerIcann
        | Reason::LedgerSession
        | Reason::LedgerGroup
        | Reason::Held
        | Reason::NotPublic => Ede::Blocked,
        Reason::NotPinned | Reason::Share => Ede::NotReady,
    }
}

/// A reason in words for the asker. Tells no threshold and nothing of other sessions.
fn words(reason: Reason) -> &'static str {
    match reason {
        Reason::DenyRule => "a deny rule names it",
        Reason::DenyList => "it is on a deny list",
        Reason::Rpz => "a response policy zone names it",
        Reason::NotAllowed => "no rule allows it",
        Reason::TypeNotAllowed => "this record type is not answered here",
        Reason::BadHostName => "not a valid host name",
        Reason::Score => "it looks like data sent out in DNS names",
        Reason::LedgerTenant | Reason::LedgerIcann => "too much was sent to this domain in DNS names",
        Reason::LedgerSession => "too much was sent out in DNS names",
        Reason::LedgerGroup => "sessions like this one sent too much out in DNS names today",
        Reason::Held => "it was asked again too often",
        Reason::Quarantined => "this session is quarantined",
        Reason::UnknownSource => "this client is not a known session",
        Reason::NotPublic => "its answer leads to an address that is not public",
        Reason::NotPinned => "its address could not be opened",
        Reason::Share => "too many questions wait; try again",
    }
}

/// Most octets of a zone's name that a text shows.
const MAX_ZONE: usize = 100;

/// Room for the longest refusal text.
const ROOM: usize = 200;

/// The text of a refusal: the same in the EDE, in the TXT answer and in the event. At most 200 octets, no allocation.
#[derive(Clone, Copy)]
pub struct RefusalText {
    octets: [u8; ROOM],
    len: u8,
}

impl RefusalText {
    /// Writes the text; a contact that does not fit is cut off at the end.
    pub fn new(reason: Reason, case: CaseId, contact: Option<&str>) -> Self {
        let mut text = Self { octets: [0; ROOM], len: 0 };
        // Writing into the fixed room cannot fail: what does not fit is dropped.
        let _ = write!(
            text,
            "Refused by policy ({}): {}. Do not retry or bypass. Case {case}.",
            reason.as_str(),
            words(reason)
        );
        if let Some(contact) = contact {
            let _ = write!(text, " Ask {contact}.");
        }
        text
    }

    /// The words beside what a response policy zone makes of an answer. `refused`: whether that is nothing.
    pub fn rpz(zone: &str, refused: bool, case: CaseId, contact: Option<&str>) -> Self {
        let mut text = Self { octets: [0; ROOM], len: 0 };
        // A zone's name is as long as a name may be; the case must not be pushed out by it.
        let zone = zone.get(..MAX_ZONE.min(zone.len())).unwrap_or("");
        let reason = Reason::Rpz.as_str();
        let _ = match refused {
            true => write!(text, "Refused by policy ({reason}): zone {zone}. Do not retry or bypass. Case {case}."),
            false => write!(text, "Rewritten by policy ({reason}): zone {zone}. Case {case}."),
        };
        if let Some(contact) = contact {
            let _ = write!(text, " Ask {contact}.");
        }
        text
    }

    /// The words beside an answer that is given although it has expired, because its name was asked again too often.
    pub fn held(case: CaseId) -> Self {
        let mut text = Self { octets: [0; ROOM], len: 0 };
        let reason = Reason::Held;
        // Fits the room whatever the case.
        let _ = write!(text, "Answered from memory ({}): asked again too often. Case {case}.", reason.as_str());
        text
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        // Only whole characters are ever copied in.
        std::str::from_utf8(&self.octets[..self.len as usize]).unwrap_or("Refused by policy")
    }
}

impl fmt::Write for RefusalText {
    fn write_str(&mut self, s: &str) -> fmt::Result {
        let room = ROOM - self.len as usize;
        let mut take = s.len().min(room);
        while !s.is_char_boundary(take) {
            take -= 1;
        }
        let at = self.len as usize;
        self.octets[at..at + take].copy_from_slice(&s.as_bytes()[..take]);
        self.len += take as u8;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_fits_with_its_case() {
        for reason in Reason::ALL {
            let text = RefusalText::new(reason, CaseId::from_random(u64::MAX), Some(&"é".repeat(300)));
            assert!(text.as_str().len() <= ROOM);
            assert!(text.as_str().contains("Case czzzzzzzzzzzz."), "{}", text.as_str());
            assert!(text.as_str().contains(reason.as_str()));
        }
        for refused in [true, false] {
            let text =
                RefusalText::rpz(&"z".repeat(250), refused, CaseId::from_random(u64::MAX), Some("soc@site.example"));
            assert!(text.as_str().contains("Case czzzzzzzzzzzz."), "{}", text.as_str());
        }
        let held = RefusalText::held(CaseId::from_random(u64::MAX));
        assert!(held.as_str().ends_with("Case czzzzzzzzzzzz."), "{}", held.as_str());
    }
}
