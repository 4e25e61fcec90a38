//! Certificates that an operator has written for servers of ours to be issued by, in the place of those that browsers trust.
//!
//! Read whole: a file with one that cannot be a root is refused, and not used without it.

use std::fmt;
use std::sync::Arc;

use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use sha2::{Digest, Sha256};

/// Largest file of them that is read, octets; that of a whole system is a quarter of a megabyte.
pub const MAX_FILE: u64 = 4 << 20;

/// Why a file cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RootsError {
    /// It holds no certificate.
    #[error("there is no certificate in it")]
    NoCertificate,
    /// It is not PEM, or a certificate cannot be a root.
    #[error("{0}")]
    Certificate(String),
}

/// See the module. Cheap to clone.
#[derive(Clone)]
pub struct Roots {
    certificates: Arc<[CertificateDer<'static>]>,
    /// SHA-256 of their text.
    digest: [u8; 32],
}

impl Roots {
    /// Reads certificates in PEM.
    ///
    /// # Errors
    /// [`RootsError`].
    pub fn read(text: &[u8]) -> Result<Self, RootsError> {
        let all = CertificateDer::pem_slice_iter(text).collect::<Result<Vec<_>, _>>();
        let roots = Self {
            certificates: all.map_err(|error| RootsError::Certificate(error.to_string()))?.into(),
            digest: Sha256::digest(text).into(),
        };
        roots.store().map(|_| roots)
    }

    /// What a verifier takes.
    ///
    /// # Errors
    /// [`RootsError`], of which [`Roots::read`] has told.
    pub(crate) fn store(&self) -> Result<RootCertStore, RootsError> {
        let mut store = RootCertStore::empty();
        for certificate in &*self.certificates {
            store.add(certificate.clone()).map_err(|error| RootsError::Certificate(error.to_string()))?;
        }
        if store.is_empty() { Err(RootsError::NoCertificate) } else { Ok(store) }
    }

    /// The same for an HTTP client.
    pub(crate) fn for_http(&self) -> ureq::tls::RootCerts {
        let certificate = |der: &CertificateDer<'_>| ureq::tls::Certificate::from_der(der).to_owned();
        ureq::tls::RootCerts::new_with_certs(&self.certificates.iter().map(certificate).collect::<Vec<_>>())
    }

    /// SHA-256 of their text: what tells them from others.
    pub(crate) fn digest(&self) -> [u8; 32] {
        self.digest
    }
}

impl PartialEq for Roots {
    fn eq(&self, other: &Self) -> bool {
        self.digest == other.digest
    }
}

impl Eq for Roots {}

impl fmt::Debug for Roots {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Roots").field(&self.digest).finish()
    }
}
