//! Certificates made for a test: a root, and servers' that it issued.

use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair, PublicKeyData, date_time_ymd};
use rustls::ServerConfig;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
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
        let key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::new(vec![name.to_owned()]).expect("parameters");
        if expired {
            (params.not_before, params.not_after) = (date_time_ymd(2020, 1, 1), date_time_ymd(2021, 1, 1));
        }
        let certificate: CertificateDer<'static> =
            params.signed_by(&key, &self.issuer).expect("a certificate").der().clone();
        let pin = Sha256::digest(key.subject_public_key_info()).into();
        let private = PrivateKeyDer::try_from(key.serialize_der()).expect("a key");
        let config = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_no_client_auth()
            .with_single_cert(vec![certificate], private)
            .expect("a certificate and its key");
        Shown { config: Arc::new(config), pin }
    }
}
