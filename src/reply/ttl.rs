//! TTLs of a message that somebody else has built.

use crate::answer::skip_name;

/// Makes no record of `message` live longer than `cap` seconds. Stops at the first octet that fits no message, so that
/// nothing behind it is touched; OPT records, whose TTL field holds flags (RFC 6891 section 6.1.3), stay as they are.
pub fn cap_ttls(message: &mut [u8], cap: u32) {
    const OPT: u16 = 41;
    let word = |message: &[u8], at: usize| -> Option<u16> {
        Some(u16::from_be_bytes([*message.get(at)?, *message.get(at + 1)?]))
    };
    let Some(counts) = (0..4).map(|i| word(message, 4 + 2 * i)).collect::<Option<Vec<u16>>>() else { return };
    let mut at = 12;
    for _ in 0..counts.first().copied().unwrap_or(0) {
        let Ok(end) = skip_name(message, at) else { return };
        at = end + 4;
    }
    let records: u32 = counts.iter().skip(1).map(|count| u32::from(*count)).sum();
    for _ in 0..records {
        let Ok(owner_end) = skip_name(message, at) else { return };
        let (Some(rtype), Some(length)) = (word(message, owner_end), word(message, owner_end + 8)) else { return };
        if rtype != OPT
            && let Some(field) = message.get_mut(owner_end + 4..owner_end + 8)
            && let Ok(octets) = <[u8; 4]>::try_from(&*field)
        {
            field.copy_from_slice(&u32::from_be_bytes(octets).min(cap).to_be_bytes());
        }
        at = owner_end + 10 + usize::from(length);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn records_are_capped_and_opt_is_not() {
        let mut message = vec![0, 1, 0x81, 0x80, 0, 1, 0, 1, 0, 0, 0, 1];
        message.extend_from_slice(b"\x01a\x00\x00\x01\x00\x01");
        message.extend_from_slice(b"\xc0\x0c\x00\x01\x00\x01\x00\x01\x51\x80\x00\x04\x0a\x00\x00\x01");
        message.extend_from_slice(b"\x00\x00\x29\x04\xd0\x00\x00\x80\x00\x00\x00");
        let before = message.clone();
        cap_ttls(&mut message, 60);
        assert_eq!(message[25..29], [0, 0, 0, 60]);
        assert_eq!(message[35..], before[35..], "flags in OPT are not a TTL");
        cap_ttls(&mut message, 3600);
        assert_eq!(message[25..29], [0, 0, 0, 60], "a cap never raises");
    }

    proptest! {
        #[test]
        fn any_octets_are_survived(mut octets in proptest::collection::vec(any::<u8>(), 0..400), cap: u32) {
            let length = octets.len();
            cap_ttls(&mut octets, cap);
            prop_assert_eq!(octets.len(), length);
        }
    }
}
