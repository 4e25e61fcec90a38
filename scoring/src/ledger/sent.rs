//! Names a session has paid for, and which of a tenant's names came behind which.
//!
//! Open addressing with linear probing; grows to [`MAX_SENT_NAMES`] and then takes no more. A name that found no room
//! is new each time, and a new name is charged in full: filling the set costs the session, never gains it. Names are
//! kept as 32 bits of a keyed hash: a name that was never sent passes for one that was with a chance of one in two
//! million, and nobody outside the process can aim at it.

/// Distinct names of one session that are remembered as paid for. More would need more spending than any sensible
/// session budget allows (a name costs some 5 bits at least).
pub const MAX_SENT_NAMES: usize = 2_000;

/// Most names noted as changed since the last step of the journal; with more the next step is whole.
const MOST_TOUCHED: usize = 96;

const FIRST: usize = 16;
/// Ten slots for nine entries.
const MOST: usize = MAX_SENT_NAMES.div_ceil(9) * 10;

/// A name as kept.
pub(crate) type Tag = u32;

/// A name's tag; never zero.
pub(crate) fn tag(fingerprint: u64) -> Tag {
    ((fingerprint >> 32) as u32).max(1)
}

/// The set.
#[derive(Debug, Clone, Default)]
pub(crate) struct Sent {
    slots: Box<[Slot]>,
    len: usize,
    /// Names that were added, or got another one behind them, since [`Sent::untouch`]; may hold one more than once.
    touched: Vec<Tag>,
}

#[derive(Debug, Clone, Copy, Default)]
struct Slot {
    /// Zero is empty.
    tag: Tag,
    /// The name of the same tenant that came behind this one last time; zero for none.
    next: Tag,
}

impl Sent {
    pub fn contains(&self, tag: Tag) -> bool {
        self.find(tag).is_ok()
    }

    /// The name that came behind `tag` under its tenant last time.
    pub fn next(&self, tag: Tag) -> Option<Tag> {
        let at = self.find(tag).ok()?;
        self.slots.get(at).map(|slot| slot.next).filter(|next| *next != 0)
    }

    /// Notes that `next` came behind `tag`.
    pub fn follow(&mut self, tag: Tag, next: Tag) {
        if let Ok(at) = self.find(tag)
            && let Some(slot) = self.slots.get_mut(at)
            && slot.next != next
        {
            slot.next = next;
            self.touch(tag);
        }
    }

    /// Adds a name unless it is there or there is no room.
    pub fn insert(&mut self, tag: Tag) {
        if self.len >= self.slots.len() / 10 * 9 && !self.contains(tag) {
            self.grow();
        }
        if let Err(Some(at)) = self.find(tag)
            && self.len < MAX_SENT_NAMES
            && let Some(slot) = self.slots.get_mut(at)
        {
            *slot = Slot { tag, next: 0 };
            self.len += 1;
            self.touch(tag);
        }
    }

    fn touch(&mut self, tag: Tag) {
        if self.touched.len() <= MOST_TOUCHED && self.touched.last() != Some(&tag) {
            if self.touched.len() == self.touched.capacity() {
                self.touched.reserve_exact(self.touched.len().max(8).min(MOST_TOUCHED + 1 - self.touched.len()));
            }
            self.touched.push(tag);
        }
    }

    /// What has changed since [`Sent::untouch`]; `None` where that was too much to note.
    pub fn touched(&self) -> Option<Vec<(Tag, Tag)>> {
        if self.touched.len() > MOST_TOUCHED {
            return None;
        }
        let mut tags = self.touched.clone();
        tags.sort_unstable();
        tags.dedup();
        Some(tags.into_iter().map(|tag| (tag, self.next(tag).unwrap_or(0))).collect())
    }

    /// From here on nothing has changed.
    pub fn untouch(&mut self) {
        self.touched.clear();
    }

    /// Names held.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there is room for what is merely cheaper when it is remembered: forms and labels. Names come first.
    pub fn has_spare_room(&self) -> bool {
        self.len < MAX_SENT_NAMES / 5 * 3
    }

    /// Whether a further name would find no room.
    pub fn is_full(&self) -> bool {
        self.len >= MAX_SENT_NAMES
    }

    /// Every name, with the one behind it.
    pub fn iter(&self) -> impl Iterator<Item = (Tag, Tag)> {
        self.slots.iter().filter(|slot| slot.tag != 0).map(|slot| (slot.tag, slot.next))
    }

    /// Octets on the heap.
    pub fn heap_size(&self) -> usize {
        size_of_val(&*self.slots) + self.touched.capacity() * size_of::<Tag>()
    }

    fn grow(&mut self) {
        let slots = (self.slots.len() * 2).clamp(FIRST, MOST);
        if slots <= self.slots.len() {
            return;
        }
        let old = std::mem::replace(&mut self.slots, vec![Slot::default(); slots].into());
        for kept in old.into_iter().filter(|slot| slot.tag != 0) {
            if let Err(Some(at)) = self.find(kept.tag)
                && let Some(slot) = self.slots.get_mut(at)
            {
                *slot = kept;
            }
        }
    }

    /// The slot that holds it, or the empty slot where it would go, if there are slots.
    fn find(&self, tag: Tag) -> Result<usize, Option<usize>> {
        let count = self.slots.len();
        // The high half of the product maps the tag evenly on any number of slots.
        let start = ((u64::from(tag) * count as u64) >> 32) as usize;
        let mut at = start;
        // Never full: at most nine of ten slots hold a name.
        while let Some(slot) = self.slots.get(at) {
            match slot.tag {
                0 => return Err(Some(at)),
                held if held == tag => return Ok(at),
                _ => at = if at + 1 == count { 0 } else { at + 1 },
            }
        }
        Err(None)
    }
}

impl FromIterator<(Tag, Tag)> for Sent {
    fn from_iter<I: IntoIterator<Item = (Tag, Tag)>>(names: I) -> Self {
        let mut sent = Self::default();
        for (tag, next) in names.into_iter().filter(|(tag, _)| *tag != 0) {
            sent.insert(tag);
            sent.follow(tag, next);
        }
        sent.touched = Vec::new();
        sent
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::HashMap;

    #[test]
    fn a_full_set_takes_no_more_and_keeps_what_it_has() {
        let mut sent = Sent::default();
        let mix = |i: u32| i.wrapping_mul(0x9e37_79b9) | 1;
        for i in 0..MAX_SENT_NAMES as u32 {
            sent.insert(mix(2 * i));
        }
        assert!(sent.is_full());
        sent.insert(mix(1_000_001));
        assert!(!sent.contains(mix(1_000_001)));
        assert!((0..MAX_SENT_NAMES as u32).all(|i| sent.contains(mix(2 * i))));
        assert!(sent.heap_size() <= 20 * 1024, "{}", sent.heap_size());
    }

    proptest! {
        #[test]
        fn it_keeps_names_and_what_came_behind(
            events in proptest::collection::vec((1u32..200, 0u32..200), 0..400),
        ) {
            let mut sent = Sent::default();
            let mut model: HashMap<u32, u32> = HashMap::new();
            for (tag, next) in events {
                // Neighbouring numbers share a slot.
                sent.insert(tag);
                sent.follow(tag, next);
                model.insert(tag, next);
            }
            prop_assert!((1..200).all(|tag| sent.contains(tag) == model.contains_key(&tag)));
            prop_assert!((1..200).all(|tag| sent.next(tag) == model.get(&tag).copied().filter(|next| *next != 0)));
            let again: Sent = sent.iter().collect();
            prop_assert!((1..200).all(|tag| sent.next(tag) == again.next(tag) && sent.contains(tag) == again.contains(tag)));
        }
    }
}
