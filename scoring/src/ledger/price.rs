//! Prices of events, as the lengths of an adaptive code.
//!
//! A reader who sees one account's queries in order sees at each step one of a few kinds of event and then its detail.
//! Kinds are coded with the Krichevsky-Trofimov estimator, (count + 1/2) over all counts so far: after n events the
//! choice of kinds has cost at most about log2(n) bits more than the best fixed weights in hindsight, so a session
//! that only ever does one kind pays next to nothing for it. The details are a new name's code length (paid by the
//! caller) or a uniform choice among the older names. At every step the weights of all possible next events sum to one,
//! so charges summed over a session are the length of a real code for what was sent (Kraft).

use super::sent::Tag;
use crate::bits::Bits;

/// Where a name stands in the history of one account.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Seen {
    /// Not sent before, or not known to have been.
    New,
    /// The name of the account's last event (an `AAAA` behind its `A`).
    Last,
    /// The name that came behind the last one the time before.
    Next,
    /// Another name that was sent earlier.
    Older,
}

/// History of one account, by kind of event. Counts saturate: the code stays a code, since any weights that follow
/// from the history will do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
#[serde(default)]
pub(crate) struct History {
    /// Distinct names.
    pub new: u16,
    /// Repeats of the last name.
    pub last: u16,
    /// Repeats of the name that was to come next.
    pub next: u16,
    /// Repeats of another older name.
    pub older: u16,
    /// The last name; means nothing before the first event.
    pub last_name: Tag,
}

/// An event as it stands in a history, with what was to come next there.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Event {
    pub seen: Seen,
    /// Whether the history foretold a name other than the last.
    foretold: bool,
}

impl History {
    /// What is kept of it.
    pub fn words(&self) -> [u64; 5] {
        [self.new.into(), self.last.into(), self.next.into(), self.older.into(), self.last_name.into()]
    }

    /// What was kept.
    pub fn of_words([new, last, next, older, last_name]: [u64; 5]) -> Self {
        let [new, last, next, older] = [new, last, next, older].map(|word| u16::try_from(word).unwrap_or(u16::MAX));
        Self { new, last, next, older, last_name: u32::try_from(last_name).unwrap_or(u32::MAX) }
    }

    /// The event that `name` would be here; `paid` is whether the session has sent it, `next` the name that came
    /// behind the account's last one the time before.
    pub fn event(&self, name: Tag, paid: bool, next: Option<Tag>) -> Event {
        let next = next.filter(|next| self.new > 0 && *next != self.last_name);
        let seen = match paid && self.new > 0 {
            false => Seen::New,
            true if self.last_name == name => Seen::Last,
            true if next == Some(name) => Seen::Next,
            true => Seen::Older,
        };
        Event { seen, foretold: next.is_some() }
    }

    /// Price of the kind, and of the choice among older names.
    pub fn price(&self, event: Event) -> Bits {
        if self.new == 0 {
            // Nothing to repeat: the first event can only be a new name.
            return Bits::ZERO;
        }
        let half = |count: u16| 2 * u64::from(count) + 1;
        let others = u64::from(self.new).saturating_sub(1 + u64::from(event.foretold));
        let next = if event.foretold { half(self.next) } else { 0 };
        let older = if others > 0 || event.seen == Seen::Older { half(self.older) } else { 0 };
        let all = half(self.new) + half(self.last) + next + older;
        match event.seen {
            Seen::New => Bits::log2_ratio(all, half(self.new)),
            Seen::Last => Bits::log2_ratio(all, half(self.last)),
            Seen::Next => Bits::log2_ratio(all, next),
            Seen::Older => Bits::log2_ratio(all, older).plus(Bits::log2(others)),
        }
    }

    /// Writes an event down.
    pub fn book(&mut self, event: Event, name: Tag) {
        let count = match event.seen {
            Seen::New => &mut self.new,
            Seen::Last => &mut self.last,
            Seen::Next => &mut self.next,
            Seen::Older => &mut self.older,
        };
        *count = count.saturating_add(1);
        self.last_name = name;
    }

    /// Forwarded queries, saturating.
    pub fn queries(&self) -> u32 {
        [self.new, self.last, self.next, self.older].into_iter().map(u32::from).sum()
    }
}

/// Price of a domain's first name, for the choice of the domain itself (ICANN level: the tenants of a platform are
/// made for nothing and spelled out under the model instead).
///
/// A reader sees the queries for domains it holds and no others, so this is a flat code over its own set: 12 bits hold
/// for a reader of up to 4,096 registrable domains. One with more gains the difference, 1 bit a new domain for each
/// doubling. (Spelling the domain out under the model would be valid for any reader, and cost every ordinary session
/// some 45 bits a domain for information nobody gets.) Chosen: four thousand domains for one leak is more than any known
/// campaign spent on a victim.
pub(crate) const NEW_DOMAIN: Bits = Bits::whole(12);

/// Where an event's domain stands in the history of the session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Turn {
    /// Not paid for before.
    New,
    /// That of the last event.
    Same,
    /// The one that came behind the last event's domain the time before.
    Next,
    /// Another one.
    Older,
}

/// Which ICANN-level domains a session has turned to, one event after another. Positions are those of accounts, plus
/// one; zero is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
#[serde(default)]
pub(crate) struct Domains {
    /// Distinct domains that were paid for.
    pub paid: u32,
    same: u16,
    next: u16,
    older: u16,
    /// Domain of the last event.
    pub last: u16,
}

impl Domains {
    /// What is kept of it.
    pub fn words(&self) -> [u64; 5] {
        [self.paid.into(), self.same.into(), self.next.into(), self.older.into(), self.last.into()]
    }

    /// What was kept.
    pub fn of_words([paid, same, next, older, last]: [u64; 5]) -> Self {
        let [same, next, older, last] = [same, next, older, last].map(|word| u16::try_from(word).unwrap_or(u16::MAX));
        Self { paid: u32::try_from(paid).unwrap_or(u32::MAX), same, next, older, last }
    }

    /// The turn to the domain at `position` (0 where it has no account of its own); `next` is the domain that came
    /// behind the last one the time before.
    pub fn turn(&self, position: u16, paid: bool, next: u16) -> (Turn, bool) {
        let foretold = next != 0 && next != self.last && self.last != 0;
        let turn = match paid && position != 0 {
            false => Turn::New,
            true if position == self.last => Turn::Same,
            true if foretold && position == next => Turn::Next,
            true => Turn::Older,
        };
        (turn, foretold)
    }

    /// Price of a turn.
    pub fn price(&self, (turn, foretold): (Turn, bool)) -> Bits {
        if self.paid == 0 {
            return NEW_DOMAIN;
        }
        let half = |count: u32| 2 * u64::from(count) + 1;
        let known = u64::from(self.last != 0) + u64::from(foretold);
        let others = u64::from(self.paid).saturating_sub(known);
        let same = if self.last != 0 || turn == Turn::Same { half(self.same.into()) } else { 0 };
        let next = if foretold { half(self.next.into()) } else { 0 };
        let older = if others > 0 || turn == Turn::Older { half(self.older.into()) } else { 0 };
        let all = half(self.paid) + same + next + older;
        match turn {
            Turn::New => Bits::log2_ratio(all, half(self.paid)).plus(NEW_DOMAIN),
            Turn::Same => Bits::log2_ratio(all, same),
            Turn::Next => Bits::log2_ratio(all, next),
            Turn::Older => Bits::log2_ratio(all, older).plus(Bits::log2(others)),
        }
    }

    /// Writes a turn down.
    pub fn book(&mut self, turn: Turn, position: u16) {
        match turn {
            Turn::New => self.paid = self.paid.saturating_add(1),
            Turn::Same => self.same = self.same.saturating_add(1),
            Turn::Next => self.next = self.next.saturating_add(1),
            Turn::Older => self.older = self.older.saturating_add(1),
        }
        self.last = position;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn weight(bits: Bits) -> f64 {
        (-bits.as_f64()).exp2()
    }

    #[test]
    fn the_first_name_pays_for_itself_alone() {
        let history = History::default();
        let event = history.event(7, true, None);
        assert_eq!(event.seen, Seen::New, "nothing was sent under this account");
        assert_eq!(history.price(event), Bits::ZERO);
    }

    #[test]
    fn polling_one_name_gets_cheap() {
        let mut history = History::default();
        history.book(history.event(1, false, None), 1);
        let mut spent = Bits::ZERO;
        for _ in 0..1_000 {
            let event = history.event(1, true, None);
            assert_eq!(event.seen, Seen::Last);
            spent = spent.plus(history.price(event));
            history.book(event, 1);
        }
        assert!(spent < Bits::whole(24), "{spent} bits for a thousand polls");
    }

    #[test]
    fn a_round_of_names_gets_cheap() {
        let mut history = History::default();
        let mut spent = Bits::ZERO;
        for round in 0..100 {
            for name in 1..=10u32 {
                let next = (round > 0).then_some(name);
                let event = history.event(name, round > 0, next);
                if round > 1 {
                    assert_eq!(event.seen, Seen::Next);
                    spent = spent.plus(history.price(event));
                }
                history.book(event, name);
            }
        }
        assert!(spent < Bits::whole(80), "{spent} bits for 98 rounds of ten names");
    }

    proptest! {
        /// All that can come next, with weight 2^-price, sums to at most one, and to nearly one.
        #[test]
        fn the_next_event_is_coded(
            new in 1u16..3_000, last in 0u16..3_000, next in 0u16..3_000, older in 0u16..3_000, foretold in any::<bool>(),
        ) {
            let foretold = foretold && new > 1;
            let others = new - 1 - u16::from(foretold);
            let history = History { new, last, next, older: if others > 0 { older } else { 0 }, last_name: 7 };
            let price = |seen| weight(history.price(Event { seen, foretold }));
            let mut sum = price(Seen::New) + price(Seen::Last);
            if foretold {
                sum += price(Seen::Next);
            }
            if others > 0 {
                sum += f64::from(others) * price(Seen::Older);
            }
            prop_assert!(sum <= 1.0 + 1e-9, "{}", sum);
            prop_assert!(sum > 0.98, "{}", sum);
        }

        #[test]
        fn the_next_domain_is_coded(
            paid in 1u32..500, same in 0u16..2_000, next in 0u16..2_000, older in 0u16..2_000, foretold in any::<bool>(),
        ) {
            let foretold = foretold && paid > 1;
            let others = paid - 1 - u32::from(foretold);
            let domains = Domains { paid, same, next, older: if others > 0 { older } else { 0 }, last: 3 };
            let price = |turn| weight(domains.price((turn, foretold)));
            let mut sum = 4_096.0 * price(Turn::New) + price(Turn::Same);
            if foretold {
                sum += price(Turn::Next);
            }
            if others > 0 {
                sum += f64::from(others) * price(Turn::Older);
            }
            prop_assert!(sum <= 1.0 + 1e-9, "{}", sum);
            prop_assert!(sum > 0.98, "{}", sum);
        }
    }
}
