//! What a deny table holds of a name: which line of which list, how far its entries reach, which lists have it, and since
//! when. Eight octets.

use std::collections::HashMap;

use serde::{Deserialize, Serialize};

use super::day::Day;
use super::flat::Value;
use super::form::Reach;

const LINE_BITS: u32 = 29;
const REACH_AT: u32 = LINE_BITS;
const SET_AT: u32 = 32;
const SINCE_AT: u32 = 48;

/// An entry's own name.
const SELF: u8 = 1;
/// All names below it.
const BELOW: u8 = 2;

/// Lines of all lists together that can be numbered.
pub(super) const MAX_LINES: u32 = (1 << LINE_BITS) - 1;

/// Stands for a set that found no number any more.
const UNNUMBERED: u16 = u16::MAX;

fn bits(reach: Reach) -> u8 {
    match reach {
        Reach::Exact => SELF,
        Reach::Below => BELOW,
        Reach::AtOrBelow => SELF | BELOW,
    }
}

/// See the module.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Mark(u64);

impl Value for Mark {
    const OCTETS: usize = u64::OCTETS;

    fn read(octets: &[u8]) -> Option<Self> {
        u64::read(octets).map(Self)
    }

    fn write(self, into: &mut [u8]) {
        self.0.write(into);
    }
}

impl Mark {
    /// `line` counts the lines of all lists; `set` is one of [`Sets`].
    pub(super) fn new(line: u32, reach: Reach, set: u16) -> Self {
        let line = u64::from(line.min(MAX_LINES));
        Self(line | u64::from(bits(reach)) << REACH_AT | u64::from(set) << SET_AT)
    }

    pub(super) fn line(self) -> u32 {
        self.0 as u32 & MAX_LINES
    }

    pub(super) fn set(self) -> u16 {
        (self.0 >> SET_AT) as u16
    }

    pub(super) fn since(self) -> Day {
        Day((self.0 >> SINCE_AT) as u16)
    }

    pub(super) fn with_since(self, since: Day) -> Self {
        Self(self.0 & ((1 << SINCE_AT) - 1) | u64::from(since.0) << SINCE_AT)
    }

    fn reach(self) -> u8 {
        (self.0 >> REACH_AT) as u8 & (SELF | BELOW)
    }

    /// Whether the entry means its own name and nothing below.
    pub(super) fn is_exact(self) -> bool {
        self.reach() == SELF
    }

    /// Whether it covers its own name (`whole`), or what is below.
    #[inline]
    pub(super) fn covers(self, whole: bool) -> bool {
        self.reach() & if whole { SELF } else { BELOW } != 0
    }

    /// Both entries for one name: the line is that of the one that reaches further, else of the first.
    pub(super) fn merged(self, new: Self, sets: &mut Sets) -> Self {
        let reach = self.reach() | new.reach();
        let line = if new.reach() == reach && self.reach() != reach { new.line() } else { self.line() };
        let set = sets.union(self.set(), new.set());
        Self(u64::from(line) | u64::from(reach) << REACH_AT | u64::from(set) << SET_AT)
    }
}

/// How an entry and the exceptions of its list bear on each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Bearing {
    /// Of an exception: whatever its list denies at or below its name is open. Of an entry: nothing more than that opens it.
    #[default]
    Plain,
    /// Of an exception: what its list denies by a name as long or longer stays denied.
    Longest,
    /// Of an exception: opens what is denied by the entry of so many labels above its name, where that is one of
    /// [`Bearing::Tied`].
    Of(u8),
    /// Of an entry: exceptions of its own line open it too.
    Tied,
}

/// One list's word on a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub(super) struct Member {
    /// Number of the list.
    pub(super) list: u16,
    reach: u8,
    /// Whether the list's plain exceptions do not apply to it; of an exception, whether it applies to such entries.
    pub(super) important: bool,
    // Tables that are kept may be older than it.
    #[serde(default)]
    bearing: Bearing,
}

impl Member {
    /// Of an exception for a name of so many labels: whether it opens what `denied` says of one.
    pub(super) fn opens(&self, labels: u8, denied: &Self, denied_labels: u8) -> bool {
        let bears = match self.bearing {
            Bearing::Plain => true,
            Bearing::Longest => denied_labels < labels,
            Bearing::Of(own) => denied_labels == own && denied.bearing == Bearing::Tied,
            Bearing::Tied => false,
        };
        bears && self.list == denied.list && (self.important || !denied.important)
    }

    /// Takes in what the same list says of the same name in another line, where both can be said at once.
    fn takes_in(&mut self, other: &Self) -> bool {
        let denies = |member: &Self| matches!(member.bearing, Bearing::Plain | Bearing::Tied);
        let tied = self.bearing == Bearing::Tied || other.bearing == Bearing::Tied;
        if self.list != other.list || (self.bearing != other.bearing && !(denies(self) && denies(other))) {
            return false;
        }
        if tied {
            // Each denies what the other's line takes out.
            self.bearing = Bearing::Plain;
        }
        self.reach |= other.reach;
        self.important |= other.important;
        true
    }

    /// As [`Mark::covers`].
    pub(super) fn covers(self, whole: bool) -> bool {
        self.reach & if whole { SELF } else { BELOW } != 0
    }
}

/// Which lists have a name, and how far each reaches: every such set that occurs, once.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Sets {
    all: Vec<Box<[Member]>>,
    known: HashMap<Box<[Member]>, u16>,
}

impl Sets {
    /// Sets that were numbered before.
    pub(super) fn numbered(all: Vec<Box<[Member]>>) -> Self {
        Self { all, known: HashMap::new() }
    }

    /// The set of one list.
    pub(super) fn single(&mut self, list: u16, reach: Reach, important: bool, bearing: Bearing) -> u16 {
        self.number([Member { list, reach: bits(reach), important, bearing }].into())
    }

    fn union(&mut self, a: u16, b: u16) -> u16 {
        let (Some(first), Some(second)) = (self.members(a), self.members(b)) else { return UNNUMBERED };
        if first == second && first.iter().all(|member| member.bearing != Bearing::Tied) {
            return a;
        }
        let mut both = first.to_vec();
        for member in second {
            if !both.iter_mut().any(|known| known.takes_in(member)) {
                both.push(*member);
            }
        }
        both.sort_unstable();
        self.number(both.into())
    }

    fn number(&mut self, set: Box<[Member]>) -> u16 {
        if let Some(number) = self.known.get(&set) {
            return *number;
        }
        let number = u16::try_from(self.all.len()).unwrap_or(UNNUMBERED);
        if number != UNNUMBERED {
            self.all.push(set.clone());
            self.known.insert(set, number);
        }
        number
    }

    /// What the lists of a set say; `None` where there were too many sets to number this one.
    pub(super) fn members(&self, set: u16) -> Option<&[Member]> {
        self.all.get(usize::from(set)).map(|set| &**set)
    }

    pub(super) fn all(&self) -> &[Box<[Member]>] {
        &self.all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lists(sets: &Sets, mark: Mark) -> Vec<u16> {
        sets.members(mark.set()).expect("numbered").iter().map(|member| member.list).collect()
    }

    #[test]
    fn every_part_comes_back() {
        for reach in [Reach::Exact, Reach::Below, Reach::AtOrBelow] {
            for (line, set, since) in [(0, 0, 0), (MAX_LINES, u16::MAX, u16::MAX), (7, 3, 20_000)] {
                let mark = Mark::new(line, reach, set).with_since(Day(since));
                assert_eq!((mark.line(), mark.set(), mark.since()), (line, set, Day(since)));
                assert_eq!(mark.covers(true), reach != Reach::Below);
                assert_eq!(mark.covers(false), reach != Reach::Exact);
                assert_eq!(mark.is_exact(), reach == Reach::Exact);
            }
        }
    }

    #[test]
    fn the_line_is_that_of_the_wider_entry_and_every_list_is_kept() {
        let mut sets = Sets::default();
        let mut mark = |line, reach, list| Mark::new(line, reach, sets.single(list, reach, false, Bearing::Plain));
        let (exact, wide, below) = (mark(1, Reach::Exact, 4), mark(2, Reach::AtOrBelow, 9), mark(3, Reach::Below, 2));
        for (first, second, line, expected) in [
            (exact, wide, 2, vec![4, 9]),
            (wide, exact, 2, vec![4, 9]),
            (wide, below, 2, vec![2, 9]),
            (exact, below, 1, vec![2, 4]),
            (below, exact, 3, vec![2, 4]),
            (wide, wide, 2, vec![9]),
        ] {
            let both = first.merged(second, &mut sets);
            assert_eq!((both.line(), lists(&sets, both)), (line, expected));
            assert!(both.covers(true) && both.covers(false));
        }
        let set = exact.merged(below, &mut sets).set();
        let members = sets.members(set).expect("numbered").to_vec();
        let reach: Vec<_> = members.iter().map(|member| (member.covers(true), member.covers(false))).collect();
        assert_eq!(reach, [(false, true), (true, false)], "each list as far as it goes itself");
    }

    #[test]
    fn a_set_beyond_the_last_number_says_so() {
        let mut sets = Sets::default();
        for list in 0..=u16::MAX {
            sets.single(list, Reach::Exact, false, Bearing::Plain);
        }
        let (a, b) = (Mark::new(1, Reach::Exact, 3), Mark::new(2, Reach::Exact, 4));
        let both = a.merged(b, &mut sets);
        assert_eq!((both.line(), sets.members(both.set())), (1, None));
        assert_eq!(both.merged(a, &mut sets).set(), UNNUMBERED);
    }
}
