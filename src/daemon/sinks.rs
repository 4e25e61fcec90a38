//! Receivers of alerts, and how hosts are looked up that we connect to ourselves.

use std::net::SocketAddr;

use crate::alert;
use crate::config::{self, Loaded};
use crate::forward::helper::HostLookup;
use crate::outbound::HostResolver;

/// Where alerts go.
pub(super) fn alert_config(loaded: &Loaded) -> alert::Config {
    let sinks = loaded.alerts.iter().map(|sink| alert::SinkConfig {
        name: sink.name.clone(),
        kind: match &sink.kind {
            config::AlertSinkKind::Webhook { url, secret, roots, timeout } => alert::SinkKind::Webhook {
                url: url.clone(),
                roots: roots.clone(),
                secret: secret.as_ref().map(|s| s.expose().to_vec()),
                timeout: *timeout,
            },
            config::AlertSinkKind::Syslog { target } => alert::SinkKind::Syslog {
                target: match target {
                    config::SyslogTarget::Udp(address) => {
                        alert::SyslogTarget::Udp { host: address.ip().to_string(), port: address.port() }
                    }
                    config::SyslogTarget::Tcp(address) => {
                        alert::SyslogTarget::Tcp { host: address.ip().to_string(), port: address.port() }
                    }
                    config::SyslogTarget::Unix(path) => alert::SyslogTarget::Unix { path: path.clone() },
                },
            },
            config::AlertSinkKind::File { path } => alert::SinkKind::File { path: path.clone() },
        },
    });
    let hostname = hostname().unwrap_or_else(|| "-".into());
    alert::Config { sinks: sinks.collect(), source: format!("/staunch/{hostname}"), hostname, ..Default::default() }
}

/// This host's name, from the kernel and not from /proc, of which a service manager may show processes alone.
fn hostname() -> Option<String> {
    let mut name = [0u8; 256];
    // SAFETY: the length given is that of the buffer.
    if unsafe { libc::gethostname(name.as_mut_ptr().cast(), name.len()) } != 0 {
        return None;
    }
    let name = std::ffi::CStr::from_bytes_until_nul(&name).ok()?.to_str().ok()?;
    (!name.is_empty()).then(|| name.to_owned())
}

/// Hosts that we connect to ourselves, looked up through our own upstreams.
pub(super) struct SinkHosts {
    pub(super) lookup: HostLookup,
    pub(super) runtime: tokio::runtime::Handle,
}

impl HostResolver for SinkHosts {
    fn resolve(&self, host: &str, port: u16) -> std::io::Result<Vec<SocketAddr>> {
        let found = self.runtime.block_on(self.lookup.lookup(host)).map_err(std::io::Error::other)?;
        Ok(found.into_iter().map(|address| SocketAddr::new(address, port)).collect())
    }
}
