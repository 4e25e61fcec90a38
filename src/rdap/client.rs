//! One look-up over HTTP (RFC 7480): a GET, at most a few redirects, a bounded body, one deadline for all of it.
//!
//! Knows no queue and keeps nothing. No proxy, no cookies. Hosts are looked up by the given resolver, never by the
//! system's; where a redirect leads to another server, that must have a public address, so that a registry cannot send
//! us to a neighbour of ours.

use std::sync::Arc;
use std::time::{Duration, Instant};

use staunch_scoring::NameRef;
use ureq::unversioned::transport::DefaultConnector;

use super::limit::retry_after;
use super::{response, url};
use crate::outbound::{HostResolver, Lookup, Reach};

/// Redirects followed.
const MAX_REDIRECTS: usize = 3;

/// How a look-up ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// The registry knows the domain, and when it was registered (Unix milliseconds) where it says so.
    Said(Option<u64>),
    /// The registry does not know the domain (404).
    NotThere,
    /// The server asks to be left alone (429, 503), for so many milliseconds where it says so.
    Busy(Option<u64>),
    /// The server will not tell (any other answer that is no success).
    Refused,
    /// An answer that makes no sense: not RDAP, too large, too many redirects or one that is not followed.
    Garbage,
    /// No answer in time, no connection, or a failure of the server's own (5xx).
    Unreachable,
    /// None, by a mistake of our own.
    Panicked,
}

/// See the module. Cheap to share between threads.
pub(super) struct Client {
    /// For servers that the bootstrap file names.
    named: ureq::Agent,
    /// For servers that a redirect names.
    foreign: ureq::Agent,
}

impl Client {
    pub(super) fn new(resolver: Option<Arc<dyn HostResolver>>) -> Self {
        let agent = |reach| {
            let config = ureq::Agent::config_builder()
                .proxy(None)
                .max_redirects(0)
                .max_redirects_will_error(false)
                .http_status_as_error(false)
                .max_response_header_size(16 * 1024)
                .max_idle_connections(8)
                .max_idle_connections_per_host(2)
                .user_agent(concat!("staunch/", env!("CARGO_PKG_VERSION")))
                .build();
            let lookup = Lookup { resolver: resolver.clone(), reach };
            ureq::Agent::with_parts(config, DefaultConnector::default(), lookup)
        };
        Self { named: agent(Reach::Written), foreign: agent(Reach::Public) }
    }

    /// Asks `url` about `domain`. Blocks for at most `timeout`, and the resolver's own patience. `wall` is Unix
    /// milliseconds.
    pub(super) fn look_up(&self, url: &str, domain: NameRef<'_>, wall: u64, timeout: Duration) -> Outcome {
        let deadline = Instant::now() + timeout;
        let home = url::authority_of(url);
        let mut url = url.to_owned();
        for _ in 0..=MAX_REDIRECTS {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Outcome::Unreachable;
            }
            let agent = if url::authority_of(&url) == home { &self.named } else { &self.foreign };
            let request = agent
                .get(&url)
                .header("Accept", "application/rdap+json, application/json")
                .config()
                .timeout_global(Some(left))
                .build();
            let mut answer = match request.call() {
                Ok(answer) => answer,
                Err(error) => return failed(&error),
            };
            let header = |name: &str| answer.headers().get(name).and_then(|value| value.to_str().ok());
            match answer.status().as_u16() {
                200 => {
                    return match answer.body_mut().with_config().limit(response::MAX_OCTETS).read_to_vec() {
                        Ok(body) => response::registered(&body, domain, wall).map_or(Outcome::Garbage, Outcome::Said),
                        Err(error) => failed(&error),
                    };
                }
                301 | 302 | 303 | 307 | 308 => match header("location").map(|to| url::redirect(&url, to)) {
                    Some(Ok(next)) => url = next,
                    Some(Err(_)) | None => return Outcome::Garbage,
                },
                404 => return Outcome::NotThere,
                429 | 503 => return Outcome::Busy(header("retry-after").and_then(|text| retry_after(text, wall))),
                500..=599 => return Outcome::Unreachable,
                _ => return Outcome::Refused,
            }
        }
        Outcome::Garbage
    }
}

fn failed(error: &ureq::Error) -> Outcome {
    match error {
        ureq::Error::BodyExceedsLimit(_) | ureq::Error::LargeResponseHeader(..) | ureq::Error::Protocol(_) => {
            Outcome::Garbage
        }
        _ => Outcome::Unreachable,
    }
}
