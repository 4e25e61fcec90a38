//! A receipt: what a node says that it found, signed with its key (JWS, EdDSA).
//!
//! The daemon signs, since it alone has the key; it takes the doctor's rows as they are and adds what it knows itself: the
//! time, the policy, its own readiness. Whoever may use the admin socket may have a report signed, so a receipt is worth as
//! much as the group of that socket.

use serde::{Deserialize, Serialize};

use super::report::{self, Report};
use crate::identity::{NodeKey, PublicKey, jws};
use crate::readiness;

/// The type in a receipt's header.
pub const TYPE: &str = "staunch-doctor+jws";

/// Octets of what stands around a report, at most: nine short texts, and what the daemon found of itself, cut.
const AROUND: usize = 64 * 1024;
// Whatever report may be signed, its receipt can be checked.
const _: () = assert!(report::OCTETS + AROUND <= jws::PAYLOAD);

/// What is signed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Receipt {
    /// Version of this form: 1.
    pub schema: u32,
    /// When, RFC 3339, by the node's clock.
    pub time: String,
    /// The node's key, by its thumbprint.
    pub node: String,
    /// Version of the daemon.
    pub version: String,
    /// `monitor`, `canary` or `enforce`.
    pub mode: String,
    /// Digest of the configuration in force.
    pub policy: String,
    /// What the daemon found of itself.
    pub readiness: readiness::Report,
    /// What the doctor found.
    pub report: Report,
}

/// Why a receipt does not count.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Not signed by this key, or changed.
    #[error(transparent)]
    Jws(#[from] jws::Error),
    /// Signed, and of a form that this release does not know.
    #[error("signed by this key, but of a form that this release does not know: {0}")]
    Form(String),
}

impl Receipt {
    /// The receipt, signed, in one line. Texts of the daemon's own readiness are cut as a report's are.
    pub fn sign(mut self, key: &NodeKey) -> Result<String, serde_json::Error> {
        self.readiness.checks.iter_mut().for_each(|check| report::clip(&mut check.text));
        Ok(jws::sign(key, TYPE, &serde_json::to_vec(&self)?))
    }

    /// Reads a receipt that this key has signed.
    ///
    /// # Errors
    ///
    /// [`Error`].
    pub fn verify(text: &str, key: &PublicKey) -> Result<Self, Error> {
        let payload = jws::verify(text, TYPE, key)?;
        let receipt: Self = serde_json::from_slice(&payload).map_err(|error| Error::Form(error.to_string()))?;
        if receipt.schema != 1 || !receipt.report.is_sane() || receipt.node != key.kid() {
            return Err(Error::Form("its version, its size or the node it names is off".into()));
        }
        Ok(receipt)
    }
}

#[cfg(test)]
mod tests {
    use super::super::report::{OCTETS, Outcome, tests::report};
    use super::*;

    fn receipt(key: &NodeKey) -> Receipt {
        Receipt {
            schema: 1,
            time: "2026-11-28T12:00:00Z".into(),
            node: key.kid().into(),
            version: "0.1.0".into(),
            mode: "enforce".into(),
            policy: "ab".repeat(32),
            readiness: readiness::Report::default(),
            report: report(&[Outcome::Closed, Outcome::Open]),
        }
    }

    #[test]
    fn a_receipt_is_read_back_by_its_key_alone() {
        let key = NodeKey::from_seed([3; 32]);
        let public = PublicKey::read(&key.public()).expect("a key");
        let text = receipt(&key).sign(&key).expect("signed");
        assert_eq!(Receipt::verify(&text, &public).expect("good"), receipt(&key));
        let other = PublicKey::read(&NodeKey::from_seed([4; 32]).public()).expect("a key");
        assert!(matches!(Receipt::verify(&text, &other), Err(Error::Jws(jws::Error::Key(_)))));
        // A node may not speak for another, and other texts of the same key are no receipts.
        let lying = Receipt { node: "another".into(), ..receipt(&key) }.sign(&key).expect("signed");
        assert!(matches!(Receipt::verify(&lying, &public), Err(Error::Form(_))));
        assert!(matches!(Receipt::verify(&jws::sign(&key, TYPE, b"{}"), &public), Err(Error::Form(_))));
        assert!(matches!(Receipt::verify(&jws::sign(&key, "JWT", b"{}"), &public), Err(Error::Jws(_))));
    }
    #[test]
    fn the_largest_report_has_a_receipt_that_is_read_back() {
        let key = NodeKey::from_seed([3; 32]);
        let public = PublicKey::read(&key.public()).expect("a key");
        let mut largest = receipt(&key);
        largest.report = report(&[Outcome::Closed; 512]);
        largest.report.rows.iter_mut().for_each(|row| row.why = "y".repeat(512));
        largest.report.fit();
        assert!(serde_json::to_vec(&largest.report).expect("JSON").len() > OCTETS - 4096, "as large as may be");
        let check = |id: &str| readiness::Check {
            id: id.into(),
            state: readiness::State::Failed,
            text: "\u{1}".repeat(1 << 20),
        };
        largest.readiness.checks =
            ["packet-filter", "ranges", "lockdown", "listeners", "records", "round"].map(check).into();
        let request = crate::admin::protocol::Request::Receipt { report: Box::new(largest.report.clone()) };
        assert!(serde_json::to_vec(&request).expect("JSON").len() < crate::admin::protocol::MAX_REQUEST);
        let text = largest.clone().sign(&key).expect("signed");
        assert_eq!(Receipt::verify(&text, &public).expect("good").report, largest.report);
    }
}
