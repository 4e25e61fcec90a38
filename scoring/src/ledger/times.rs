//! Prices of the time between forwarded queries, as the lengths of an adaptive code.
//!
//! A reader sees when a query arrives. Time is counted in slots of [`SLOT_MS`]; what is finer than a slot is not paid for
//! here (`PROOF.md` says what that leaves). Queries come in bursts, so most stand in the slot of the one before; the
//! second cheap case is a steady rhythm, the last gap again or that give or take one slot. Every other gap pays for its power of
//! two and for its place in it. Classes are coded with (count + 1/24) over the counts so far, the burst with four
//! counts ahead; counts are halved at fifteen, which is a rule of the history alone, so the code stays a code.

use crate::bits::Bits;

/// Length of a slot: the granularity at which time is paid for, milliseconds.
pub const SLOT_MS: u64 = 1_000;

/// Length of a tick, milliseconds: names that are held are asked again at most once a tick, when the tick ends, on the
/// resolver's clock. All that shows is in which ticks a tenant was in use.
pub const TICK_MS: u64 = 240_000;
/// What a tick pays for the number of names that enter with it, where each of these pays [`ENTRANT`] more than for which
/// it is: in all orders k names weigh 1/k!, so e to the power of 2^-5, 0.046 bits, covers every number of them.
const ENTRANTS: Bits = Bits::from_steps(12);
/// See [`ENTRANTS`].
pub(crate) const ENTRANT: Bits = Bits::whole(5);
/// Price of a tenant's first tick: when in a day it was.
const FIRST_TICK: Bits = Bits::whole(10);
/// What a repeat pays for the moment within its slot: log2(1 + 1000 / 250), since repeats wait a random part of 250 ms.
/// The moment of a new name is not paid for, nor that of a repeat in the slot of the query before.
pub(crate) const MOMENT: Bits = Bits::from_steps(595);

const CLASSES: usize = 16;
const MOST: u64 = 15;
/// In the same slot.
const BURST: usize = 0;
/// The last gap again.
const RHYTHM: usize = 1;
/// The same, one slot more or less.
const NEAR: usize = 2;
/// Gap of one slot; from here each class is twice as wide as the one before, the last one open.
const FIRST: usize = 3;
/// Weight of a count against that of a class before anything was seen.
const COUNT: u64 = 24;
/// Weight that the burst starts with: most queries of any program come in one.
const BURST_PRIOR: u64 = 96;
/// When queries were forwarded that one reader sees.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
#[serde(default)]
pub(crate) struct TimeHistory {
    /// Four bits for each class.
    counts: u64,
    /// Slot of the last event, plus one; zero before the first. Not kept over a restart, since the clock is not.
    #[serde(skip)]
    at: u32,
    /// Slots between the last two events.
    gap: u16,
}

/// A gap as coded.
struct Coded {
    class: usize,
    place: Bits,
}

impl TimeHistory {
    fn coded(&self, gap: u32) -> Coded {
        if gap == 0 {
            return Coded { class: BURST, place: Bits::ZERO };
        }
        if self.gap > 1 && gap.abs_diff(u32::from(self.gap)) <= 1 {
            return match gap == u32::from(self.gap) {
                true => Coded { class: RHYTHM, place: Bits::ZERO },
                false => Coded { class: NEAR, place: Bits::whole(1) },
            };
        }
        let power = gap.ilog2() as usize;
        let last = CLASSES - 1 - FIRST;
        if power < last {
            return Coded { class: FIRST + power, place: Bits::whole(power as u32) };
        }
        // The open class: its powers in unary, one bit each.
        Coded { class: CLASSES - 1, place: Bits::whole((power + power - last + 1) as u32) }
    }

    fn count(&self, class: usize) -> u64 {
        self.counts >> (4 * class) & MOST
    }

    fn weight(&self, class: usize) -> u64 {
        COUNT * self.count(class) + 1 + if class == BURST { BURST_PRIOR } else { 0 }
    }

    /// Slots since the last event; `None` before the first, whose time is not coded.
    pub fn gap(&self, now: u64) -> Option<u32> {
        // A clock that has gone back is one that stands still.
        (self.at != 0).then(|| slot(now).saturating_sub(self.at))
    }

    /// Price of an event at `now`, milliseconds.
    pub fn price(&self, now: u64) -> Bits {
        let Some(gap) = self.gap(now) else { return Bits::ZERO };
        let coded = self.coded(gap);
        // Nibbles summed in pairs, then all at once.
        let pairs = (self.counts & 0x0f0f_0f0f_0f0f_0f0f) + (self.counts >> 4 & 0x0f0f_0f0f_0f0f_0f0f);
        let counts = pairs.wrapping_mul(0x0101_0101_0101_0101) >> 56;
        let all = COUNT * counts + CLASSES as u64 + BURST_PRIOR;
        Bits::log2_ratio(all, self.weight(coded.class)).plus(coded.place)
    }

    /// Writes an event down.
    pub fn book(&mut self, now: u64) {
        if let Some(gap) = self.gap(now) {
            let class = self.coded(gap).class;
            if self.count(class) == MOST {
                // All counts by half: one shift, and the bits that crossed into a neighbour masked out.
                self.counts = self.counts >> 1 & 0x7777_7777_7777_7777;
            }
            self.counts += 1 << (4 * class);
            if gap > 0 {
                self.gap = u16::try_from(gap).unwrap_or(u16::MAX);
            }
        }
        self.at = slot(now).max(self.at);
    }

    /// What is kept of it: counts and the last gap.
    pub fn words(&self) -> [u64; 2] {
        [self.counts, self.gap.into()]
    }

    /// What was kept; the clock it went by is not.
    pub fn of_words([counts, gap]: [u64; 2]) -> Self {
        Self { counts, at: 0, gap: u16::try_from(gap).unwrap_or(u16::MAX) }
    }

    /// Gaps of a slot and more that were noted, and how many of them kept the rhythm.
    pub fn even(&self) -> (u32, u32) {
        let all: u64 = (RHYTHM..CLASSES).map(|class| self.count(class)).sum();
        ((self.count(RHYTHM) + self.count(NEAR)) as u32, all as u32)
    }
}

/// Ticks in which a tenant's held names were asked again, as the lengths of an adaptive code: whether the next tick is one
/// of them, with (count + 1/2) over the counts so far, and else how many later, in Elias gamma code.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
#[serde(default)]
pub(crate) struct TickHistory {
    /// The last one, plus one; zero for none. Not kept over a restart, as the clock is not.
    #[serde(skip)]
    last: u32,
    next: u8,
    later: u8,
}

impl TickHistory {
    /// What is kept of it: the counts.
    pub fn words(&self) -> [u64; 2] {
        [self.next.into(), self.later.into()]
    }

    /// What was kept; the clock it went by is not.
    pub fn of_words(words: [u64; 2]) -> Self {
        let [next, later] = words.map(|word| u8::try_from(word).unwrap_or(u8::MAX));
        Self { last: 0, next, later }
    }

    /// Whether this tick or the one before it is one of them.
    pub fn is_active(&self, now: u64) -> bool {
        self.last != 0 && tick(now).saturating_sub(self.last) <= 1
    }

    /// Price of the tick `now` is in: zero where it is paid for.
    pub fn price(&self, now: u64) -> Bits {
        let half = |count: u8| 2 * u64::from(count) + 1;
        let all = half(self.next) + half(self.later);
        match tick(now).saturating_sub(self.last) {
            _ if self.last == 0 => FIRST_TICK.plus(ENTRANTS),
            0 => Bits::ZERO,
            1 => Bits::log2_ratio(all, half(self.next)).plus(ENTRANTS),
            gap => {
                let late = Bits::whole(2 * (gap - 1).ilog2() + 1);
                Bits::log2_ratio(all, half(self.later)).plus(late).plus(ENTRANTS)
            }
        }
    }

    /// Writes a tick down, once.
    pub fn book(&mut self, now: u64) {
        match tick(now).saturating_sub(self.last) {
            _ if self.last == 0 => {}
            0 => return,
            1 => self.next = self.next.saturating_add(1),
            _ => self.later = self.later.saturating_add(1),
        }
        self.last = tick(now);
    }
}

/// The tick of a time, plus one.
fn tick(now: u64) -> u32 {
    u32::try_from(now / TICK_MS + 1).unwrap_or(u32::MAX)
}

/// Slot of a time, plus one.
fn slot(now: u64) -> u32 {
    u32::try_from(now / SLOT_MS + 1).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn spent(gaps: impl Iterator<Item = u64>) -> f64 {
        let mut history = TimeHistory::default();
        let (mut now, mut spent) = (0, Bits::ZERO);
        history.book(now);
        for gap in gaps {
            now += gap;
            spent = spent.plus(history.price(now));
            history.book(now);
        }
        spent.as_f64()
    }

    #[test]
    fn bursts_and_rhythms_are_cheap() {
        assert!(spent((0..100).map(|_| 3)) < 30.0);
        let polls = spent((0..1_000).map(|i| 60_000 + i % 7 * 100)) / 1_000.0;
        assert!(polls < 2.5, "{polls} bits a poll that is late now and then");
        assert!(spent((0..1_000).map(|_| 60_000)) < 600.0, "a steady one");
        let told = spent((0..1_000u64).map(|i| 1_000 * (1 + i * 7_919 % 1_024))) / 1_000.0;
        assert!(told > 10.0, "{told} bits for a choice among 1,024 slots");
    }

    #[test]
    fn a_tenant_in_steady_use_pays_little_for_its_ticks() {
        let mut ticks = TickHistory::default();
        let mut spent = Bits::ZERO;
        for minute in 0..24 * 60u64 {
            spent = spent.plus(ticks.price(minute * 60_000));
            ticks.book(minute * 60_000);
        }
        assert!(spent < Bits::whole(60), "{spent} bits a day");
    }

    #[test]
    fn the_next_tick_is_coded() {
        let mut ticks = TickHistory::default();
        for tick in [0, 1, 2, 5, 6, 100, 101] {
            ticks.book(tick * TICK_MS);
            let weight = |gap: u64| (-ticks.price((tick + gap) * TICK_MS).as_f64()).exp2();
            // Entrants weigh at most what a tick pays for them.
            let sum: f64 = (1..60_000).map(weight).sum::<f64>() * (-ENTRANT.as_f64()).exp2().exp();
            assert!(sum <= 1.0, "{sum}");
        }
    }

    #[test]
    fn the_first_event_and_the_first_after_a_restart_are_free() {
        let mut history = TimeHistory::default();
        assert_eq!(history.price(77_000), Bits::ZERO);
        history.book(77_000);
        assert!(history.price(99_000) > Bits::ZERO);
        let kept: TimeHistory = serde_json::from_str(&serde_json::to_string(&history).unwrap()).unwrap();
        assert_eq!(kept.price(5_000), Bits::ZERO);
    }

    proptest! {
        /// All gaps that can come next, with weight 2^-price, sum to at most one.
        #[test]
        fn the_next_gap_is_coded(before in proptest::collection::vec(0u64..200, 0..60)) {
            let mut history = TimeHistory::default();
            let mut now = 0;
            history.book(now);
            for gap in before {
                now += gap * SLOT_MS;
                history.book(now);
            }
            let sum: f64 = (0..40_000u64).map(|gap| (-history.price(now + gap * SLOT_MS).as_f64()).exp2()).sum();
            prop_assert!(sum <= 1.0 + 1e-9, "{}", sum);
        }

        #[test]
        fn any_times_are_priced(times in proptest::collection::vec(any::<u64>(), 0..40)) {
            let mut history = TimeHistory::default();
            for now in times {
                prop_assert!(history.price(now) < Bits::whole(100));
                history.book(now);
            }
        }
    }
}
