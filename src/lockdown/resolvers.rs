//! Addresses of public resolvers: the shipped list, and lists of an operator's own in the same form.
//!
//! Pure. One range a line, `ADDRESS` or `ADDRESS/LENGTH`, then `#` and what it is; see `blocklists/README.md`.

use std::net::IpAddr;

use crate::range::{IpRange, RangeError};

/// The list that ships with the product.
pub const SHIPPED: &str = include_str!("../../blocklists/resolver-addresses.txt");

/// Most ranges of one list; a set that large loads in a fraction of a second.
pub const RANGES_MAX: usize = 65_536;

/// Why a list does not load.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{file}:{line}: {problem}; {remedy}")]
pub struct ListError {
    /// The file, as given.
    pub file: String,
    /// From 1.
    pub line: usize,
    /// What is wrong.
    pub problem: String,
    /// What to do about it.
    pub remedy: String,
}

/// Reads a list; `file` names it in errors.
///
/// # Errors
///
/// [`ListError`] for the first line that is no range, or one that would close everything.
pub fn read(file: &str, text: &str) -> Result<Vec<IpRange>, ListError> {
    let mut ranges = Vec::new();
    for (number, line) in (1..).zip(text.lines()) {
        let fail = |problem: String, remedy: String| ListError { file: file.to_owned(), line: number, problem, remedy };
        let entry = line.split('#').next().unwrap_or_default().trim();
        if entry.is_empty() {
            continue;
        }
        let range = IpRange::parse(entry).map_err(|error: RangeError| fail(error.to_string(), error.remedy()))?;
        // No operator's resolvers fill so much; a slip of the hand would close a continent.
        if range.prefix() < 16 {
            return Err(fail(format!("`{range}` is far too wide"), "name the resolver's own addresses".into()));
        }
        ranges.push(range);
        if ranges.len() > RANGES_MAX {
            return Err(fail(format!("more than {RANGES_MAX} ranges"), "leave out what no sandbox could know".into()));
        }
    }
    Ok(ranges)
}

/// Sorted, without those that lie in another: an interval set takes no range twice.
pub fn merged(mut ranges: Vec<IpRange>) -> Vec<IpRange> {
    ranges.sort_by_key(|range| (range.first(), range.prefix()));
    let mut kept: Vec<IpRange> = Vec::with_capacity(ranges.len());
    for range in ranges {
        // Wider ones come first, and ranges either nest or lie apart.
        if !kept.last().is_some_and(|last| last.contains(range.first())) {
            kept.push(range);
        }
    }
    kept
}

/// As the nft tool shows it: a range of one address without its length.
pub fn shown(range: &IpRange) -> String {
    match (range.first(), range.prefix()) {
        (address @ IpAddr::V4(_), 32) | (address @ IpAddr::V6(_), 128) => address.to_string(),
        _ => range.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lists::EntryNote;

    #[test]
    fn every_shipped_address_has_its_source_and_day() {
        let ranges = read("resolver-addresses.txt", SHIPPED).expect("the shipped list loads");
        assert!(ranges.len() >= 200, "{}", ranges.len());
        assert_eq!(merged(ranges.clone()).len(), ranges.len(), "an address stands there twice, or within a range");
        for line in SHIPPED.lines().filter(|line| !line.starts_with('#') && !line.is_empty()) {
            let comment = line.split_once('#').expect("a comment").1;
            assert!(EntryNote::parse(comment).is_some_and(|note| !note.what.is_empty()), "{line}");
        }
        for head in ["# Licence:", "# Source:", "# Reviewed:"] {
            assert!(SHIPPED.lines().take(20).any(|line| line.starts_with(head)), "no `{head}`");
        }
        for range in &ranges {
            let public = crate::answer::is_public(range.first());
            assert!(public, "{range} cannot be reached through the internet");
        }
        for known in ["8.8.8.8", "1.1.1.1", "9.9.9.9", "45.90.28.77", "2606:4700:4700::1111", "2620:fe::fe"] {
            let address = known.parse().expect("an address");
            assert!(ranges.iter().any(|range| range.contains(address)), "{known}");
        }
    }

    #[test]
    fn a_bad_line_is_named_with_its_remedy() {
        assert_eq!(read("own.txt", "\n# nothing\n192.0.2.1 # ours\n2001:db8::/64\n").map(|r| r.len()), Ok(2));
        for (text, wanted) in [
            ("192.0.2.1\nresolver.example\n", "own.txt:2: `resolver.example` is not an address range"),
            ("192.0.2.1/24", "own.txt:1: `192.0.2.1/24` has bits set"),
            ("0.0.0.0/0", "own.txt:1: `0.0.0.0/0` is far too wide; name"),
        ] {
            let error = read("own.txt", text).expect_err(text).to_string();
            assert!(error.starts_with(wanted), "{error}");
        }
    }

    #[test]
    fn what_lies_in_another_range_is_left_out() {
        let ranges = ["192.0.2.0/24", "192.0.2.7", "198.51.100.1", "198.51.100.1", "2001:db8::/64", "2001:db8::1"];
        let ranges = ranges.iter().map(|text| IpRange::parse(text).expect(text)).collect();
        let kept: Vec<_> = merged(ranges).iter().map(shown).collect();
        assert_eq!(kept, ["192.0.2.0/24", "198.51.100.1", "2001:db8::/64"]);
    }
}
