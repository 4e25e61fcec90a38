//! Mutations that are the same on every machine and in every run.

/// A small generator of numbers (xorshift): repeatable, and of no other use.
#[derive(Debug, Clone)]
pub struct Chance(u64);

impl Chance {
    /// From a seed; 0 is as good as any other.
    pub fn new(seed: u64) -> Self {
        Self(seed ^ 0x9e37_79b9_7f4a_7c15)
    }

    /// The next number below `limit`; 0 where that is 0.
    pub fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        ((self.0 >> 11) as usize).checked_rem(limit).unwrap_or(0)
    }
}

/// Octets and pairs at which readers decide: ends of ranges, signs, pointers, lengths.
const TELLING: [u8; 12] = [0, 1, 2, 3, 63, 64, 0x7f, 0x80, 0xbf, 0xc0, 0xfe, 0xff];

/// Changes `octets` in one to four places; `other` is something to take pieces from.
pub fn mutate(octets: &mut Vec<u8>, other: &[u8], chance: &mut Chance) {
    for _ in 0..=chance.below(4) {
        let at = chance.below(octets.len());
        match chance.below(9) {
            0 => set(octets, at, |octet| octet ^ 1 << (at & 7)),
            1 => {
                let telling = TELLING[chance.below(TELLING.len())];
                set(octets, at, |_| telling);
            }
            2 => {
                let any = chance.below(256) as u8;
                set(octets, at, |_| any);
            }
            3 => octets.truncate(at),
            4 => {
                let any = chance.below(256) as u8;
                octets.insert(at, any);
            }
            5 => {
                let end = (at + 1 + chance.below(16)).min(octets.len());
                octets.drain(at.min(end)..end);
            }
            6 => {
                // The same once more: a second record, a second key.
                let end = (at + chance.below(64)).min(octets.len());
                let piece = octets[at..end].to_vec();
                octets.splice(end..end, piece);
            }
            7 => {
                let from = chance.below(other.len());
                let end = (from + chance.below(64)).min(other.len());
                octets.splice(at..at, other[from..end].iter().copied());
            }
            _ => {
                let to = chance.below(octets.len());
                if at < octets.len() {
                    octets.swap(at, to);
                }
            }
        }
    }
}

fn set(octets: &mut [u8], at: usize, value: impl FnOnce(u8) -> u8) {
    if let Some(octet) = octets.get_mut(at) {
        *octet = value(*octet);
    }
}
