//! Keys and what vouches for them: DNSKEY (RFC 4034 section 2) and DS (section 5) data, read.

use hickory_proto::dnssec::crypto::Digest;
use hickory_proto::dnssec::{Algorithm, DigestType, PublicKey, PublicKeyBuf};
use staunch_scoring::NameRef;

use super::Unchecked;

/// Most keys of one zone that are kept; further ones are as if they were not there. The root had four at most.
pub(super) const MAX_KEYS: usize = 24;
/// Most DS records of one zone that are looked at.
const MAX_DS: usize = 12;

/// Most octets of a key: a modulus of 4096 bits (RFC 3110 section 2, RFC 5702 section 2) and an exponent as long as ring
/// takes. Bounds what checking one signature costs.
const MAX_KEY: usize = 512 + 8;

/// Least octets of a modulus: ring checks nothing by an RSA key of less than 1024 bits.
const MIN_MODULUS: usize = 128;

/// Bits of the largest exponent that ring takes. RFC 3110 section 2 allows far more.
const MAX_EXPONENT: u32 = 33;

/// Digest type of SHA-1.
const SHA1: u8 = 1;

/// Flags of a key (RFC 4034 section 2.1.1, RFC 5011 section 7).
const ZONE_KEY: u16 = 0x0100;
const REVOKED: u16 = 0x0080;
const ENTRY_POINT: u16 = 0x0001;

/// Whether signatures of this algorithm are checked here (the IANA registry): RSA with SHA-256 and SHA-512, ECDSA with P-256
/// and P-384, Ed25519. Those with SHA-1 are treated as unknown (RFC 9905 section 2), and so is Ed448, which ring lacks.
pub(super) fn is_known(algorithm: u8) -> bool {
    matches!(algorithm, 8 | 10 | 13 | 14 | 15)
}

/// The digest of a DS record of this type, where it is known here.
fn digest_type(number: u8) -> Option<DigestType> {
    match number {
        SHA1 => Some(DigestType::SHA1),
        2 => Some(DigestType::SHA256),
        4 => Some(DigestType::SHA384),
        _ => None,
    }
}

/// A key that may sign a zone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Key {
    pub(super) tag: u16,
    pub(super) algorithm: u8,
    key: PublicKeyBuf,
    data: Box<[u8]>,
}

impl Key {
    /// `None` where the data is no key that signs zones by an algorithm that is known here.
    pub(super) fn read(data: &[u8]) -> Option<Self> {
        if flags(data)? & REVOKED == 0 { Self::whole(data) } else { None }
    }

    /// A key whose owner says that it is one no more (RFC 5011 section 2.1): its data without the mark, and with it what
    /// makes the signature that says so. `None` where it is not marked, or could not sign without the mark.
    pub(super) fn read_revoked(data: &[u8]) -> Option<(Box<[u8]>, Self)> {
        let flags = flags(data)?;
        let key = Self::whole(data).filter(|_| flags & REVOKED != 0)?;
        let unmarked = [&(flags & !REVOKED).to_be_bytes()[..], data.get(2..)?].concat();
        Some((unmarked.into(), key))
    }

    /// A key of an algorithm that is known here by which nothing can be checked all the same: an RSA key that is too short or
    /// too long, whose exponent is too large, or that is written as ring does not read it. `None` for any other.
    pub(super) fn read_unfit(data: &[u8]) -> Option<Self> {
        if flags(data)? & REVOKED != 0 { None } else { Self::of_zone(data).filter(|key| !key.is_fit()) }
    }

    fn whole(data: &[u8]) -> Option<Self> {
        Self::of_zone(data).filter(Self::is_fit)
    }

    fn of_zone(data: &[u8]) -> Option<Self> {
        let [_, _, protocol, algorithm, key @ ..] = data else { return None };
        let may_sign = flags(data)? & ZONE_KEY != 0 && *protocol == 3 && is_known(*algorithm);
        may_sign.then(|| Self {
            tag: tag(data),
            algorithm: *algorithm,
            key: PublicKeyBuf::new(key.to_vec(), Algorithm::from_u8(*algorithm)),
            data: data.into(),
        })
    }

    /// Whether signatures can be checked by it as far as its lengths go.
    fn is_fit(&self) -> bool {
        let key = self.data.get(4..).unwrap_or_default();
        key.len() <= MAX_KEY && (!is_rsa(self.algorithm) || is_rsa_fit(key))
    }

    /// Whether a key's data says that others shall trust the zone by it (RFC 4034 section 2.1.1).
    pub(super) fn is_entry_point(data: &[u8]) -> bool {
        flags(data).is_some_and(|flags| flags & ENTRY_POINT != 0)
    }

    /// Whether `signature` over `signed` is of this key.
    pub(super) fn verifies(&self, signed: &[u8], signature: &[u8]) -> bool {
        self.key.verify(signed, signature).is_ok()
    }

    /// Octets it takes.
    pub(super) fn octets(&self) -> usize {
        2 * self.data.len() + size_of::<Self>()
    }
}

fn is_rsa(algorithm: u8) -> bool {
    matches!(algorithm, 8 | 10)
}

fn is_rsa_fit(key: &[u8]) -> bool {
    let Some((exponent, modulus)) = rsa_parts(key) else { return false };
    // Both begin with no zero (RFC 3110 section 2); others may bear one, and ring does not.
    let is_number = |octets: &[u8]| octets.first().is_some_and(|first| *first != 0);
    let bits = |octets: &[u8]| octets.first().map_or(0, |first| 8 * octets.len() as u32 - first.leading_zeros());
    is_number(exponent) && bits(exponent) <= MAX_EXPONENT && is_number(modulus) && modulus.len() >= MIN_MODULUS
}

/// Exponent and modulus of an RSA key (RFC 3110 section 2).
fn rsa_parts(key: &[u8]) -> Option<(&[u8], &[u8])> {
    let (exponent, rest) = match key {
        [0, high, low, rest @ ..] => (usize::from(u16::from_be_bytes([*high, *low])), rest),
        [len, rest @ ..] => (usize::from(*len), rest),
        [] => return None,
    };
    rest.split_at_checked(exponent)
}

fn flags(data: &[u8]) -> Option<u16> {
    data.first_chunk().map(|flags| u16::from_be_bytes(*flags))
}

/// Which keys of a zone data may be of (RFC 4034 appendix B).
fn tag(data: &[u8]) -> u16 {
    let sum = data.iter().zip([8, 0].into_iter().cycle()).fold(0u32, |sum, (o, shift)| sum + (u32::from(*o) << shift));
    ((sum + (sum >> 16)) & 0xffff) as u16
}

/// What vouches for a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Ds {
    pub(super) tag: u16,
    pub(super) algorithm: u8,
    digest: Box<[u8]>,
    kind: u8,
}

impl Ds {
    /// `None` where the data is not of a DS record.
    pub(super) fn read(data: &[u8]) -> Option<Self> {
        let [high, low, algorithm, kind, digest @ ..] = data else { return None };
        let tag = u16::from_be_bytes([*high, *low]);
        (!digest.is_empty()).then(|| Self { tag, algorithm: *algorithm, digest: digest.into(), kind: *kind })
    }

    /// Those of `all` that count: known ones, and by SHA-1 only where there is no other (RFC 4509 section 3).
    ///
    /// # Errors
    /// None is known: it is as if there were none.
    pub(super) fn that_count(all: impl Iterator<Item = Self>) -> Result<Vec<Self>, Unchecked> {
        let mut has_digest = false;
        let all = all.inspect(|ds| has_digest |= digest_type(ds.kind).is_some());
        let mut known: Vec<Self> = all.filter(Self::is_known).take(MAX_DS).collect();
        if known.is_empty() {
            return Err(if has_digest { Unchecked::Algorithms } else { Unchecked::Digests });
        }
        if known.iter().any(|ds| ds.kind != SHA1) {
            known.retain(|ds| ds.kind != SHA1);
        }
        Ok(known)
    }

    /// What vouches for exactly this key of `zone`; `None` where the key cannot sign.
    pub(super) fn of_key(zone: NameRef<'_>, data: &[u8]) -> Option<Self> {
        let key = Key::read(data)?;
        let digest = Digest::from_iter([zone.as_wire(), data], DigestType::SHA256).ok()?;
        Some(Self { tag: key.tag, algorithm: key.algorithm, digest: digest.as_ref().into(), kind: 2 })
    }

    /// Whether what it vouches for can be checked here.
    pub(super) fn is_known(&self) -> bool {
        is_known(self.algorithm) && digest_type(self.kind).is_some()
    }

    /// Whether it vouches for `key` of `zone`.
    pub(super) fn is_of(&self, zone: NameRef<'_>, key: &Key) -> bool {
        if self.tag != key.tag || self.algorithm != key.algorithm {
            return false;
        }
        let Some(kind) = digest_type(self.kind) else { return false };
        // The owner in canonical form, then the data (RFC 4034 section 5.1.4).
        Digest::from_iter([zone.as_wire(), &key.data], kind).is_ok_and(|digest| digest.as_ref() == &*self.digest)
    }

    /// Octets it takes.
    pub(super) fn octets(&self) -> usize {
        self.digest.len() + size_of::<Self>()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 4034 section 5.4: the key of `dskey.example.com.` has tag 60485 (its algorithm is not used here).
    #[test]
    fn the_tag_is_that_of_the_rfc() {
        use base64::Engine;
        let text = "AQOeiiR0GOMYkDshWoSKz9XzfwJr1AYtsmx3TGkJaNXVbfi/2pHm822aJ5iI9BMzNXxeYCmZDRD99WYwYqUSdjMmmAphXdvxegXd/M5+X7OrzKBaMbCVdFLUUh6DhweJBjEVv5f2wwjM9XzcnOf+EPbtG9DMBmADjFDc2w/rljwvFw==";
        let key = base64::engine::general_purpose::STANDARD.decode(text).expect("Base64");
        assert_eq!(tag(&[&[1, 0, 3, 5][..], &key].concat()), 60485);
    }

    #[test]
    fn only_keys_that_may_sign_a_zone_are_read() {
        let key = |flags: u16, protocol: u8, algorithm: u8| {
            let [high, low] = flags.to_be_bytes();
            Key::read(&[&[high, low, protocol, algorithm][..], &[7; 32]].concat()).is_some()
        };
        for (flags, protocol, algorithm, read) in [
            (256, 3, 15, true),
            (257, 3, 13, true),
            (0, 3, 15, false),   // no zone key
            (384, 3, 15, false), // revoked
            (256, 2, 15, false),
            (256, 3, 5, false),
            (256, 3, 7, false),
            (256, 3, 16, false),
            (256, 3, 253, false),
        ] {
            assert_eq!(key(flags, protocol, algorithm), read, "{flags} {protocol} {algorithm}");
        }
        assert!(Key::read(&[1, 0, 3]).is_none());
        let rsa = |exponent: &[u8], zeros, octets| {
            let len = exponent.len() as u8;
            let data = [&[1, 0, 3, 8, len][..], exponent, &vec![0; zeros], &vec![7; octets]].concat();
            let (fit, unfit) = (Key::read(&data).is_some(), Key::read_unfit(&data).is_some());
            assert_ne!(fit, unfit);
            fit
        };
        assert!(rsa(&[3], 0, 128) && rsa(&[3], 0, 512));
        assert!(!rsa(&[3], 0, 127) && !rsa(&[3], 1, 127) && !rsa(&[3], 0, 64) && !rsa(&[3], 0, 1024));
        let long_exponent = |modulus| [&[1, 0, 3, 10, 0, 0, 3, 1, 0, 1][..], &vec![7; modulus]].concat();
        assert!(Key::read(&long_exponent(128)).is_some() && Key::read(&long_exponent(127)).is_none());
        // What ring takes: 33 bits, and no zero in front of anything.
        assert!(rsa(&[1, 0, 0, 0, 1], 0, 256) && rsa(&[1, 0xff, 0xff, 0xff, 0xff], 0, 256));
        assert!(!rsa(&[2, 0, 0, 0, 1], 0, 256) && !rsa(&[1, 0, 0, 0, 0, 1], 0, 256) && !rsa(&[0, 1, 0, 1], 0, 256));
        assert!(!rsa(&[3], 1, 256) && !rsa(&[], 0, 256));
        for cut in [&[1, 0, 3, 8][..], &[1, 0, 3, 8, 9, 1], &[1, 0, 3, 8, 0, 1], &[1, 0, 3, 8, 0, 0, 9]] {
            assert!(Key::read(cut).is_none(), "{cut:?}");
        }
    }
}
