//! Alerts: what a SOC must hear is delivered to every configured sink, at least once, in order, whatever fails.
//!
//! The spool is the journal of [`crate::store`]: an alert is durable before anything is delivered, each sink has its
//! own position, and [`crate::store::Record::Delivered`] moves it. So this stage holds one alert in memory for each
//! sink, an outage of any length loses nothing, and after a crash the last alert may come twice, with the same id.
//! Knows no verdict and decides nothing.
//!
//! A sink's alerts go out one at a time in the order they were recorded, so also in order for each session. An alert
//! that a sink will not take holds back those behind it: it is retried for ever, and logged; where the sink refuses it, without
//! what a sandbox can have chosen of it too.

mod backoff;
mod bare;
mod delivery;
mod event_json;
mod file;
mod syslog;
mod syslog_sink;
mod webhook;

use std::io;
use std::path::PathBuf;
use std::time::Duration;

pub use delivery::{Delivery, SinkStatus};
pub use syslog::{SyslogTarget, format as format_syslog};
pub use webhook::sign;

use crate::roots::Roots;

/// Settings of this stage.
#[derive(Debug, Clone)]
pub struct Config {
    /// Where alerts go. Their names are also the store's `Options::sinks`.
    pub sinks: Vec<SinkConfig>,
    /// `source` of the CloudEvents envelope: a URI reference that names this instance, e.g. `/staunch/gateway-1`.
    pub source: String,
    /// HOSTNAME field of syslog messages (RFC 5424 section 6.2.4).
    pub hostname: String,
    /// Pauses between tries.
    pub retry: Retry,
}

impl Default for Config {
    fn default() -> Self {
        Self { sinks: Vec::new(), source: "/staunch".into(), hostname: "-".into(), retry: Retry::default() }
    }
}

/// Pauses between tries at one alert.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retry {
    /// Pause after the first failure; it doubles from there. Half of each pause is random.
    pub first: Duration,
    /// Longest pause.
    pub most: Duration,
    /// How long refused alerts are sent only as they are; from then on also without what a sandbox can have chosen of them.
    pub whole: Duration,
}

impl Default for Retry {
    /// 0.2 to 30 seconds: a sink that is back is used again within half a minute. A minute, so that a receiver that refuses
    /// everything for a moment gets the alert as it is.
    fn default() -> Self {
        Self { first: Duration::from_millis(200), most: Duration::from_secs(30), whole: Duration::from_secs(60) }
    }
}

/// One sink.
#[derive(Debug, Clone)]
pub struct SinkConfig {
    /// Its name: 1 to 64 of `A-Z a-z 0-9 . _ -`. The journal remembers progress under it.
    pub name: String,
    /// What it is.
    pub kind: SinkKind,
}

/// Kinds of sink.
#[derive(Clone)]
pub enum SinkKind {
    /// HTTP POST of a CloudEvents 1.0 event in structured JSON form. Taken when the answer is 2xx.
    Webhook {
        /// `http` or `https`, without user name or password.
        url: String,
        /// Key of the HMAC-SHA-256 signature.
        secret: Option<Vec<u8>>,
        /// What its certificate must be issued by; without them what browsers trust.
        roots: Option<Roots>,
        /// For one whole exchange.
        timeout: Duration,
    },
    /// RFC 5424 messages. Over UDP nobody confirms anything: taken when it was sent and the host did not object. Over
    /// TCP taken when the peer's kernel has it.
    Syslog {
        /// Where to.
        target: SyslogTarget,
    },
    /// JSON lines appended to a file. Taken when synced.
    File {
        /// Created with mode 0600; reopened when it was moved away.
        path: PathBuf,
    },
}

impl std::fmt::Debug for SinkKind {
    /// Without the secret.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Webhook { url, secret, roots, timeout } => f
                .debug_struct("Webhook")
                .field("url", url)
                .field("signed", &secret.is_some())
                .field("roots", roots)
                .field("timeout", timeout)
                .finish(),
            Self::Syslog { target } => f.debug_struct("Syslog").field("target", target).finish(),
            Self::File { path } => f.debug_struct("File").field("path", path).finish(),
        }
    }
}

/// The settings cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A sink's name has other characters, is empty or too long.
    #[error("alert sink name `{}`: use 1 to 64 of A-Z a-z 0-9 . _ -", .0.escape_debug())]
    Name(String),
    /// Two sinks have one name.
    #[error("two alert sinks are named `{0}`")]
    Duplicate(String),
    /// A webhook's URL is not one to use.
    #[error("alert sink `{sink}`: {what}")]
    Url {
        /// The sink.
        sink: String,
        /// What is wrong.
        what: &'static str,
    },
    /// A syslog address is not one to use.
    #[error("syslog address `{}`: use udp://HOST:PORT, tcp://HOST:PORT or unix:///PATH", .0.escape_debug())]
    SyslogAddress(String),
    /// The store was not opened with this sink.
    #[error("alert sink `{0}` is not among the store's sinks")]
    Unregistered(String),
    /// A thread could not be started.
    #[error("could not start a thread for alert sink `{sink}`: {source}")]
    Thread {
        /// The sink.
        sink: String,
        /// The cause.
        source: io::Error,
    },
}

impl Config {
    /// Names of the sinks, for the store.
    pub fn sink_names(&self) -> Vec<String> {
        self.sinks.iter().map(|sink| sink.name.clone()).collect()
    }

    /// Checks names and URLs.
    pub fn check(&self) -> Result<(), Error> {
        let good = |b: u8| b.is_ascii_alphanumeric() || b"._-".contains(&b);
        for (at, sink) in self.sinks.iter().enumerate() {
            if sink.name.is_empty() || sink.name.len() > 64 || !sink.name.bytes().all(good) {
                return Err(Error::Name(sink.name.clone()));
            }
            if self.sinks.iter().take(at).any(|other| other.name == sink.name) {
                return Err(Error::Duplicate(sink.name.clone()));
            }
            if let SinkKind::Webhook { url, .. } = &sink.kind {
                webhook::check_url(url).map_err(|what| Error::Url { sink: sink.name.clone(), what })?;
            }
        }
        Ok(())
    }
}

/// Why a sink did not take an alert.
#[derive(Debug, thiserror::Error)]
enum Failure {
    /// It cannot be reached or does not keep to the protocol.
    #[error("{0}")]
    Unreachable(String),
    /// It asks for patience.
    #[error("status {status}")]
    Busy { status: u16, wait: Option<Duration> },
    /// It says that it does not want this: retried slowly, because a person has to mend it.
    #[error("refused with status {0}")]
    Refused(u16),
}

impl Failure {
    /// Whether what the alert says may be why: whoever inspects it refuses it, or breaks on it.
    fn may_be_of_content(&self) -> bool {
        matches!(self, Self::Refused(_) | Self::Busy { status: 500, .. })
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self::Unreachable(error.to_string())
    }
}

/// Takes one alert. Returning `Ok` is a promise that the other side has it, as far as the protocol can tell.
trait Sink: Send {
    fn deliver(&mut self, alert: &crate::event::Alert) -> Result<(), Failure>;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_are_checked() {
        let webhook = |name: &str, url: &str| SinkConfig {
            name: name.into(),
            kind: SinkKind::Webhook {
                url: url.into(),
                secret: Some(b"hush".to_vec()),
                roots: None,
                timeout: Duration::MAX,
            },
        };
        let check = |sinks: Vec<SinkConfig>| Config { sinks, ..Config::default() }.check();
        assert!(check(vec![webhook("a", "https://soc.example/x"), webhook("b", "http://[::1]:80/")]).is_ok());
        assert!(matches!(check(vec![webhook("a", "http://x/"), webhook("a", "http://x/")]), Err(Error::Duplicate(_))));
        assert!(matches!(check(vec![webhook("a b", "http://x/")]), Err(Error::Name(_))));
        for url in ["ftp://x/", "x", "http://user:pw@x/", "http:///", "https://", "file:///etc/passwd"] {
            assert!(matches!(check(vec![webhook("a", url)]), Err(Error::Url { .. })), "{url}");
        }
        assert!(!format!("{:?}", webhook("a", "http://x/")).contains("hush"));
    }
}
