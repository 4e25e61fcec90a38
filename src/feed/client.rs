//! One fetch: a conditional GET (RFC 9110 section 13), its body into a file as it comes, one deadline for all of it.
//!
//! No proxy, no cookies, no compression: what is sent is what is stored, so nothing small can grow. A redirect is
//! followed on the same server alone, since the operator has named that one and no other.

use std::io::{self, Read, Write};
use std::sync::Arc;
use std::time::{Duration, Instant};

use ureq::http::{HeaderMap, StatusCode};
use ureq::unversioned::transport::DefaultConnector;

use super::copies::{Draft, Stamp};
use crate::outbound::{HostResolver, Lookup, Reach};
use crate::rdap::{authority_of, redirect};

/// Redirects followed.
const MAX_REDIRECTS: usize = 3;
/// Longest header that is kept to be sent back, octets.
const MAX_WORD: usize = 512;

/// How a fetch ended.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Fetched {
    /// What was there is still the newest.
    Unchanged,
    /// A body, which is in the draft, and the server's words for it.
    Body { etag: Option<String>, last_modified: Option<String> },
}

/// Why a fetch brought nothing.
#[derive(Debug, thiserror::Error)]
pub(super) enum Failure {
    /// No answer, no connection, half an answer.
    #[error("the server was not reached or broke off: {0}")]
    Unreachable(String),
    /// An answer that is no success.
    #[error("the server answered {0}")]
    Status(u16),
    /// More octets than it may have.
    #[error("larger than {0} octets")]
    TooLarge(u64),
    /// A redirect that is not followed.
    #[error("redirected: {0}")]
    Redirect(&'static str),
    /// A body in an encoding that was not asked for.
    #[error("sent in an encoding that was not asked for")]
    Encoding,
    /// It cannot be stored.
    #[error("cannot be stored: {0}")]
    Disk(io::Error),
}

/// See the module.
pub(super) struct Client(ureq::Agent);

impl Client {
    pub(super) fn new(resolver: Option<Arc<dyn HostResolver>>) -> Self {
        let config = ureq::Agent::config_builder()
            .proxy(None)
            .max_redirects(0)
            .max_redirects_will_error(false)
            .http_status_as_error(false)
            .max_response_header_size(16 * 1024)
            .max_idle_connections(0)
            .max_idle_connections_per_host(0)
            .user_agent(concat!("staunch/", env!("CARGO_PKG_VERSION")))
            .build();
        let lookup = Lookup { resolver, reach: Reach::PublicByName };
        Self(ureq::Agent::with_parts(config, DefaultConnector::default(), lookup))
    }

    /// Fetches `url` into `draft`, unless it is still what `known` says. Blocks for at most `timeout`, and the resolver's
    /// own patience.
    pub(super) fn fetch(
        &self,
        url: &str,
        known: Option<&Stamp>,
        timeout: Duration,
        max_octets: u64,
        draft: &mut Draft,
    ) -> Result<Fetched, Failure> {
        let deadline = Instant::now() + timeout;
        let home = authority_of(url);
        let mut url = url.to_owned();
        for _ in 0..=MAX_REDIRECTS {
            let left = deadline.saturating_duration_since(Instant::now()).max(Duration::from_millis(1));
            let mut request =
                self.0.get(&url).header("Accept-Encoding", "identity").header("Accept", "text/plain, */*");
            if let Some(etag) = known.and_then(|known| known.etag.as_deref()) {
                request = request.header("If-None-Match", etag);
            }
            if let Some(date) = known.and_then(|known| known.last_modified.as_deref()) {
                request = request.header("If-Modified-Since", date);
            }
            let request = request.config().timeout_global(Some(left)).build();
            let mut answer = request.call().map_err(|error| Failure::Unreachable(error.to_string()))?;
            match answer.status() {
                StatusCode::OK => {}
                StatusCode::NOT_MODIFIED if known.is_some() => return Ok(Fetched::Unchanged),
                // An answer to a question that was not asked, and no redirect.
                status @ StatusCode::NOT_MODIFIED => return Err(Failure::Status(status.as_u16())),
                status if status.is_redirection() => {
                    let to = word(answer.headers(), "location").ok_or(Failure::Redirect("nowhere"))?;
                    let next = redirect(&url, &to).map_err(Failure::Redirect)?;
                    if authority_of(&next) != home {
                        return Err(Failure::Redirect("to another server; name that one if it is the right one"));
                    }
                    url = next;
                    continue;
                }
                status => return Err(Failure::Status(status.as_u16())),
            }
            if word(answer.headers(), "content-encoding").is_some_and(|how| !how.eq_ignore_ascii_case("identity")) {
                return Err(Failure::Encoding);
            }
            if answer.body().content_length().is_some_and(|length| length > max_octets) {
                return Err(Failure::TooLarge(max_octets));
            }
            let etag = word(answer.headers(), "etag");
            let last_modified = word(answer.headers(), "last-modified");
            copy(&mut answer.body_mut().as_reader(), draft, max_octets)?;
            return Ok(Fetched::Body { etag, last_modified });
        }
        Err(Failure::Redirect("more often than three times"))
    }
}

fn copy(from: &mut impl Read, draft: &mut Draft, max_octets: u64) -> Result<(), Failure> {
    let mut buffer = vec![0; 64 * 1024];
    loop {
        let length = match from.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(length) => length,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(Failure::Unreachable(error.to_string())),
        };
        if draft.octets() + length as u64 > max_octets {
            return Err(Failure::TooLarge(max_octets));
        }
        draft.write_all(buffer.get(..length).unwrap_or_default()).map_err(Failure::Disk)?;
    }
}

/// A header that can be kept and sent back as it is.
fn word(headers: &HeaderMap, name: &str) -> Option<String> {
    let value = headers.get(name)?.to_str().ok()?;
    (value.len() <= MAX_WORD).then(|| value.to_owned())
}
