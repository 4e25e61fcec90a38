//! Decoys: a random sibling is asked in place of a suspicious name, to learn whether the name matters at all.
//!
//! Where a zone answers every name below some parent alike (a wildcard, RFC 4592), the answer for a name of the
//! session's choice can be had without sending that name. Two random siblings that agree prove it as far as it can be
//! proved from outside; a server that makes its answers from the name gives two different ones.
//!
//! Between [`crate::policy`], which says which questions are worth it and builds the permits, and [`crate::pipeline`],
//! which asks. Pure: random octets and `now` are handed in. Knows no session, no rule and no socket.
//!
//! Invariant: a sibling is a function of its parent and of random octets alone. Neither what stands left of the parent
//! nor its length is an argument, so none of it can leave.

mod table;

use serde::{Deserialize, Serialize};
use staunch_scoring::{Bits, NameRef, QName};

use crate::model::Qtype;

pub use table::{Cell, Counters, Finding, Proof, Table};

/// Octets in a sibling's label, the same for every parent and every name.
///
/// 71 bits of chance: nobody has written the name into a zone. Short enough for every parent that a longer name has.
pub const LABEL: usize = 14;

/// Random octets that one sibling takes.
pub const RANDOM: usize = LABEL;

/// The label, as on the wire, under which siblings of a parent are priced: which of them was asked is chance and tells
/// nothing, that one was asked does. No host has it (RFC 1123 section 2.1: a label begins and ends with a letter or digit), and policy
/// refuses it to sessions, so that nothing else is booked under it.
pub const STAND_IN: &[u8] = b"\x01-";

/// Types for which a sibling may stand in: what finding and reaching a host takes. Not TXT: a tunnel's server gives every
/// label it does not understand the same words, and would pass for a wildcard.
pub const TYPES: [Qtype; 3] = [Qtype::A, Qtype::AAAA, Qtype::HTTPS];

/// Settings of this stage.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Config {
    /// Whether siblings are asked at all. Never in monitor mode, which must not change what leaves.
    pub enabled: bool,
    /// From this score on, in nats, a name is suspicious; one in the watched band is in any case.
    pub score: f32,
    /// What a suspicious name that is not yet watched must be worth for siblings to be asked, bits. Where they are known
    /// to be answered alike, it need not.
    pub bits: Bits,
    /// What the labels between tenant and sibling may be worth, bits: they leave with the sibling, and are charged.
    pub parent_bits: Bits,
    /// Tries for one session within an hour: one parent and type each, by at most two queries.
    pub per_session_hour: u16,
}

impl Default for Config {
    /// Score and worth are chosen on the open corpora: the first names of tunnels score from 1 nat on and are worth 60
    /// bits and more, of 62,651 ordinary names 20 are and do. A region's name (`us-east-1`) is worth 43 bits. The number an
    /// hour is chosen without a source.
    fn default() -> Self {
        Self { enabled: true, score: 1.0, bits: Bits::whole(48), parent_bits: Bits::whole(48), per_session_hour: 64 }
    }
}

/// What asking siblings has shown of a parent and a type.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// Every name below it gets the same answer.
    Wildcard,
    /// A name nobody wrote into the zone does not exist.
    Plain,
    /// Siblings get different answers: the server makes them from the name.
    Differs,
    /// No usable answer came back in time.
    Failed,
}

impl Kind {
    /// Every kind, for metrics.
    pub const ALL: [Self; 4] = [Self::Wildcard, Self::Plain, Self::Differs, Self::Failed];

    /// As in records and labels.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Wildcard => "wildcard",
            Self::Plain => "plain",
            Self::Differs => "differs",
            Self::Failed => "failed",
        }
    }
}

/// A random name one label below `parent`; `None` where it would be longer than a name can be.
pub fn sibling(parent: NameRef<'_>, random: &[u8; RANDOM]) -> Option<QName> {
    const SYMBOLS: &[u8; 36] = b"abcdefghijklmnopqrstuvwxyz0123456789";
    let mut label = [0; LABEL];
    for (at, (to, chance)) in label.iter_mut().zip(random).enumerate() {
        // A letter first: no label of digits alone, which some stubs take for an address.
        let of = if at == 0 { 26 } else { SYMBOLS.len() };
        *to = SYMBOLS[usize::from(*chance) * of / 256];
    }
    below(parent, &label)
}

/// The name under which siblings below `parent` are charged; `None` where it would be too long.
pub fn stand_in(parent: NameRef<'_>) -> Option<QName> {
    below(parent, b"-")
}

/// Whether `name` is one that siblings are charged under.
pub fn is_stand_in(name: NameRef<'_>) -> bool {
    name.as_wire().starts_with(STAND_IN)
}

fn below(parent: NameRef<'_>, label: &[u8]) -> Option<QName> {
    let mut wire = [0; staunch_scoring::name::MAX_NAME];
    let (head, rest) = wire.split_at_mut_checked(1 + label.len())?;
    head[0] = u8::try_from(label.len()).ok()?;
    head[1..].copy_from_slice(label);
    rest.get_mut(..parent.wire_len())?.copy_from_slice(parent.as_wire());
    QName::read(&wire).ok().map(|(name, _)| name)
}

/// How many tries a session has had within an hour.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Allowance {
    /// When the hour began, monotonic milliseconds.
    since: u64,
    used: u16,
}

impl Allowance {
    const HOUR: u64 = 3_600_000;

    /// Takes one of `limit`; `false` if none is left before the hour is over.
    pub fn take(&mut self, limit: u16, now: u64) -> bool {
        if self.used == 0 || now.saturating_sub(self.since) >= Self::HOUR {
            *self = Self { since: now, used: 0 };
        }
        let left = self.used < limit;
        self.used += u16::from(left);
        left
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use staunch_scoring::NameBuf;

    use super::*;

    fn name(text: &str) -> NameBuf {
        NameBuf::from_text(text).expect("name")
    }

    #[test]
    fn a_sibling_has_one_shape_whatever_the_parent() {
        let random: [u8; RANDOM] = std::array::from_fn(|i| (i * 37) as u8);
        let below = |parent: &str| sibling(name(parent).as_ref(), &random).expect("fits");
        let (short, long) = (below("x.example"), below("a.long.parent.name.example"));
        let label = |name: &QName| name.as_ref().labels().next().map(<[u8]>::to_vec);
        assert_eq!(label(&short), label(&long), "the label is a function of the random octets alone");
        assert_eq!(short.as_ref().parent(), Some(name("x.example").as_ref()));
        let label = label(&short).expect("a label");
        assert_eq!(label.len(), LABEL);
        assert!(label[0].is_ascii_lowercase() && label.iter().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit()));
        let zeros = sibling(name("x.example").as_ref(), &[0; RANDOM]).expect("fits");
        let ones = sibling(name("x.example").as_ref(), &[255; RANDOM]).expect("fits");
        assert_eq!((zeros.as_ref().to_string(), ones.as_ref().to_string()), {
            let nines = "9".repeat(LABEL - 1);
            (format!("{}.x.example", "a".repeat(LABEL)), format!("z{nines}.x.example"))
        });
    }

    #[test]
    fn what_would_be_too_long_is_not_made() {
        let room = |len: usize| {
            let rest = "b".repeat(len - 3 * 64 - 2);
            name(&format!("{}.{rest}", vec!["a".repeat(63); 3].join(".")))
        };
        let (fits, full) = (room(240), room(241));
        assert_eq!(sibling(fits.as_ref(), &[7; RANDOM]).map(|n| n.as_ref().wire_len()), Some(255));
        assert!(sibling(full.as_ref(), &[7; RANDOM]).is_none());
        assert!(stand_in(full.as_ref()).is_some());
        assert!(stand_in(room(254).as_ref()).is_none());
    }

    #[test]
    fn the_stand_in_is_known_again() {
        let stand = stand_in(name("x.example").as_ref()).expect("fits");
        assert!(is_stand_in(stand.as_ref()));
        for other in ["x.example", "-a.x.example", "a.-.example", "."] {
            assert!(!is_stand_in(name(other).as_ref()), "{other}");
        }
    }

    #[test]
    fn an_hour_has_its_number_and_comes_back() {
        let mut allowance = Allowance::default();
        let hour = Allowance::HOUR;
        assert!((0..3).all(|i| allowance.take(3, 1000 + i)));
        assert!(!allowance.take(3, 1000 + hour - 1));
        assert!(allowance.take(3, 1000 + hour));
        assert!(!Allowance::default().take(0, 0));
    }

    proptest! {
        #[test]
        fn siblings_spread_over_the_whole_alphabet(seed in any::<[u8; RANDOM]>()) {
            let sibling = sibling(name("x.example").as_ref(), &seed).expect("fits");
            let text = sibling.as_ref().to_string();
            prop_assert_eq!(text.len(), LABEL + ".x.example".len());
            prop_assert!(!is_stand_in(sibling.as_ref()));
        }
    }
}
