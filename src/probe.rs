//! The question that tells who answers: the name of [`crate::local::token`], asked with a fresh nonce. Octets alone.

// Octets from outside are read here: nothing may panic on them.
#![cfg_attr(
    not(test),
    warn(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic,
        clippy::unreachable,
        clippy::indexing_slicing,
        clippy::string_slice,
        clippy::arithmetic_side_effects
    )
)]

use crate::local::token::SUFFIX;

/// What every nonce of ours begins with, so that a packet that carries one is found by its octets.
pub const MARK: &str = "sdr";
/// Characters of a nonce.
pub const NONCE: usize = 24;

/// What a nonce is made of, 32 of them.
const LETTERS: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyz234567";
const TXT: u16 = 16;
const HEADER: usize = 12;

/// A fresh nonce: [`MARK`], then 105 bits of chance in letters and digits.
///
/// # Errors
///
/// Where the system gives no random numbers.
pub fn nonce() -> Result<String, getrandom::Error> {
    let mut chance = [0u8; NONCE - MARK.len()];
    getrandom::fill(&mut chance)?;
    let letter = |octet: &u8| LETTERS.get(usize::from(octet & 31)).copied().map(char::from);
    Ok(MARK.chars().chain(chance.iter().filter_map(letter)).collect())
}

/// A query for the token of a nonce (at most 63 letters and digits): TXT, recursion desired, no EDNS.
pub fn question(nonce: &str) -> Vec<u8> {
    // The id need not be chance: the nonce is, and is part of what is compared.
    let id = nonce.bytes().rev().take(2).fold(0u16, |id, octet| id << 8 | u16::from(octet));
    let mut query = id.to_be_bytes().to_vec();
    query.extend([1, 0, 0, 1, 0, 0, 0, 0, 0, 0]);
    for label in [nonce].into_iter().chain(SUFFIX.split('.')) {
        let length = label.len().min(63);
        query.push(length as u8);
        query.extend(label.bytes().take(length));
    }
    query.push(0);
    query.extend(TXT.to_be_bytes());
    query.extend([0, 1]);
    query
}

/// A message as it goes over TCP (RFC 1035 section 4.2.2).
pub fn framed(message: &[u8]) -> Vec<u8> {
    let mut framed = (message.len() as u16).to_be_bytes().to_vec();
    framed.extend(message);
    framed
}

/// Whether a message is a reply to this query: id and question are its own.
pub fn answers(reply: &[u8], query: &[u8]) -> bool {
    let ([a, b, _, ..], [c, d, flags, ..]) = (query, reply) else { return false };
    let (question, behind) = (query.get(HEADER..).unwrap_or_default(), reply.get(HEADER..));
    [a, b] == [c, d]
        && flags & 0x80 != 0
        && behind
            .and_then(|behind| behind.get(..question.len()))
            .is_some_and(|echo| echo.eq_ignore_ascii_case(question))
}

/// The text of the first record of a reply to this query, if it is a TXT record. Compressed names and such without are read;
/// whatever cannot be read is none.
pub fn text_of(reply: &[u8], query: &[u8]) -> Option<String> {
    let [_, _, _, flags, _, _, high, low, ..] = *reply else { return None };
    if !answers(reply, query) || flags & 0xf != 0 || [high, low] == [0, 0] {
        return None;
    }
    let mut rest = reply.get(query.len()..)?;
    // The owner: labels up to a pointer or the root.
    rest = loop {
        let (length, behind) = rest.split_first()?;
        match length {
            0 => break behind,
            0xc0.. => break behind.get(1..)?,
            1..=63 => rest = behind.get(usize::from(*length)..)?,
            _ => return None,
        }
    };
    let ([rtype @ .., _, _, _, _, _, _, high, low], data) = rest.split_first_chunk::<10>()?;
    if *rtype != TXT.to_be_bytes() {
        return None;
    }
    let data = data.get(..usize::from(u16::from_be_bytes([*high, *low])))?;
    let (length, text) = data.split_first()?;
    String::from_utf8(text.get(..usize::from(*length))?.to_vec()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::{Parsed, parse};

    #[test]
    fn a_question_is_one_that_we_answer() {
        let nonce = nonce().expect("chance");
        assert_eq!(nonce.len(), NONCE);
        let query = question(&nonce);
        let Parsed::Query(parsed) = parse(&query) else { panic!("not a query: {query:?}") };
        assert_eq!(
            crate::local::token::asked(parsed.qname.as_ref()),
            Some(crate::local::token::Asked::Proof(nonce.as_bytes()))
        );
        let mut reply = Vec::new();
        crate::reply::text(&mut reply, &parsed, "staunch=1");
        assert_eq!(text_of(&reply, &query).as_deref(), Some("staunch=1"));
        assert_eq!(text_of(&reply, &question("another")), None);
        for cut in 0..reply.len() {
            assert_eq!(text_of(&reply[..cut], &query), None, "{cut}");
        }
    }
}
