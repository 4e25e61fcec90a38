//! Certificates made for a test: a root, and servers' that it issued.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair, PublicKeyData, date_time_ymd};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ServerConfig, SupportedProtocolVersion, version};
use sha2::{Digest, Sha256};

use super::tls::Pin;

/// A root.
pub(crate) struct Root {
    issuer: Issuer<'static, KeyPair>,
    /// Its certificate, PEM.
    pub(crate) pem: String,
}

/// What a server shows.
pub(crate) struct Shown {
    /// Settings of a server.
    pub(crate) config: Arc<ServerConfig>,
    /// Its certificate.
    pub(crate) certificate: CertificateDer<'static>,
    /// Digest of its key.
    pub(crate) pin: Pin,
}

impl Root {
    pub(crate) fn new() -> Self {
        let key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::new(Vec::new()).expect("parameters");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let pem = params.self_signed(&key).expect("a certificate").pem();
        Self { issuer: Issuer::new(params, key), pem }
    }

    /// A server's certificate for `name`; one of long ago, if `expired`.
    pub(crate) fn issue(&self, name: &str, expired: bool) -> Shown {
        self.issue_with(name, &[&version::TLS12, &version::TLS13], |params| {
            if expired {
                (params.not_before, params.not_after) = (date_time_ymd(2020, 1, 1), date_time_ymd(2021, 1, 1));
            }
        })
    }

    /// One for `name` that ends at `end`, shown in this version of TLS alone.
    pub(crate) fn issue_until(&self, name: &str, version: &'static SupportedProtocolVersion, end: SystemTime) -> Shown {
        let since = end.duration_since(UNIX_EPOCH).expect("of this time");
        self.issue_with(name, &[version], |params| {
            params.not_before = date_time_ymd(2020, 1, 1);
            params.not_after = date_time_ymd(1970, 1, 1) + Duration::from_secs(since.as_secs());
        })
    }

    fn issue_with(
        &self,
        name: &str,
        versions: &[&'static SupportedProtocolVersion],
        set: impl FnOnce(&mut CertificateParams),
    ) -> Shown {
        let key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::new(vec![name.to_owned()]).expect("parameters");
        set(&mut params);
        let certificate: CertificateDer<'static> =
            params.signed_by(&key, &self.issuer).expect("a certificate").der().clone();
        let pin = Sha256::digest(key.subject_public_key_info()).into();
        let private = PrivateKeyDer::try_from(key.serialize_der()).expect("a key");
        let config = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_protocol_versions(versions)
            .expect("versions")
            .with_no_client_auth()
            .with_single_cert(vec![certificate.clone()], private)
            .expect("a certificate and its key");
        Shown { config: Arc::new(config), certificate, pin }
    }
}
