//! Signed texts: JWS in compact form (RFC 7515) with EdDSA (RFC 8037).
//!
//! One algorithm, one key, one type for each use: a header that says anything else is no such text.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};

use super::{NodeKey, PublicKey};

/// Longest signed text in octets, encoded.
pub const MAX: usize = 512 * 1024;
/// Longest payload in octets of which a text of [`MAX`] is sure to have room.
pub const PAYLOAD: usize = MAX / 4 * 3 - 1024;

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Header {
    alg: String,
    typ: String,
    kid: String,
}

/// Why a text is not what it says.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// Not three parts of base64url, or too long.
    #[error("not a signed text: three parts of base64url with dots between, at most {MAX} octets")]
    Form,
    /// Another algorithm, type or field.
    #[error("its header is not one of ours: EdDSA, type {0}, and the key's name")]
    Header(&'static str),
    /// Signed by somebody else.
    #[error("it names another key ({0})")]
    Key(String),
    /// Changed, or signed by somebody else.
    #[error("the signature does not fit: it was changed, or another key has signed it")]
    Signature,
}

/// Signs `payload` as a text of type `typ`.
pub fn sign(key: &NodeKey, typ: &str, payload: &[u8]) -> String {
    let header = Header { alg: "EdDSA".into(), typ: typ.into(), kid: key.kid().into() };
    // A struct of three texts always serialises.
    let header = serde_json::to_vec(&header).unwrap_or_default();
    let mut text = format!("{}.{}", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(payload));
    let signature = key.sign(text.as_bytes());
    text.push('.');
    text += &URL_SAFE_NO_PAD.encode(signature);
    text
}

/// The payload of a text of type `typ` that this key has signed.
///
/// # Errors
///
/// [`Error`].
pub fn verify(text: &str, typ: &'static str, key: &PublicKey) -> Result<Vec<u8>, Error> {
    let text = text.trim();
    if text.len() > MAX {
        return Err(Error::Form);
    }
    let (signed, signature) = text.rsplit_once('.').ok_or(Error::Form)?;
    let (header, payload) = signed.split_once('.').ok_or(Error::Form)?;
    let decode = |part: &str| URL_SAFE_NO_PAD.decode(part).map_err(|_| Error::Form);
    let (header, payload) = (decode(header)?, decode(payload)?);
    let signature: [u8; 64] = decode(signature)?.try_into().map_err(|_| Error::Form)?;
    let header: Header = serde_json::from_slice(&header).map_err(|_| Error::Header(typ))?;
    if header.alg != "EdDSA" || header.typ != typ {
        return Err(Error::Header(typ));
    }
    if header.kid != key.kid() {
        return Err(Error::Key(header.kid.chars().filter(char::is_ascii_graphic).take(64).collect()));
    }
    if key.verify(signed.as_bytes(), &signature) { Ok(payload) } else { Err(Error::Signature) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TYP: &str = "staunch-test+jwt";

    fn key(seed: u8) -> (NodeKey, PublicKey) {
        let key = NodeKey::from_seed([seed; 32]);
        let public = PublicKey::read(&key.public()).expect("a key");
        (key, public)
    }

    #[test]
    fn what_was_signed_is_read_and_nothing_else() {
        let (mine, public) = key(1);
        let text = sign(&mine, TYP, b"{\"a\":1}");
        assert_eq!(verify(&text, TYP, &public).as_deref(), Ok(&b"{\"a\":1}"[..]));
        assert_eq!(verify(&format!("{text}\n"), TYP, &public).as_deref(), Ok(&b"{\"a\":1}"[..]));
        assert!(matches!(verify(&text, "another", &public), Err(Error::Header(_))));
        assert!(matches!(verify(&text, TYP, &key(2).1), Err(Error::Key(_))));
        // Every character counts.
        for at in 0..text.len() {
            let mut changed = text.clone().into_bytes();
            changed[at] = if changed[at] == b'A' { b'B' } else { b'A' };
            let changed = String::from_utf8(changed).expect("ASCII");
            assert!(verify(&changed, TYP, &public).is_err(), "{at}: {changed}");
        }
        for cut in 0..text.len() {
            assert!(verify(&text[..cut], TYP, &public).is_err(), "{cut}");
        }
    }

    #[test]
    fn the_longest_payload_is_read_back() {
        let (mine, public) = key(1);
        let payload = vec![b'x'; PAYLOAD];
        assert_eq!(verify(&sign(&mine, TYP, &payload), TYP, &public), Ok(payload));
    }

    #[test]
    fn a_text_without_a_signature_is_none() {
        let (_, public) = key(1);
        let none = URL_SAFE_NO_PAD.encode(format!(r#"{{"alg":"none","typ":"{TYP}","kid":"{}"}}"#, public.kid()));
        assert_eq!(verify(&format!("{none}.e30."), TYP, &public), Err(Error::Form));
        let zeros = URL_SAFE_NO_PAD.encode([0; 64]);
        assert_eq!(verify(&format!("{none}.e30.{zeros}"), TYP, &public), Err(Error::Header(TYP)));
        assert_eq!(verify(&"a".repeat(MAX + 1), TYP, &public), Err(Error::Form));
    }
}
