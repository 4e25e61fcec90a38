//! Ages of domains from lists of newly registered ones.
//!
//! A registrable domain that stands in such a list was registered on a known day; of one that does not, nothing is
//! known here.

use std::io::Read;

use staunch_scoring::NameRef;

use super::day::Day;
use super::flat::Flat;
use super::formats::Format;
use super::hash::{HashKey, fingerprint};
use super::parse::{ListError, Report, parse};
use super::source::ListInfo;

/// Collects lists; [`AgeBuilder::build`] makes the table.
pub struct AgeBuilder {
    key: HashKey,
    lists: Vec<ListInfo>,
    fingerprints: Vec<u64>,
    /// Day in the upper half, list in the lower: on one name the later day wins, since a domain that was registered
    /// again is a new one.
    values: Vec<u32>,
}

impl AgeBuilder {
    /// No lists yet.
    pub fn new(key: HashKey) -> Self {
        Self { key, lists: Vec::new(), fingerprints: Vec::new(), values: Vec::new() }
    }

    /// Reads an [`Format::Nrd`] list; `day` is for lines that have none.
    ///
    /// # Errors
    /// [`ListError`]; the builder is then as it was before.
    pub fn add(&mut self, info: ListInfo, from: impl Read, day: Option<Day>) -> Result<Report, ListError> {
        let list = u16::try_from(self.lists.len()).map_err(|_| ListError::TooLarge)?;
        let before = self.fingerprints.len();
        let outcome = parse(from, Format::Nrd, day, |entry| {
            if let Some(Day(day)) = entry.day {
                self.fingerprints.push(fingerprint(entry.name, &self.key));
                self.values.push(u32::from(day) << 16 | u32::from(list));
            }
            Ok(())
        });
        match &outcome {
            Ok(_) => self.lists.push(info),
            Err(_) => {
                self.fingerprints.truncate(before);
                self.values.truncate(before);
            }
        }
        outcome
    }

    /// Makes the table.
    pub fn build(self) -> AgeTable {
        let mut table = Flat::with_room_for(self.fingerprints.len());
        for (fingerprint, value) in self.fingerprints.into_iter().zip(self.values) {
            table.insert(fingerprint, value, u32::max);
        }
        AgeTable { key: self.key, table, lists: self.lists }
    }
}

/// Registration days, ready to be asked. Lookups do not allocate.
pub struct AgeTable {
    key: HashKey,
    table: Flat<u32>,
    lists: Vec<ListInfo>,
}

/// What is known of a domain's registration.
#[derive(Debug, Clone, Copy)]
pub struct AgeMatch<'t> {
    /// The day.
    pub registered: Day,
    /// The list that says so.
    pub list: &'t ListInfo,
}

impl AgeTable {
    /// What is known of a registrable domain (its ICANN level, see [`staunch_scoring::Split::icann`]).
    pub fn look_up(&self, registrable: NameRef<'_>) -> Option<AgeMatch<'_>> {
        if self.table.len() == 0 {
            return None;
        }
        let value = self.table.find(fingerprint(registrable, &self.key))?;
        let list = self.lists.get((value & 0xffff) as usize)?;
        Some(AgeMatch { registered: Day((value >> 16) as u16), list })
    }

    /// Days since registration at `wall` (milliseconds since the Unix epoch), where it is known.
    pub fn days(&self, registrable: NameRef<'_>, wall: u64) -> Option<f32> {
        self.look_up(registrable).map(|found| found.registered.age_at(wall))
    }

    /// Distinct domains.
    pub fn len(&self) -> usize {
        self.table.len()
    }

    /// Whether nothing is known.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl std::fmt::Debug for AgeTable {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("AgeTable").field("names", &self.len()).field("lists", &self.lists.len()).finish()
    }
}

#[cfg(test)]
mod tests {
    use staunch_scoring::NameBuf;

    use super::*;
    use crate::lists::hash::test_key;

    #[test]
    fn the_latest_registration_counts_and_unknown_stays_unknown() {
        let mut builder = AgeBuilder::new(test_key());
        let info = |id: &str| ListInfo { id: id.into(), file: id.into(), source: None, category: None, reviewed: None };
        builder
            .add(info("new"), b"a.example,2026-11-10\nb.example\n".as_slice(), Day::parse("2026-11-11"))
            .expect("list");
        builder.add(info("old"), b"a.example,2026-10-01\n".as_slice(), None).expect("list");
        builder.add(info("bad"), b"a.example,2026-12-01\n<\n<\n".as_slice(), None).expect_err("garbage");
        let table = builder.build();
        let wall = Day::parse("2026-11-12").expect("day").start();
        let days = |name: &str| table.days(NameBuf::from_text(name).expect("name").as_ref(), wall);
        assert_eq!(days("a.example"), Some(2.0));
        assert_eq!(days("b.example"), Some(1.0));
        assert_eq!(days("www.a.example"), None, "only the registrable domain itself is asked for");
        assert_eq!(days("c.example"), None);
        let name = NameBuf::from_text("a.example").expect("name");
        assert_eq!(table.look_up(name.as_ref()).expect("known").list.id.as_ref(), "new");
        assert_eq!(table.len(), 2);
    }
}
