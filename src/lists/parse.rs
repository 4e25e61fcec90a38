//! Reading list files: octets in, entries out, every line that is passed over counted and explained.
//!
//! Total on any octets. Nothing here knows what becomes of an entry.

use std::fmt;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};
use staunch_scoring::name::NameError;
use staunch_scoring::{NameRef, QName};

use super::day::Day;
use super::form::{SuffixKind, public_suffix};

/// Longest line read; longer ones are passed over. Names have at most 255 octets, the rest is comment.
pub const MAX_LINE: usize = 1024;
/// Entries of one file; a file with more is refused.
pub const MAX_ENTRIES: u32 = 20_000_000;
/// Passed-over lines that are told one by one; the others are only counted.
pub const SHOWN_SKIPS: usize = 20;
/// A file is refused when more than one in this many of its lines (blank ones and comments aside) cannot be read: it
/// is then of another format, or no list at all (an error page, half a download).
pub const GARBAGE_SHARE: u32 = 4;

/// How a list file is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// One name a line: `x`, `.x` and `*.x` mean x and below (so publishers use them), `=x` means x alone.
    Domains,
    /// An address and one or more names, as in a hosts file; each means exactly itself.
    Hosts,
    /// Newly registered domains: a name, or a name, a comma and its day of registration; x and below.
    Nrd,
}

/// One name of a list.
#[derive(Debug, Clone, Copy)]
pub struct Entry<'e> {
    /// Where it stands, from 1.
    pub line: u32,
    /// The name.
    pub name: NameRef<'e>,
    /// Whether it means this name alone.
    pub exact: bool,
    /// Day of registration ([`Format::Nrd`] only).
    pub day: Option<Day>,
    /// What follows `#` on its line.
    pub comment: &'e str,
}

/// What a file held.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Report {
    /// Lines of any kind.
    pub lines: u32,
    /// Entries.
    pub entries: u32,
    /// Lines passed over.
    pub skipped: u32,
    /// The first [`SHOWN_SKIPS`] of them.
    pub first_skipped: Vec<Skipped>,
}

/// A line that was passed over.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Skipped {
    /// Which, from 1.
    pub line: u32,
    /// Why.
    pub reason: SkipReason,
}

/// Why a line was passed over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SkipReason {
    /// More than [`MAX_LINE`] octets.
    LineTooLong,
    /// Not UTF-8.
    NotText,
    /// Blanks inside a name.
    SeveralWords,
    /// An address where a name was expected.
    Address,
    /// No address at the start of a hosts line.
    NoAddress,
    /// An address and nothing more.
    NoName,
    /// Letters outside ASCII.
    NotAscii,
    /// An octet that host names do not have.
    Octet(u8),
    /// Not a domain name.
    Name(NameError),
    /// A registry's suffix: would deny what belongs to thousands of owners.
    PublicSuffix,
    /// Not `YYYY-MM-DD`.
    BadDay,
    /// No day on the line and none for the list.
    NoDay,
}

impl fmt::Display for SkipReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::LineTooLong => write!(f, "line longer than {MAX_LINE} octets"),
            Self::NotText => f.write_str("not UTF-8"),
            Self::SeveralWords => f.write_str("more than one word (is this the hosts format?)"),
            Self::Address => f.write_str("an address, not a name"),
            Self::NoAddress => f.write_str("does not start with an address (is this the domains format?)"),
            Self::NoName => f.write_str("no name behind the address"),
            Self::NotAscii => f.write_str("letters outside ASCII (write the A-label, `xn--`)"),
            Self::Octet(octet) => write!(f, "`{}`, which host names do not have", octet.escape_ascii()),
            Self::Name(error) => error.fmt(f),
            Self::PublicSuffix => f.write_str("a registry's public suffix: it would cover every owner below it"),
            Self::BadDay => f.write_str("day is not YYYY-MM-DD"),
            Self::NoDay => f.write_str("no day of registration here and no `date` for the list"),
        }
    }
}

impl Serialize for SkipReason {
    fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

/// Why a file is refused as a whole.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ListError {
    /// It has NUL octets.
    #[error("not a text file: NUL octet in line {line}")]
    Binary {
        /// The first such line.
        line: u32,
    },
    /// Too many lines cannot be read, see [`GARBAGE_SHARE`].
    #[error("{bad} of {content} lines cannot be read; the first is line {line}: {reason}")]
    Garbage {
        /// Lines passed over.
        bad: u32,
        /// Lines that are neither blank nor comment.
        content: u32,
        /// The first bad one.
        line: u32,
        /// What is wrong with it.
        reason: SkipReason,
    },
    /// More than [`MAX_ENTRIES`], or more lines in all lists than can be numbered.
    #[error("more entries than fit ({MAX_ENTRIES} a file, two thousand million lines in all)")]
    TooLarge,
}

/// Reads a whole file and hands each entry to `sink`. `day` is for [`Format::Nrd`] lines that have none.
///
/// # Errors
/// [`ListError`] where the file is refused; entries already handed out are then to be dropped.
pub fn parse(
    octets: &[u8],
    format: Format,
    day: Option<Day>,
    mut sink: impl FnMut(Entry<'_>),
) -> Result<Report, ListError> {
    let mut report = Report::default();
    let mut content = 0u32;
    let octets = octets.strip_prefix(b"\xef\xbb\xbf").unwrap_or(octets);
    for line in octets.split(|b| *b == b'\n') {
        report.lines = report.lines.checked_add(1).ok_or(ListError::TooLarge)?;
        let number = report.lines;
        if line.contains(&0) {
            return Err(ListError::Binary { line: number });
        }
        let line = line.trim_ascii();
        if line.is_empty() || line.starts_with(b"#") {
            continue;
        }
        content += 1;
        let mut entries = 0;
        let outcome = read_line(line, format, day, |name, exact, day, comment| {
            entries += 1;
            sink(Entry { line: number, name, exact, day, comment });
        });
        report.entries += entries;
        if report.entries > MAX_ENTRIES {
            return Err(ListError::TooLarge);
        }
        if let Err(reason) = outcome {
            report.skipped += 1;
            if report.first_skipped.len() < SHOWN_SKIPS {
                report.first_skipped.push(Skipped { line: number, reason });
            }
        }
    }
    match report.first_skipped.first() {
        Some(first) if report.skipped > content / GARBAGE_SHARE => {
            Err(ListError::Garbage { bad: report.skipped, content, line: first.line, reason: first.reason })
        }
        _ => Ok(report),
    }
}

/// Reads one line that is neither blank nor comment. A line may give entries and still be told of for one bad name.
fn read_line<'l>(
    line: &'l [u8],
    format: Format,
    default_day: Option<Day>,
    mut sink: impl FnMut(NameRef<'_>, bool, Option<Day>, &'l str),
) -> Result<(), SkipReason> {
    if line.len() > MAX_LINE {
        return Err(SkipReason::LineTooLong);
    }
    let line = std::str::from_utf8(line).map_err(|_| SkipReason::NotText)?;
    let (text, comment) = line.split_once('#').unwrap_or((line, ""));
    let (text, comment) = (text.trim(), comment.trim());
    match format {
        Format::Domains => {
            let (exact, name) = match text.strip_prefix('=') {
                Some(rest) => (true, rest),
                None => (false, text.strip_prefix("*.").or(text.strip_prefix('.')).unwrap_or(text)),
            };
            let name = list_name(name)?;
            if !exact {
                refuse_registry(name.as_ref())?;
            }
            sink(name.as_ref(), exact, None, comment);
        }
        Format::Hosts => {
            let mut words = text.split_ascii_whitespace();
            let address = words.next().unwrap_or_default();
            // Link-local lines of hosts files carry a zone, `fe80::1%lo0`.
            let address = address.split('%').next().unwrap_or_default();
            address.parse::<IpAddr>().map_err(|_| SkipReason::NoAddress)?;
            let mut words = words.peekable();
            words.peek().ok_or(SkipReason::NoName)?;
            let mut outcome = Ok(());
            for word in words.filter(|word| !is_own_host(word)) {
                match list_name(word) {
                    Ok(name) => sink(name.as_ref(), true, None, comment),
                    Err(reason) => outcome = outcome.and(Err(reason)),
                }
            }
            outcome?;
        }
        Format::Nrd => {
            let (name, day) = match text.split_once(',') {
                Some((name, day)) => (name.trim_end(), Some(Day::parse(day.trim()).ok_or(SkipReason::BadDay)?)),
                None => (text, default_day),
            };
            let name = list_name(name)?;
            refuse_registry(name.as_ref())?;
            sink(name.as_ref(), false, Some(day.ok_or(SkipReason::NoDay)?), comment);
        }
    }
    Ok(())
}

fn list_name(text: &str) -> Result<QName, SkipReason> {
    if let Some(&bad) = text.as_bytes().iter().find(|b| !(b.is_ascii_alphanumeric() || b"._-".contains(b))) {
        return Err(match bad {
            b' ' | b'\t' => SkipReason::SeveralWords,
            b':' if text.parse::<IpAddr>().is_ok() => SkipReason::Address,
            0x80.. => SkipReason::NotAscii,
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
        Ok(name) => Ok(name),
        Err(error) => Err(SkipReason::Name(error)),
    }
}

fn refuse_registry(name: NameRef<'_>) -> Result<(), SkipReason> {
    // Suffixes of platforms may be listed: a tunnel service's is the very thing to deny.
    if public_suffix(name) == Some(SuffixKind::Icann) { Err(SkipReason::PublicSuffix) } else { Ok(()) }
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(text: &str, format: Format) -> (Vec<String>, Result<Report, ListError>) {
        let mut seen = Vec::new();
        let report = parse(text.as_bytes(), format, Day::parse("2026-11-01"), |e| {
            let day = e.day.map(|d| format!(" {d}")).unwrap_or_default();
            seen.push(format!("{}:{}{}{day}", e.line, if e.exact { "=" } else { "" }, e.name));
        });
        (seen, report)
    }

    fn skips(report: Result<Report, ListError>) -> Vec<(u32, SkipReason)> {
        report.expect("readable").first_skipped.into_iter().map(|s| (s.line, s.reason)).collect()
    }

    #[test]
    fn domains_of_every_spelling() {
        let text =
            "\u{feff}# head\r\n\r\nBad.Example\r\n*.wide.example # note\n.dot.example\n=one.example\nend.example.";
        let (seen, report) = read(text, Format::Domains);
        assert_eq!(seen, ["3:bad.example", "4:wide.example", "5:dot.example", "6:=one.example", "7:end.example"]);
        let report = report.expect("readable");
        assert_eq!((report.lines, report.entries, report.skipped), (7, 5, 0));
    }

    #[test]
    fn every_line_passed_over_has_its_reason() {
        let good = "ok.example\n".repeat(40);
        let text = format!(
            "{good}||x.example^\na b\n10.0.0.1\n2001:db8::1\nb\u{fc}ro.example\ncom\n*.co.uk\na..b\n{}\n.\n=com\n",
            "x".repeat(MAX_LINE + 1)
        );
        let (seen, report) = read(&text, Format::Domains);
        assert_eq!(seen.len(), 41, "{seen:?}");
        assert_eq!(
            skips(report),
            [
                (41, SkipReason::Octet(b'|')),
                (42, SkipReason::SeveralWords),
                (43, SkipReason::Address),
                (44, SkipReason::Address),
                (45, SkipReason::NotAscii),
                (46, SkipReason::PublicSuffix),
                (47, SkipReason::PublicSuffix),
                (48, SkipReason::Name(NameError::EmptyLabel)),
                (49, SkipReason::LineTooLong),
                (50, SkipReason::Name(NameError::EmptyLabel)),
            ]
        );
    }

    #[test]
    fn hosts_lines_carry_several_names_and_leave_the_own_ones_out() {
        let text = "127.0.0.1 localhost\n::1 ip6-localhost ip6-loopback\nfe80::1%lo0 localhost\n0.0.0.0 0.0.0.0\n\
                    0.0.0.0 A.example b.example # two\n0.0.0.0\tc.example\n::\td.example\n0.0.0.0 e.example\n\
                    0.0.0.0\n0.0.0.0 f.example bad|name g.example\n";
        let (seen, report) = read(text, Format::Hosts);
        assert_eq!(
            seen,
            [
                "5:=a.example",
                "5:=b.example",
                "6:=c.example",
                "7:=d.example",
                "8:=e.example",
                "10:=f.example",
                "10:=g.example"
            ]
        );
        assert_eq!(skips(report), [(9, SkipReason::NoName), (10, SkipReason::Octet(b'|'))]);
    }

    #[test]
    fn nrd_lines_have_their_own_day_or_the_lists() {
        let text =
            "a.example\nb.example,2026-10-31\nc.example , 2026-10-30\nd.example\nd.example\nd.example,yesterday\n";
        let (seen, report) = read(text, Format::Nrd);
        assert_eq!(seen[..3], ["1:a.example 2026-11-01", "2:b.example 2026-10-31", "3:c.example 2026-10-30"]);
        assert_eq!(skips(report), [(6, SkipReason::BadDay)]);
        let mut count = 0;
        let dated = "a.example,2026-10-31\n".repeat(4) + "b.example\n";
        let report = parse(dated.as_bytes(), Format::Nrd, None, |_| count += 1);
        assert_eq!((count, skips(report)), (4, vec![(5, SkipReason::NoDay)]));
    }

    #[test]
    fn what_is_no_list_is_refused_whole() {
        let (_, binary) = read("a.example\n\0\0\n", Format::Domains);
        assert_eq!(binary, Err(ListError::Binary { line: 2 }));
        let page = "<html>\n<body>not found</body>\n</html>\na.example\n";
        let (_, garbage) = read(page, Format::Domains);
        assert_eq!(garbage, Err(ListError::Garbage { bad: 3, content: 4, line: 1, reason: SkipReason::Octet(b'<') }));
        let (_, other) = read("0.0.0.0 a.example\n0.0.0.0 b.example\n", Format::Domains);
        assert!(matches!(other, Err(ListError::Garbage { reason: SkipReason::SeveralWords, .. })));
        // One bad line in four is still a list.
        assert!(read("a.example\nb.example\nc.example\n<\n", Format::Domains).1.is_ok());
    }

    proptest! {
        #[test]
        fn is_total_and_counts_every_line(octets in proptest::collection::vec(
            prop_oneof![Just(b'\n'), Just(b'.'), Just(b' '), Just(b'#'), Just(b'a'), Just(b'1'), Just(b'='), Just(b','), any::<u8>()],
            0..400))
        {
            for format in [Format::Domains, Format::Hosts, Format::Nrd] {
                let mut entries = 0u32;
                if let Ok(report) = parse(&octets, format, None, |e| {
                    entries += 1;
                    assert!(!e.name.is_root());
                }) {
                    prop_assert_eq!(report.entries, entries);
                    prop_assert!(report.skipped <= report.lines);
                    prop_assert_eq!(report.first_skipped.len() as u32, report.skipped.min(SHOWN_SKIPS as u32));
                }
            }
        }
    }
}
