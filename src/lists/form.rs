//! How a person writes which names are meant: `=x`, `x`, `*.x`.

use std::fmt;

use serde::{Deserialize, Serialize};
use staunch_scoring::name::NameError;
use staunch_scoring::{NameBuf, NameRef};

/// How far a form reaches.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Reach {
    /// `=x`: this name alone.
    Exact,
    /// `x`: this name and all below it.
    AtOrBelow,
    /// `*.x`: all names below this one, at any depth, but not the name itself.
    Below,
}

/// A name and how far it reaches. Always hosts: letters, digits, hyphen and underscore.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RuleForm {
    /// The canonical name.
    pub name: NameBuf,
    /// How far.
    pub reach: Reach,
}

/// Why a text is not a form; [`fmt::Display`] says what is wrong, [`FormError::remedy`] what to write instead.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FormError {
    /// Nothing but blanks.
    #[error("the name is empty")]
    Empty,
    /// A URL, a path, or a port.
    #[error("`{0}` is not a bare host name")]
    NotBare(String),
    /// `*` anywhere but as the leftmost label.
    #[error("`{0}`: `*` may only stand alone as the leftmost label")]
    Star(String),
    /// Octets outside ASCII.
    #[error("`{0}` has letters outside ASCII")]
    NotAscii(String),
    /// An octet that no host name has.
    #[error("`{text}` has `{octet}`, which host names do not have")]
    Octet {
        /// The text, escaped.
        text: String,
        /// The octet, escaped.
        octet: String,
    },
    /// An IP address.
    #[error("`{0}` is an address, not a name")]
    Address(String),
    /// Not a domain name (RFC 1035 section 2.3.4).
    #[error("`{text}` is not a domain name: {source}")]
    Name {
        /// The text, escaped.
        text: String,
        /// What the parser of names says.
        source: NameError,
    },
    /// `.`, or `*.`: everything.
    #[error("the root covers every name there is")]
    Root,
    /// `x` or `*.x` where everybody can register below `x`.
    #[error("`{name}` is a public suffix ({kind}): anybody can have a name below it")]
    PublicSuffix {
        /// The suffix.
        name: String,
        /// `ICANN` or `private`.
        kind: SuffixKind,
    },
}

impl FormError {
    /// What to do about it.
    pub fn remedy(&self) -> String {
        match self {
            Self::Empty => "write a name, for example `=index.example.org`".into(),
            Self::NotBare(text) => {
                let host = text.rsplit_once("://").map_or(text.as_str(), |(_, rest)| rest);
                let host = host.split(['/', ':', '?', '#']).next().unwrap_or_default();
                if host.is_empty() {
                    "write the host name alone, without scheme, path or port".into()
                } else {
                    format!("write the host name alone: `{host}`")
                }
            }
            Self::Star(_) => "write `*.x` for all names below x, `x` for x and below, `=x` for x alone".into(),
            Self::NotAscii(_) => "write the A-label, the form that starts with `xn--`".into(),
            Self::Octet { .. } => "use letters, digits, hyphen, underscore and dots".into(),
            Self::Address(_) => {
                "write names here; `[[range]]` opens addresses that nobody resolves, `[[answer.allow_range]]` lets a \
                                 name lead to private ones"
                    .into()
            }
            Self::Name { .. } => "write labels of 1 to 63 characters joined by single dots".into(),
            Self::Root => "name the domains; a profile's `unlisted` says what becomes of all others".into(),
            Self::PublicSuffix { name, .. } => {
                format!("name one owner's domain below it, such as `owner.{name}`, or the suffix alone as `={name}`")
            }
        }
    }
}

/// Which section of the public suffix list a suffix stands in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum SuffixKind {
    /// Registries.
    Icann,
    /// Platforms whose customers get names below.
    Private,
}

impl fmt::Display for SuffixKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Icann => "ICANN",
            Self::Private => "private",
        })
    }
}

impl RuleForm {
    /// Reads a form and refuses one that reaches below a public suffix, ICANN or private: for rules that allow.
    ///
    /// # Errors
    /// Every [`FormError`].
    pub fn parse(text: &str) -> Result<Self, FormError> {
        let form = Self::parse_any(text)?;
        form.refuse_suffix(|_| true)?;
        Ok(form)
    }

    /// As [`RuleForm::parse`] for rules that deny: those may close a private suffix (a tunnel service hands out names
    /// below one), not a registry's.
    ///
    /// # Errors
    /// Every [`FormError`].
    pub fn parse_deny(text: &str) -> Result<Self, FormError> {
        let form = Self::parse_any(text)?;
        form.refuse_suffix(|kind| kind == SuffixKind::Icann)?;
        Ok(form)
    }

    /// Whether `name` is meant.
    pub fn covers(&self, name: NameRef<'_>) -> bool {
        match self.reach {
            Reach::Exact => name == self.name.as_ref(),
            Reach::AtOrBelow => name.is_at_or_below(self.name.as_ref()),
            Reach::Below => name.is_below(self.name.as_ref()),
        }
    }

    fn parse_any(text: &str) -> Result<Self, FormError> {
        let text = text.trim();
        let (reach, bare) = if let Some(rest) = text.strip_prefix('=') {
            (Reach::Exact, rest)
        } else if let Some(rest) = text.strip_prefix("*.") {
            (Reach::Below, rest)
        } else {
            (Reach::AtOrBelow, text)
        };
        let name = host_name(bare).map_err(|error| if text.is_empty() { FormError::Empty } else { error })?;
        if name.as_ref().is_root() && reach != Reach::Exact {
            return Err(FormError::Root);
        }
        Ok(Self { name, reach })
    }

    fn refuse_suffix(&self, refused: impl Fn(SuffixKind) -> bool) -> Result<(), FormError> {
        match public_suffix(self.name.as_ref()) {
            Some(kind) if self.reach != Reach::Exact && refused(kind) => {
                Err(FormError::PublicSuffix { name: self.name.to_string(), kind })
            }
            _ => Ok(()),
        }
    }
}

impl fmt::Display for RuleForm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.reach {
            Reach::Exact => write!(f, "={}", self.name),
            Reach::AtOrBelow => write!(f, "{}", self.name),
            Reach::Below => write!(f, "*.{}", self.name),
        }
    }
}

/// Reads a host name: ASCII letters, digits, hyphen, underscore; no wildcard, no address.
///
/// # Errors
/// [`FormError`], never [`FormError::PublicSuffix`] or [`FormError::Root`].
pub fn host_name(text: &str) -> Result<NameBuf, FormError> {
    let shown = || text.escape_debug().to_string();
    if text.is_empty() {
        return Err(FormError::Empty);
    }
    // With the dot of the root behind it, too.
    if text.strip_suffix('.').unwrap_or(text).parse::<std::net::IpAddr>().is_ok() {
        return Err(FormError::Address(shown()));
    }
    if let Some(bad) = text.chars().find(|c| !(c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_'))) {
        return Err(match bad {
            '*' => FormError::Star(shown()),
            ':' | '/' | '?' | '#' => FormError::NotBare(shown()),
            _ if !bad.is_ascii() => FormError::NotAscii(shown()),
            _ => FormError::Octet { text: shown(), octet: bad.escape_debug().to_string() },
        });
    }
    NameBuf::from_text(text).map_err(|source| FormError::Name { text: shown(), source })
}

/// Whether `name` is itself a public suffix that the list knows, and in which section.
///
/// A top-level domain that the list does not know (a private one) is none.
pub fn public_suffix(name: NameRef<'_>) -> Option<SuffixKind> {
    use psl::Psl;
    let offsets = staunch_scoring::name::LabelOffsets::of(name);
    let info = psl::List.find(offsets.rev_labels(name));
    // `len` counts the text form: one octet less than the wire form at each end.
    if info.len + 2 != name.wire_len() {
        return None;
    }
    info.typ.map(|kind| match kind {
        psl::Type::Icann => SuffixKind::Icann,
        psl::Type::Private => SuffixKind::Private,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forms_round_trip_and_reach_as_written() {
        for (text, itself, below, deeper) in [
            ("=www.example.org", true, false, false),
            ("www.example.org", true, true, true),
            ("*.www.example.org", false, true, true),
        ] {
            let form = RuleForm::parse(text).expect(text);
            assert_eq!(form.to_string(), text);
            let covers = |name: &str| form.covers(NameBuf::from_text(name).expect("name").as_ref());
            assert_eq!(covers("WWW.example.org."), itself, "{text}");
            assert_eq!(covers("a.www.example.org"), below, "{text}");
            assert_eq!(covers("b.a.www.example.org"), deeper, "{text}");
            assert!(!covers("xwww.example.org") && !covers("example.org"), "{text}");
        }
        assert_eq!(RuleForm::parse(" Example.ORG. ").expect("folded").to_string(), "example.org");
    }

    #[test]
    fn every_mistake_has_its_remedy() {
        for (text, problem, remedy) in [
            ("", "empty", "write a name"),
            ("=", "empty", "write a name"),
            ("https://files.example.org/x", "not a bare host name", "`files.example.org`"),
            ("files.example.org:443", "not a bare host name", "`files.example.org`"),
            ("a.*.example.org", "leftmost", "`*.x`"),
            ("**.example.org", "leftmost", "`*.x`"),
            ("*", "leftmost", "`*.x`"),
            ("=*.example.org", "leftmost", "`*.x`"),
            ("b\u{fc}ro.example", "outside ASCII", "xn--"),
            ("a b.example", "which host names", "letters, digits"),
            ("10.0.0.1", "an address", "allow_range"),
            ("=10.0.0.1.", "an address", "allow_range"),
            ("a..example", "empty label", "1 to 63"),
            (".", "every name", "unlisted"),
            ("com", "public suffix (ICANN)", "`=com`"),
            ("*.co.uk", "public suffix (ICANN)", "owner.co.uk"),
            ("github.io", "public suffix (private)", "owner.github.io"),
            ("*.S3.amazonaws.com", "public suffix (private)", "owner.s3"),
        ] {
            let error = RuleForm::parse(text).expect_err(text);
            assert!(error.to_string().contains(problem), "{text}: {error}");
            assert!(error.remedy().contains(remedy), "{text}: {}", error.remedy());
        }
    }

    #[test]
    fn an_exact_name_may_be_a_suffix_and_a_private_tld_is_none() {
        assert!(RuleForm::parse("=github.io").is_ok());
        assert!(RuleForm::parse("corp").is_ok(), "not on the list, so nobody else registers below it");
        assert!(RuleForm::parse("owner.github.io").is_ok());
        assert!(RuleForm::parse_deny("trycloudflare.com").is_ok());
        assert!(RuleForm::parse_deny("co.uk").is_err());
    }
}
