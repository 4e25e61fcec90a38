//! What an upstream's OPT record says: the upper bits of a response code, cookies, how long a connection may stay open.

use staunch::forward::edns::{COOKIE, KEEPALIVE, Opt, PADDING};

use crate::dns;

const OPT: u16 = 41;

/// Takes a message, which need not be one.
pub fn run(octets: &[u8]) {
    let found = Opt::of(octets);
    let codes = [COOKIE, KEEPALIVE, PADDING, 3, 8, 15, 18, 65_001];
    if let Some(opt) = &found {
        for data in codes.iter().filter_map(|code| opt.option(*code)) {
            let within = octets.as_ptr_range();
            assert!(within.start <= data.as_ptr() && data.as_ptr_range().end <= within.end, "data of elsewhere");
        }
    }
    let Some(message) = dns::read(octets) else { return };
    let record = message.records.iter().find(|record| record.rtype == OPT);
    let (opt, record) = match (&found, record) {
        (Some(opt), Some(record)) => (opt, record),
        (None, None) => return,
        (found, record) => panic!("one reader finds an OPT record and the other does not: {found:?} {record:?}"),
    };
    // The second reader takes a TTL with its highest bit for 0.
    let upper = record.ttl >> 24;
    assert!(u32::from(opt.rcode) == upper || opt.rcode >= 0x80 && record.ttl == 0, "{opt:?} {record:?}");
    let data = record.data.as_deref().unwrap_or_default();
    for code in codes {
        assert_eq!(opt.option(code), option(data, code), "option {code} of {data:02x?}");
    }
}

/// The first option with this code, of those in front of one that overruns.
fn option(data: &[u8], wanted: u16) -> Option<&[u8]> {
    let mut at = 0;
    while data.len() >= at + 4 {
        let (code, length) = (word(data, at), usize::from(word(data, at + 2)));
        if data.len() < at + 4 + length {
            return None;
        }
        if code == wanted {
            return Some(&data[at + 4..at + 4 + length]);
        }
        at += 4 + length;
    }
    None
}

fn word(data: &[u8], at: usize) -> u16 {
    u16::from_be_bytes([data[at], data[at + 1]])
}
