//! Why a line of a list was passed over.

use std::fmt;

use serde::{Deserialize, Serialize};
use staunch_scoring::name::NameError;

use super::formats::Format;
use super::parse::MAX_LINE;

/// Octets of a passed-over line that are shown.
const SHOWN_OCTETS: usize = 80;

/// A line that was passed over.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Skipped {
    /// Which, from 1.
    pub line: u32,
    /// Kind of reason.
    pub kind: SkipKind,
    /// The reason in words.
    pub reason: String,
    /// How the line begins, escaped.
    pub text: String,
}

impl Skipped {
    pub(super) fn new(line: u32, reason: SkipReason, octets: &[u8]) -> Self {
        let shown = octets.get(..SHOWN_OCTETS).unwrap_or(octets);
        let cut = if shown.len() < octets.len() { ".." } else { "" };
        let text = format!("{}{cut}", shown.escape_ascii());
        Self { line, kind: reason.kind(), reason: reason.to_string(), text }
    }
}

macro_rules! kinds {
    ($($(#[doc = $doc:literal])* $kind:ident = $word:literal,)*) => {
        /// Kinds of reasons, as in records and labels.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(rename_all = "kebab-case")]
        pub enum SkipKind { $($(#[doc = $doc])* $kind,)* }

        impl SkipKind {
            /// All of them.
            pub const ALL: [Self; [$($word),*].len()] = [$(Self::$kind),*];

            /// As in records and labels.
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$kind => $word,)* }
            }
        }
    };
}

kinds! {
    /// A line too long.
    LineTooLong = "line-too-long",
    /// Not UTF-8.
    NotText = "not-text",
    /// Blanks inside a name.
    SeveralWords = "several-words",
    /// An address where a name was expected.
    Address = "address",
    /// No address at the start of a hosts line.
    NoAddress = "no-address",
    /// An address and nothing more.
    NoName = "no-name",
    /// Letters outside ASCII that make no internationalised name.
    NotIdn = "not-idn",
    /// An octet that host names do not have.
    Octet = "octet",
    /// Not a domain name.
    Name = "name",
    /// A registry's suffix.
    PublicSuffix = "public-suffix",
    /// Not a day.
    BadDay = "bad-day",
    /// No day.
    NoDay = "no-day",
    /// A pattern that no names alone can express.
    Pattern = "pattern",
    /// An option that a resolver cannot honour.
    FilterOption = "filter-option",
    /// A setting that lists no name.
    Directive = "directive",
    /// Names that are to be asked of a server.
    Server = "server",
    /// A name that is to lead to an address.
    Rewrite = "rewrite",
    /// A zone type that denies nothing.
    ZoneType = "zone-type",
    /// Every name there is.
    Everything = "everything",
    /// More exceptions than fit.
    TooManyExceptions = "too-many-exceptions",
    /// Another list that is to be read here.
    Include = "include",
    /// What holds only under a condition.
    Conditional = "conditional",
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
    /// Letters outside ASCII that make no internationalised name (UTS 46).
    NotIdn,
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
    /// A regular expression, a path, a part of a page, a `*` inside a name.
    Pattern,
    /// An option of a filter rule that means something to browsers, or to some clients alone.
    FilterOption,
    /// A setting of the resolver that the list is written for.
    Directive,
    /// Names that are to be asked of a server.
    Server,
    /// A name that is to lead to an address that somebody has.
    Rewrite,
    /// A `local-zone` whose type denies nothing.
    ZoneType,
    /// Every name there is.
    Everything,
    /// More exceptions than fit.
    TooManyExceptions,
    /// Another list that is to be read here (`!#include`).
    Include,
    /// A condition (`!#if`), its end, and what stands within.
    Conditional,
}

impl SkipReason {
    /// Its kind.
    pub fn kind(self) -> SkipKind {
        match self {
            Self::LineTooLong => SkipKind::LineTooLong,
            Self::NotText => SkipKind::NotText,
            Self::SeveralWords => SkipKind::SeveralWords,
            Self::Address => SkipKind::Address,
            Self::NoAddress => SkipKind::NoAddress,
            Self::NoName => SkipKind::NoName,
            Self::NotIdn => SkipKind::NotIdn,
            Self::Octet(_) => SkipKind::Octet,
            Self::Name(_) => SkipKind::Name,
            Self::PublicSuffix => SkipKind::PublicSuffix,
            Self::BadDay => SkipKind::BadDay,
            Self::NoDay => SkipKind::NoDay,
            Self::Pattern => SkipKind::Pattern,
            Self::FilterOption => SkipKind::FilterOption,
            Self::Directive => SkipKind::Directive,
            Self::Server => SkipKind::Server,
            Self::Rewrite => SkipKind::Rewrite,
            Self::ZoneType => SkipKind::ZoneType,
            Self::Everything => SkipKind::Everything,
            Self::TooManyExceptions => SkipKind::TooManyExceptions,
            Self::Include => SkipKind::Include,
            Self::Conditional => SkipKind::Conditional,
        }
    }

    /// Whether the line reads as what its format allows, and only says what a list of names cannot: such lines do not
    /// show that a file is of another format.
    pub(super) fn is_understood(self, format: Format) -> bool {
        // Filters of hostile hosts have addresses, often more of them than names.
        if self == Self::Address {
            return format == Format::Adblock;
        }
        matches!(
            self.kind(),
            SkipKind::Pattern
                | SkipKind::FilterOption
                | SkipKind::Directive
                | SkipKind::Server
                | SkipKind::Rewrite
                | SkipKind::ZoneType
                | SkipKind::Everything
                | SkipKind::TooManyExceptions
                | SkipKind::Include
                | SkipKind::Conditional
        )
    }
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
            Self::NotIdn => f.write_str("letters outside ASCII that make no internationalised name"),
            Self::Octet(octet) => write!(f, "`{}`, which host names do not have", octet.escape_ascii()),
            Self::Name(error) => error.fmt(f),
            Self::PublicSuffix => f.write_str("a registry's public suffix: it would cover every owner below it"),
            Self::BadDay => f.write_str("day is not YYYY-MM-DD"),
            Self::NoDay => f.write_str("no day of registration here and no `date` for the list"),
            Self::Pattern => f.write_str("a pattern or a part of a page, which no list of names can express"),
            Self::FilterOption => f.write_str("an option that means something to browsers or to some clients alone"),
            Self::Directive => f.write_str("a setting that lists no name"),
            Self::Server => f.write_str("names a server to ask, which is [[forward]]'s matter"),
            Self::Rewrite => f.write_str("leads to an address; only refusals are taken over"),
            Self::ZoneType => f.write_str("a zone type that denies nothing"),
            Self::Everything => f.write_str("covers every name there is"),
            Self::TooManyExceptions => f.write_str("more exceptions than fit; the name stays denied"),
            Self::Include => f.write_str("another list is to be read here, which is not: add it as a list of its own"),
            Self::Conditional => f.write_str("a condition, or what holds only under one, which is not known here"),
        }
    }
}
