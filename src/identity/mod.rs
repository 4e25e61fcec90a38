//! Who this node is: an Ed25519 key (RFC 8032) made at the first start, and what it signs.
//!
//! [`NodeKey`] lies in the state directory and leaves it never; [`jws`] is the form of what it signs. Knows nothing of what
//! is said in a signed text. [`NodeKey::token_key`] is derived from it and proves to [`crate::local::token`] that an answer
//! is this node's.

pub mod jws;

use std::io::{Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use ed25519_dalek::{Signer, SigningKey, VerifyingKey};
use hmac::{Hmac, Mac};
use sha2::{Digest, Sha256};

/// The private key's file in the state directory: PKCS #8 (RFC 8410) in PEM, mode 0600.
pub const KEY_FILE: &str = "node.key";
/// The public key's file beside it: SPKI (RFC 8410) in PEM, for whoever checks receipts.
pub const PUBLIC_FILE: &str = "node.pub";

/// DER of an Ed25519 private key up to its 32 octets (RFC 8410 section 7).
const PKCS8: [u8; 16] = [0x30, 0x2e, 2, 1, 0, 0x30, 5, 6, 3, 0x2b, 0x65, 0x70, 4, 0x22, 4, 0x20];
/// DER of an Ed25519 public key up to its 32 octets (RFC 8410 section 4).
const SPKI: [u8; 12] = [0x30, 0x2a, 0x30, 5, 6, 3, 0x2b, 0x65, 0x70, 3, 0x21, 0];
/// No key file is longer.
const FILE_MAX: u64 = 4096;

/// Why there is no key.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file cannot be read or written.
    #[error("{path}: {source}")]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The file holds something else.
    #[error(
        "{path}: not an Ed25519 {what} key in PEM; restore it, or remove it and a new one is made at the next start"
    )]
    Form {
        /// Which.
        path: PathBuf,
        /// `private` or `public`.
        what: &'static str,
    },
    /// Everybody may read the private key.
    #[error("{path}: others than its owner may read it (mode {mode:o}); `chmod 600` it, and think of it as known")]
    Open {
        /// Which.
        path: PathBuf,
        /// Its permissions.
        mode: u32,
    },
    /// The system gives no random numbers.
    #[error("no randomness: {0}")]
    Random(getrandom::Error),
}

/// The node's own key.
pub struct NodeKey {
    signing: SigningKey,
    kid: String,
}

impl std::fmt::Debug for NodeKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("NodeKey").field("kid", &self.kid).finish_non_exhaustive()
    }
}

impl NodeKey {
    /// The key of this state directory, made where there is none.
    ///
    /// # Errors
    ///
    /// [`Error`]; a file that is no key is never overwritten.
    pub fn open(state: &Path) -> Result<Self, Error> {
        let path = state.join(KEY_FILE);
        let key = match read_private(&path) {
            Ok(key) => key,
            Err(Error::File { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => {
                let mut seed = [0; 32];
                getrandom::fill(&mut seed).map_err(Error::Random)?;
                let key = Self::from_seed(seed);
                write(&path, 0o600, &key.private_pem())?;
                key
            }
            Err(error) => return Err(error),
        };
        let public = state.join(PUBLIC_FILE);
        let text = key.public_pem();
        if std::fs::read_to_string(&public).ok().as_deref() != Some(&*text) {
            write(&public, 0o644, &text)?;
        }
        Ok(key)
    }

    /// The key of this seed.
    pub fn from_seed(seed: [u8; 32]) -> Self {
        let signing = SigningKey::from_bytes(&seed);
        let kid = kid(&signing.verifying_key());
        Self { signing, kid }
    }

    /// Names the key: its JWK thumbprint (RFC 7638, RFC 8037 section 2), 43 characters.
    pub fn kid(&self) -> &str {
        &self.kid
    }

    /// The public key as 43 characters of base64url, the `x` of its JWK.
    pub fn public(&self) -> String {
        URL_SAFE_NO_PAD.encode(self.signing.verifying_key().as_bytes())
    }

    /// The public key in PEM.
    pub fn public_pem(&self) -> String {
        pem("PUBLIC KEY", &[&SPKI[..], self.signing.verifying_key().as_bytes()].concat())
    }

    fn private_pem(&self) -> String {
        pem("PRIVATE KEY", &[&PKCS8[..], self.signing.as_bytes()].concat())
    }

    /// A key for short proofs that need no signature, of no use for anything else.
    pub fn token_key(&self) -> [u8; 32] {
        let mut mac = mac(self.signing.as_bytes());
        mac.update(b"staunch token 1");
        mac.finalize().into_bytes().into()
    }

    fn sign(&self, octets: &[u8]) -> [u8; 64] {
        self.signing.sign(octets).to_bytes()
    }
}

/// HMAC-SHA-256 under a key of 32 octets.
pub(crate) fn mac(key: &[u8; 32]) -> Hmac<Sha256> {
    // A block of SHA-256 has 64 octets; a shorter key is padded with zeros (RFC 2104 section 2), so that this never fails.
    let mut block = [0; 64];
    block[..32].copy_from_slice(key);
    Mac::new(&block.into())
}

/// A public key that receipts are checked with.
#[derive(Debug, Clone)]
pub struct PublicKey {
    key: VerifyingKey,
    kid: String,
}

impl PublicKey {
    /// From PEM, or from the 43 characters that `staunch status` shows.
    pub fn read(text: &str) -> Option<Self> {
        let octets = match unpem("PUBLIC KEY", text) {
            Some(der) => der.strip_prefix(&SPKI)?.to_vec(),
            None => URL_SAFE_NO_PAD.decode(text.trim()).ok()?,
        };
        let key = VerifyingKey::from_bytes(&octets.try_into().ok()?).ok()?;
        Some(Self { kid: kid(&key), key })
    }

    /// Names the key, as [`NodeKey::kid`] does.
    pub fn kid(&self) -> &str {
        &self.kid
    }

    fn verify(&self, octets: &[u8], signature: &[u8; 64]) -> bool {
        self.key.verify_strict(octets, &ed25519_dalek::Signature::from_bytes(signature)).is_ok()
    }
}

fn kid(key: &VerifyingKey) -> String {
    let x = URL_SAFE_NO_PAD.encode(key.as_bytes());
    URL_SAFE_NO_PAD.encode(Sha256::digest(format!(r#"{{"crv":"Ed25519","kty":"OKP","x":"{x}"}}"#)))
}

fn read_private(path: &Path) -> Result<NodeKey, Error> {
    use std::os::unix::fs::MetadataExt;
    let failed = |source| Error::File { path: path.to_owned(), source };
    let file = std::fs::File::open(path).map_err(failed)?;
    let mode = file.metadata().map_err(failed)?.mode() & 0o777;
    if mode & 0o077 != 0 {
        return Err(Error::Open { path: path.to_owned(), mode });
    }
    let mut text = String::new();
    file.take(FILE_MAX).read_to_string(&mut text).map_err(failed)?;
    let seed = unpem("PRIVATE KEY", &text).and_then(|der| der.strip_prefix(&PKCS8)?.try_into().ok());
    seed.map(NodeKey::from_seed).ok_or(Error::Form { path: path.to_owned(), what: "private" })
}

/// Whole or not at all: a crash in the middle of it leaves no half of a key. What such a crash left beside it is removed and
/// not written into, since its permissions, and whoever has it open, may be another's.
fn write(path: &Path, mode: u32, text: &str) -> Result<(), Error> {
    let beside = beside(path);
    let failed = |source| Error::File { path: beside.clone(), source };
    match std::fs::remove_file(&beside) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(failed(error)),
        _ => {}
    }
    let mut options = std::fs::OpenOptions::new();
    let mut file = options.write(true).create_new(true).mode(mode).open(&beside).map_err(failed)?;
    file.write_all(text.as_bytes()).and_then(|()| file.sync_all()).map_err(failed)?;
    std::fs::rename(&beside, path).map_err(failed)?;
    let directory = path.parent().and_then(|parent| std::fs::File::open(parent).ok());
    directory.map_or(Ok(()), |directory| directory.sync_all().map_err(failed))
}

/// The file's name with `.new` behind it: each file has its own.
fn beside(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".new");
    name.into()
}

fn pem(label: &str, der: &[u8]) -> String {
    format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", STANDARD.encode(der))
}

fn unpem(label: &str, text: &str) -> Option<Vec<u8>> {
    let body = text.trim().strip_prefix(&format!("-----BEGIN {label}-----"))?;
    let body: String = body.strip_suffix(&format!("-----END {label}-----"))?.split_whitespace().collect();
    STANDARD.decode(body).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn a_key_is_made_once_and_readable_by_its_owner_alone() {
        let dir = tempfile::tempdir().expect("a directory");
        let first = NodeKey::open(dir.path()).expect("made");
        let again = NodeKey::open(dir.path()).expect("read");
        assert_eq!((first.kid(), first.public()), (again.kid(), again.public()));
        let path = dir.path().join(KEY_FILE);
        let mode = std::fs::metadata(&path).expect("there").permissions().mode() & 0o777;
        assert_eq!(mode, 0o600);
        let public = std::fs::read_to_string(dir.path().join(PUBLIC_FILE)).expect("there");
        assert_eq!(PublicKey::read(&public).expect("PEM").kid(), first.kid());
        assert_eq!(PublicKey::read(&first.public()).expect("base64url").kid(), first.kid());
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o640)).expect("set");
        assert!(matches!(NodeKey::open(dir.path()), Err(Error::Open { mode: 0o640, .. })));
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).expect("set");
        std::fs::write(&path, "something else").expect("written");
        assert!(matches!(NodeKey::open(dir.path()), Err(Error::Form { .. })));
        assert_eq!(std::fs::read_to_string(&path).expect("there"), "something else", "nothing is overwritten");
    }

    #[test]
    fn what_a_crash_left_beside_a_key_does_not_open_it() {
        let dir = tempfile::tempdir().expect("a directory");
        let mode = |file: &str| std::fs::metadata(dir.path().join(file)).expect("there").permissions().mode() & 0o777;
        for left in ["node.new", "node.key.new", "node.pub.new"] {
            let left = dir.path().join(left);
            std::fs::write(&left, "half of a key").expect("written");
            std::fs::set_permissions(&left, std::fs::Permissions::from_mode(0o666)).expect("set");
        }
        let before = std::fs::File::open(dir.path().join("node.key.new")).expect("open");
        NodeKey::open(dir.path()).expect("made");
        assert_eq!((mode(KEY_FILE), mode(PUBLIC_FILE)), (0o600, 0o644));
        let mut seen = String::new();
        (&before).read_to_string(&mut seen).expect("read");
        assert_eq!(seen, "half of a key", "whoever had the old file open sees nothing of the key");
        assert!(!dir.path().join("node.key.new").exists() && !dir.path().join("node.pub.new").exists());
    }

    #[test]
    fn the_thumbprint_is_that_of_the_standard() {
        // RFC 8037 appendices A.1 to A.3.
        let d = "nWGxne_9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A";
        let seed = URL_SAFE_NO_PAD.decode(d).expect("base64url").try_into().expect("32 octets");
        let key = NodeKey::from_seed(seed);
        assert_eq!(key.public(), "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo");
        assert_eq!(key.kid(), "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k");
    }

    #[test]
    fn what_is_no_key_is_none() {
        for text in
            ["", "abc", "-----BEGIN PUBLIC KEY-----", "-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----"]
        {
            assert!(PublicKey::read(text).is_none(), "{text}");
        }
    }
}
