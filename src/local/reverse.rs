//! Reverse zones of addresses that mean nothing outside: RFC 6303, RFC 7793, RFC 8880, RFC 9637.
//!
//! A question for such a name would tell an upstream the sandbox's inner addresses, and lets a session write 32
//! nibbles of its own choice.

use staunch_scoring::NameRef;
use staunch_scoring::name::LabelOffsets;

use super::{Local, Records, STATIC_TTL, nodata, zone};
use crate::model::Qtype;
use crate::nat64::IPV4ONLY;

const LOCALHOST: &[u8] = b"\x09localhost\0";

/// `in-addr.arpa`: at most the first four labels, from the right, matter.
pub(super) fn ipv4(qname: NameRef<'_>, qtype: Qtype, offsets: &LabelOffsets) -> Option<Local> {
    let mut octets = [None; 4];
    for (slot, label) in octets.iter_mut().zip(offsets.rev_labels(qname).skip(2)) {
        *slot = octet(label);
    }
    let [a, b, c, d] = octets;
    let (labels, rule) = match (a?, b, c, d) {
        (0, ..) => (3, "RFC 6303 0/8"),
        (10, ..) => (3, "RFC 6303 10/8"),
        (127, ..) => (3, "RFC 6303 127/8"),
        (169, Some(254), ..) => (4, "RFC 6303 169.254/16"),
        (172, Some(16..=31), ..) => (4, "RFC 6303 172.16/12"),
        (192, Some(168), ..) => (4, "RFC 6303 192.168/16"),
        (100, Some(64..=127), ..) => (4, "RFC 7793 100.64/10"),
        (192, Some(0), Some(2), _) => (5, "RFC 6303 192.0.2/24"),
        (198, Some(51), Some(100), _) => (5, "RFC 6303 198.51.100/24"),
        (203, Some(0), Some(113), _) => (5, "RFC 6303 203.0.113/24"),
        (255, Some(255), Some(255), Some(255)) => (6, "RFC 6303 255.255.255.255"),
        (192, Some(0), Some(0), Some(170 | 171)) => (6, "RFC 8880 ipv4only.arpa"),
        _ => return None,
    };
    let depth = offsets.count();
    let pointer = match octets {
        [Some(127), Some(0), Some(0), Some(1)] => Some(LOCALHOST),
        [Some(192), ..] if labels == 6 => Some(IPV4ONLY),
        _ => None,
    };
    if let Some(target) = pointer.filter(|_| depth == 6) {
        return Some(host(labels, target, qtype, rule));
    }
    // 0.127 and 0.0.127 exist, because 1.0.0.127 stands below them.
    let above_localhost = matches!((depth, octets), (4 | 5, [Some(127), Some(0), None | Some(0), None]));
    if above_localhost {
        return Some(nodata(labels, STATIC_TTL, rule));
    }
    Some(zone(depth == usize::from(labels), labels, qtype, rule))
}

/// `ip6.arpa`: nibbles from the right.
pub(super) fn ipv6(qname: NameRef<'_>, qtype: Qtype, offsets: &LabelOffsets) -> Option<Local> {
    let depth = offsets.count();
    let mut nibbles = [0xff_u8; 32];
    let mut given = 0;
    for (slot, label) in nibbles.iter_mut().zip(offsets.rev_labels(qname).skip(2)) {
        let Some(nibble) = nibble(label) else { break };
        *slot = nibble;
        given += 1;
    }
    let (labels, rule) = match &nibbles[..given] {
        [0xf, 0xc | 0xd, ..] => (4, "RFC 6303 fc00::/7"),
        [0xf, 0xe, 0x8..=0xb, ..] => (5, "RFC 6303 fe80::/10"),
        [0x2, 0x0, 0x0, 0x1, 0x0, 0xd, 0xb, 0x8, ..] => (10, "RFC 6303 2001:db8::/32"),
        [0x3, 0xf, 0xf, 0xf, 0x0, ..] => (7, "RFC 9637 3fff::/20"),
        [zeros @ .., 0] if zeros.len() == 31 && zeros.iter().all(|n| *n == 0) => (34, "RFC 6303 ::"),
        [zeros @ .., 1] if zeros.len() == 31 && zeros.iter().all(|n| *n == 0) => (34, "RFC 6303 ::1"),
        _ => return None,
    };
    if nibbles[31] == 1 && labels == 34 && depth == 34 {
        return Some(host(labels, LOCALHOST, qtype, rule));
    }
    Some(zone(depth == usize::from(labels), labels, qtype, rule))
}

/// A name that has one PTR record.
fn host(labels: u8, target: &'static [u8], qtype: Qtype, rule: &'static str) -> Local {
    let records = if qtype == Qtype::PTR { Records::Ptr(target) } else { Records::None };
    Local { records, ..nodata(labels, STATIC_TTL, rule) }
}

/// A decimal octet without leading zeros.
fn octet(label: &[u8]) -> Option<u8> {
    if label.len() > 1 && label.starts_with(b"0") || !label.iter().all(u8::is_ascii_digit) {
        return None;
    }
    std::str::from_utf8(label).ok()?.parse().ok()
}

/// One hexadecimal digit; names are folded, so lower case.
fn nibble(label: &[u8]) -> Option<u8> {
    match label {
        [digit @ b'0'..=b'9'] => Some(digit - b'0'),
        [digit @ b'a'..=b'f'] => Some(digit - b'a' + 10),
        _ => None,
    }
}
