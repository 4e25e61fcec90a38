//! Zones in master-file form (RFC 1035 section 5), read without ever giving up at the first mistake.
//!
//! Total on any octets, one pass, memory bounded by the input's. `$ORIGIN` and `$TTL` are followed; `$INCLUDE` would read files
//! that the configuration does not name, and `$GENERATE` would make of one line as many records as it likes: both are refused.

use staunch_scoring::{NameRef, QName};

use super::build::{Builder, Errors, Problem};
use super::rdata;
use super::{RecordOf, Rules};
use crate::lists::HashKey;
use crate::model::Qtype;

/// Most records of one zone. BIND's own default limit is none; ten times the largest public feed is room enough.
pub const MAX_RECORDS: u32 = 32 << 20;
/// Most words of one record.
const MAX_WORDS: usize = 1024;
/// TTL of records that have none, where neither `$TTL` nor a record before says one, seconds.
const DEFAULT_TTL: u32 = 3600;

/// A word of a record.
#[derive(Debug, Clone, Copy)]
pub(super) struct Token<'t> {
    /// As written, escapes kept, quotes taken off.
    pub(super) text: &'t [u8],
    pub(super) quoted: bool,
    /// Whether it is quoted and stands right behind another word.
    pub(super) glued: bool,
    line: u32,
}

impl Token<'_> {
    pub(super) fn as_str(&self) -> Option<&str> {
        std::str::from_utf8(self.text).ok()
    }

    /// For messages.
    pub(super) fn shown(&self) -> String {
        String::from_utf8_lossy(self.text.get(..80).unwrap_or(self.text)).escape_debug().to_string()
    }

    /// The octets meant; `None` for an escape that means none.
    pub(super) fn unescaped(&self) -> Option<Vec<u8>> {
        let mut octets = Vec::with_capacity(self.text.len());
        let mut rest = self.text;
        while let Some((first, behind)) = rest.split_first() {
            rest = behind;
            if *first != b'\\' {
                octets.push(*first);
                continue;
            }
            let next = *rest.first()?;
            if !next.is_ascii_digit() {
                octets.push(next);
                rest = rest.get(1..)?;
                continue;
            }
            let digits = std::str::from_utf8(rest.get(..3)?).ok().filter(|d| d.bytes().all(|b| b.is_ascii_digit()))?;
            octets.push(digits.parse().ok()?);
            rest = rest.get(3..)?;
        }
        Some(octets)
    }

    fn ends_in_dot(&self) -> bool {
        let Some((b'.', front)) = self.text.split_last() else { return false };
        // An odd number of backslashes escapes the dot.
        front.iter().rev().take_while(|b| **b == b'\\').count() % 2 == 0
    }
}

/// Reads a zone.
///
/// `origin` is the zone's name, `file` what lines are told of. `lenient`: triggers and actions that have no meaning here are
/// left out and counted ([`Rules::left_out`]).
///
/// # Errors
/// [`Errors`]: every mistake that can be told, in the order of lines.
pub fn parse(octets: &[u8], origin: NameRef<'_>, file: &str, key: &HashKey, lenient: bool) -> Result<Rules, Errors> {
    let mut builder = Builder::new(origin, *key, lenient);
    let mut errors = Errors::default();
    read(octets, origin, &mut errors, |record| builder.add(record));
    if !errors.is_empty() {
        return Err(errors);
    }
    builder.finish(file).map_err(Errors::from)
}

/// Reads records alone, whatever they say, and hands each to `take`.
///
/// # Errors
/// As [`parse`], for text that is no records.
pub fn records(octets: &[u8], origin: NameRef<'_>, mut take: impl FnMut(&RecordOf<'_>)) -> Result<(), Errors> {
    let mut errors = Errors::default();
    read(octets, origin, &mut errors, |record| {
        take(record);
        Ok(())
    });
    if errors.is_empty() { Ok(()) } else { Err(errors) }
}

/// Reads records and hands each to `take`; mistakes go to `errors`.
fn read(
    octets: &[u8],
    origin: NameRef<'_>,
    errors: &mut Errors,
    mut take: impl FnMut(&RecordOf<'_>) -> Result<(), Problem>,
) {
    let mut reader = Reader {
        origin: QName::copy_of(origin),
        owner: None,
        ttl: None,
        last_ttl: None,
        records: 0,
        rdata: Vec::new(),
    };
    let mut lexer = Lexer { octets: octets.strip_prefix(b"\xef\xbb\xbf").unwrap_or(octets), at: 0, line: 1 };
    let mut words = Vec::new();
    loop {
        words.clear();
        match lexer.entry(&mut words) {
            Ok(None) => return,
            Ok(Some(blank)) if !words.is_empty() => {
                if let Err(problem) = reader.entry(blank, &words, &mut take) {
                    errors.push(problem);
                }
            }
            Ok(Some(_)) => {}
            Err(problem) => errors.push(problem),
        }
        if reader.records > MAX_RECORDS {
            errors.push(Problem::new(0, format!("more than {MAX_RECORDS} records"), "divide the zone"));
            return;
        }
    }
}

/// What one record leaves to the next.
struct Reader {
    origin: QName,
    owner: Option<QName>,
    ttl: Option<u32>,
    last_ttl: Option<u32>,
    records: u32,
    rdata: Vec<u8>,
}

impl Reader {
    fn entry(
        &mut self,
        blank: bool,
        words: &[Token<'_>],
        take: &mut impl FnMut(&RecordOf<'_>) -> Result<(), Problem>,
    ) -> Result<(), Problem> {
        let Some(first) = words.first() else { return Ok(()) };
        let line = first.line;
        if !blank && !first.quoted && first.text.first() == Some(&b'$') {
            return self.directive(first, words);
        }
        let mut rest = words;
        if !blank {
            let owner = self.name(first).map_err(|what| Problem::new(line, what, "correct the owner"))?;
            self.owner = Some(owner);
            rest = words.get(1..).unwrap_or_default();
        }
        let Some(owner) = self.owner else {
            return Err(Problem::new(line, "a record without an owner", "begin the line with a name, or with @"));
        };
        let (mut ttl, mut class) = (None, false);
        let rtype = loop {
            let Some((word, behind)) = rest.split_first() else {
                return Err(Problem::new(line, "a record without a type", "write owner, TTL, class, type and data"));
            };
            rest = behind;
            let text = word.as_str().filter(|_| !word.quoted).unwrap_or_default();
            let foreign = ["CH", "HS", "CHAOS", "HESIOD", "ANY"].iter().any(|c| text.eq_ignore_ascii_case(c));
            if text.eq_ignore_ascii_case("IN") && !class {
                class = true;
            } else if let Some(seconds) = seconds(text).filter(|_| ttl.is_none()) {
                ttl = Some(seconds);
            } else if let Some(rtype) = Qtype::from_text(text).filter(|_| !foreign) {
                break rtype;
            } else {
                let remedy = "use class IN and a type by its name, or as TYPE and its number";
                return Err(Problem::new(
                    line,
                    format!("`{}` is neither TTL nor class nor type", word.shown()),
                    remedy,
                ));
            }
        };
        self.records += 1;
        self.last_ttl = ttl.or(self.last_ttl);
        let ttl = ttl.or(self.ttl).or(self.last_ttl).unwrap_or(DEFAULT_TTL);
        let data = rdata::from_text(rtype.0, rest, &|token| self.name(token));
        self.rdata = data.map_err(|what| {
            Problem::new(line, format!("{} of `{}`: {what}", rtype, owner.as_ref()), "correct the record's data")
        })?;
        take(&RecordOf { owner: owner.as_ref(), rtype: rtype.0, ttl, rdata: &self.rdata, line })
    }

    fn directive(&mut self, first: &Token<'_>, words: &[Token<'_>]) -> Result<(), Problem> {
        let line = first.line;
        let value = words.get(1).filter(|_| words.len() == 2);
        match (first.text.to_ascii_uppercase().as_slice(), value) {
            (b"$ORIGIN", Some(name)) => {
                self.origin = self.name(name).map_err(|what| Problem::new(line, what, "correct the name"))?;
                Ok(())
            }
            (b"$TTL", Some(word)) => {
                let ttl = word.as_str().and_then(seconds);
                self.ttl = Some(ttl.ok_or_else(|| {
                    Problem::new(line, format!("`{}` is no TTL", word.shown()), "write seconds, or such as 1h30m")
                })?);
                Ok(())
            }
            (b"$INCLUDE", _) => Err(Problem::new(
                line,
                "$INCLUDE is not followed",
                "put the records into this file, or make a zone of them",
            )),
            (b"$GENERATE", _) => Err(Problem::new(line, "$GENERATE is not followed", "write the records out")),
            _ => Err(Problem::new(
                line,
                format!("`{}` is no directive that is known here", first.shown()),
                "use $ORIGIN <name> or $TTL <seconds>",
            )),
        }
    }

    /// A name, relative to the origin where it does not end in a dot.
    fn name(&self, token: &Token<'_>) -> Result<QName, String> {
        if token.text == b"@" && !token.quoted {
            return Ok(self.origin);
        }
        let text = token.as_str().ok_or_else(|| format!("`{}` is not UTF-8", token.shown()))?;
        let name = QName::from_text(text).map_err(|error| format!("`{}`: {error}", token.shown()))?;
        if text.is_empty() {
            return Err("an empty name".into());
        }
        if token.ends_in_dot() || self.origin.as_ref().is_root() {
            return Ok(name);
        }
        let mut wire = [0; 255];
        let (front, origin) = (name.as_ref().as_wire(), self.origin.as_ref().as_wire());
        let front = front.get(..front.len() - 1).unwrap_or_default();
        let whole = front.len() + origin.len();
        let room = wire.get_mut(..whole).ok_or_else(|| format!("`{}`: too long within the zone", token.shown()))?;
        // As long as both.
        if let Some((left, right)) = room.split_at_mut_checked(front.len()) {
            left.copy_from_slice(front);
            right.copy_from_slice(origin);
        }
        QName::read(room).map(|(name, _)| name).map_err(|error| format!("`{}`: {error}", token.shown()))
    }
}

/// Seconds, plain or in units (`1w2d3h4m5s`); at most 2^31 - 1 (RFC 2181 section 8) for TTLs, and any 32 bits for serials.
pub(super) fn seconds(text: &str) -> Option<u32> {
    if let Ok(plain) = text.parse::<u32>() {
        return text.bytes().all(|b| b.is_ascii_digit()).then_some(plain);
    }
    let (mut total, mut number, mut digits) = (0u32, 0u32, 0);
    for octet in text.bytes() {
        if octet.is_ascii_digit() {
            number = number.checked_mul(10)?.checked_add(u32::from(octet - b'0'))?;
            digits += 1;
            continue;
        }
        let unit = match octet.to_ascii_lowercase() {
            b'w' => 604_800,
            b'd' => 86_400,
            b'h' => 3600,
            b'm' => 60,
            b's' => 1,
            _ => return None,
        };
        if digits == 0 {
            return None;
        }
        total = total.checked_add(number.checked_mul(unit)?)?;
        (number, digits) = (0, 0);
    }
    (digits == 0 && !text.is_empty()).then_some(total)
}

/// Cuts the text into records: one a line, or more lines within parentheses.
struct Lexer<'t> {
    octets: &'t [u8],
    at: usize,
    line: u32,
}

impl<'t> Lexer<'t> {
    /// The next record's words, and whether its line began with white space; `None` at the end. After an error the next call
    /// goes on with the line behind it.
    fn entry(&mut self, words: &mut Vec<Token<'t>>) -> Result<Option<bool>, Problem> {
        let Some(first) = self.octets.get(self.at) else { return Ok(None) };
        let blank = matches!(first, b' ' | b'\t');
        let (start, mut depth) = (self.line, 0u32);
        loop {
            let Some(octet) = self.octets.get(self.at).copied() else {
                return match depth {
                    0 => Ok(Some(blank)),
                    _ => Err(Problem::new(start, "a parenthesis that is never closed", "close it")),
                };
            };
            match octet {
                b'\n' => {
                    self.at += 1;
                    self.line = self.line.saturating_add(1);
                    if depth == 0 {
                        return Ok(Some(blank));
                    }
                }
                b' ' | b'\t' | b'\r' => self.at += 1,
                b';' => self.skip_line(),
                b'(' => {
                    self.at += 1;
                    depth += 1;
                }
                b')' => {
                    self.at += 1;
                    let Some(less) = depth.checked_sub(1) else {
                        return Err(self.fault("a parenthesis that was never opened", "remove it"));
                    };
                    depth = less;
                }
                b'"' => words.push(self.quoted()?),
                _ => {
                    let word = self.word()?;
                    words.push(word);
                }
            }
            if words.len() > MAX_WORDS {
                return Err(self.fault("a record of too many words", "divide it"));
            }
        }
    }

    fn word(&mut self) -> Result<Token<'t>, Problem> {
        let (start, line) = (self.at, self.line);
        while let Some(octet) = self.octets.get(self.at) {
            match octet {
                b' ' | b'\t' | b'\r' | b'\n' | b';' | b'(' | b')' | b'"' => break,
                b'\\' => self.at += 2,
                _ => self.at += 1,
            }
        }
        self.ends(start, line)
    }

    fn quoted(&mut self) -> Result<Token<'t>, Problem> {
        let before = self.at.checked_sub(1).and_then(|at| self.octets.get(at));
        let glued = before.is_some_and(|octet| !b" \t\r\n()\"".contains(octet));
        self.at += 1;
        let (start, line) = (self.at, self.line);
        loop {
            match self.octets.get(self.at) {
                Some(b'"') => break,
                None | Some(b'\n') => return Err(self.fault("a quotation mark that is never closed", "close it")),
                Some(b'\\') => self.at += 2,
                Some(_) => self.at += 1,
            }
        }
        let token = self.ends(start, line)?;
        self.at += 1;
        Ok(Token { quoted: true, glued, ..token })
    }

    /// The word from `start` up to here.
    fn ends(&mut self, start: usize, line: u32) -> Result<Token<'t>, Problem> {
        match self.octets.get(start..self.at) {
            // A backslash takes one octet with it, which can be a line's end or beyond the file.
            Some(text) if !text.contains(&b'\n') => Ok(Token { text, quoted: false, glued: false, line }),
            _ => {
                self.at = start;
                Err(self.fault("a backslash with nothing behind it", "write \\\\ for a backslash"))
            }
        }
    }

    /// A mistake of this line, of which nothing more is read.
    fn fault(&mut self, what: &str, remedy: &'static str) -> Problem {
        let line = self.line;
        self.skip_line();
        if self.octets.get(self.at) == Some(&b'\n') {
            self.at += 1;
            self.line = self.line.saturating_add(1);
        }
        Problem::new(line, what, remedy)
    }

    fn skip_line(&mut self) {
        let rest = self.octets.get(self.at..).unwrap_or_default();
        self.at += rest.iter().position(|b| *b == b'\n').unwrap_or(rest.len());
    }
}
