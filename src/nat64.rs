//! NAT64 prefixes: IPv6 addresses that lead to an IPv4 address (RFC 6052).
//!
//! Pure. [`crate::answer`] judges such an address by the IPv4 address it leads to, [`crate::local`] tells clients which
//! prefixes there are (RFC 7050).

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::range::{IpRange, RangeError};

/// Most prefixes of a configuration: a network has one, two while it changes.
pub const MAX_PREFIXES: usize = 4;

/// Canonical wire form of the name by which clients look for prefixes (RFC 7050 section 8).
pub const IPV4ONLY: &[u8] = b"\x08ipv4only\x04arpa\0";

/// The addresses of `ipv4only.arpa` (RFC 7050 section 8).
pub const WELL_KNOWN: [Ipv4Addr; 2] = [Ipv4Addr::new(192, 0, 0, 170), Ipv4Addr::new(192, 0, 0, 171)];

/// A prefix behind which a NAT64 reaches IPv4.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Nat64 {
    network: Ipv6Addr,
    prefix: u8,
}

/// Why a text is not such a prefix.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Nat64Error {
    /// It is no range at all.
    #[error(transparent)]
    Range(#[from] RangeError),
    /// It is of IPv4, of another length than a NAT64 has, or has bits where RFC 6052 section 2.2 wants none.
    #[error("`{0}` is not a NAT64 prefix")]
    NotNat64(String),
}

impl Nat64Error {
    /// What to do about it.
    pub fn remedy(&self) -> String {
        match self {
            Self::Range(error) => error.remedy(),
            Self::NotNat64(_) => {
                "write the IPv6 prefix that the network's DNS64 uses, of length 32, 40, 48, 56, 64 or 96, \
                                  for example `64:ff9b::/96`"
                    .into()
            }
        }
    }
}

impl Nat64 {
    /// The prefix that every network may use (RFC 6052 section 2.1).
    pub const WELL_KNOWN: Self = Self { network: Ipv6Addr::new(0x64, 0xff9b, 0, 0, 0, 0, 0, 0), prefix: 96 };

    /// Reads `address/length`. Bits 64 to 71 are zero in every prefix (RFC 6052 section 2.2).
    ///
    /// # Errors
    /// [`Nat64Error`].
    pub fn parse(text: &str) -> Result<Self, Nat64Error> {
        let range = IpRange::parse(text)?;
        match (range.first(), range.prefix()) {
            (IpAddr::V6(network), prefix @ (32 | 40 | 48 | 56 | 64 | 96)) if network.octets()[8] == 0 => {
                Ok(Self { network, prefix })
            }
            _ => Err(Nat64Error::NotNat64(range.to_string())),
        }
    }

    /// The IPv4 address that `address` leads to; `None` for one that is not behind this prefix. What stands behind the IPv4
    /// address does not matter (RFC 6052 section 2.2: translators ignore it).
    pub fn embedded(self, address: Ipv6Addr) -> Option<Ipv4Addr> {
        let (bits, prefix) = (address.to_bits(), u32::from(self.prefix));
        if (bits ^ self.network.to_bits()) >> (128 - prefix) != 0 {
            return None;
        }
        if self.prefix == 96 {
            return Some(Ipv4Addr::from_bits(bits as u32));
        }
        // As if the eight bits in the middle were not there.
        let (high, low) = ((bits >> 64) << 56, bits & ((1 << 56) - 1));
        Some(Ipv4Addr::from_bits(((high | low) >> (120 - prefix - 32)) as u32))
    }

    /// The address that leads to `v4`.
    pub fn embed(self, v4: Ipv4Addr) -> Ipv6Addr {
        let (v4, network) = (u128::from(v4.to_bits()), self.network.to_bits());
        if self.prefix == 96 {
            return Ipv6Addr::from_bits(network | v4);
        }
        let packed = v4 << (120 - u32::from(self.prefix) - 32);
        let (high, low) = (packed >> 56, packed & ((1 << 56) - 1));
        Ipv6Addr::from_bits(network | high << 64 | low)
    }
}

impl fmt::Display for Nat64 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.network, self.prefix)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The table of RFC 6052 section 2.4.
    #[test]
    fn addresses_are_those_of_the_rfc() {
        let v4 = Ipv4Addr::new(192, 0, 2, 33);
        for (prefix, address) in [
            ("2001:db8::/32", "2001:db8:c000:221::"),
            ("2001:db8:100::/40", "2001:db8:1c0:2:21::"),
            ("2001:db8:122::/48", "2001:db8:122:c000:2:2100::"),
            ("2001:db8:122:300::/56", "2001:db8:122:3c0:0:221::"),
            ("2001:db8:122:344::/64", "2001:db8:122:344:c0:2:2100::"),
            ("2001:db8:122:344::/96", "2001:db8:122:344::192.0.2.33"),
            ("64:ff9b::/96", "64:ff9b::192.0.2.33"),
        ] {
            let nat64 = Nat64::parse(prefix).expect(prefix);
            let address: Ipv6Addr = address.parse().expect("address");
            assert_eq!(nat64.embed(v4), address, "{prefix}");
            assert_eq!(nat64.embedded(address), Some(v4), "{prefix}");
            assert_eq!(nat64.to_string(), prefix);
            assert_eq!(nat64.embedded("2001:db9::c000:221".parse().expect("address")), None, "{prefix}");
        }
        // Octets behind the address are the translator's to ignore.
        let nat64 = Nat64::parse("2001:db8:122::/48").expect("prefix");
        let with_suffix = "2001:db8:122:c000:2:21ff:ffff:ffff".parse().expect("address");
        assert_eq!(nat64.embedded(with_suffix), Some(v4));
    }

    #[test]
    fn what_is_no_prefix_is_refused_with_a_remedy() {
        for (text, remedy) in [
            ("10.0.0.0/8", "of length 32"),
            ("64:ff9b::/64x", "write for example"),
            ("64:ff9b::/95", "of length 32"),
            ("2001:db8::/128", "of length 32"),
            ("2001:db8::1/96", "write `2001:db8::/96`"),
            ("2001:db8:1:1:ff00::/96", "of length 32"),
        ] {
            let error = Nat64::parse(text).expect_err(text);
            assert!(error.remedy().contains(remedy), "{text}: {}", error.remedy());
        }
    }
}
