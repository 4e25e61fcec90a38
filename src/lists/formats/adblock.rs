//! Filter lists for browsers, as far as they speak of whole hosts.

use std::collections::HashSet;
use std::hash::BuildHasher;

use foldhash::quality::RandomState;

use super::{Found, Name, each, list_name, refuse_registry};
use crate::lists::form::Reach;
use crate::lists::mark::Bearing;
use crate::lists::skip::SkipReason;

pub(super) fn read_line<'l>(
    line: &'l str,
    mut sink: impl FnMut(Found<'_, 'l>) -> Result<(), SkipReason>,
) -> Result<(), SkipReason> {
    if is_markup(line) {
        return Err(SkipReason::Octet(b'<'));
    }
    // Hiding and scripting rules, with or without hosts before them; regular expressions.
    if ["##", "#@#", "#?#", "#$#", "#%#", "$$", "$@$"].iter().any(|mark| line.contains(mark)) || line.starts_with('/') {
        return Err(SkipReason::Pattern);
    }
    let (exception, rule) = match line.strip_prefix("@@") {
        Some(rest) => (true, rest),
        None => (false, line),
    };
    // What follows a blank is a remark in lists that are made from hosts files.
    let rule = rule.split_once(" #").map_or(rule, |(rule, _)| rule.trim_end());
    let (body, options) = match rule.split_once('$') {
        Some((body, options)) => (body, Options::read(options)?),
        None => (rule, Options::default()),
    };
    if exception && (options.denyallow.is_some() || options.refuses) {
        return Err(SkipReason::FilterOption);
    }
    let (name, reach) = host(body)?;
    if reach != Reach::Exact && !exception {
        refuse_registry(name.name.as_ref())?;
    }
    let important = options.important;
    let Some(allowed) = options.denyallow else {
        return sink(Found { exception, important, ..name.denied(reach) });
    };
    let own = name.name.as_ref();
    let leaves_nothing = |word: &str| list_name(word).is_ok_and(|allowed| own.is_at_or_below(allowed.name.as_ref()));
    if allowed.split('|').any(leaves_nothing) {
        return Err(SkipReason::FilterOption);
    }
    sink(Found { important, bearing: Bearing::Tied, ..name.denied(reach) })?;
    each(allowed.split('|'), |word| {
        let allowed = list_name(word)?;
        if !allowed.name.as_ref().is_at_or_below(own) {
            return Ok(());
        }
        let bearing = Bearing::Of(own.label_count() as u8);
        sink(Found { exception: true, important, bearing, ..allowed.denied(Reach::AtOrBelow) })
    })
}

/// Whether a line begins as a line of a web page does. No rule begins so, and a page that comes in a list's place must not
/// pass for patterns.
fn is_markup(line: &str) -> bool {
    let next = line.strip_prefix('<').and_then(|rest| rest.bytes().next());
    next.is_some_and(|octet| octet.is_ascii_alphabetic() || octet == b'!' || octet == b'/')
}

/// Which of the lines that `!#` begins have a say in what other lines mean.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Directive {
    If,
    Else,
    Endif,
    Include,
}

impl Directive {
    fn of(line: &[u8]) -> Option<Self> {
        let word = line.strip_prefix(b"!#")?;
        let end = word.iter().position(|b| !b.is_ascii_alphabetic()).unwrap_or(word.len());
        match word.get(..end)? {
            b"if" => Some(Self::If),
            b"else" => Some(Self::Else),
            b"endif" => Some(Self::Endif),
            b"include" => Some(Self::Include),
            _ => None,
        }
    }
}

/// Whether this is one of them.
pub(super) fn is_directive(line: &[u8]) -> bool {
    Directive::of(line).is_some()
}

/// How many conditions hold of the lines that follow. What a condition asks about is a browser: no line within is taken.
#[derive(Debug, Default)]
pub(in crate::lists) struct Conditions(u32);

impl Conditions {
    /// Takes the next line. The reason, where it says nothing of names because of a directive, be it its own.
    pub(in crate::lists) fn take(&mut self, line: &[u8]) -> Option<SkipReason> {
        let directive = Directive::of(line);
        match directive {
            Some(Directive::If) => self.0 = self.0.saturating_add(1),
            Some(Directive::Endif) => {
                self.0 = self.0.saturating_sub(1);
                return Some(SkipReason::Conditional);
            }
            Some(Directive::Include) if self.0 == 0 => return Some(SkipReason::Include),
            Some(Directive::Else | Directive::Include) | None => {}
        }
        (directive.is_some() || self.0 > 0).then_some(SkipReason::Conditional)
    }
}

/// Lines with `denyallow` that were met. Two for one name deny each what the other takes out; the same one twice says nothing
/// new, and must not deny what it takes out itself.
#[derive(Default)]
pub(in crate::lists) struct Twins {
    met: HashSet<u64>,
    hasher: RandomState,
}

impl Twins {
    /// Most that are remembered. One beyond it that stands there twice denies more than it says, nothing less.
    const MOST: usize = 1 << 16;

    /// Whether this very line was met before.
    pub(in crate::lists) fn is_one(&mut self, line: &[u8]) -> bool {
        const OPTION: &[u8] = b"denyallow=";
        // Most lines have no options at all.
        let Some(options) = line.iter().position(|octet| *octet == b'$').and_then(|at| line.get(at..)) else {
            return false;
        };
        if !options.windows(OPTION.len()).any(|window| window == OPTION) {
            return false;
        }
        let hash = self.hasher.hash_one(line);
        if self.met.len() >= Self::MOST { self.met.contains(&hash) } else { !self.met.insert(hash) }
    }
}

/// The host that a pattern means, where it means a host and nothing else.
fn host(body: &str) -> Result<(Name, Reach), SkipReason> {
    let (anchored, rest) = match (body.strip_prefix("||"), body.strip_prefix('|')) {
        (Some(rest), _) => (Some(Reach::AtOrBelow), rest),
        (None, Some(rest)) => (Some(Reach::Exact), rest),
        (None, None) => (None, body),
    };
    let bare = rest.strip_suffix('|').unwrap_or(rest);
    let bare = bare.strip_suffix('^').unwrap_or(bare);
    let ends = bare.len() < rest.len();
    let (reach, rest) = match (anchored, ends) {
        (Some(Reach::AtOrBelow), _) => (Reach::AtOrBelow, bare),
        (Some(_), true) | (None, false) => (Reach::Exact, bare),
        // Where only one end is held, it is a piece of many names.
        (Some(_), false) | (None, true) => return Err(SkipReason::Pattern),
    };
    let (reach, rest) = match rest.strip_prefix("*.") {
        Some(below) if reach == Reach::AtOrBelow => (Reach::Below, below),
        _ => (reach, rest),
    };
    if rest == "*" || rest.is_empty() {
        return Err(SkipReason::Everything);
    }
    // With nothing that ends it, a last dot is where other labels follow.
    if !ends && rest.ends_with('.') {
        return Err(SkipReason::Pattern);
    }
    if rest.contains(['*', '/', '^', '|', '?', '=', ',']) || rest.starts_with(':') || rest.contains("://") {
        return Err(SkipReason::Pattern);
    }
    if rest.starts_with('[') && !rest.contains(' ') {
        return Err(SkipReason::Address);
    }
    if has_port(rest) {
        return Err(SkipReason::Pattern);
    }
    Ok((list_name(rest)?, reach))
}

/// Whether it is a host, a colon and a port: one service of a host, whose name others may have too.
fn has_port(text: &str) -> bool {
    let is_host =
        |host: &str| !host.is_empty() && host.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b));
    let is_port = |port: &str| !port.is_empty() && port.bytes().all(|b| b.is_ascii_digit());
    text.split_once(':').is_some_and(|(host, port)| is_host(host) && is_port(port))
}

/// Options of a rule that a resolver can keep.
#[derive(Default)]
struct Options<'o> {
    important: bool,
    refuses: bool,
    denyallow: Option<&'o str>,
}

impl<'o> Options<'o> {
    fn read(options: &'o str) -> Result<Self, SkipReason> {
        let mut read = Self::default();
        for option in options.split(',').map(str::trim) {
            let (name, value) = option.split_once('=').unwrap_or((option, ""));
            match (name, value) {
                ("important", "") => read.important = true,
                ("all", "") => {}
                ("denyallow", names) if !names.is_empty() => read.denyallow = Some(names),
                ("dnsrewrite", answer) if is_refusal(answer) => read.refuses = true,
                _ => return Err(SkipReason::FilterOption),
            }
        }
        Ok(read)
    }
}

fn is_refusal(answer: &str) -> bool {
    let code = answer.trim_end_matches(';');
    code.eq_ignore_ascii_case("NXDOMAIN") || code.eq_ignore_ascii_case("REFUSED")
}
