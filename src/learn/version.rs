//! Which scoring a sketch was learned under: a digest of the scores themselves.
//!
//! Scores of one scoring say nothing about thresholds of another. What is compared is what comes out, over a fixed set of
//! queries, so a changed density, model, signal or cap shows without anybody having to raise a number.

use std::sync::OnceLock;

use sha2::{Digest, Sha256};
use staunch_scoring::{Budgets, Facts, Listing, Outcome, Params, QName, Scorer, SessionState, Split};

/// Version of what is learned beside the scores: which queries count, and how.
const RULES: u32 = 1;

/// Probes: a name, its type, days since registration and since it was first seen.
const PROBES: [(&str, u16, Option<f32>, Option<f32>); 24] = [
    ("example.com", 1, None, None),
    ("www.example.com", 1, Some(4_000.0), Some(300.0)),
    ("www.example.com", 28, Some(4_000.0), Some(300.0)),
    ("mail.example.com", 15, Some(4_000.0), Some(300.0)),
    ("a1.g.example.net", 1, None, Some(0.0)),
    ("a2.g.example.net", 1, None, Some(0.0)),
    ("a3.g.example.net", 28, None, Some(0.1)),
    ("d111111abcdef8.example.net", 65, None, Some(9.0)),
    ("nbswy3dpeb3w64tmmqqho2djomqgs4y.new.example", 16, Some(1.0), Some(0.0)),
    ("obqxs3dpmfscaylomqqhi2djomqgk6a.new.example", 16, Some(1.0), Some(0.0)),
    ("mnxw2zjanvxxezjaon2hezltomqgm33s.new.example", 5, Some(1.0), Some(0.0)),
    ("68656c6c6f20776f726c64.old.example", 1, Some(2_000.0), Some(80.0)),
    ("00112233445566778899aabbccddeeff.old.example", 1, Some(2_000.0), Some(80.0)),
    ("violet-harbour-ninety-lantern.words.example", 1, None, Some(3.0)),
    ("copper-window-eleven-orchard.words.example", 1, None, Some(3.0)),
    ("abc.short.example", 1, None, None),
    ("x9z.short.example", 1, None, None),
    ("7q2.short.example", 1, None, None),
    ("api.eu-west-1.prod.k8s.place.example", 1, None, None),
    ("shop.eu-west-1.prod.k8s.place.example", 1, None, None),
    ("k3x9q0vz71bd8h2w.eu-west-1.prod.k8s.place.example", 28, None, None),
    ("q0vz71bd8h2wk3x9.directory-of-hosts.place.example", 1, None, None),
    ("tenant-one.github.io", 1, None, Some(20.0)),
    ("1.2.0.192.in-addr.arpa", 12, None, None),
];

/// Sixteen hexadecimal digits; equal where every probe scores alike.
pub fn scoring() -> &'static str {
    static DIGEST: OnceLock<String> = OnceLock::new();
    DIGEST.get_or_init(|| digest(&Scorer::new()))
}

fn digest(scorer: &Scorer) -> String {
    let (budgets, params) = (Budgets::default(), Params::default());
    let mut state = SessionState::new(1);
    let mut digest = Sha256::new();
    digest.update(RULES.to_be_bytes());
    for (round, (name, qtype, registered_days, first_seen_days)) in (0..).zip(PROBES) {
        // Every probe is a name, which a test holds.
        let Ok(qname) = QName::from_text(name) else { continue };
        let qname = qname.as_ref();
        let facts = Facts {
            now: 1_000 * round,
            qname,
            split: Split::of(qname),
            qtype,
            flags: 0,
            qtypes_allowed: 17,
            listing: Listing::Unlisted,
            registered_days,
            first_seen_days,
            group_seen_days: None,
            group: None,
            cached: false,
            at_hand: false,
            budgets: &budgets,
            params: &params,
        };
        let assessment = scorer.assess(&state, &facts);
        for reading in &assessment.readings {
            digest.update(rounded(reading.contribution));
        }
        digest.update(rounded(assessment.score));
        digest.update([assessment.agreeing]);
        digest.update((assessment.after.tenant.steps() / 64).to_be_bytes());
        scorer.commit(&mut state, &facts, &assessment, Outcome::Forwarded);
    }
    digest.finalize().iter().take(8).map(|octet| format!("{octet:02x}")).collect()
}

/// To a fiftieth of a nat, so that the last bits of a library's logarithm do not count.
fn rounded(nats: f32) -> [u8; 4] {
    ((nats * 50.0).round() as i32).to_be_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn probes_are_names_and_the_digest_is_stable() {
        for (name, ..) in PROBES {
            assert!(QName::from_text(name).is_ok(), "{name}");
        }
        assert_eq!(scoring(), digest(&Scorer::new()));
        assert_eq!(scoring().len(), 16);
    }
}
