//! Address ranges in CIDR form (RFC 4632, RFC 4291 section 2.3).

use std::fmt;
use std::net::IpAddr;

/// A range of addresses of one family.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct IpRange {
    network: IpAddr,
    prefix: u8,
}

/// An address with all bits behind `v4` or `v6` leading ones cleared, whichever its family has.
pub(crate) fn prefix_of(address: IpAddr, (v4, v6): (u8, u8)) -> IpAddr {
    mask(address, if address.is_ipv4() { v4 } else { v6 })
}

/// Why a text is not a range.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RangeError {
    /// Neither an address nor an address, `/` and a length.
    #[error("`{0}` is not an address range")]
    NotARange(String),
    /// The length is larger than the address.
    #[error("`/{prefix}` is longer than the address")]
    TooLong {
        /// What was written.
        prefix: u8,
    },
    /// Bits behind the prefix are set.
    #[error("`{written}` has bits set behind its prefix")]
    HostBits {
        /// What was written.
        written: String,
        /// The range it lies in.
        network: String,
    },
    /// IPv4 addresses in IPv6's form (RFC 4291 section 2.5.5.2): nothing is ever sent to those, so that it would mean nothing.
    #[error("`{written}` is a range of IPv4 in IPv6's form")]
    Mapped {
        /// What was written.
        written: String,
        /// The range that is meant.
        network: String,
    },
}

impl RangeError {
    /// What to do about it.
    pub fn remedy(&self) -> String {
        match self {
            Self::NotARange(_) => "write for example `10.20.0.0/16` or `fd00:1::/48`".into(),
            Self::TooLong { .. } => "use at most /32 for IPv4 and /128 for IPv6".into(),
            Self::HostBits { network, .. } => format!("write `{network}`, or the address with its full length"),
            Self::Mapped { network, .. } => format!("write `{network}`"),
        }
    }
}

impl IpRange {
    /// Every address of both families.
    pub const EVERYTHING: [Self; 2] = [
        Self { network: IpAddr::V4(std::net::Ipv4Addr::UNSPECIFIED), prefix: 0 },
        Self { network: IpAddr::V6(std::net::Ipv6Addr::UNSPECIFIED), prefix: 0 },
    ];

    /// That of an address's first `prefix` bits, which are no more than it has.
    pub fn of(address: IpAddr, prefix: u8) -> Self {
        Self { network: mask(address, prefix), prefix }
    }

    /// Reads `address/length`, or an address alone for the range of one.
    ///
    /// # Errors
    /// [`RangeError`].
    pub fn parse(text: &str) -> Result<Self, RangeError> {
        let bad = || RangeError::NotARange(text.escape_debug().to_string());
        let (address, prefix) = match text.split_once('/') {
            Some((address, prefix)) => {
                let digits = !prefix.is_empty() && prefix.bytes().all(|b| b.is_ascii_digit());
                (address, Some(prefix.parse::<u8>().ok().filter(|_| digits).ok_or_else(bad)?))
            }
            None => (text, None),
        };
        let address: IpAddr = address.parse().map_err(|_| bad())?;
        let longest = if address.is_ipv4() { 32 } else { 128 };
        let prefix = prefix.unwrap_or(longest);
        if prefix > longest {
            return Err(RangeError::TooLong { prefix });
        }
        if let (IpAddr::V6(v6), Some(prefix)) = (address, prefix.checked_sub(96))
            && let Some(v4) = v6.to_ipv4_mapped()
        {
            let network = format!("{}/{prefix}", mask(v4.into(), prefix));
            return Err(RangeError::Mapped { written: text.into(), network });
        }
        let network = mask(address, prefix);
        if network != address {
            return Err(RangeError::HostBits { written: text.into(), network: format!("{network}/{prefix}") });
        }
        Ok(Self { network, prefix })
    }

    /// Whether `address` lies in it; an address of the other family never does.
    pub fn contains(&self, address: IpAddr) -> bool {
        address.is_ipv4() == self.network.is_ipv4() && mask(address, self.prefix) == self.network
    }

    /// The first address.
    pub fn first(&self) -> IpAddr {
        self.network
    }

    /// The last address.
    pub fn last(&self) -> IpAddr {
        match self.network {
            IpAddr::V4(v4) => {
                let behind = u32::MAX.checked_shr(self.prefix.into()).unwrap_or(0);
                std::net::Ipv4Addr::from_bits(v4.to_bits() | behind).into()
            }
            IpAddr::V6(v6) => {
                let behind = u128::MAX.checked_shr(self.prefix.into()).unwrap_or(0);
                std::net::Ipv6Addr::from_bits(v6.to_bits() | behind).into()
            }
        }
    }

    /// Whether the two have an address in common.
    pub fn overlaps(&self, other: &Self) -> bool {
        self.contains(other.network) || other.contains(self.network)
    }

    /// Length of the prefix.
    pub fn prefix(&self) -> u8 {
        self.prefix
    }
}

impl fmt::Display for IpRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.network, self.prefix)
    }
}

fn mask(address: IpAddr, prefix: u8) -> IpAddr {
    match address {
        IpAddr::V4(v4) => {
            let mask = u32::MAX.checked_shl(32 - u32::from(prefix.min(32))).unwrap_or(0);
            IpAddr::V4((v4.to_bits() & mask).into())
        }
        IpAddr::V6(v6) => {
            let mask = u128::MAX.checked_shl(128 - u32::from(prefix.min(128))).unwrap_or(0);
            IpAddr::V6((v6.to_bits() & mask).into())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_hold_what_lies_in_them() {
        for (range, inside, outside) in [
            ("10.20.0.0/16", "10.20.255.255", "10.21.0.0"),
            ("192.0.2.7", "192.0.2.7", "192.0.2.6"),
            ("0.0.0.0/0", "255.255.255.255", "::"),
            ("fd00::/8", "fdff::1", "fe00::1"),
            ("::/0", "2001:db8::1", "10.0.0.1"),
            ("2001:db8::1/128", "2001:db8::1", "2001:db8::2"),
        ] {
            let parsed = IpRange::parse(range).expect(range);
            assert!(parsed.contains(inside.parse().expect("address")), "{range}");
            assert!(!parsed.contains(outside.parse().expect("address")), "{range}");
        }
        assert_eq!(IpRange::parse("10.0.0.0/8").expect("range").to_string(), "10.0.0.0/8");
    }

    #[test]
    fn what_is_no_range_is_refused_with_a_remedy() {
        for (text, remedy) in [
            ("", "write for example"),
            ("10.0.0.0/", "write for example"),
            ("10.0.0.0/+8", "write for example"),
            ("10.0.0/8", "write for example"),
            ("10.0.0.0/33", "at most /32"),
            ("::/129", "at most"),
            ("10.20.0.1/16", "write `10.20.0.0/16`"),
            ("::ffff:10.20.0.0/112", "write `10.20.0.0/16`"),
            ("::ffff:10.20.0.1/112", "write `10.20.0.0/16`"),
            ("::ffff:192.0.2.7", "write `192.0.2.7/32`"),
            ("::ffff:0:0/96", "write `0.0.0.0/0`"),
        ] {
            let error = IpRange::parse(text).expect_err(text);
            assert!(error.remedy().contains(remedy), "{text}: {}", error.remedy());
        }
    }
}
