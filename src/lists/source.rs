//! Lists as they are known beside their names: where from, when looked at, what an entry's line says.

use std::sync::Arc;

use super::day::Day;

/// Notes kept for one list; a list with more of them has the list's own words alone for the others.
pub const MAX_NOTES: usize = 10_000;

/// Where a list comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListInfo {
    /// Unique id.
    pub id: Arc<str>,
    /// File or URL, as given.
    pub file: Arc<str>,
    /// Who publishes it.
    pub source: Option<String>,
    /// What its names are: a word of the operator's.
    pub category: Option<String>,
    /// When a person last looked at it.
    pub reviewed: Option<Day>,
}

/// What the comment on an entry's line says: `# <what>; source: <where>; reviewed: YYYY-MM-DD`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EntryNote {
    /// What it is.
    pub what: Box<str>,
    /// Where that is known from.
    pub source: Box<str>,
    /// When a person last checked.
    pub reviewed: Day,
}

impl EntryNote {
    /// Reads a comment; `None` if it lacks source or day.
    pub fn parse(comment: &str) -> Option<Self> {
        let (mut what, mut source, mut reviewed) = ("", None, None);
        for field in comment.split(';').map(str::trim) {
            if let Some(value) = field.strip_prefix("source:") {
                source = Some(value.trim());
            } else if let Some(value) = field.strip_prefix("reviewed:") {
                reviewed = Day::parse(value.trim());
            } else if what.is_empty() {
                what = field;
            }
        }
        let source = source.filter(|s| !s.is_empty())?;
        Some(Self { what: what.into(), source: source.into(), reviewed: reviewed? })
    }
}
