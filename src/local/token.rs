//! The name by which a node proves that it is the one that answers: `<nonce>._staunch.resolver.arpa`, type TXT.
//!
//! Whoever asks a foreign server for it and hears this node's proof knows that the question was led here and went no
//! further. The proof is an HMAC over the nonce under a key that no other node has, so that it can be neither foretold nor
//! played back. Answered before anything is known of who asks: the same for every source, in every state of a session, without
//! an event, a charge or a look at policy; nothing of it is forwarded, and it tells nothing but the node's name, which is no
//! secret. A sandbox that asks for it a million times learns what the first answer said.

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

use staunch_scoring::NameRef;

use crate::identity::{NodeKey, mac};

/// What stands right of the nonce, uncompressed wire form.
const ZONE: &[u8] = b"\x08_staunch\x08resolver\x04arpa\0";
/// What stands right of the nonce, as text.
pub const SUFFIX: &str = "_staunch.resolver.arpa";
/// Shortest and longest nonce, characters `a` to `z` and digits: at least 80 bits of chance where they are drawn from 32.
pub const NONCE: std::ops::RangeInclusive<usize> = 16..=32;
/// Octets of the proof that are shown, in hexadecimal.
const PROOF: usize = 16;

/// Answers for one node.
#[derive(Debug)]
pub struct Token {
    kid: String,
    key: [u8; 32],
}

/// What a token's name asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Asked<'n> {
    /// For the proof of this nonce.
    Proof(&'n [u8]),
    /// For the zone itself or anything else below it: NODATA.
    Nothing,
}

/// What a name asks of the token's zone; `None` for every other name.
pub fn asked(qname: NameRef<'_>) -> Option<Asked<'_>> {
    let wire = qname.as_wire();
    let front = wire.strip_suffix(ZONE)?;
    let Some((length, nonce)) = front.split_first() else { return Some(Asked::Nothing) };
    if usize::from(*length) == nonce.len() {
        let good = NONCE.contains(&nonce.len()) && nonce.iter().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
        return Some(if good { Asked::Proof(nonce) } else { Asked::Nothing });
    }
    // The zone's octets may stand within a longer label: only whole labels make a name.
    let zone = NameRef::from_wire(ZONE).ok()?;
    qname.is_below(zone).then_some(Asked::Nothing)
}

impl Token {
    /// The token of the node with this key.
    pub fn new(node: &NodeKey) -> Self {
        Self { kid: node.kid().to_owned(), key: node.token_key() }
    }

    /// The text that answers for a nonce, at most 160 octets.
    pub fn text(&self, nonce: &[u8]) -> String {
        use hmac::Mac;
        let mut mac = mac(&self.key);
        // Folded, as names are.
        mac.update(&nonce.to_ascii_lowercase());
        let proof: String =
            mac.finalize().into_bytes().iter().take(PROOF).map(|octet| format!("{octet:02x}")).collect();
        format!("staunch=1 node={} proof={proof}", self.kid)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use staunch_scoring::NameBuf;

    fn ask(text: &str) -> Option<String> {
        let name = NameBuf::from_text(text).expect("a name");
        asked(name.as_ref()).map(|asked| match asked {
            Asked::Proof(nonce) => String::from_utf8_lossy(nonce).into_owned(),
            other => format!("{other:?}"),
        })
    }

    #[test]
    fn one_label_of_a_nonce_is_asked_for_and_nothing_else() {
        let nonce = "abcdefghijklmnop2345";
        assert_eq!(ask(&format!("{nonce}.{SUFFIX}")).as_deref(), Some(nonce));
        assert_eq!(ask(SUFFIX).as_deref(), Some("Nothing"));
        for odd in ["short", &"a".repeat(33), "has-a-hyphen-in-it-somewhere", &format!("a.{nonce}")] {
            assert_eq!(ask(&format!("{odd}.{SUFFIX}")).as_deref(), Some("Nothing"), "{odd}");
        }
        for other in
            ["resolver.arpa", "_dns.resolver.arpa", "x_staunch.resolver.arpa", "_staunch.resolver.arpa.example"]
        {
            assert_eq!(ask(other), None, "{other}");
        }
        // The zone's octets at the end of a longer label are another name.
        let longer = NameBuf::from_text(r"abc\008_staunch.resolver.arpa").expect("a name");
        assert_eq!(asked(longer.as_ref()), None);
    }

    #[test]
    fn a_proof_depends_on_node_and_nonce_alone() {
        let one = Token::new(&NodeKey::from_seed([1; 32]));
        let two = Token::new(&NodeKey::from_seed([2; 32]));
        assert_eq!(one.text(b"abcdefghijklmnop"), one.text(b"ABCDEFGHIJKLMNOP"));
        assert_ne!(one.text(b"abcdefghijklmnop"), one.text(b"abcdefghijklmnoq"));
        let proof = |text: String| text.rsplit_once('=').map(|(_, proof)| proof.to_owned());
        assert_ne!(proof(one.text(b"abcdefghijklmnop")), proof(two.text(b"abcdefghijklmnop")));
        assert!(one.text(&[b'a'; 32]).len() <= 160);
    }
}
