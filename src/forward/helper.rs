//! Look-ups of our own: host names in the configuration, never names of sessions.
//!
//! hickory-resolver with name servers given by hand; it reads neither `resolv.conf` nor the hosts file. A host goes to the
//! same upstreams as a session's question for it would.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use hickory_resolver::TokioResolver;
use hickory_resolver::config::{
    ConnectionConfig, LookupIpStrategy, NameServerConfig, ResolveHosts, ResolverConfig, ResolverOpts,
};
use hickory_resolver::net::NetError;
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use staunch_scoring::{NameBuf, NameRef};

use super::map::{Map, ZoneServers};

/// Answers kept; the configuration names only a few hosts.
const CACHE: u64 = 64;

/// Why a configured host has no address.
#[derive(Debug, thiserror::Error)]
pub enum LookupError {
    /// There is nobody to ask.
    #[error("no name server to look up `{0}` with")]
    NoServers(String),
    /// The resolver could not be made.
    #[error("cannot look up hosts")]
    Setup(#[source] NetError),
    /// The look-up failed.
    #[error("cannot look up `{host}`")]
    Lookup {
        /// The host.
        host: String,
        /// Why.
        #[source]
        source: Box<NetError>,
    },
    /// The host exists but has no address.
    #[error("`{0}` has no address")]
    NoAddress(String),
}

/// Looks up hosts that the configuration names: upstreams at start, alert sinks.
#[derive(Clone)]
pub struct HostLookup {
    resolvers: Arc<Map<Option<TokioResolver>>>,
}

impl std::fmt::Debug for HostLookup {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("HostLookup").field("servers", &self.resolvers.of(NameRef::ROOT).is_some()).finish()
    }
}

impl HostLookup {
    /// Asks `servers` over UDP, then TCP, each try at most `timeout`. Without servers only addresses in text form are
    /// understood.
    pub fn new(servers: &[SocketAddr], timeout: Duration) -> Result<Self, LookupError> {
        Self::by_zone(servers, &[], timeout)
    }

    /// The same, where hosts in `zones` are asked of the zones' own servers alone.
    pub fn by_zone(servers: &[SocketAddr], zones: &[ZoneServers], timeout: Duration) -> Result<Self, LookupError> {
        let mut own = Vec::new();
        for zone in zones {
            own.push((zone.zone.clone(), Self::resolver(&zone.upstreams, timeout)?));
        }
        Ok(Self { resolvers: Arc::new(Map::new(Self::resolver(servers, timeout)?, own)) })
    }

    fn resolver(servers: &[SocketAddr], timeout: Duration) -> Result<Option<TokioResolver>, LookupError> {
        if servers.is_empty() {
            return Ok(None);
        }
        let server = |addr: &SocketAddr| {
            let connections = [ConnectionConfig::udp(), ConnectionConfig::tcp()].map(|mut connection| {
                connection.port = addr.port();
                connection
            });
            NameServerConfig::new(addr.ip(), true, connections.into())
        };
        let config = ResolverConfig::from_parts(None, Vec::new(), servers.iter().map(server).collect());
        let mut options = ResolverOpts::default();
        options.use_hosts_file = ResolveHosts::Never;
        options.ip_strategy = LookupIpStrategy::Ipv4AndIpv6;
        options.num_concurrent_reqs = 1;
        options.cache_size = CACHE;
        options.timeout = timeout;
        let resolver = TokioResolver::builder_with_config(config, TokioRuntimeProvider::default())
            .with_options(options)
            .build()
            .map_err(LookupError::Setup)?;
        Ok(Some(resolver))
    }

    /// Addresses of `host`, IPv4 first; an address in text form is itself. At least one, or an error.
    pub async fn lookup(&self, host: &str) -> Result<Vec<IpAddr>, LookupError> {
        let literal = host.strip_prefix('[').and_then(|h| h.strip_suffix(']')).unwrap_or(host);
        if let Ok(addr) = literal.parse() {
            return Ok(vec![addr]);
        }
        // What is no name has no zone; the look-up says so.
        let zone = NameBuf::from_text(host).ok();
        let found = self.resolvers.of(zone.as_ref().map_or(NameRef::ROOT, NameBuf::as_ref));
        let Some(resolver) = found else { return Err(LookupError::NoServers(host.into())) };
        // The last dot says that no search list applies.
        let name = format!("{}.", host.trim_end_matches('.'));
        let found = resolver
            .lookup_ip(name)
            .await
            .map_err(|source| LookupError::Lookup { host: host.into(), source: Box::new(source) })?;
        let mut addresses: Vec<IpAddr> = found.iter().collect();
        addresses.sort_by_key(IpAddr::is_ipv6);
        if addresses.is_empty() { Err(LookupError::NoAddress(host.into())) } else { Ok(addresses) }
    }
}
