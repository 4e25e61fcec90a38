//! Where the labels of a name begin.

use super::{MAX_LABELS, NameRef};

/// Label start offsets of a name, so that labels can be walked from the right without rescanning.
#[derive(Clone, Copy)]
pub struct LabelOffsets {
    at: [u8; MAX_LABELS + 1],
    count: u8,
}

impl LabelOffsets {
    /// Scans `name` once.
    pub fn of(name: NameRef<'_>) -> Self {
        let mut at = [0; MAX_LABELS + 1];
        let mut count = 0;
        let mut pos = 0;
        while name.wire[pos] != 0 {
            at[count] = pos as u8;
            count += 1;
            pos += 1 + name.wire[pos] as usize;
        }
        at[count] = pos as u8;
        Self { at, count: count as u8 }
    }

    /// Number of labels, root not counted.
    pub fn count(&self) -> usize {
        self.count as usize
    }

    /// Wire offset of label `i` (its length octet), leftmost is 0; `count()` gives the root label.
    pub fn offset(&self, i: usize) -> usize {
        self.at[i] as usize
    }

    /// The labels from the right, root not included.
    pub fn rev_labels<'n>(&self, name: NameRef<'n>) -> impl Iterator<Item = &'n [u8]> + use<'n, '_> {
        (0..self.count()).rev().map(move |i| {
            let at = self.at[i] as usize;
            &name.wire[at + 1..at + 1 + name.wire[at] as usize]
        })
    }
}
