//! The webhook sink: a POST of a CloudEvents 1.0 event in structured JSON form, signed.
//!
//! `X-Staunch-Signature: sha256=<hex HMAC-SHA-256 over "<timestamp>.<body>">`, with the same `X-Staunch-Timestamp`
//! (Unix seconds), so that a receiver can refuse replays; `Idempotency-Key` is the alert's id. No redirects are followed
//! and no proxy is used: an alert goes where the configuration says or nowhere.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use hmac::{Hmac, Mac};
use sha2::Sha256;
use ureq::http::Uri;
use ureq::tls::RootCerts;
use ureq::unversioned::transport::DefaultConnector;

use super::{Failure, Sink, event_json};
use crate::clock;
use crate::event::Alert;
use crate::outbound::{HostResolver, Lookup, Reach};
use crate::rdap::retry_after;
use crate::roots::Roots;

/// Most octets of an answer that are read. Its content is of no interest; reading it lets the connection be kept.
const ANSWER_OCTETS: u64 = 16 * 1024;

/// See the module.
pub(super) struct Webhook {
    agent: ureq::Agent,
    url: String,
    source: String,
    secret: Option<Vec<u8>>,
}

impl Webhook {
    pub(super) fn new(
        url: String,
        source: String,
        secret: Option<Vec<u8>>,
        roots: Option<&Roots>,
        timeout: Duration,
        resolver: Option<Arc<dyn HostResolver>>,
    ) -> Self {
        let tls = ureq::tls::TlsConfig::builder().root_certs(roots.map_or(RootCerts::WebPki, Roots::for_http)).build();
        let config = ureq::Agent::config_builder()
            .tls_config(tls)
            .proxy(None)
            .max_redirects(0)
            .max_redirects_will_error(false)
            .http_status_as_error(false)
            .timeout_global(Some(timeout))
            .max_response_header_size(16 * 1024)
            .max_idle_connections(1)
            .max_idle_connections_per_host(1)
            .user_agent(concat!("staunch/", env!("CARGO_PKG_VERSION")))
            .build();
        let agent =
            ureq::Agent::with_parts(config, DefaultConnector::default(), Lookup { resolver, reach: Reach::Written });
        Self { agent, url, source, secret }
    }
}

impl Sink for Webhook {
    fn deliver(&mut self, alert: &Alert) -> Result<(), Failure> {
        let body = event_json::cloud_event(alert, &self.source).map_err(std::io::Error::other)?;
        let timestamp = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let mut request = self
            .agent
            .post(&self.url)
            .header("Content-Type", "application/cloudevents+json; charset=utf-8")
            .header("Idempotency-Key", &alert.id)
            .header("X-Staunch-Timestamp", timestamp.to_string());
        if let Some(secret) = &self.secret {
            request = request.header("X-Staunch-Signature", sign(secret, timestamp, body.as_bytes()));
        }
        let mut answer = request.send(body).map_err(|error| Failure::Unreachable(error.to_string()))?;
        let status = answer.status().as_u16();
        let now = clock::now().wall.shown;
        let wait = answer.headers().get("retry-after").and_then(|value| retry_after(value.to_str().ok()?, now));
        // Whether the rest of the answer comes does not matter: the status has been given.
        let _ = answer.body_mut().with_config().limit(ANSWER_OCTETS).read_to_vec();
        match status {
            200..=299 => Ok(()),
            408 | 429 | 500..=599 => Err(Failure::Busy { status, wait: wait.map(Duration::from_millis) }),
            _ => Err(Failure::Refused(status)),
        }
    }
}

/// Value of the signature header.
pub fn sign(secret: &[u8], timestamp: u64, body: &[u8]) -> String {
    let mut mac = Hmac::<Sha256>::new_from_slice(secret).expect("HMAC takes a key of any length");
    mac.update(timestamp.to_string().as_bytes());
    mac.update(b".");
    mac.update(body);
    let digest = mac.finalize().into_bytes();
    digest.iter().fold("sha256=".to_owned(), |text, octet| text + &format!("{octet:02x}"))
}

/// Refuses what is no plain `http` or `https` URL.
pub(super) fn check_url(url: &str) -> Result<(), &'static str> {
    let uri: Uri = url.parse().map_err(|_| "the URL cannot be read")?;
    if !matches!(uri.scheme_str(), Some("http" | "https")) {
        return Err("the URL must begin with http:// or https://");
    }
    match uri.authority() {
        Some(authority) if authority.as_str().contains('@') => {
            Err("the URL may not carry a user name or password; use the secret")
        }
        Some(authority) if !authority.host().is_empty() => Ok(()),
        _ => Err("the URL names no host"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::testing;

    #[test]
    fn who_is_busy_says_when_to_come_back_in_seconds_or_by_a_date() {
        use std::io::{Read as _, Write as _};
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/", listener.local_addr().unwrap());
        let mut webhook = Webhook::new(url, "/x".into(), None, None, Duration::from_secs(10), None);
        let soon = jiff::Timestamp::from_millisecond(clock::now().wall.shown as i64 + 20_000).unwrap();
        let soon = soon.strftime("%a, %d %b %Y %H:%M:%S GMT").to_string();
        for (said, least, most) in [("20", 20, 20), (&*soon, 10, 20), ("Sun, 06 Nov 1994 08:49:37 GMT", 0, 0)] {
            let failure = std::thread::scope(|scope| {
                scope.spawn(|| {
                    let (mut stream, _) = listener.accept().unwrap();
                    let mut request = Vec::new();
                    while !request.ends_with(b"}") {
                        let mut octets = [0; 4096];
                        let length = stream.read(&mut octets).unwrap();
                        request.extend_from_slice(&octets[..length]);
                    }
                    let head = "HTTP/1.1 503 X\r\nConnection: close\r\nContent-Length: 0\r\n";
                    write!(stream, "{head}Retry-After: {said}\r\n\r\n").unwrap();
                });
                webhook.deliver(&testing::alert(1)).unwrap_err()
            });
            let Failure::Busy { status: 503, wait: Some(wait) } = failure else { panic!("{said}: {failure:?}") };
            assert!((least..=most).contains(&wait.as_secs()), "{said}: {wait:?}");
        }
    }

    #[test]
    fn a_receiver_is_believed_whose_certificate_is_of_the_roots_that_were_written_and_no_other() {
        use std::io::{Read as _, Write as _};

        use crate::forward::certs_for_test::Root;
        let (own, other) = (Root::new(), Root::new());
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("https://{}/", listener.local_addr().unwrap());
        let roots = |root: &Root| Roots::read(root.pem.as_bytes()).unwrap();
        for (roots, name, taken) in [
            (Some(roots(&own)), "127.0.0.1", true),
            (Some(roots(&own)), "soc.example", false),
            (Some(roots(&other)), "127.0.0.1", false),
            (None, "127.0.0.1", false),
        ] {
            let mut webhook =
                Webhook::new(url.clone(), "/x".into(), None, roots.as_ref(), Duration::from_secs(10), None);
            let shown = own.issue(name, false).config;
            let delivered = std::thread::scope(|scope| {
                scope.spawn(|| {
                    let (mut socket, _) = listener.accept().unwrap();
                    let mut tls = rustls::ServerConnection::new(shown).unwrap();
                    let mut stream = rustls::Stream::new(&mut tls, &mut socket);
                    let mut request = Vec::new();
                    let mut octets = [0; 4096];
                    // A client that does not believe us goes away.
                    while !request.ends_with(b"}")
                        && stream.read(&mut octets).is_ok_and(|length| {
                            request.extend_from_slice(&octets[..length]);
                            length > 0
                        })
                    {}
                    let _ = stream.write_all(b"HTTP/1.1 204 X\r\nConnection: close\r\n\r\n");
                });
                webhook.deliver(&testing::alert(1))
            });
            assert_eq!(delivered.is_ok(), taken, "{name}: {delivered:?}");
        }
    }

    #[test]
    fn the_signature_is_the_one_a_receiver_computes() {
        // printf '1700000000.{"a":1}' | openssl dgst -sha256 -hmac key
        assert_eq!(
            sign(b"key", 1_700_000_000, b"{\"a\":1}"),
            "sha256=a438e398bfafc57e4396bb7fc2304422f0f768e965d073ca313cb52e22e6ad03"
        );
    }
}
