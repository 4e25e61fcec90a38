//! Prices of events, as the lengths of an adaptive code.
//!
//! A reader who sees one account's queries in order sees at each step one of a few kinds of event and then its detail.
//! Kinds are coded with the Krichevsky-Trofimov estimator, (count + 1/2) over all counts so far: after n events the
//! choice of kinds has cost at most about log2(n) bits more than the best fixed weights in hindsight, so a session
//! that only ever does one kind pays next to nothing for it. The details are a new name's code length (paid by the
//! caller) or a uniform choice among the older names. At every step the weights of all possible next events sum to one,
//! so charges summed over a session are the length of a real code for what was sent (Kraft).

use crate::bits::Bits;

/// Where a name stands in the history of one account.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Seen {
    /// Not sent before, or not known to have been.
    New,
    /// The name of the account's last event (an `AAAA` behind its `A`).
    Last,
    /// Sent earlier.
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
    /// Repeats of an older name.
    pub older: u16,
    /// Short fingerprint of the last name; means nothing before the first event.
    pub last_name: u32,
}

impl History {
    /// Kind of event that a name would be here; `paid` is whether the session has sent it.
    pub fn seen(&self, fingerprint: u64, paid: bool) -> Seen {
        match (paid && self.new > 0, self.last_name == short(fingerprint)) {
            (false, _) => Seen::New,
            (true, true) => Seen::Last,
            (true, false) => Seen::Older,
        }
    }

    /// Price of the kind, and of the choice among older names.
    pub fn price(&self, seen: Seen) -> Bits {
        if self.new == 0 {
            // Nothing to repeat: the first event can only be a new name.
            return Bits::ZERO;
        }
        let half = |count: u16| 2 * u64::from(count) + 1;
        // An older name is possible from the second name on.
        let older = if self.new > 1 || seen == Seen::Older { half(self.older) } else { 0 };
        let all = half(self.new) + half(self.last) + older;
        match seen {
            Seen::New => Bits::log2_ratio(all, half(self.new)),
            Seen::Last => Bits::log2_ratio(all, half(self.last)),
            Seen::Older => Bits::log2_ratio(all, older).plus(Bits::log2(u64::from(self.new.max(2)) - 1)),
        }
    }

    /// Writes an event down.
    pub fn book(&mut self, seen: Seen, fingerprint: u64) {
        let count = match seen {
            Seen::New => &mut self.new,
            Seen::Last => &mut self.last,
            Seen::Older => &mut self.older,
        };
        *count = count.saturating_add(1);
        self.last_name = short(fingerprint);
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

/// What the session account knows beside [`History`]: domains.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
#[serde(default)]
pub(crate) struct Domains {
    /// Distinct ICANN-level domains that were paid for.
    pub paid: u32,
}

impl Domains {
    /// Price of where a new name stands, behind the price of its being new: under a new domain with the weight of the
    /// domains so far and [`NEW_DOMAIN`], under a known one with the weight of the other names, and which.
    pub fn price(&self, known: bool, names: u16) -> Bits {
        if self.paid == 0 {
            return NEW_DOMAIN;
        }
        let fresh = 2 * u64::from(self.paid) + 1;
        let under_known = (2 * u64::from(names)).saturating_sub(2 * u64::from(self.paid)) + 1;
        let all = fresh + under_known;
        if known {
            Bits::log2_ratio(all, under_known).plus(Bits::log2(u64::from(self.paid)))
        } else {
            Bits::log2_ratio(all, fresh).plus(NEW_DOMAIN)
        }
    }
}

const fn short(fingerprint: u64) -> u32 {
    (fingerprint >> 32) as u32
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
        assert_eq!(history.seen(7 << 32, true), Seen::New, "nothing was sent under this account");
        assert_eq!(history.price(Seen::New), Bits::ZERO);
    }

    #[test]
    fn polling_one_name_gets_cheap() {
        let mut history = History::default();
        history.book(Seen::New, 1 << 40);
        let mut spent = Bits::ZERO;
        for _ in 0..1_000 {
            let seen = history.seen(1 << 40, true);
            assert_eq!(seen, Seen::Last);
            spent = spent.plus(history.price(seen));
            history.book(seen, 1 << 40);
        }
        assert!(spent < Bits::whole(24), "{spent} bits for a thousand polls");
    }

    proptest! {
        /// All that can come next, with weight 2^-price, sums to at most one, and to nearly one.
        #[test]
        fn the_next_event_is_coded(new in 1u16..3_000, last in 0u16..3_000, older in 0u16..3_000) {
            let history = History { new, last, older: if new > 1 { older } else { 0 }, last_name: 0 };
            let mut sum = weight(history.price(Seen::New)) + weight(history.price(Seen::Last));
            if new > 1 {
                sum += f64::from(new - 1) * weight(history.price(Seen::Older));
            }
            prop_assert!(sum <= 1.0 + 1e-9, "{}", sum);
            prop_assert!(sum > 0.98, "{}", sum);
        }

        #[test]
        fn where_a_new_name_stands_is_coded(paid in 1u32..500, more in 0u16..2_000) {
            let domains = Domains { paid };
            let names = more.saturating_add(paid as u16);
            let sum = 4_096.0 * weight(domains.price(false, names)) + f64::from(paid) * weight(domains.price(true, names));
            prop_assert!(sum <= 1.0 + 1e-9, "{}", sum);
            prop_assert!(sum > 0.98, "{}", sum);
        }
    }
}
