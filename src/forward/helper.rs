//! Look-ups of our own: host names in the configuration, never names of sessions.
//!
//! hickory-resolver follows aliases and keeps answers; what it asks goes through the [`Forwarder`], so a host goes to the
//! same upstreams, and in the same way, as a session's question for it would. It reads neither `resolv.conf` nor the hosts
//! file, and has no socket of its own.

use std::net::{IpAddr, Ipv4Addr};
use std::pin::Pin;
use std::task::{Context, Poll};

use futures_core::Stream;
use hickory_proto::op::{DnsRequest, DnsResponse};
use hickory_resolver::config::{
    ConnectionConfig, LookupIpStrategy, NameServerConfig, ResolveHosts, ResolverConfig, ResolverOpts,
};
use hickory_resolver::net::NetError;
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::net::xfer::DnsHandle;
use hickory_resolver::{ConnectionProvider, PoolContext, Resolver};
use staunch_scoring::{NameBuf, NameRef};

use super::Forwarder;
use super::query::Ask;
use crate::model::Qtype;

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
    forwarder: Forwarder,
    resolver: Resolver<Through>,
}

impl std::fmt::Debug for HostLookup {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("HostLookup").field("forwarder", &self.forwarder).finish()
    }
}

impl HostLookup {
    /// Asks by `forwarder`, each question at most its total timeout. Where it has nobody to ask, only addresses in text
    /// form are understood.
    pub fn new(forwarder: Forwarder) -> Result<Self, LookupError> {
        // hickory wants a server's address; all of them are the forwarder.
        let server = NameServerConfig::new(Ipv4Addr::UNSPECIFIED.into(), true, vec![ConnectionConfig::udp()]);
        let config = ResolverConfig::from_parts(None, Vec::new(), vec![server]);
        let mut options = ResolverOpts::default();
        options.use_hosts_file = ResolveHosts::Never;
        options.ip_strategy = LookupIpStrategy::Ipv4AndIpv6;
        options.num_concurrent_reqs = 1;
        options.attempts = 1;
        options.cache_size = CACHE;
        options.timeout = forwarder.total_timeout();
        let resolver = Resolver::builder_with_config(config, Through { forwarder: forwarder.clone() })
            .with_options(options)
            .build()
            .map_err(LookupError::Setup)?;
        Ok(Self { forwarder, resolver })
    }

    /// Addresses of `host`, IPv4 first; an address in text form is itself. At least one, or an error.
    pub async fn lookup(&self, host: &str) -> Result<Vec<IpAddr>, LookupError> {
        let literal = host.strip_prefix('[').and_then(|h| h.strip_suffix(']')).unwrap_or(host);
        if let Ok(addr) = literal.parse() {
            return Ok(vec![addr]);
        }
        // What is no name has no zone; the look-up says so.
        let zone = NameBuf::from_text(host).ok();
        if !self.forwarder.has_upstreams(zone.as_ref().map_or(NameRef::ROOT, NameBuf::as_ref)) {
            return Err(LookupError::NoServers(host.into()));
        }
        // The last dot says that no search list applies.
        let name = format!("{}.", host.trim_end_matches('.'));
        let found = self
            .resolver
            .lookup_ip(name)
            .await
            .map_err(|source| LookupError::Lookup { host: host.into(), source: Box::new(source) })?;
        let mut addresses: Vec<IpAddr> = found.iter().collect();
        addresses.sort_by_key(IpAddr::is_ipv6);
        if addresses.is_empty() { Err(LookupError::NoAddress(host.into())) } else { Ok(addresses) }
    }
}

/// hickory's way to a server: through the forwarder.
#[derive(Clone)]
struct Through {
    forwarder: Forwarder,
}

impl ConnectionProvider for Through {
    type Conn = Self;
    type FutureConn = std::future::Ready<Result<Self, NetError>>;
    type RuntimeProvider = TokioRuntimeProvider;

    fn new_connection(&self, _: IpAddr, _: &ConnectionConfig, _: &PoolContext) -> Result<Self::FutureConn, NetError> {
        Ok(std::future::ready(Ok(self.clone())))
    }

    fn runtime_provider(&self) -> &TokioRuntimeProvider {
        static RUNTIME: std::sync::LazyLock<TokioRuntimeProvider> = std::sync::LazyLock::new(Default::default);
        &RUNTIME
    }
}

impl DnsHandle for Through {
    type Response = Once;
    type Runtime = TokioRuntimeProvider;

    fn send(&self, request: DnsRequest) -> Once {
        let forwarder = self.forwarder.clone();
        Once(Some(Box::pin(async move {
            let query = request.queries.first().ok_or(NetError::Message("no question"))?;
            let name = NameBuf::from_text(&query.name().to_ascii())
                .map_err(|_| NetError::Message("a name that cannot be asked"))?;
            let ask = Ask::host(name.as_ref(), Qtype(query.query_type().into()));
            let response = forwarder.look_up(ask).await.map_err(|error| NetError::Msg(error.to_string()))?;
            DnsResponse::from_buffer(response.wire.clone()).map_err(NetError::from)
        })))
    }
}

type Answer = Pin<Box<dyn Future<Output = Result<DnsResponse, NetError>> + Send>>;

/// A stream of one answer.
struct Once(Option<Answer>);

impl Stream for Once {
    type Item = Result<DnsResponse, NetError>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let Some(answer) = &mut self.0 else { return Poll::Ready(None) };
        let found = std::task::ready!(answer.as_mut().poll(context));
        self.0 = None;
        Poll::Ready(Some(found))
    }
}
