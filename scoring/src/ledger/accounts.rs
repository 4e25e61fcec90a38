//! A session's accounts by domain, in bounded memory.
//!
//! A domain has one account as a tenant and, where it is a platform, another one as an ICANN-level domain. At
//! [`MAX_ACCOUNTS`] domains every further one shares the overflow account, under the same limits: spreading over more
//! domains than the table holds gains nothing and shows.

use super::price::History;
use super::times::{TickHistory, TimeHistory};
use super::types::TypeHistory;
use crate::bits::Bits;

/// Domains with an account of their own in one session, a platform counted beside its tenants.
pub const MAX_ACCOUNTS: usize = 360;

/// A domain's account.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
#[serde(default)]
pub(crate) struct Account {
    /// Keyed hash of the domain.
    pub key: u64,
    /// Spent by unlisted names.
    pub spent: Bits,
    /// Which of its names, one event after another.
    pub history: History,
    /// By which types.
    pub types: TypeHistory,
    /// When.
    pub times: TimeHistory,
    /// In which ticks its held names were asked again.
    pub ticks: TickHistory,
    /// By names below a rule.
    pub below: Bits,
    /// What distinct refused names would have cost.
    pub attempted: Bits,
    /// Information of the distinct unlisted names alone: what [`Side::spent`] is without repeats, events and types.
    pub told: Bits,
    /// The part of it in each name's richest label.
    pub richest: Bits,
    /// Symbols of those labels.
    pub richest_symbols: u32,
    /// What repeats have told lately: falls with time.
    pub echo: Bits,
    /// When that was, seconds of the scorer's clock. Not kept over a restart, since the clock is not.
    #[serde(skip)]
    pub echo_at: u32,
    /// Run of rich names: see [`crate::signals::surge`].
    pub surge: u16,
    /// Distinct names asked by a type that carries more than an address.
    pub odd_types: u16,
    /// Answers, and those of them that deny the name.
    pub answers: u16,
    pub name_errors: u16,
    /// Octets of record data in answers, in units of 16.
    pub answer_volume: u16,
    /// Times that an address was connected to which a name here had resolved to.
    pub connected: u16,
    /// Position (plus one) of the ICANN-level domain that the session turned to behind this one last time.
    pub next: u16,
    /// Labels remembered under it.
    pub labels: u16,
    /// Form of the last name with numbers; zero for none.
    pub form: u32,
    /// Sinkholed by score or ledger.
    pub sinkholed: bool,
    /// Whether the session account has paid for the choice of this ICANN-level domain.
    pub paid: bool,
}

/// All accounts of a session.
#[derive(Debug, Clone, Default)]
pub(crate) struct Accounts {
    accounts: Vec<Account>,
    /// Open addressing over `accounts`: position + 1, zero is empty. A power of two, at most half full.
    index: Box<[u16]>,
    /// For every domain that found no room.
    pub overflow: Account,
    /// No more room, though `accounts` is not full: set where a restored state could not be matched, or may lack some.
    closed: bool,
    /// Which may have changed since [`Accounts::untouch`], a bit for each; the overflow account's is [`MAX_ACCOUNTS`].
    touched: [u64; TOUCHED],
}

const TOUCHED: usize = MAX_ACCOUNTS / 64 + 1;

impl Accounts {
    /// The account that `key` has, or would share for want of room; `None` where it would get its own and has none yet.
    pub fn find(&self, key: u64) -> Option<&Account> {
        match self.slot(key) {
            Ok(position) => self.accounts.get(position),
            Err(_) if self.is_full() => Some(&self.overflow),
            Err(_) => None,
        }
    }

    /// The position of the account that `key` has of its own, plus one; zero where it has none.
    pub fn position(&self, key: u64) -> u16 {
        // Positions stay below MAX_ACCOUNTS.
        self.slot(key).map_or(0, |position| position as u16 + 1)
    }

    /// The account at a position that [`Accounts::position`] gave.
    pub fn at(&self, position: u16) -> Option<&Account> {
        self.accounts.get(usize::from(position).checked_sub(1)?)
    }

    /// The same, to write to.
    pub fn at_mut(&mut self, position: u16) -> Option<&mut Account> {
        let at = usize::from(position).checked_sub(1).filter(|at| *at < self.accounts.len())?;
        self.touch(at);
        self.accounts.get_mut(at)
    }

    /// Every position that [`Accounts::at`] knows.
    pub fn positions(&self) -> impl Iterator<Item = u16> + use<> {
        // Positions stay below MAX_ACCOUNTS.
        1..=self.accounts.len() as u16
    }

    /// The account to book to, made if there is room.
    pub fn entry(&mut self, key: u64) -> &mut Account {
        let position = match self.slot(key) {
            Ok(position) => position,
            Err(_) if self.is_full() => {
                self.touch(MAX_ACCOUNTS);
                return &mut self.overflow;
            }
            Err(_) => self.add(Account { key, ..Account::default() }),
        };
        self.touch(position);
        // `slot` and `add` only hand out positions of `accounts`.
        &mut self.accounts[position]
    }

    /// Whether further domains share the overflow account.
    pub fn is_full(&self) -> bool {
        self.closed || self.accounts.len() >= MAX_ACCOUNTS
    }

    pub fn len(&self) -> usize {
        self.accounts.len()
    }

    /// Every account, the overflow account last.
    pub fn iter(&self) -> impl Iterator<Item = &Account> {
        self.accounts.iter().chain(std::iter::once(&self.overflow))
    }

    /// Every account, the overflow account last.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = &mut Account> {
        self.touched = [u64::MAX; TOUCHED];
        self.accounts.iter_mut().chain(std::iter::once(&mut self.overflow))
    }

    /// Accounts of their own that may have changed since [`Accounts::untouch`], by position.
    pub fn touched(&self) -> impl Iterator<Item = &Account> {
        self.accounts.iter().enumerate().filter(|(at, _)| self.is_touched(*at)).map(|(_, account)| account)
    }

    /// The overflow account, where it may have changed.
    pub fn touched_overflow(&self) -> Option<&Account> {
        self.is_touched(MAX_ACCOUNTS).then_some(&self.overflow)
    }

    /// From here on nothing has changed.
    pub fn untouch(&mut self) {
        self.touched = [0; TOUCHED];
    }

    fn is_touched(&self, at: usize) -> bool {
        self.touched.get(at / 64).is_some_and(|word| word >> (at % 64) & 1 != 0)
    }

    fn touch(&mut self, at: usize) {
        if let Some(word) = self.touched.get_mut(at / 64) {
            *word |= 1 << (at % 64);
        }
    }

    /// Whether further domains share the overflow account though there is room.
    pub fn is_closed(&self) -> bool {
        self.closed
    }

    /// Further domains share the overflow account from here on.
    pub fn close(&mut self) {
        self.closed = true;
    }

    /// Accounts as they were kept. More than fit, or a key twice, are added up in the overflow account.
    pub fn restore(kept: &[Account], overflow: Account) -> Self {
        let mut accounts = Self { overflow, ..Self::default() };
        for account in kept {
            match accounts.slot(account.key) {
                Err(_) if !accounts.is_full() => {
                    accounts.add(*account);
                }
                _ => accounts.overflow.merge(account),
            }
        }
        accounts
    }

    /// For a state whose keys can no longer be matched: everything is added up in the overflow account and every
    /// domain shares it, so that nothing is refunded.
    pub fn restore_unmatched(kept: &[Account], mut overflow: Account) -> Self {
        kept.iter().for_each(|account| overflow.merge(account));
        Self { overflow, closed: true, ..Self::default() }
    }

    /// Octets on the heap.
    pub fn heap_size(&self) -> usize {
        self.accounts.capacity() * size_of::<Account>() + size_of_val(&*self.index)
    }

    fn add(&mut self, account: Account) -> usize {
        let position = self.accounts.len();
        if position == self.accounts.capacity() {
            let more = position.max(4).min(MAX_ACCOUNTS - position);
            self.accounts.reserve_exact(more);
        }
        if (position + 1) * 2 > self.index.len() {
            self.index = vec![0; (position + 1).next_power_of_two().max(8) * 2].into();
            for at in 0..position {
                self.link(self.accounts[at].key, at);
            }
        }
        self.accounts.push(account);
        self.link(account.key, position);
        position
    }

    fn link(&mut self, key: u64, position: usize) {
        let mask = self.index.len() - 1;
        let mut slot = key as usize & mask;
        while self.index[slot] != 0 {
            slot = (slot + 1) & mask;
        }
        self.index[slot] = position as u16 + 1;
    }

    /// Position of the account, or nothing.
    fn slot(&self, key: u64) -> Result<usize, ()> {
        let mask = self.index.len().wrapping_sub(1);
        let mut slot = key as usize & mask;
        while let Some(&position) = self.index.get(slot) {
            match usize::from(position).checked_sub(1) {
                None => return Err(()),
                Some(at) if self.accounts.get(at).is_some_and(|account| account.key == key) => return Ok(at),
                Some(_) => slot = (slot + 1) & mask,
            }
        }
        Err(())
    }
}

/// Numbers that are kept of an account beside its key.
pub(crate) const WORDS: usize = 28;

impl Account {
    /// What is kept of it beside its key. Their order is the form on disk: new ones go to the end.
    pub fn words(&self) -> [u64; WORDS] {
        let [new, last, next_name, older, last_name] = self.history.words();
        let ([rows, last_type], [counts, gap]) = (self.types.words(), self.times.words());
        let [next_tick, later_tick] = self.ticks.words();
        let bits = |bits: Bits| u64::from(bits.steps());
        [
            bits(self.spent),
            new,
            last_name,
            rows,
            bits(self.told),
            bits(self.richest),
            self.richest_symbols.into(),
            self.labels.into(),
            u64::from(self.sinkholed) | u64::from(self.paid) << 1,
            self.next.into(),
            self.answers.into(),
            self.surge.into(),
            self.form.into(),
            last_type,
            counts,
            gap,
            last,
            next_name,
            older,
            next_tick,
            later_tick,
            bits(self.below),
            bits(self.attempted),
            bits(self.echo),
            self.odd_types.into(),
            self.name_errors.into(),
            self.answer_volume.into(),
            self.connected.into(),
        ]
    }

    /// What was kept. A number that does not fit is the largest that does.
    pub fn of_words(key: u64, words: [u64; WORDS]) -> Self {
        let small = |word: u64| u16::try_from(word).unwrap_or(u16::MAX);
        let wide = |word: u64| u32::try_from(word).unwrap_or(u32::MAX);
        let bits = |word: u64| Bits::from_steps(wide(word));
        #[rustfmt::skip]
        let [
            spent, new, last_name, rows, told, richest, richest_symbols, labels, flags, next, answers, surge, form,
            last_type, counts, gap, last, next_name, older, next_tick, later_tick, below, attempted, echo, odd_types,
            name_errors, answer_volume, connected,
        ] = words;
        Self {
            key,
            spent: bits(spent),
            history: History::of_words([new, last, next_name, older, last_name]),
            types: TypeHistory::of_words([rows, last_type]),
            times: TimeHistory::of_words([counts, gap]),
            ticks: TickHistory::of_words([next_tick, later_tick]),
            below: bits(below),
            attempted: bits(attempted),
            told: bits(told),
            richest: bits(richest),
            richest_symbols: wide(richest_symbols),
            echo: bits(echo),
            echo_at: 0,
            surge: small(surge),
            odd_types: small(odd_types),
            answers: small(answers),
            name_errors: small(name_errors),
            answer_volume: small(answer_volume),
            connected: small(connected),
            next: small(next),
            labels: small(labels),
            form: wide(form),
            sinkholed: flags & 1 != 0,
            paid: flags & 2 != 0,
        }
    }

    /// The account of a domain that turns out to be a platform: what its own names told its readers is part of it.
    pub fn as_platform(&self, key: u64) -> Self {
        let Self { spent, history, types, times, next, paid, .. } = *self;
        Self { key, spent, history, types, times, next, paid, ..Self::default() }
    }

    /// Adds another account's spending; histories take the larger counts. A mark is not taken over: on an account that all
    /// domains share it would refuse every one.
    fn merge(&mut self, other: &Account) {
        self.spent = self.spent.plus(other.spent);
        let (into, from) = (&mut self.history, &other.history);
        into.new = into.new.max(from.new);
        into.last = into.last.max(from.last);
        into.next = into.next.max(from.next);
        into.older = into.older.max(from.older);
        self.below = self.below.plus(other.below);
        self.attempted = self.attempted.plus(other.attempted);
        self.told = self.told.plus(other.told);
        self.richest = self.richest.plus(other.richest);
        self.richest_symbols = self.richest_symbols.saturating_add(other.richest_symbols);
        self.echo = self.echo.plus(other.echo);
        self.surge = self.surge.max(other.surge);
        self.odd_types = self.odd_types.saturating_add(other.odd_types);
        self.answers = self.answers.saturating_add(other.answers);
        self.name_errors = self.name_errors.saturating_add(other.name_errors);
        self.answer_volume = self.answer_volume.saturating_add(other.answer_volume);
        self.connected = self.connected.saturating_add(other.connected);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mix(i: u64) -> u64 {
        i.wrapping_mul(0x9e37_79b9_7f4a_7c15)
    }

    #[test]
    fn domains_beyond_the_table_share_one_account() {
        let mut accounts = Accounts::default();
        for i in 0..5_000 {
            let account = accounts.entry(mix(i));
            account.spent = account.spent.plus(Bits::whole(1));
        }
        assert!(accounts.is_full());
        assert_eq!(accounts.len(), MAX_ACCOUNTS);
        assert_eq!(accounts.overflow.spent, Bits::whole(5_000 - MAX_ACCOUNTS as u32));
        assert_eq!(accounts.find(mix(3)).map(|a| a.spent), Some(Bits::whole(1)), "the first keep their own");
        assert_eq!(accounts.find(mix(99_999)).map(|a| a.spent), Some(accounts.overflow.spent));
        assert!(accounts.heap_size() <= 42 * 1024, "{}", accounts.heap_size());
    }

    #[test]
    fn keys_that_share_a_slot_are_told_apart() {
        let mut accounts = Accounts::default();
        for high in 0..100u64 {
            accounts.entry(high << 32 | 5).below = Bits::whole(high as u32);
        }
        for high in 0..100u64 {
            assert_eq!(accounts.find(high << 32 | 5).map(|a| a.below), Some(Bits::whole(high as u32)));
        }
        assert!(accounts.find(100 << 32 | 5).is_none());
    }

    #[test]
    fn a_restored_table_holds_the_same_or_more() {
        let mut accounts = Accounts::default();
        for i in 0..600 {
            accounts.entry(mix(i)).spent = Bits::whole(3);
        }
        let kept: Vec<_> = accounts.iter().copied().collect();
        let (overflow, kept) = kept.split_last().expect("the overflow account");
        let again = Accounts::restore(kept, *overflow);
        assert!((0..600).all(|i| again.find(mix(i)) == accounts.find(mix(i))));
        let unmatched = Accounts::restore_unmatched(kept, *overflow);
        assert_eq!(unmatched.find(1).map(|a| a.spent), Some(Bits::whole(3 * MAX_ACCOUNTS as u32 + 3)));
    }
}
