//! Transaction signatures (RFC 8945): one shared key between us and the primaries of a zone.
//!
//! Pure: time is handed in, in seconds since the Unix epoch. Total on any octets.

use hmac::{Hmac, Mac};
use sha2::{Sha256, Sha512};
use staunch_scoring::NameBuf;

use super::message::{self, CLASS_ANY, HEADER, TYPE_TSIG};

/// How far clocks may be apart, seconds (RFC 8945 section 10).
const FUDGE: u16 = 300;
/// Most messages of a transfer in a row that carry no signature of their own (RFC 8945 section 5.3.1).
const MAX_UNSIGNED: usize = 99;

/// The hash behind a signature.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Algorithm {
    /// `hmac-sha256`, which every implementation has.
    HmacSha256,
    /// `hmac-sha512`.
    HmacSha512,
}

impl Algorithm {
    /// By its name, in any case, with or without the last dot.
    pub fn from_text(text: &str) -> Option<Self> {
        match text.strip_suffix('.').unwrap_or(text).to_ascii_lowercase().as_str() {
            "hmac-sha256" => Some(Self::HmacSha256),
            "hmac-sha512" => Some(Self::HmacSha512),
            _ => None,
        }
    }

    fn wire(self) -> &'static [u8] {
        match self {
            Self::HmacSha256 => b"\x0bhmac-sha256\0",
            Self::HmacSha512 => b"\x0bhmac-sha512\0",
        }
    }
}

/// A key and its name.
#[derive(Clone, PartialEq, Eq)]
pub struct TsigKey {
    name: NameBuf,
    algorithm: Algorithm,
    secret: Box<[u8]>,
}

impl std::fmt::Debug for TsigKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TsigKey").field("name", &self.name).field("algorithm", &self.algorithm).finish()
    }
}

/// Why a message is not taken for what the key's other holder has sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TsigError {
    /// There is no signature where there has to be one.
    #[error("it is not signed")]
    Missing,
    /// The signature is by another key or algorithm.
    #[error("it is signed by another key or algorithm")]
    OtherKey,
    /// The signature does not fit.
    #[error("its signature does not fit (BADSIG)")]
    BadSignature,
    /// It was signed too long ago, or will be.
    #[error("its clock and ours are too far apart (BADTIME)")]
    BadTime,
    /// The other side says what is wrong with ours.
    #[error("the primary refuses our signature: {}", refusal(*.0))]
    Refused(u16),
    /// The record is damaged.
    #[error("its signature is malformed")]
    Malformed,
}

/// An error of TSIG in words (RFC 8945 section 3).
fn refusal(error: u16) -> String {
    match error {
        16 => "it does not fit (BADSIG); is the secret the same there?".into(),
        17 => "it does not know the key (BADKEY); are name and algorithm the same there?".into(),
        18 => "its clock and ours are too far apart (BADTIME)".into(),
        22 => "it is shorter than it wants (BADTRUNC)".into(),
        error => format!("error {error}"),
    }
}

enum Running {
    Sha256(Hmac<Sha256>),
    Sha512(Hmac<Sha512>),
}

impl Running {
    fn feed(&mut self, octets: &[u8]) {
        match self {
            Self::Sha256(mac) => mac.update(octets),
            Self::Sha512(mac) => mac.update(octets),
        }
    }

    /// A length in front of the octets, as a MAC before goes into the next.
    fn feed_mac(&mut self, mac: &[u8]) {
        self.feed(&(mac.len() as u16).to_be_bytes());
        self.feed(mac);
    }

    fn finish(self) -> Vec<u8> {
        match self {
            Self::Sha256(mac) => mac.finalize().into_bytes().to_vec(),
            Self::Sha512(mac) => mac.finalize().into_bytes().to_vec(),
        }
    }

    /// In constant time; a shortened MAC never fits.
    fn fits(self, mac: &[u8]) -> bool {
        match self {
            Self::Sha256(running) => running.verify_slice(mac).is_ok(),
            Self::Sha512(running) => running.verify_slice(mac).is_ok(),
        }
    }
}

/// A signature as read.
struct Signature<'m> {
    time: u64,
    fudge: u16,
    mac: &'m [u8],
    original_id: u16,
    error: u16,
    other: &'m [u8],
}

impl TsigKey {
    /// A key by its name, as both sides write it.
    pub fn new(name: NameBuf, algorithm: Algorithm, secret: Vec<u8>) -> Self {
        Self { name, algorithm, secret: secret.into() }
    }

    #[allow(clippy::expect_used, reason = "HMAC takes keys of any length")]
    fn running(&self) -> Running {
        // HMAC takes keys of any length (RFC 2104 section 3).
        match self.algorithm {
            Algorithm::HmacSha256 => {
                Running::Sha256(Hmac::new_from_slice(&self.secret).expect("HMAC takes keys of any length"))
            }
            Algorithm::HmacSha512 => {
                Running::Sha512(Hmac::new_from_slice(&self.secret).expect("HMAC takes keys of any length"))
            }
        }
    }

    /// Everything of a signature but its MAC and original id goes into the MAC (RFC 8945 section 4.3.3).
    fn feed_variables(&self, mac: &mut Running, time: u64, fudge: u16, error: u16, other: &[u8]) {
        mac.feed(self.name.as_ref().as_wire());
        mac.feed(&CLASS_ANY.to_be_bytes());
        mac.feed(&[0; 4]);
        mac.feed(self.algorithm.wire());
        mac.feed(&time48(time));
        mac.feed(&fudge.to_be_bytes());
        mac.feed(&error.to_be_bytes());
        mac.feed(&(other.len() as u16).to_be_bytes());
        mac.feed(other);
    }

    /// Signs a message in place. `answers`: the MAC of the message that it answers. Gives the MAC.
    pub fn sign(&self, message: &mut Vec<u8>, answers: Option<&[u8]>, time: u64) -> Vec<u8> {
        let mut mac = self.running();
        if let Some(before) = answers {
            mac.feed_mac(before);
        }
        mac.feed(message);
        self.feed_variables(&mut mac, time, FUDGE, 0, &[]);
        let mac = mac.finish();
        let id = message.first_chunk::<2>().copied().unwrap_or_default();
        message.extend_from_slice(self.name.as_ref().as_wire());
        message.extend_from_slice(&TYPE_TSIG.to_be_bytes());
        message.extend_from_slice(&CLASS_ANY.to_be_bytes());
        message.extend_from_slice(&[0; 4]);
        let length = self.algorithm.wire().len() + 6 + 2 + 2 + mac.len() + 2 + 2 + 2;
        message.extend_from_slice(&(length as u16).to_be_bytes());
        message.extend_from_slice(self.algorithm.wire());
        message.extend_from_slice(&time48(time));
        message.extend_from_slice(&FUDGE.to_be_bytes());
        message.extend_from_slice(&(mac.len() as u16).to_be_bytes());
        message.extend_from_slice(&mac);
        message.extend_from_slice(&id);
        message.extend_from_slice(&[0; 4]);
        if let Some(count) = message.get_mut(10..).and_then(<[u8]>::first_chunk_mut) {
            *count = u16::from_be_bytes(*count).wrapping_add(1).to_be_bytes();
        }
        mac
    }

    /// Checks a message that stands by itself (a NOTIFY) and gives its MAC.
    ///
    /// # Errors
    /// [`TsigError`].
    pub fn check(&self, message: &[u8], time: u64) -> Result<Vec<u8>, TsigError> {
        let (bare, signature) = self.split(message)?.ok_or(TsigError::Missing)?;
        let mut mac = self.running();
        mac.feed(&bare);
        self.feed_variables(&mut mac, signature.time, signature.fudge, signature.error, signature.other);
        finish(mac, &signature, time)
    }

    /// The message as it was before it was signed, and the signature; `None` where it has none.
    fn split<'m>(&self, message: &'m [u8]) -> Result<Option<(Vec<u8>, Signature<'m>)>, TsigError> {
        let found = message::tsig_of(message).ok_or(TsigError::Malformed)?;
        let Some(tsig) = found else { return Ok(None) };
        if tsig.owner.as_ref() != self.name.as_ref() {
            return Err(TsigError::OtherKey);
        }
        let (algorithm, read) = staunch_scoring::QName::read(tsig.data).map_err(|_| TsigError::Malformed)?;
        if algorithm.as_ref().as_wire() != self.algorithm.wire() {
            return Err(TsigError::OtherKey);
        }
        let signature = Signature::read(tsig.data.get(read..).unwrap_or_default()).ok_or(TsigError::Malformed)?;
        let mut bare = message.get(..tsig.at).unwrap_or_default().to_vec();
        if let Some(header) = bare.first_chunk_mut::<HEADER>() {
            header[..2].copy_from_slice(&signature.original_id.to_be_bytes());
            let fewer = u16::from_be_bytes([header[10], header[11]]).wrapping_sub(1);
            header[10..12].copy_from_slice(&fewer.to_be_bytes());
        }
        Ok(Some((bare, signature)))
    }
}

impl<'m> Signature<'m> {
    fn read(octets: &'m [u8]) -> Option<Self> {
        let (fixed, rest) = octets.split_first_chunk::<10>()?;
        let [t0, t1, t2, t3, t4, t5, f0, f1, m0, m1] = *fixed;
        let time = u64::from_be_bytes([0, 0, t0, t1, t2, t3, t4, t5]);
        let (mac, rest) = rest.split_at_checked(u16::from_be_bytes([m0, m1]).into())?;
        let (tail, other) = rest.split_first_chunk::<6>()?;
        let [o0, o1, e0, e1, l0, l1] = *tail;
        (other.len() == usize::from(u16::from_be_bytes([l0, l1]))).then_some(Self {
            time,
            fudge: u16::from_be_bytes([f0, f1]),
            mac,
            original_id: u16::from_be_bytes([o0, o1]),
            error: u16::from_be_bytes([e0, e1]),
            other,
        })
    }
}

fn finish(mac: Running, signature: &Signature<'_>, time: u64) -> Result<Vec<u8>, TsigError> {
    if !mac.fits(signature.mac) {
        // Who refuses our signature may have no key to sign with (RFC 8945 section 5.3.2).
        return Err(match signature.error {
            0 => TsigError::BadSignature,
            error => TsigError::Refused(error),
        });
    }
    if signature.error != 0 {
        return Err(TsigError::Refused(signature.error));
    }
    if signature.time.abs_diff(time) > u64::from(signature.fudge.min(FUDGE)) {
        return Err(TsigError::BadTime);
    }
    Ok(signature.mac.to_vec())
}

fn time48(time: u64) -> [u8; 6] {
    let [_, _, rest @ ..] = time.to_be_bytes();
    rest
}

/// Checks the messages that answer one request, in their order (RFC 8945 section 5.3.1): each signature covers the one before
/// and all messages since, so none can be left out, repeated, or put elsewhere.
pub struct Verifier<'k> {
    key: &'k TsigKey,
    before: Vec<u8>,
    first: bool,
    /// Messages since the last signature.
    unsigned: Vec<Vec<u8>>,
}

impl<'k> Verifier<'k> {
    /// For the answers to a request whose MAC this is.
    pub fn new(key: &'k TsigKey, request: Vec<u8>) -> Self {
        Self { key, before: request, first: true, unsigned: Vec::new() }
    }

    /// Takes the next message. `Ok(false)`: it carries no signature of its own, and counts only when a later one has come.
    ///
    /// # Errors
    /// [`TsigError`]; nothing of the exchange may be used then.
    pub fn take(&mut self, message: &[u8], time: u64) -> Result<bool, TsigError> {
        let Some((bare, signature)) = self.key.split(message)? else {
            if self.first || self.unsigned.len() >= MAX_UNSIGNED {
                return Err(TsigError::Missing);
            }
            self.unsigned.push(message.to_vec());
            return Ok(false);
        };
        let mut mac = self.key.running();
        mac.feed_mac(&self.before);
        for message in self.unsigned.drain(..) {
            mac.feed(&message);
        }
        mac.feed(&bare);
        if self.first {
            self.key.feed_variables(&mut mac, signature.time, signature.fudge, signature.error, signature.other);
        } else {
            mac.feed(&time48(signature.time));
            mac.feed(&signature.fudge.to_be_bytes());
        }
        self.before = finish(mac, &signature, time)?;
        self.first = false;
        Ok(true)
    }

    /// Whether all that was taken is covered by a signature.
    pub fn is_settled(&self) -> bool {
        !self.first && self.unsigned.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key() -> TsigKey {
        TsigKey::new(
            NameBuf::from_text("key.example").expect("name"),
            Algorithm::HmacSha256,
            b"0123456789abcdef".to_vec(),
        )
    }

    fn message(id: u8) -> Vec<u8> {
        vec![0, id, 0x84, 0, 0, 0, 0, 0, 0, 0, 0, 0]
    }

    /// Signs as a server signs what follows its first answer.
    fn sign_next(key: &TsigKey, message: &mut Vec<u8>, before: &[u8], unsigned: &[Vec<u8>], time: u64) -> Vec<u8> {
        let mut mac = key.running();
        mac.feed_mac(before);
        unsigned.iter().for_each(|message| mac.feed(message));
        mac.feed(message);
        mac.feed(&time48(time));
        mac.feed(&FUDGE.to_be_bytes());
        let mac = mac.finish();
        let mut whole = message.clone();
        key.sign(&mut whole, None, time);
        let at = whole.len() - 6 - mac.len();
        whole[at..at + mac.len()].copy_from_slice(&mac);
        *message = whole;
        mac
    }

    #[test]
    fn a_signature_fits_its_message_key_and_time_alone() {
        let mut signed = message(7);
        let mac = key().sign(&mut signed, None, 1_000_000);
        assert_eq!(key().check(&signed, 1_000_300), Ok(mac));
        assert_eq!(key().check(&signed, 1_000_301), Err(TsigError::BadTime));
        assert_eq!(key().check(&signed, 999_699), Err(TsigError::BadTime));
        assert_eq!(key().check(&message(7), 1_000_000), Err(TsigError::Missing));
        let other = TsigKey { secret: b"another secret..".to_vec().into(), ..key() };
        assert_eq!(other.check(&signed, 1_000_000), Err(TsigError::BadSignature));
        let named = TsigKey { name: NameBuf::from_text("other.example").expect("name"), ..key() };
        assert_eq!(named.check(&signed, 1_000_000), Err(TsigError::OtherKey));
        let longer = TsigKey { algorithm: Algorithm::HmacSha512, ..key() };
        assert_eq!(longer.check(&signed, 1_000_000), Err(TsigError::OtherKey));
        // Of every single octet that is changed, none goes unnoticed.
        for at in 0..signed.len() {
            let mut changed = signed.clone();
            changed[at] ^= 0x40;
            assert!(key().check(&changed, 1_000_000).is_err() || at < 2, "octet {at}");
        }
        for len in 0..signed.len() {
            assert!(key().check(&signed[..len], 1_000_000).is_err(), "{len} octets");
        }
    }

    #[test]
    fn messages_of_a_transfer_hang_together() {
        let (key, time) = (key(), 1_000_000);
        let request = key.sign(&mut message(1), None, time);
        let mut first = message(1);
        let mac = key.sign(&mut first, Some(&request), time);
        let (second, mut third) = (message(1), message(1));
        let mac3 = sign_next(&key, &mut third, &mac, std::slice::from_ref(&second), time);
        let mut fourth = message(1);
        sign_next(&key, &mut fourth, &mac3, &[], time);

        let mut all = Verifier::new(&key, request.clone());
        assert!(!all.is_settled());
        assert_eq!(all.take(&first, time), Ok(true));
        assert_eq!(all.take(&second, time), Ok(false));
        assert!(!all.is_settled(), "the second is not covered yet");
        assert_eq!(all.take(&third, time), Ok(true));
        assert_eq!(all.take(&fourth, time), Ok(true));
        assert!(all.is_settled());

        let mut left_out = Verifier::new(&key, request.clone());
        assert_eq!(left_out.take(&first, time), Ok(true));
        assert_eq!(left_out.take(&third, time), Err(TsigError::BadSignature));
        let mut repeated = Verifier::new(&key, request.clone());
        assert_eq!(repeated.take(&first, time), Ok(true));
        assert_eq!(repeated.take(&first, time), Err(TsigError::BadSignature));
        let mut unsigned = Verifier::new(&key, request.clone());
        assert_eq!(unsigned.take(&second, time), Err(TsigError::Missing), "the first must be signed");
        let mut other = Verifier::new(&key, vec![0; 32]);
        assert_eq!(other.take(&first, time), Err(TsigError::BadSignature), "an answer to another request");
        let mut many = Verifier::new(&key, request);
        assert_eq!(many.take(&first, time), Ok(true));
        for _ in 0..MAX_UNSIGNED {
            assert_eq!(many.take(&second, time), Ok(false));
        }
        assert_eq!(many.take(&second, time), Err(TsigError::Missing));
    }

    #[test]
    fn the_primary_can_refuse_ours() {
        let mut refused = message(1);
        key().sign(&mut refused, None, 5);
        let at = refused.len() - 4;
        refused[at..at + 2].copy_from_slice(&16u16.to_be_bytes());
        assert_eq!(Verifier::new(&key(), vec![1; 32]).take(&refused, 5), Err(TsigError::Refused(16)));
    }
}
