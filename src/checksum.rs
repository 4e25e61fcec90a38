//! The checksum of the Internet's headers (RFC 1071).

/// The ones' complement of the ones' complement sum of all words of 16 bits; a last octet alone counts as a word's upper half.
/// Over octets that hold their own checksum it is zero.
pub fn internet(octets: &[u8]) -> u16 {
    let word = |pair: &[u8]| u16::from_be_bytes([pair[0], pair.get(1).copied().unwrap_or(0)]);
    let mut sum: u64 = octets.chunks(2).map(|pair| u64::from(word(pair))).sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sum_is_that_of_the_standard() {
        // RFC 1071 section 3.
        assert_eq!(internet(&[0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7]), !0xddf2);
        for (octets, sum) in [(&[][..], 0xffff), (&[0x12][..], !0x1200), (&[0xff, 0xff, 0, 1][..], !1)] {
            assert_eq!(internet(octets), sum, "{octets:?}");
        }
        let mut header = vec![0x45, 0, 0, 40, 1, 2, 0x40, 0, 64, 6, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2];
        let sum = internet(&header).to_be_bytes();
        header[10..12].copy_from_slice(&sum);
        assert_eq!(internet(&header), 0, "a header that holds its own sum");
        assert_eq!(internet(&[0xff; 1 << 20]), 0, "no length overflows");
    }
}
