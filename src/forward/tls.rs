//! TLS towards an upstream: whom we take it for.
//!
//! Strict (RFC 8310 section 5): the certificate must be issued by a root of ours for the configured name, and where pins
//! are configured its key must be one of them too. There is no weaker second try. A session is resumed as long as what the
//! server has shown last would be taken again, and for [`LONGEST`] at most; no application data is sent early.

use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{
    ClientSessionMemoryCache, ClientSessionStore, Resumption, Tls12ClientSessionValue, Tls13ClientSessionValue,
    WebPkiServerVerifier,
};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, NamedGroup, RootCertStore, SignatureScheme,
    SupportedProtocolVersion,
};
use sha2::{Digest, Sha256};

use super::FailKind;
use crate::roots::{Roots, RootsError};

/// DNS over TLS by its name in a handshake (RFC 7858 section 3.1, RFC 9103 section 7.1).
pub(crate) const DOT: &[u8] = b"dot";

/// How long sessions are resumed behind a server's last proof that it holds the key of its certificate: each resumption brings
/// tickets for others, without an end of their own (RFC 8446 section 4.6.1 asks for one). Chosen without a source: one whole
/// handshake a day costs nothing.
const LONGEST: Duration = Duration::from_secs(86_400);
/// Sessions that are remembered. A connection takes one, and gets new ones.
const SESSIONS: usize = 8;

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
        let verifier = Arc::new(Verifier { issued, pins: pins.clone(), seen: Mutex::default() });
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
    let sessions = Sessions { kept: Mutex::new((0, Arc::new(none_kept()))), verifier: verifier.clone() };
    let mut client = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_protocol_versions(versions)
        .map_err(TlsError::Setup)?
        // Dangerous is whoever checks less than the verifier that is asked first here.
        .dangerous()
        .with_custom_certificate_verifier(verifier)
        .with_no_client_auth();
    client.resumption = Resumption::store(Arc::new(sessions));
    Ok(client)
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
    seen: Mutex<Seen>,
}

/// What the server has shown in whole handshakes.
#[derive(Debug, Default)]
struct Seen {
    /// How often another certificate than before was proved.
    number: u64,
    /// Good certificates, for which nobody has shown the key yet.
    shown: Option<Chain>,
    /// Those of which somebody had the key, and when that was last.
    proved: Option<(Chain, UnixTime)>,
}

/// A server's certificate, those that lead to a root, and the name that it was shown for.
#[derive(Debug)]
struct Chain {
    end_entity: CertificateDer<'static>,
    intermediates: Vec<CertificateDer<'static>>,
    name: ServerName<'static>,
}

impl Verifier {
    /// Whether sessions may still be resumed: what the server has proved last would be taken at `now` as well.
    fn would_take_again(&self, now: UnixTime) -> bool {
        let seen = self.seen.lock();
        let Some((Chain { end_entity, intermediates, name }, since)) = &seen.proved else { return false };
        // A clock that was set back proves nothing anew.
        let age = now.as_secs().abs_diff(since.as_secs());
        age < LONGEST.as_secs() && self.check(end_entity, intermediates, name, &[], now).is_ok()
    }

    /// Somebody has shown that he holds the key of `certificate`.
    fn proved(&self, certificate: &CertificateDer<'_>) {
        let mut seen = self.seen.lock();
        if let Some(chain) = seen.shown.take_if(|chain| chain.end_entity == *certificate) {
            let is_known = seen.proved.as_ref().is_some_and(|(before, _)| before.end_entity == chain.end_entity);
            seen.number += u64::from(!is_known);
            seen.proved = Some((chain, UnixTime::now()));
        }
    }

    fn check(
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
        let verified = self.check(end_entity, intermediates, server_name, ocsp_response, now)?;
        self.seen.lock().shown = Some(Chain {
            end_entity: end_entity.clone().into_owned(),
            intermediates: intermediates.iter().map(|between| between.clone().into_owned()).collect(),
            name: server_name.to_owned(),
        });
        Ok(verified)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let valid = self.issued.verify_tls12_signature(message, cert, dss)?;
        self.proved(cert);
        Ok(valid)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let valid = self.issued.verify_tls13_signature(message, cert, dss)?;
        self.proved(cert);
        Ok(valid)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.issued.supported_verify_schemes()
    }
}

/// Sessions that can be resumed. Without a look at what the server had shown, one would be taken for whom we asked for long
/// after its certificate has ended.
#[derive(Debug)]
struct Sessions {
    /// Those of the certificate that was proved last, as far as they were told since, and the number of it.
    kept: Mutex<(u64, Arc<ClientSessionMemoryCache>)>,
    verifier: Arc<Verifier>,
}

fn none_kept() -> ClientSessionMemoryCache {
    ClientSessionMemoryCache::new(SESSIONS)
}

impl Sessions {
    fn kept(&self) -> Arc<ClientSessionMemoryCache> {
        let number = self.verifier.seen.lock().number;
        let mut kept = self.kept.lock();
        if kept.0 != number {
            *kept = (number, Arc::new(none_kept()));
        }
        kept.1.clone()
    }
}

impl ClientSessionStore for Sessions {
    fn set_kx_hint(&self, server_name: ServerName<'static>, group: NamedGroup) {
        self.kept().set_kx_hint(server_name, group);
    }

    fn kx_hint(&self, server_name: &ServerName<'_>) -> Option<NamedGroup> {
        self.kept().kx_hint(server_name)
    }

    fn set_tls12_session(&self, server_name: ServerName<'static>, value: Tls12ClientSessionValue) {
        self.kept().set_tls12_session(server_name, value);
    }

    fn tls12_session(&self, server_name: &ServerName<'_>) -> Option<Tls12ClientSessionValue> {
        self.kept().tls12_session(server_name).filter(|_| self.verifier.would_take_again(UnixTime::now()))
    }

    fn remove_tls12_session(&self, server_name: &ServerName<'static>) {
        self.kept().remove_tls12_session(server_name);
    }

    fn insert_tls13_ticket(&self, server_name: ServerName<'static>, value: Tls13ClientSessionValue) {
        self.kept().insert_tls13_ticket(server_name, value);
    }

    fn take_tls13_ticket(&self, server_name: &ServerName<'static>) -> Option<Tls13ClientSessionValue> {
        self.kept().take_tls13_ticket(server_name).filter(|_| self.verifier.would_take_again(UnixTime::now()))
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
    use crate::forward::certs_for_test::Root;

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
    fn sessions_last_as_long_as_what_was_proved_and_a_day_at_most() {
        let root = Root::new();
        let now = UnixTime::now();
        let at = |seconds: u64| UnixTime::since_unix_epoch(Duration::from_secs(now.as_secs() + seconds));
        let end = |days: u64| std::time::SystemTime::now() + Duration::from_secs(days * 86_400);
        for (end, good, over) in [(end(30), 86_390, 86_410), (end(0) + Duration::from_secs(60), 50, 70)] {
            let shown = root.issue_until("dns.example", &rustls::version::TLS13, end);
            let tls = Tls::new("dns.example", vec![shown.pin], Some(root.pem.as_bytes())).expect("settings");
            let certificate = shown.certificate;
            let again = |after| tls.verifier.would_take_again(at(after));
            assert!(!again(0), "nothing was shown");
            tls.verifier.verify_server_cert(&certificate, &[], &tls.name, &[], now).expect("good");
            assert!(!again(0), "whoever has seen a certificate can show it");
            tls.verifier.proved(&CertificateDer::from(vec![0]));
            assert!(!again(0), "with another's key");
            tls.verifier.proved(&certificate);
            assert_eq!([again(0), again(good), again(over)], [true, true, false]);
            // The same once more changes nothing; another one has what was kept forgotten.
            let number = || tls.verifier.seen.lock().number;
            let first = number();
            let next = root.issue_until("dns.example", &rustls::version::TLS13, end);
            for (certificate, after) in [(&certificate, first), (&next.certificate, first + 1)] {
                let unpinned = Tls::new("dns.example", Vec::new(), Some(root.pem.as_bytes())).expect("settings");
                unpinned.verifier.verify_server_cert(certificate, &[], &tls.name, &[], now).expect("good");
                let shown = unpinned.verifier.seen.lock().shown.take();
                tls.verifier.seen.lock().shown = shown;
                tls.verifier.proved(certificate);
                assert_eq!(number(), after);
            }
        }
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
