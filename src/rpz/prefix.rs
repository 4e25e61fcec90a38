//! Address triggers: how they are written as names, and the table that finds the longest prefix.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::NONE;

/// An address prefix, as a trigger means it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Prefix {
    /// Its first address.
    pub(super) address: IpAddr,
    /// 1..=32 or 1..=128.
    pub(super) len: u8,
}

impl Prefix {
    /// Reads the labels in front of `rpz-ip` or `rpz-client-ip`, leftmost first: the length, then the address backwards, `zz`
    /// for one run of zeros. The error says what is wrong.
    pub(super) fn read(labels: &[&[u8]]) -> Result<Self, String> {
        let (len, rest) = labels.split_first().ok_or("it has no prefix")?;
        let len = decimal(len, 128).filter(|len| *len > 0).ok_or("the first label is no prefix length")? as u8;
        let address = if rest.len() == 4 && !rest.contains(&&b"zz"[..]) { v4(rest)? } else { v6(rest)? };
        let most = if address.is_ipv4() { 32 } else { 128 };
        if len > most {
            return Err(format!("a prefix of {len} bits in an address of {most}"));
        }
        if mask(address, len) != address {
            return Err(format!("address bits beyond the prefix: {}/{len} is meant", mask(address, len)));
        }
        Ok(Self { address, len })
    }
}

fn decimal(label: &[u8], most: u16) -> Option<u16> {
    let plain =
        label.len() <= 3 && label.iter().all(u8::is_ascii_digit) && (label.len() == 1 || label.first() != Some(&b'0'));
    let value: u16 = std::str::from_utf8(label).ok().filter(|_| plain)?.parse().ok()?;
    (value <= most).then_some(value)
}

fn v4(labels: &[&[u8]]) -> Result<IpAddr, String> {
    let mut octets = [0; 4];
    for (octet, label) in octets.iter_mut().zip(labels.iter().rev()) {
        *octet = decimal(label, 255).ok_or("an octet of the address is no number from 0 to 255")? as u8;
    }
    Ok(Ipv4Addr::from(octets).into())
}

fn v6(labels: &[&[u8]]) -> Result<IpAddr, String> {
    let shape = "the address is neither four octets nor eight words, with one `zz` at most";
    let zeros = labels.iter().filter(|label| **label == b"zz").count();
    let missing = 9usize.checked_sub(labels.len()).ok_or(shape)?;
    if zeros > 1 || (zeros == 0 && labels.len() != 8) || (zeros == 1 && missing == 0) {
        return Err(shape.into());
    }
    let mut words = Vec::with_capacity(8);
    for label in labels.iter().rev() {
        if *label == b"zz" {
            words.resize(words.len() + missing, 0);
            continue;
        }
        let text = std::str::from_utf8(label).ok().filter(|t| t.len() <= 4 && t.bytes().all(|b| b.is_ascii_hexdigit()));
        words.push(
            text.and_then(|t| u16::from_str_radix(t, 16).ok()).ok_or("a word of the address is not hexadecimal")?,
        );
    }
    let words: [u16; 8] = words.try_into().map_err(|_| shape)?;
    Ok(Ipv6Addr::from(words).into())
}

fn mask(address: IpAddr, len: u8) -> IpAddr {
    match address {
        IpAddr::V4(v4) => Ipv4Addr::from_bits((masked(bits(v4.into()), len) >> 96) as u32).into(),
        IpAddr::V6(_) => Ipv6Addr::from_bits(masked(bits(address), len)).into(),
    }
}

/// The upper `len` bits of `bits`.
fn masked(bits: u128, len: u8) -> u128 {
    if len == 0 { 0 } else { bits & (u128::MAX << (128 - u32::from(len.min(128)))) }
}

/// All prefixes of one kind of trigger and family, sorted by length and address: a look-up is a binary search for each length
/// that is in use.
#[derive(Debug, Default)]
struct Family {
    /// Longest first; within a length by address.
    entries: Box<[(u128, u32)]>,
    /// Length and where its entries end.
    lengths: Box<[(u8, u32)]>,
}

impl Family {
    fn new(mut list: Vec<(u8, u128, u32)>) -> Self {
        list.sort_unstable_by_key(|(len, bits, _)| (std::cmp::Reverse(*len), *bits));
        let mut lengths: Vec<(u8, u32)> = Vec::new();
        for (i, (len, ..)) in list.iter().enumerate() {
            let end = i as u32 + 1;
            match lengths.last_mut() {
                Some((last, at)) if last == len => *at = end,
                _ => lengths.push((*len, end)),
            }
        }
        let entries = list.into_iter().map(|(_, bits, rule)| (bits, rule)).collect();
        Self { entries, lengths: lengths.into() }
    }

    /// Length and rule of the longest prefix.
    fn find(&self, bits: u128) -> Option<(u8, u32)> {
        let mut start = 0;
        for (len, end) in &self.lengths {
            let same = self.entries.get(start..*end as usize).unwrap_or_default();
            let wanted = masked(bits, *len);
            if let Ok(at) = same.binary_search_by_key(&wanted, |(bits, _)| *bits) {
                return same.get(at).map(|(_, rule)| (*len, *rule));
            }
            start = *end as usize;
        }
        None
    }

    fn octets(&self) -> usize {
        size_of_val(&*self.entries) + size_of_val(&*self.lengths)
    }
}

/// The prefixes of one kind of trigger.
#[derive(Debug, Default)]
pub(super) struct Prefixes {
    v4: Family,
    v6: Family,
}

impl Prefixes {
    /// From prefixes and the numbers of their rules; each prefix once.
    pub(super) fn new(list: impl IntoIterator<Item = (Prefix, u32)>) -> Self {
        let (mut v4, mut v6) = (Vec::new(), Vec::new());
        for (prefix, rule) in list {
            let entry = (prefix.len, bits(prefix.address), rule);
            if prefix.address.is_ipv4() { v4.push(entry) } else { v6.push(entry) }
        }
        Self { v4: Family::new(v4), v6: Family::new(v6) }
    }

    /// The rule of the longest prefix that holds `address`, or [`NONE`].
    pub(super) fn find(&self, address: IpAddr) -> u32 {
        self.longest(address).map_or(NONE, |(_, rule)| rule)
    }

    /// The same, in an order in which the better match is the smaller one: by bits that are left open, then by address.
    pub(super) fn longest(&self, address: IpAddr) -> Option<((u8, u128), u32)> {
        let family = if address.is_ipv4() { &self.v4 } else { &self.v6 };
        let (len, rule) = family.find(bits(address))?;
        Some(((if address.is_ipv4() { 32 } else { 128 } - len, bits(address)), rule))
    }

    /// Whether there is none.
    pub(super) fn is_empty(&self) -> bool {
        self.v4.lengths.is_empty() && self.v6.lengths.is_empty()
    }

    pub(super) fn octets(&self) -> usize {
        self.v4.octets() + self.v6.octets()
    }
}

/// The address in the upper bits.
fn bits(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(v4) => u128::from(v4.to_bits()) << 96,
        IpAddr::V6(v6) => v6.to_bits(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Prefix, String> {
        Prefix::read(&text.split('.').map(str::as_bytes).collect::<Vec<_>>())
    }

    #[test]
    fn triggers_are_read_as_written() {
        for (text, address, len) in [
            ("32.4.3.2.1", "1.2.3.4", 32),
            ("24.0.2.0.192", "192.0.2.0", 24),
            ("1.0.0.0.128", "128.0.0.0", 1),
            ("128.1.0.0.0.0.0.db8.2001", "2001:db8::1", 128),
            ("128.1.zz.db8.2001", "2001:db8::1", 128),
            ("48.zz.1.db8.2001", "2001:db8:1::", 48),
            ("128.57.zz.57.db8.2001", "2001:db8:57::57", 128),
            ("128.1.zz", "::1", 128),
            ("16.zz.2001", "2001::", 16),
            ("128.1.2.3.zz.5.6.7.8", "8:7:6:5:0:3:2:1", 128),
        ] {
            let expected = Prefix { address: address.parse().expect("address"), len };
            assert_eq!(read(text), Ok(expected), "{text}");
        }
        for (text, why) in [
            ("", "first label"),
            ("0.0.0.0.0", "first label"),
            ("33.4.3.2.1", "33 bits"),
            ("129.1.zz", "first label"),
            ("24.4.3.2.1", "1.2.3.0/24 is meant"),
            ("48.1.zz.db8.2001", "2001:db8::/48 is meant"),
            ("032.4.3.2.1", "first label"),
            ("32.4.3.2", "neither"),
            ("32.256.3.2.1", "octet"),
            ("32.04.3.2.1", "octet"),
            ("128.zz.1.zz.2001", "neither"),
            ("128.1.2.3.4.5.6.7.8.9", "neither"),
            ("128.1.2.3.4.5.6.7.8.zz", "neither"),
            ("128.12345.zz", "hexadecimal"),
            ("128.x.zz", "hexadecimal"),
        ] {
            let error = read(text).expect_err(text);
            assert!(error.contains(why), "{text}: {error}");
        }
    }

    #[test]
    fn the_longest_prefix_is_found() {
        let prefixes = Prefixes::new(
            ["8.0.0.0.10", "24.0.2.1.10", "32.5.2.1.10", "32.zz.db8.2001", "48.zz.1.db8.2001"]
                .iter()
                .enumerate()
                .map(|(i, text)| (read(text).expect("prefix"), i as u32)),
        );
        for (address, rule) in [
            ("10.9.9.9", 0),
            ("10.1.2.3", 1),
            ("10.1.2.5", 2),
            ("11.1.2.5", NONE),
            ("2001:db8:2::1", 3),
            ("2001:db8:1::1", 4),
            ("2001:db9::", NONE),
            ("::ffff:10.1.2.5", NONE),
        ] {
            assert_eq!(prefixes.find(address.parse().expect("address")), rule, "{address}");
        }
        assert!(
            Prefixes::default().is_empty() && Prefixes::default().find("10.0.0.1".parse().expect("address")) == NONE
        );
    }
}
