//! Domain names in canonical form: lower-cased, uncompressed wire octets.
//!
//! Every comparison in the product (rules, lists, cache, score) is made on this one form, so that letter case, escapes
//! and trailing dots cannot make two spellings of one name behave differently. Text appears only at the edges.

mod offsets;

use std::fmt;

pub use offsets::LabelOffsets;

/// Longest name in wire form, root label included (RFC 1035 section 2.3.4).
pub const MAX_NAME: usize = 255;
/// Longest label (RFC 1035 section 2.3.4).
pub const MAX_LABEL: usize = 63;
/// Most labels a name of [`MAX_NAME`] octets can have, root not counted.
pub const MAX_LABELS: usize = 127;

/// Why octets or text are not a domain name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NameError {
    /// The octets end inside a label or before the root label.
    Truncated,
    /// A label is longer than 63 octets.
    LabelTooLong,
    /// The name is longer than 255 octets.
    TooLong,
    /// A compression pointer or reserved label type where none may stand.
    BadLabelType,
    /// Two dots in a row, or a leading dot.
    EmptyLabel,
    /// A backslash escape that is neither `\DDD` (000..255) nor `\X`.
    BadEscape,
}

impl fmt::Display for NameError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Truncated => "name ends early",
            Self::LabelTooLong => "label longer than 63 octets",
            Self::TooLong => "name longer than 255 octets",
            Self::BadLabelType => "compression pointer or reserved label type",
            Self::EmptyLabel => "empty label",
            Self::BadEscape => "bad escape, expected \\DDD or \\X",
        })
    }
}

impl std::error::Error for NameError {}

/// A borrowed canonical name. Cheap to copy; always a valid name, always ends with the root label.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NameRef<'a> {
    wire: &'a [u8],
}

impl<'a> NameRef<'a> {
    /// The root name.
    pub const ROOT: NameRef<'static> = NameRef { wire: &[0] };

    /// Checks that `wire` is one whole canonical name: lower case, no pointers, ends at the root label.
    pub fn from_wire(wire: &'a [u8]) -> Result<Self, NameError> {
        if wire.len() > MAX_NAME {
            return Err(NameError::TooLong);
        }
        let mut at = 0;
        loop {
            let len = *wire.get(at).ok_or(NameError::Truncated)? as usize;
            if len > MAX_LABEL {
                return Err(if len >= 0xc0 { NameError::BadLabelType } else { NameError::LabelTooLong });
            }
            at += 1;
            if len == 0 {
                return if at == wire.len() { Ok(Self { wire }) } else { Err(NameError::Truncated) };
            }
            let label = wire.get(at..at + len).ok_or(NameError::Truncated)?;
            if label.iter().any(u8::is_ascii_uppercase) {
                return Err(NameError::BadLabelType);
            }
            at += len;
        }
    }

    /// The wire octets, root label included.
    pub fn as_wire(self) -> &'a [u8] {
        self.wire
    }

    /// Length in wire octets, root label included (1..=255).
    pub fn wire_len(self) -> usize {
        self.wire.len()
    }

    /// Whether this is the root name.
    pub fn is_root(self) -> bool {
        self.wire.len() == 1
    }

    /// The labels, leftmost first, root not included.
    pub fn labels(self) -> Labels<'a> {
        Labels { rest: self.wire }
    }

    /// Number of labels, root not counted (0..=127).
    pub fn label_count(self) -> usize {
        self.labels().count()
    }

    /// The name without its leftmost label; `None` for the root.
    pub fn parent(self) -> Option<NameRef<'a>> {
        let len = self.wire[0] as usize;
        (len != 0).then(|| NameRef { wire: &self.wire[1 + len..] })
    }

    /// The name that begins `octets` to the right in wire form; the root where that is beyond the name. To be called with
    /// the start of a label.
    pub(crate) fn at_octet(self, octets: usize) -> NameRef<'a> {
        self.wire.get(octets..).filter(|wire| !wire.is_empty()).map_or(NameRef::ROOT, |wire| NameRef { wire })
    }

    /// The name with its `n` leftmost labels removed (the root if there are fewer).
    pub fn strip_left(self, n: usize) -> NameRef<'a> {
        let mut name = self;
        for _ in 0..n {
            match name.parent() {
                Some(parent) => name = parent,
                None => break,
            }
        }
        name
    }

    /// This name, then each ancestor up to and including the root.
    pub fn ancestors(self) -> impl Iterator<Item = NameRef<'a>> {
        std::iter::successors(Some(self), |name| name.parent())
    }

    /// Whether this name is `zone` or stands below it.
    pub fn is_at_or_below(self, zone: NameRef<'_>) -> bool {
        let mut name = self;
        loop {
            if name.wire.len() == zone.wire.len() {
                return name.wire == zone.wire;
            }
            match name.parent() {
                Some(parent) if name.wire.len() > zone.wire.len() => name = parent,
                _ => return false,
            }
        }
    }

    /// Whether this name stands strictly below `zone`.
    pub fn is_below(self, zone: NameRef<'_>) -> bool {
        self.wire.len() > zone.wire.len() && self.is_at_or_below(zone)
    }

    /// An owned copy.
    pub fn to_owned(self) -> NameBuf {
        NameBuf { wire: self.wire.into() }
    }

    /// The octets left of `suffix`, as wire labels without a root label; empty if `suffix` is not an ancestor.
    pub fn payload_part(self, suffix: NameRef<'_>) -> &'a [u8] {
        if self.is_below(suffix) { &self.wire[..self.wire.len() - suffix.wire.len()] } else { &[] }
    }
}

/// Whether an octet of a label is written as it is.
fn is_plain(b: u8) -> bool {
    matches!(b, 0x21..=0x7e) && !matches!(b, b'.' | b'\\' | b'"' | b'(' | b')' | b';' | b'@' | b'$')
}

impl fmt::Display for NameRef<'_> {
    /// Presentation form without the last dot (`.` for the root), escaped as in a zone file (RFC 1035 section 5.1):
    /// octets outside 0x21..0x7e as `\DDD`, dots, backslashes and quotes inside a label with a backslash.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        use fmt::Write;
        if self.is_root() {
            return f.write_char('.');
        }
        for (i, label) in self.labels().enumerate() {
            if i > 0 {
                f.write_char('.')?;
            }
            let mut rest = label;
            while let Some(&b) = rest.first() {
                // Runs of ordinary octets at once: nearly every label is one.
                let plain = rest.iter().position(|b| !is_plain(*b)).unwrap_or(rest.len());
                let (run, behind) = rest.split_at(plain.max(1));
                rest = behind;
                match std::str::from_utf8(run) {
                    Ok(text) if plain > 0 => f.write_str(text)?,
                    _ if matches!(b, 0x21..=0x7e) => {
                        f.write_char('\\')?;
                        f.write_char(b as char)?;
                    }
                    _ => write!(f, "\\{b:03}")?,
                }
            }
        }
        Ok(())
    }
}

impl fmt::Debug for NameRef<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Iterator over labels, leftmost first. See [`NameRef::labels`].
#[derive(Clone)]
pub struct Labels<'a> {
    rest: &'a [u8],
}

impl<'a> Iterator for Labels<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        let (&len, rest) = self.rest.split_first()?;
        if len == 0 {
            return None;
        }
        let (label, rest) = rest.split_at_checked(len as usize)?;
        self.rest = rest;
        Some(label)
    }
}

/// An owned canonical name.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NameBuf {
    wire: Box<[u8]>,
}

impl NameBuf {
    /// Borrows the name.
    pub fn as_ref(&self) -> NameRef<'_> {
        NameRef { wire: &self.wire }
    }

    /// Parses presentation form (RFC 1035 section 5.1), with or without the last dot; upper case is folded.
    pub fn from_text(text: &str) -> Result<Self, NameError> {
        QName::from_text(text).map(|q| q.as_ref().to_owned())
    }
}

impl fmt::Display for NameBuf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.as_ref().fmt(f)
    }
}

impl fmt::Debug for NameBuf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.as_ref(), f)
    }
}

impl std::str::FromStr for NameBuf {
    type Err = NameError;
    fn from_str(s: &str) -> Result<Self, NameError> {
        Self::from_text(s)
    }
}

impl serde::Serialize for NameBuf {
    fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

impl<'de> serde::Deserialize<'de> for NameBuf {
    fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(d)?;
        Self::from_text(&text).map_err(serde::de::Error::custom)
    }
}

/// A canonical name held in place, for the path of a query where nothing may be allocated.
#[derive(Clone, Copy)]
pub struct QName {
    wire: [u8; MAX_NAME],
    len: u8,
}

impl QName {
    /// Reads one uncompressed name at the start of `octets`, folding ASCII upper case; returns it and its wire length.
    pub fn read(octets: &[u8]) -> Result<(Self, usize), NameError> {
        let mut wire = [0; MAX_NAME];
        let mut at = 0;
        loop {
            let len = *octets.get(at).ok_or(NameError::Truncated)?;
            if len as usize > MAX_LABEL {
                return Err(NameError::BadLabelType);
            }
            let end = at + 1 + len as usize;
            if end > MAX_NAME || (len != 0 && end + 1 > MAX_NAME) {
                return Err(NameError::TooLong);
            }
            let label = octets.get(at + 1..end).ok_or(NameError::Truncated)?;
            wire[at] = len;
            for (to, from) in wire[at + 1..end].iter_mut().zip(label) {
                *to = from.to_ascii_lowercase();
            }
            at = end;
            if len == 0 {
                return Ok((Self { wire, len: at as u8 }, at));
            }
        }
    }

    /// A copy of `name`.
    pub fn copy_of(name: NameRef<'_>) -> Self {
        let mut wire = [0; MAX_NAME];
        wire[..name.wire.len()].copy_from_slice(name.wire);
        Self { wire, len: name.wire.len() as u8 }
    }

    /// Parses presentation form, with or without the last dot; upper case is folded.
    pub fn from_text(text: &str) -> Result<Self, NameError> {
        let bytes = text.as_bytes();
        if bytes == b"." || bytes.is_empty() {
            return Ok(Self::copy_of(NameRef::ROOT));
        }
        let mut wire = [0; MAX_NAME];
        let mut len_at = 0; // where the current label's length octet goes
        let mut at = 1;
        let mut i = 0;
        while i < bytes.len() {
            let octet = match bytes[i] {
                b'.' => {
                    if at == len_at + 1 {
                        return Err(NameError::EmptyLabel);
                    }
                    i += 1;
                    wire[len_at] = (at - len_at - 1) as u8;
                    len_at = at;
                    at += 1;
                    if at > MAX_NAME {
                        return Err(NameError::TooLong);
                    }
                    continue;
                }
                b'\\' => {
                    let next = *bytes.get(i + 1).ok_or(NameError::BadEscape)?;
                    if next.is_ascii_digit() {
                        let digits = bytes.get(i + 1..i + 4).ok_or(NameError::BadEscape)?;
                        let mut value = 0u16;
                        for d in digits {
                            if !d.is_ascii_digit() {
                                return Err(NameError::BadEscape);
                            }
                            value = value * 10 + u16::from(d - b'0');
                        }
                        i += 4;
                        u8::try_from(value).map_err(|_| NameError::BadEscape)?
                    } else {
                        i += 2;
                        next
                    }
                }
                other => {
                    i += 1;
                    other
                }
            };
            if at >= MAX_NAME {
                return Err(NameError::TooLong);
            }
            if at - len_at > MAX_LABEL {
                return Err(NameError::LabelTooLong);
            }
            wire[at] = octet.to_ascii_lowercase();
            at += 1;
        }
        if at == len_at + 1 {
            // The text ended with a dot: the place kept for a next label is the root label.
            wire[len_at] = 0;
            return Ok(Self { wire, len: at as u8 });
        }
        wire[len_at] = (at - len_at - 1) as u8;
        if at >= MAX_NAME {
            return Err(NameError::TooLong);
        }
        wire[at] = 0;
        Ok(Self { wire, len: (at + 1) as u8 })
    }

    /// Borrows the name.
    pub fn as_ref(&self) -> NameRef<'_> {
        NameRef { wire: &self.wire[..self.len as usize] }
    }
}

impl fmt::Debug for QName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.as_ref(), f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn text_round_trips_with_escapes() {
        for (text, shown) in [
            ("WWW.Example.COM.", "www.example.com"),
            ("a\\.b.c", "a\\.b.c"),
            ("\\000\\255x.y", "\\000\\255x.y"),
            (".", "."),
            ("", "."),
            ("x", "x"),
        ] {
            assert_eq!(NameBuf::from_text(text).expect(text).to_string(), shown);
        }
    }

    #[test]
    fn bad_text_is_refused() {
        assert_eq!(NameBuf::from_text("a..b"), Err(NameError::EmptyLabel));
        assert_eq!(NameBuf::from_text(".a"), Err(NameError::EmptyLabel));
        assert_eq!(NameBuf::from_text("a\\25"), Err(NameError::BadEscape));
        assert_eq!(NameBuf::from_text("a\\256"), Err(NameError::BadEscape));
        assert_eq!(NameBuf::from_text(&"a".repeat(64)), Err(NameError::LabelTooLong));
        let long = vec!["a".repeat(63); 4].join(".");
        assert_eq!(NameBuf::from_text(&long), Err(NameError::TooLong));
        let fits = format!("{}.{}", vec!["a".repeat(63); 3].join("."), "a".repeat(61));
        assert_eq!(NameBuf::from_text(&fits).expect("255 octets").as_ref().wire_len(), 255);
    }

    #[test]
    fn below_compares_labels_not_octets() {
        let zone = NameBuf::from_text("example.com").expect("name");
        let name = |t: &str| NameBuf::from_text(t).expect("name");
        assert!(name("a.example.com").as_ref().is_below(zone.as_ref()));
        assert!(!name("example.com").as_ref().is_below(zone.as_ref()));
        assert!(!name("badexample.com").as_ref().is_at_or_below(zone.as_ref()));
        assert!(!name("a\\007example.com").as_ref().is_at_or_below(zone.as_ref()));
    }

    proptest! {
        #[test]
        fn read_is_total_and_canonical(octets in proptest::collection::vec(any::<u8>(), 0..300)) {
            if let Ok((name, used)) = QName::read(&octets) {
                prop_assert!(used <= octets.len());
                prop_assert!(NameRef::from_wire(name.as_ref().as_wire()).is_ok());
                let text = name.as_ref().to_string();
                let again = NameBuf::from_text(&text).expect("own text parses");
                prop_assert_eq!(again.as_ref().as_wire(), name.as_ref().as_wire());
                let offsets = LabelOffsets::of(name.as_ref());
                let forward: Vec<_> = name.as_ref().labels().collect();
                let mut backward: Vec<_> = offsets.rev_labels(name.as_ref()).collect();
                backward.reverse();
                prop_assert_eq!(forward, backward);
            }
        }

        #[test]
        fn from_text_is_total(text in ".{0,300}") {
            let _ = NameBuf::from_text(&text);
        }
    }
}
