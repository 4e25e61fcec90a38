//! Letter case of our own in a question (0x20): about one bit for each letter that somebody who forges has to guess.
//!
//! The case of every letter is drawn from the system's generator when a query is written. The name it is written into is
//! the permit's, in lower case, so nothing of what a client spelled is left, and nothing that a session can choose goes
//! into the draw.

use staunch_scoring::name::MAX_NAME;

use super::random;

/// Draws the case of every letter of `name`, wire octets in lower case. Length octets are below any letter. `false`, and
/// nothing changed, where there is no randomness.
pub(super) fn mix(name: &mut [u8]) -> bool {
    let mut bits = [0u8; MAX_NAME.div_ceil(8)];
    let Some(()) = bits.get_mut(..name.len().div_ceil(8)).and_then(random::fill) else { return false };
    for (at, octet) in name.iter_mut().enumerate() {
        let is_upper = bits.get(at / 8).is_some_and(|eight| eight >> (at % 8) & 1 == 1);
        if is_upper {
            octet.make_ascii_uppercase();
        }
    }
    true
}

/// The same until both cases stand in it; for a name of several letters.
pub(super) fn mix_both(name: &mut [u8]) -> bool {
    // Each turn fails once in 2^(letters - 1) times; 64 of them never do.
    for _ in 0..64 {
        name.make_ascii_lowercase();
        if !mix(name) {
            return false;
        }
        if name.iter().any(u8::is_ascii_uppercase) && name.iter().any(u8::is_ascii_lowercase) {
            return true;
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_case_of_letters_changes_and_every_letter_has_both() {
        let plain = b"\x03www\x07ex4mple\x3f0123456789abcdefghijklmnopqrstuvwxyz0123456789abcdefghijklmnopqrs\x00";
        let mut upper = vec![0u32; plain.len()];
        for _ in 0..400 {
            let mut mixed = plain.to_vec();
            assert!(mix(&mut mixed));
            assert!(mixed.eq_ignore_ascii_case(plain));
            for (count, octet) in upper.iter_mut().zip(&mixed) {
                *count += u32::from(octet.is_ascii_uppercase());
            }
        }
        for (count, octet) in upper.iter().zip(plain) {
            // 400 fair draws lie outside 120..280 once in 10^15 times.
            assert_eq!((120..280).contains(count), octet.is_ascii_lowercase(), "{count} for {octet}");
        }
    }

    #[test]
    fn both_cases_where_that_is_asked_for() {
        for _ in 0..200 {
            let mut name = *b"\x02ab\x00";
            assert!(mix_both(&mut name));
            assert!(name == *b"\x02Ab\x00" || name == *b"\x02aB\x00", "{name:?}");
        }
        assert!(!mix_both(&mut [1, b'1', 0]), "no letters");
    }
}
