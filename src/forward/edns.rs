//! What an upstream's OPT record says (RFC 6891): the upper bits of the response code and options.
//!
//! Total on any octets. Knows no meaning of an option.

// Octets from outside are read here: nothing may panic on them.
#![cfg_attr(
    not(test),
    warn(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic,
        clippy::unreachable,
        clippy::indexing_slicing,
        clippy::string_slice
    )
)]

use crate::answer::skip_name;

/// COOKIE (RFC 7873).
pub const COOKIE: u16 = 10;
/// edns-tcp-keepalive (RFC 7828).
pub const KEEPALIVE: u16 = 11;
/// Padding (RFC 7830).
pub const PADDING: u16 = 12;

/// Extended DNS Error (RFC 8914).
pub const EXTENDED_ERROR: u16 = 15;

/// An OPT record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Opt<'m> {
    /// Upper eight bits of the response code.
    pub rcode: u8,
    options: &'m [u8],
}

impl<'m> Opt<'m> {
    /// The OPT record of `message`, the first where there are several; `None` where there is none, or records in front of it
    /// cannot be stepped over.
    pub fn of(message: &'m [u8]) -> Option<Self> {
        let word = |at: usize| message.get(at..)?.first_chunk().map(|pair| u16::from_be_bytes(*pair));
        let mut at = 12;
        for _ in 0..word(4)? {
            at = skip_name(message, at).ok()? + 4;
        }
        let records = u32::from(word(6)?) + u32::from(word(8)?) + u32::from(word(10)?);
        for _ in 0..records {
            let fields = skip_name(message, at).ok()?;
            let data = fields + 10;
            let end = data + usize::from(word(fields + 8)?);
            if word(fields)? == 41 {
                return Some(Self { rcode: *message.get(fields + 4)?, options: message.get(data..end)? });
            }
            at = end;
        }
        None
    }

    /// Data of the first option with `code`; `None` where there is none in front of one that overruns the record.
    pub fn option(&self, code: u16) -> Option<&'m [u8]> {
        let mut rest = self.options;
        while let [a, b, c, d, tail @ ..] = rest {
            let (data, more) = tail.split_at_checked(usize::from(u16::from_be_bytes([*c, *d])))?;
            if u16::from_be_bytes([*a, *b]) == code {
                return Some(data);
            }
            rest = more;
        }
        None
    }
}

/// Whether `message` is a header and nothing else, or has nothing behind it but one OPT record: no question, that is.
pub fn is_header_alone(message: &[u8]) -> bool {
    let Some(([.., q0, q1, a0, a1, n0, n1, r0, r1], rest)) = message.split_first_chunk::<12>() else { return false };
    match ([*q0, *q1, *a0, *a1, *n0, *n1, *r0, *r1], rest) {
        ([0, 0, 0, 0, 0, 0, 0, 0], []) => true,
        ([0, 0, 0, 0, 0, 0, 0, 1], [0, 0, 41, _, _, _, _, _, _, high, low, options @ ..]) => {
            options.len() == usize::from(u16::from_be_bytes([*high, *low]))
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn message(options: &[u8]) -> Vec<u8> {
        let mut out = vec![0, 1, 0x81, 0x80, 0, 1, 0, 1, 0, 0, 0, 1];
        out.extend(b"\x03www\x07example\0\0\x01\0\x01");
        out.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 1, 44, 0, 4, 203, 0, 113, 1]);
        out.extend([0, 0, 41, 4, 208, 1, 0, 0, 0, 0, options.len() as u8]);
        out.extend(options);
        out
    }

    #[test]
    fn options_are_found_behind_records() {
        let octets = message(b"\0\x0b\0\x02\0\x64\0\x0a\0\x08cookies!");
        let opt = Opt::of(&octets).expect("an OPT record");
        assert_eq!(opt.rcode, 1);
        assert_eq!(opt.option(KEEPALIVE), Some(&b"\0\x64"[..]));
        assert_eq!(opt.option(COOKIE), Some(&b"cookies!"[..]));
        assert_eq!(opt.option(PADDING), None);
        for len in 0..octets.len() {
            assert!(Opt::of(&octets[..len]).is_none(), "{len} octets");
        }
        let cut = message(b"\0\x0a\0\x09cookies!");
        assert_eq!(Opt::of(&cut).expect("an OPT record").option(COOKIE), None, "an option that overruns");
    }

    #[test]
    fn a_header_alone_has_at_most_an_opt_record_behind_it() {
        let header = |questions: u8, more: u8| vec![0, 1, 0x80, 1, 0, questions, 0, 0, 0, 0, 0, more];
        let opt = [0, 0, 41, 4, 208, 0, 0, 0, 0, 0, 4, 0, 11, 0, 0];
        for (message, expected) in [
            (header(0, 0), true),
            ([header(0, 1), opt.to_vec()].concat(), true),
            ([header(0, 0), opt.to_vec()].concat(), false),
            ([header(1, 1), opt.to_vec()].concat(), false),
            ([header(0, 1), opt[..14].to_vec()].concat(), false),
            ([header(0, 1), opt.to_vec(), vec![0]].concat(), false),
            ([header(0, 1), [&[0, 0, 1], &opt[3..]].concat()].concat(), false),
            (header(0, 0)[..11].to_vec(), false),
        ] {
            assert_eq!(is_header_alone(&message), expected, "{message:?}");
        }
    }

    proptest! {
        #[test]
        fn it_is_total(octets in proptest::collection::vec(any::<u8>(), 0..120)) {
            let _ = is_header_alone(&octets);
            if let Some(opt) = Opt::of(&octets) {
                let _ = opt.option(COOKIE);
            }
        }
    }
}
