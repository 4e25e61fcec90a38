//! How lists are written: one line in, names out.

mod adblock;
mod detect;
mod dnsmasq;
mod unbound;

use std::net::IpAddr;

use serde::{Deserialize, Serialize};
use staunch_scoring::name::NameError;
use staunch_scoring::{NameRef, QName};

use super::day::Day;
use super::form::{Reach, SuffixKind, public_suffix};
use super::mark::Bearing;
use super::parse::MAX_LINE;
use super::skip::SkipReason;

pub(super) use adblock::{Conditions, Twins};
pub use detect::{DETECTED_LINES, detect};

/// How a list is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// One name a line: `x`, `.x` and `*.x` mean x and below (so publishers use them), `=x` means x alone.
    #[default]
    Domains,
    /// An address and one or more names, as in a hosts file; each means exactly itself.
    Hosts,
    /// Newly registered domains: a name, or a name, a comma and its day of registration; x and below.
    Nrd,
    /// Of filter lists for browsers what is about whole hosts: `||x^`, `|x^`, `x`, exceptions `@@||x^`, with the options
    /// `important`, `denyallow`, `all` and `dnsrewrite` to a refusal.
    Adblock,
    /// Of a dnsmasq configuration what refuses: `address=/x/` with no address or one that nobody has, `server=/x/` and
    /// `local=/x/` without a server; `server=/x/#` is an exception. The longest name decides.
    Dnsmasq,
    /// Of an unbound configuration what refuses: `local-zone` of a type that does, `local-data` with an address that
    /// nobody has; a transparent zone is an exception. The longest name decides.
    Unbound,
}

impl Format {
    /// As in a configuration.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Domains => "domains",
            Self::Hosts => "hosts",
            Self::Nrd => "nrd",
            Self::Adblock => "adblock",
            Self::Dnsmasq => "dnsmasq",
            Self::Unbound => "unbound",
        }
    }
}

/// One name of a line.
pub(super) struct Found<'f, 'l> {
    pub(super) name: NameRef<'f>,
    pub(super) reach: Reach,
    pub(super) exception: bool,
    pub(super) important: bool,
    pub(super) bearing: Bearing,
    pub(super) day: Option<Day>,
    pub(super) comment: &'l str,
    /// It was written with letters outside ASCII.
    pub(super) was_unicode: bool,
}

/// A name as read, and whether it was converted.
struct Name {
    name: QName,
    was_unicode: bool,
}

impl Name {
    /// Denied, as far as `reach`.
    fn denied<'l>(&self, reach: Reach) -> Found<'_, 'l> {
        Found {
            name: self.name.as_ref(),
            reach,
            exception: false,
            important: false,
            bearing: Bearing::Plain,
            day: None,
            comment: "",
            was_unicode: self.was_unicode,
        }
    }

    /// Denied, or open, where the longest name decides.
    fn longest<'l>(&self, reach: Reach, exception: bool) -> Found<'_, 'l> {
        let bearing = if exception { Bearing::Longest } else { Bearing::Plain };
        Found { exception, bearing, ..self.denied(reach) }
    }
}

/// Whether a trimmed line says nothing in this format.
pub(super) fn is_comment(line: &[u8], format: Format) -> bool {
    match (line, format) {
        ([], _) => true,
        // Parts of pages begin so: they are rules, if none that a resolver can keep.
        ([b'#', b'#' | b'@' | b'?' | b'$' | b'%', next, ..], Format::Adblock) => next.is_ascii_whitespace(),
        ([b'#', ..], _) => true,
        ([b'!' | b'[', ..], Format::Adblock) => !adblock::is_directive(line),
        _ => false,
    }
}

/// No more entries than this are in a trimmed line; none in one that is passed over for its length.
pub(super) fn most_entries(line: &[u8], format: Format) -> u64 {
    if line.len() > MAX_LINE {
        return 0;
    }
    let count = |octet: u8| line.iter().filter(|b| **b == octet).count();
    let most = match format {
        _ if is_comment(line, format) => 0,
        Format::Hosts => line.split(u8::is_ascii_whitespace).filter(|word| !word.is_empty()).count().saturating_sub(1),
        Format::Dnsmasq => count(b'/'),
        Format::Adblock if line.contains(&b'=') => 2 + count(b'|'),
        Format::Adblock | Format::Domains | Format::Nrd | Format::Unbound => 1,
    };
    most as u64
}

/// Reads one trimmed line that is neither blank nor comment. A line may give entries and still be told of for one bad
/// name.
pub(super) fn read_line<'l>(
    line: &'l [u8],
    format: Format,
    default_day: Option<Day>,
    mut sink: impl FnMut(Found<'_, 'l>) -> Result<(), SkipReason>,
) -> Result<(), SkipReason> {
    if line.len() > MAX_LINE {
        return Err(SkipReason::LineTooLong);
    }
    let line = std::str::from_utf8(line).map_err(|_| SkipReason::NotText)?;
    match format {
        Format::Adblock => return adblock::read_line(line, sink),
        Format::Dnsmasq => return dnsmasq::read_line(line, sink),
        Format::Unbound => return unbound::read_line(line, sink),
        Format::Domains | Format::Hosts | Format::Nrd => {}
    }
    let (text, comment) = line.split_once('#').unwrap_or((line, ""));
    let (text, comment) = (text.trim(), comment.trim());
    match format {
        Format::Hosts => {
            let mut words = text.split_ascii_whitespace();
            let address = words.next().unwrap_or_default();
            // Link-local lines of hosts files carry a zone, `fe80::1%lo0`.
            let address = address.split('%').next().unwrap_or_default();
            address.parse::<IpAddr>().map_err(|_| SkipReason::NoAddress)?;
            let mut words = words.peekable();
            words.peek().ok_or(SkipReason::NoName)?;
            each(words.filter(|word| !is_own_host(word)), |word| {
                let name = list_name(word)?;
                sink(Found { comment, ..name.denied(Reach::Exact) })
            })
        }
        Format::Nrd => {
            let (name, day) = match text.split_once(',') {
                Some((name, day)) => (name.trim_end(), Some(Day::parse(day.trim()).ok_or(SkipReason::BadDay)?)),
                None => (text, default_day),
            };
            let name = list_name(name)?;
            refuse_registry(name.name.as_ref())?;
            let day = Some(day.ok_or(SkipReason::NoDay)?);
            sink(Found { day, comment, ..name.denied(Reach::AtOrBelow) })
        }
        _ => {
            let (reach, name) = match text.strip_prefix('=') {
                Some(rest) => (Reach::Exact, rest),
                None => (Reach::AtOrBelow, text.strip_prefix("*.").or(text.strip_prefix('.')).unwrap_or(text)),
            };
            let name = list_name(name)?;
            if reach != Reach::Exact {
                refuse_registry(name.name.as_ref())?;
            }
            sink(Found { comment, ..name.denied(reach) })
        }
    }
}

/// Takes all words, and says what was wrong with the first bad one.
fn each<'w>(
    words: impl Iterator<Item = &'w str>,
    mut take: impl FnMut(&'w str) -> Result<(), SkipReason>,
) -> Result<(), SkipReason> {
    let mut outcome = Ok(());
    for word in words {
        let this = take(word);
        outcome = outcome.and(this);
    }
    outcome
}

fn list_name(text: &str) -> Result<Name, SkipReason> {
    let bad = text.as_bytes().iter().find(|b| !(b.is_ascii_alphanumeric() || b"._-".contains(b)));
    if let Some(&bad) = bad {
        let unicode = || text.bytes().all(|b| b >= 0x80 || b.is_ascii_alphanumeric() || b"._-".contains(&b));
        return Err(match bad {
            b' ' | b'\t' => SkipReason::SeveralWords,
            b':' if text.parse::<IpAddr>().is_ok() => SkipReason::Address,
            0x80.. if unicode() => return converted(text),
            0x80.. => SkipReason::NotIdn,
            _ => SkipReason::Octet(bad),
        });
    }
    // No top-level domain is all digits (RFC 3696 section 2), so such a text is an address.
    let last = text.trim_end_matches('.').rsplit('.').next().unwrap_or_default();
    if !last.is_empty() && last.bytes().all(|b| b.is_ascii_digit()) {
        return Err(SkipReason::Address);
    }
    match QName::from_text(text) {
        Ok(name) if name.as_ref().is_root() => Err(SkipReason::Name(NameError::EmptyLabel)),
        Ok(name) => Ok(Name { name, was_unicode: false }),
        Err(error) => Err(SkipReason::Name(error)),
    }
}

/// The A-labels of a name that is written as people read it: what a browser would ask for (UTS 46).
#[cold]
fn converted(text: &str) -> Result<Name, SkipReason> {
    let ascii = idna::domain_to_ascii_cow(text.as_bytes(), idna::AsciiDenyList::EMPTY);
    let ascii = ascii.map_err(|_| SkipReason::NotIdn)?;
    if !ascii.is_ascii() {
        return Err(SkipReason::NotIdn);
    }
    Ok(Name { was_unicode: true, ..list_name(&ascii)? })
}

fn refuse_registry(name: NameRef<'_>) -> Result<(), SkipReason> {
    // Suffixes of platforms may be listed: a tunnel service's is the very thing to deny.
    if public_suffix(name) == Some(SuffixKind::Icann) { Err(SkipReason::PublicSuffix) } else { Ok(()) }
}

/// Whether nobody can be at an address: what lists give to names that are to lead nowhere.
fn leads_nowhere(address: IpAddr) -> bool {
    address.is_unspecified() || address.is_loopback()
}

/// What a hosts file says of the machine it is on; no list means these names.
fn is_own_host(word: &str) -> bool {
    const OWN: [&str; 12] = [
        "localhost",
        "localhost.localdomain",
        "local",
        "broadcasthost",
        "ip6-localhost",
        "ip6-loopback",
        "ip6-localnet",
        "ip6-mcastprefix",
        "ip6-allnodes",
        "ip6-allrouters",
        "ip6-allhosts",
        "0.0.0.0",
    ];
    OWN.iter().any(|own| word.eq_ignore_ascii_case(own))
}
