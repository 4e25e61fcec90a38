//! Type mix: share of distinct names under a tenant first asked by a type that carries more than an address.
//!
//! Downstream data needs room: TXT, MX, CNAME and their like. Host look-ups (A, AAAA, SVCB, HTTPS), reverse and service
//! look-ups and those a resolver makes for itself (NS, SOA, DS, DNSKEY) are ordinary for any number of names; so is any type
//! for a name with a label that a standard has registered for it (RFC 8552: `_dmarc`, `_domainkey`).

use std::sync::LazyLock;

use super::share::Share;
use super::{Reading, Signal};

/// First parameter of the benign share's beta density; wider than the traces, in which one name in 300 is asked so.
pub const BENIGN_ALPHA: f64 = 0.3;
/// Second parameter.
pub const BENIGN_BETA: f64 = 3.0;
/// Fewer say nothing.
pub const FEWEST: u32 = 2;

static RATIO: LazyLock<Share> = LazyLock::new(|| Share::of(BENIGN_ALPHA, BENIGN_BETA));

/// Whether a type is none of those that are ordinary for any number of names.
pub fn is_rich(qtype: u16) -> bool {
    // A, NS, SOA, PTR, AAAA, SRV, DS, DNSKEY, SVCB, HTTPS.
    !matches!(qtype, 1 | 2 | 6 | 12 | 28 | 33 | 43 | 48 | 64 | 65)
}

/// Whether standards have names with registered labels asked by this type.
pub fn is_for_registered(qtype: u16) -> bool {
    // CNAME (keys and validations that are delegated), TXT, NAPTR, TLSA, SMIMEA, OPENPGPKEY, URI.
    matches!(qtype, 5 | 16 | 35 | 52 | 53 | 61 | 256)
}

/// Reading of `k` such names among `n`.
pub fn read(k: u32, n: u32) -> Reading {
    if n < FEWEST {
        return Signal::TypeMix.unknown();
    }
    Signal::TypeMix.reading(Some(k as f32 / n as f32), RATIO.at(k, n).max(0.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_names_by_rich_types_speak_up() {
        assert!(read(3, 3).contribution > 1.5, "{:?}", read(3, 3));
        assert!(read(0, 16).contribution <= 0.0);
        assert_eq!(read(1, 1).value, None, "one verification look-up is ordinary");
        assert!(is_rich(16) && is_rich(5) && !is_rich(1) && !is_rich(33));
    }
}
