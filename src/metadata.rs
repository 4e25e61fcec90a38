//! Where clouds hand out credentials and settings to whoever asks from the host: no name of a sandbox's choice leads there,
//! no written range opens it, and the lockdown closes it by number.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::LazyLock;

use crate::range::IpRange;

/// IPv4, sorted: Alibaba's, Azure's wire server, every link-local address (most clouds, and what container services put
/// beside it; RFC 3927), Oracle's.
pub const V4: [&str; 4] = ["100.100.100.200", "168.63.129.16", "169.254.0.0/16", "192.0.0.192"];

/// IPv6: Amazon's, Google's, and the link-local one of OpenStack.
pub const V6: [&str; 3] = ["fd00:ec2::254", "fd20:ce::254", "fe80::a9fe:a9fe"];

/// Whether a metadata service answers at this address; an IPv4-mapped address counts as the address it wraps.
pub fn contains(address: IpAddr) -> bool {
    static RANGES: LazyLock<Vec<IpRange>> =
        LazyLock::new(|| V4.iter().chain(&V6).filter_map(|text| IpRange::parse(text).ok()).collect());
    let address = address.to_canonical();
    RANGES.iter().any(|range| range.contains(address))
}

/// One address of each line, where somebody may answer: a range's first, or what most clouds use of it.
pub fn samples() -> impl Iterator<Item = IpAddr> {
    const USUAL: IpAddr = IpAddr::V4(Ipv4Addr::new(169, 254, 169, 254));
    let ranges = V4.iter().chain(&V6).filter_map(|text| IpRange::parse(text).ok());
    ranges.map(|range| if range.contains(USUAL) { USUAL } else { range.first() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_line_is_a_range_and_counts() {
        for text in V4.iter().chain(&V6) {
            let range = IpRange::parse(text).expect(text);
            assert!(contains(range.first()), "{text}");
        }
        let samples: Vec<IpAddr> = samples().collect();
        assert_eq!(samples.len(), V4.len() + V6.len());
        assert!(samples.iter().all(|sample| contains(*sample)) && samples[2] == IpAddr::from([169, 254, 169, 254]));
        for (text, is) in [
            ("169.254.169.254", true),
            ("::ffff:169.254.169.254", true),
            ("169.253.255.255", false),
            ("192.0.0.193", false),
            ("fd00:ec2::253", false),
        ] {
            assert_eq!(contains(text.parse().expect(text)), is, "{text}");
        }
    }
}
