//! Validation: whether what an upstream says is what the owners of its zones have signed (RFC 4033 to RFC 4035, RFC 5155,
//! RFC 6840). Optional.
//!
//! Between [`crate::answer`], which says what of an answer would be shown, and [`crate::cache`], which keeps it. Pure: the
//! message, the keys learned so far and both clocks go in; a [`Verdict`] comes out, or the one look-up ([`Lack`]) without
//! which there is none, and those that can be asked beside it. Who drives it asks, hands the reply to [`Validator::learn`],
//! and begins anew: keys that were proved stay at hand ([`zones`]). Cryptography is hickory's over ring; which octets are signed is written here, since the octets
//! that came are what was signed and not what a typed parse makes of them.
//!
//! Invariants: nothing is asked for but DS and DNSKEY of names that are, or stand above, the question's name or a name on
//! its chain. What is not proved is bogus below an anchor, never insecure: a zone is insecure because its parent proves
//! that it has no key, because nobody here can check its algorithms, or because the configuration says so. All work
//! that an upstream can cause is counted and has an end ([`Limits`]; CVE-2023-50387, CVE-2023-50868).

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

mod anchors;
mod chain;
mod denials;
mod keys;
mod lack;
mod message;
mod rollover;
mod set;
mod work;
mod zones;

#[cfg(test)]
mod tests;

use std::time::Duration;

use arc_swap::ArcSwap;

pub use anchors::{AnchorError, Anchors};
pub use lack::{Lack, Need};
pub use message::Step;
pub use rollover::{Change, HOLD_DOWN, KeyState, Look, Rollover, RolloverError};
pub use work::{Counters, Work};

use self::zones::Zones;
use crate::model::Ede;

/// What validation of one question may cost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Signatures that do not verify. Those that do are bounded by four times as many checks in all: honest answers need
    /// one for each set of records and each step down the tree.
    pub failures: u32,
    /// Iterations of an NSEC3 hash above which a zone is treated as insecure (RFC 9276 section 3.2).
    pub iterations: u16,
    /// NSEC3 hashes computed.
    pub hashes: u32,
    /// Look-ups of DS and DNSKEY sets.
    pub lookups: u32,
    /// For all look-ups together.
    pub time: Duration,
}

impl Default for Limits {
    /// 16 failures, 150 iterations, 64 hashes, 32 look-ups, two seconds. The first is BIND's `max-validations-per-fetch`,
    /// the second unbound's default; a chain over three zones of as many top-level domains needs 13
    /// look-ups when nothing is known, and a question has 2.4 seconds by default.
    fn default() -> Self {
        Self { failures: 16, iterations: 150, hashes: 64, lookups: 32, time: Duration::from_secs(2) }
    }
}

/// Why an answer is not what was signed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Bogus {
    /// No key of the zone makes a signature of its.
    Signature,
    /// Every signature is past its time.
    Expired,
    /// Every signature's time is yet to come.
    NotYetValid,
    /// No key of the zone fits what vouches for it: a DS record, or a signature.
    NoKey,
    /// There is no signature where the zone is signed.
    NoSignature,
    /// Nothing proves what is said not to be there.
    NoProof,
}

impl Bogus {
    /// As a client is told (RFC 8914).
    pub fn ede(self) -> Ede {
        match self {
            Self::Signature => Ede::DnssecBogus,
            Self::Expired => Ede::SignatureExpired,
            Self::NotYetValid => Ede::SignatureNotYetValid,
            Self::NoKey => Ede::DnskeyMissing,
            Self::NoSignature => Ede::RrsigsMissing,
            Self::NoProof => Ede::NsecMissing,
        }
    }

    /// In words.
    pub fn text(self) -> &'static str {
        match self {
            Self::Signature => "a signature does not verify",
            Self::Expired => "a signature has expired",
            Self::NotYetValid => "a signature is not valid yet",
            Self::NoKey => "no key fits what vouches for it",
            Self::NoSignature => "a signature is missing",
            Self::NoProof => "a denial is not proved",
        }
    }
}

/// Why a zone counts as unsigned though it is signed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Unchecked {
    /// Nobody here can check the algorithms of its keys (RFC 4035 section 5.2).
    Algorithms,
    /// Nobody here knows the digests that vouch for its keys (RFC 6840 section 5.2).
    Digests,
    /// Its denials are hashed more often than [`Limits::iterations`] (RFC 9276 section 3.2).
    Iterations,
}

impl Unchecked {
    /// As a client is told (RFC 8914; RFC 9276 section 3.2).
    pub fn ede(self) -> Ede {
        match self {
            Self::Algorithms => Ede::UnsupportedDnskeyAlgorithm,
            Self::Digests => Ede::UnsupportedDsDigestType,
            Self::Iterations => Ede::UnsupportedNsec3Iterations,
        }
    }
}

/// Why nothing can be said of an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Unknown {
    /// More signatures or hashes than [`Limits`] allows.
    Work,
    /// More look-ups than that.
    Lookups,
    /// No time is left.
    Time,
    /// No upstream answered a look-up.
    Unanswered,
}

impl Unknown {
    /// In words. The code is always "DNSSEC Indeterminate" (RFC 8914 section 4.6).
    pub fn text(self) -> &'static str {
        match self {
            Self::Work => "its signatures are more work than one question may be",
            Self::Lookups => "it takes more look-ups of keys than one question may",
            Self::Time => "keys could not be had in time",
            Self::Unanswered => "no upstream answered for its keys",
        }
    }
}

/// What an answer is (RFC 4033 section 5).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Verdict {
    /// All of it is signed, by keys that a trust anchor leads to.
    Secure {
        /// Until the first of its signatures ends, and no longer than its owner wants it kept, seconds.
        ttl: u32,
    },
    /// Something of it is proved to be unsigned, or nobody vouches for it, or it cannot be checked here.
    Insecure(Option<Unchecked>),
    /// It should be signed and is not as it was signed.
    Bogus(Bogus),
    /// It could not be found out.
    Indeterminate(Unknown),
}

/// Validates answers. Shared by all questions.
///
/// [`Self::judge`] and [`Self::learn`] take microseconds for each signature, and no more than [`Limits`] allows.
#[derive(Debug)]
pub struct Validator {
    configured: Anchors,
    /// The same with what `rollover` says of their keys.
    anchors: ArcSwap<InForce>,
    rollover: ArcSwap<Rollover>,
    follows: bool,
    limits: Limits,
    zones: Zones,
}

/// Anchors, and which of those that one validator has had they are: what was proved by others proves nothing.
#[derive(Debug)]
struct InForce {
    number: u64,
    anchors: Anchors,
}

impl Validator {
    /// Knows no key yet, and trusts by these anchors alone.
    pub fn new(anchors: Anchors, limits: Limits) -> Self {
        Self {
            anchors: ArcSwap::from_pointee(InForce { number: 0, anchors: anchors.clone() }),
            configured: anchors,
            rollover: ArcSwap::default(),
            follows: false,
            limits,
            zones: Zones::default(),
        }
    }

    /// Follows the keys of zones that have an anchor as their owners roll them, from what is known of them.
    pub fn following(mut self, rollover: Rollover) -> Self {
        self.follows = true;
        self.follow(rollover);
        self
    }

    /// What one question may cost.
    pub fn limits(&self) -> Limits {
        self.limits
    }
}
