//! Hosts that the service itself connects to: receivers of alerts, registries, publishers of lists.
//!
//! Between [`crate::alert`], [`crate::rdap`] and [`crate::feed`], which connect, and a resolver of our own, so that this works where the
//! system's is not to be used. Knows no protocol.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use ureq::http::Uri;
use ureq::unversioned::resolver::{ResolvedSocketAddrs, Resolver};
use ureq::unversioned::transport::NextTimeout;

use crate::answer::is_public;

/// Looks up hosts, so that this works where the system's resolver is not to be used.
pub trait HostResolver: Send + Sync {
    /// Addresses of `host`, which is a name and no address. May block for a few seconds.
    ///
    /// # Errors
    /// Where the host has none or nobody answers.
    fn resolve(&self, host: &str, port: u16) -> io::Result<Vec<SocketAddr>>;
}

/// Where a connection may lead.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reach {
    /// Where the operator says: an address as written; by name anywhere but where no collector can be and metadata
    /// services are.
    Written,
    /// To public addresses alone, also where an address is written: somebody else says where.
    Public,
    /// An address as written; by name to public addresses alone: what a name leads to is its owner's word.
    PublicByName,
}

impl Reach {
    fn allows(self, address: IpAddr, written: bool) -> bool {
        match self {
            Self::Written => written || is_plausible(address),
            Self::Public => is_public(address),
            Self::PublicByName => written || is_public(address),
        }
    }
}

/// Addresses of a host that may be a name or an address.
pub(crate) fn addresses(
    host: &str,
    port: u16,
    resolver: Option<&dyn HostResolver>,
    reach: Reach,
) -> io::Result<Vec<SocketAddr>> {
    let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    let (mut found, written) = match bare.parse() {
        Ok(address) => (vec![SocketAddr::new(address, port)], true),
        Err(_) => {
            let resolver = resolver.ok_or_else(|| io::Error::other("no resolver to look the host up with"))?;
            (resolver.resolve(host, port)?, false)
        }
    };
    found.retain(|address| reach.allows(address.ip(), written));
    if found.is_empty() {
        return Err(io::Error::new(io::ErrorKind::NotFound, "the host has no usable address"));
    }
    Ok(found)
}

/// The same for an HTTP client.
pub(crate) struct Lookup {
    pub resolver: Option<Arc<dyn HostResolver>>,
    pub reach: Reach,
}

impl std::fmt::Debug for Lookup {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Lookup").field("reach", &self.reach).finish_non_exhaustive()
    }
}

impl Resolver for Lookup {
    fn resolve(
        &self,
        uri: &Uri,
        _config: &ureq::config::Config,
        _timeout: NextTimeout,
    ) -> Result<ResolvedSocketAddrs, ureq::Error> {
        let host = uri.host().ok_or(ureq::Error::HostNotFound)?;
        let port = uri.port_u16().unwrap_or(if uri.scheme_str() == Some("https") { 443 } else { 80 });
        let mut out = self.empty();
        // As many as the array holds.
        for address in addresses(host, port, self.resolver.as_deref(), self.reach)?.into_iter().take(16) {
            out.push(address);
        }
        Ok(out)
    }
}

/// False for addresses that a name should never lead an alert to: unspecified, multicast, broadcast, link-local, and
/// the metadata services of clouds.
fn is_plausible(address: IpAddr) -> bool {
    let address = address.to_canonical();
    !crate::metadata::contains(address)
        && match address {
            IpAddr::V4(v4) => !(v4.octets()[0] == 0 || v4.is_multicast() || v4.is_broadcast() || v4.is_link_local()),
            IpAddr::V6(v6) => !(v6.is_unspecified() || v6.is_multicast() || v6.is_unicast_link_local()),
        }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Fixed(&'static [&'static str]);

    impl HostResolver for Fixed {
        fn resolve(&self, _host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
            Ok(self.0.iter().map(|ip| SocketAddr::new(ip.parse().unwrap(), port)).collect())
        }
    }

    #[test]
    fn a_name_never_leads_to_a_metadata_service() {
        let bad = [
            "169.254.169.254",
            "0.0.0.0",
            "224.0.0.1",
            "255.255.255.255",
            "::",
            "fe80::1",
            "fd00:ec2::254",
            "::ffff:169.254.169.254",
            "100.100.100.200",
        ];
        for ip in bad {
            let all: &'static [&'static str] = Box::leak(Box::new([ip]));
            assert!(addresses("soc.example", 1, Some(&Fixed(all)), Reach::Written).is_err(), "{ip}");
        }
        let some = addresses("soc.example", 1, Some(&Fixed(&["169.254.1.1", "10.0.0.1"])), Reach::Written).unwrap();
        assert_eq!(some, ["10.0.0.1:1".parse().unwrap()]);
        assert_eq!(addresses("[::1]", 2, None, Reach::Written).unwrap(), ["[::1]:2".parse().unwrap()]);
        assert!(addresses("soc.example", 1, None, Reach::Written).is_err());
    }

    #[test]
    fn somebody_else_leads_to_public_addresses_alone() {
        let inside: &[&str] = &["10.0.0.1", "127.0.0.1"];
        assert!(addresses("neighbour.example", 1, Some(&Fixed(inside)), Reach::Public).is_err());
        assert!(addresses("127.0.0.1", 1, None, Reach::Public).is_err(), "written or not");
        assert!(addresses("127.0.0.1", 1, None, Reach::Written).is_ok());
        assert!(addresses("www.example", 1, Some(&Fixed(&["203.0.114.1"])), Reach::Public).is_ok());
    }

    #[test]
    fn by_name_a_list_comes_from_public_addresses_and_from_others_as_written() {
        let mixed: &[&str] = &["10.0.0.1", "203.0.114.1", "169.254.169.254"];
        let found = addresses("lists.example", 443, Some(&Fixed(mixed)), Reach::PublicByName).unwrap();
        assert_eq!(found, ["203.0.114.1:443".parse().unwrap()]);
        assert!(addresses("lists.example", 443, Some(&Fixed(&["127.0.0.1"])), Reach::PublicByName).is_err());
        assert!(addresses("127.0.0.1", 80, None, Reach::PublicByName).is_ok());
    }
}
