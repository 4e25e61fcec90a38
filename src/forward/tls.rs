//! TLS towards an upstream: whom we take it for.
//!
//! Strict (RFC 8310 section 5): the certificate must be issued by a root of ours for the configured name, and where pins
//! are configured its key must be one of them too. There is no weaker second try. A session that is resumed was
//! authenticated when it was begun; no application data is sent early.

use std::fmt;
use std::io;
use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme, SupportedProtocolVersion,
};
use sha2::{Digest, Sha256};

use super::FailKind;
use crate::roots::{Roots, RootsError};

/// DNS over TLS by its name in a handshake (RFC 7858 section 3.1, RFC 9103 section 7.1).
pub(crate) const DOT: &[u8] = b"dot";

/// SHA-256 of a public key, as SubjectPublicKeyInfo in DER (RFC 7858 section 4.2).
pub type Pin = [u8; 32];

/// Why an upstream's TLS settings cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// The name is none that a certificate can hold.
    #[error("`{0}` is not a name that a certificate can be issued for")]
    Name(String),
    /// The file is none of roots.
    #[error(transparent)]
    Roots(#[from] RootsError),
    /// No verifier can be made of the roots.
    #[error("{0}")]
    Verifier(String),
    /// rustls refuses the settings.
    #[error("TLS cannot be set up")]
    Setup(#[source] rustls::Error),
}

/// How an upstream is authenticated. Cheap to clone.
#[derive(Clone)]
pub struct Tls {
    name: ServerName<'static>,
    pins: Vec<Pin>,
    /// SHA-256 of the roots' text; `None` for the shipped ones.
    roots: Option<[u8; 32]>,
    verifier: Arc<Verifier>,
    client: Arc<ClientConfig>,
}

impl Tls {
    /// A server whose certificate is for `name`, issued by a root in `roots` (certificates in PEM) or, without them, by
    /// one that browsers trust; with `pins`, whose key is also one of these.
    pub fn new(name: &str, pins: Vec<Pin>, roots: Option<&[u8]>) -> Result<Self, TlsError> {
        let server = ServerName::try_from(name.to_owned()).map_err(|_| TlsError::Name(name.into()))?;
        let roots = roots.map(Roots::read).transpose()?;
        let store = match &roots {
            None => RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() },
            Some(roots) => roots.store()?,
        };
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let issued = WebPkiServerVerifier::builder_with_provider(Arc::new(store), provider)
            .build()
            .map_err(|error| TlsError::Verifier(error.to_string()))?;
        let verifier = Arc::new(Verifier { issued, pins: pins.clone() });
        let client = settings(verifier.clone(), rustls::DEFAULT_VERSIONS)?;
        Ok(Self { name: server, pins, roots: roots.map(|roots| roots.digest()), verifier, client: Arc::new(client) })
    }

    /// The same towards a primary: TLS 1.3 alone, for the protocol `dot` (RFC 9103 section 7.1).
    ///
    /// # Errors
    /// [`TlsError::Setup`].
    pub fn for_transfers(self) -> Result<Self, TlsError> {
        let mut client = settings(self.verifier.clone(), &[&rustls::version::TLS13])?;
        client.alpn_protocols = vec![DOT.to_vec()];
        Ok(Self { client: Arc::new(client), ..self })
    }

    /// The name in the certificate.
    pub fn name(&self) -> std::borrow::Cow<'_, str> {
        self.name.to_str()
    }

    pub(crate) fn server_name(&self) -> ServerName<'static> {
        self.name.clone()
    }

    /// Settings of a connection; its clones share the sessions that can be resumed.
    pub(crate) fn client(&self) -> Arc<ClientConfig> {
        self.client.clone()
    }
}

fn settings(verifier: Arc<Verifier>, versions: &[&'static SupportedProtocolVersion]) -> Result<ClientConfig, TlsError> {
    Ok(ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_protocol_versions(versions)
        .map_err(TlsError::Setup)?
        // Dangerous is whoever checks less than the verifier that is asked first here.
        .dangerous()
        .with_custom_certificate_verifier(verifier)
        .with_no_client_auth())
}

impl PartialEq for Tls {
    fn eq(&self, other: &Self) -> bool {
        (&self.name, &self.pins, self.roots) == (&other.name, &other.pins, other.roots)
    }
}

impl Eq for Tls {}

/// All that tells two settings apart.
impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, pins, roots, verifier: _, client: _ } = self;
        f.debug_struct("Tls").field("name", name).field("pins", pins).field("roots", roots).finish()
    }
}

/// What webpki says, and then the pins.
#[derive(Debug)]
struct Verifier {
    issued: Arc<WebPkiServerVerifier>,
    pins: Vec<Pin>,
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let verified = self.issued.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now)?;
        if !self.pins.is_empty() {
            let key = ParsedCertificate::try_from(end_entity)?.subject_public_key_info();
            let digest: Pin = Sha256::digest(&key).into();
            // The server's own key alone: whoever holds another certificate can send along any chain.
            if !self.pins.contains(&digest) {
                return Err(CertificateError::ApplicationVerificationFailure.into());
            }
        }
        Ok(verified)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.issued.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.issued.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.issued.supported_verify_schemes()
    }
}

/// What a handshake failed of.
pub(super) fn kind_of(error: &io::Error) -> FailKind {
    use rustls::Error::InvalidCertificate;
    match error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
        Some(InvalidCertificate(why)) => match why {
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => FailKind::TlsName,
            CertificateError::ApplicationVerificationFailure => FailKind::TlsPin,
            CertificateError::Expired
            | CertificateError::ExpiredContext { .. }
            | CertificateError::NotValidYet
            | CertificateError::NotValidYetContext { .. } => FailKind::TlsExpired,
            _ => FailKind::TlsUntrusted,
        },
        _ => FailKind::TlsFailed,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_that_cannot_be_used_say_why() {
        let error = |name: &str, roots: Option<&[u8]>| Tls::new(name, Vec::new(), roots).err().map(|e| e.to_string());
        assert_eq!(error("dns.example", None), None);
        assert_eq!(error("192.0.2.53", None), None, "a certificate can hold an address");
        assert!(error("two words", None).is_some_and(|why| why.contains("`two words`")));
        assert_eq!(error("dns.example", Some(b"")), Some("there is no certificate in it".into()));
        let broken = b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
        assert!(error("dns.example", Some(broken)).is_some());
    }

    #[test]
    fn settings_are_equal_by_what_they_say() {
        let tls = |name: &str, pin: u8| Tls::new(name, vec![[pin; 32]], None).expect("settings");
        assert_eq!(tls("dns.example", 1), tls("dns.example", 1));
        assert_ne!(tls("dns.example", 1), tls("dns.example", 2));
        assert_ne!(tls("dns.example", 1), tls("other.example", 1));
        assert_eq!(format!("{:?}", tls("dns.example", 1)), format!("{:?}", tls("dns.example", 1)));
    }
}
