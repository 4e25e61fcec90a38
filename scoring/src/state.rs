//! What a session has done so far, in bounded memory.
//!
//! Written only by [`crate::Scorer::commit`] and by an operator's release, extension or grant. Knows no clock: nothing
//! here ages, so a sender that waits gains nothing.

use std::hash::BuildHasher;

use foldhash::quality::FixedState;

use crate::bits::Bits;
use crate::ledger::accounts::{Account, Accounts};
use crate::ledger::fingerprints::{Fingerprints, MAX_REFUSED_NAMES};
use crate::ledger::price::Domains;
use crate::ledger::sent::Sent;
use crate::ledger::times::TimeHistory;
use crate::ledger::types::TypeHistory;
use crate::name::NameRef;
use crate::snapshot::{SNAPSHOT, StateSnapshot};

/// Steps of the journal of which one at least is whole: as many lines at most make up a session's ledger.
pub const MOST_STEPS: u8 = 32;
/// Most refused names noted as new since the last step; with more the next step is whole.
const MOST_REFUSED: usize = 32;

/// One session's score and ledger state: at most 64 KiB, under 3 KiB while idle.
#[derive(Debug, Clone)]
pub struct SessionState {
    seed: u64,
    pub(crate) accounts: Accounts,
    /// Names that were forwarded and paid for.
    pub(crate) sent: Sent,
    /// Names that were refused and counted.
    pub(crate) refused: Fingerprints<MAX_REFUSED_NAMES>,
    pub(crate) session: SessionAccount,
    /// Accounts marked as sinkholed.
    pub(crate) sinkholed: u16,
    /// Whether [`SessionState::connected`] was ever called.
    connections_known: bool,
    told: Told,
}

/// What the journal was told.
#[derive(Debug, Clone, Default)]
struct Told {
    /// Steps.
    step: u64,
    /// Steps since one that was whole.
    since_whole: u8,
    /// The next one has to be whole.
    whole_due: bool,
    /// Refused names since the last step.
    refused: Vec<u64>,
}

/// The accounts that are not a domain's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
#[serde(default)]
pub(crate) struct SessionAccount {
    /// Over all unlisted domains.
    pub spent: Bits,
    /// On the choice among names of exact rules.
    pub listed: Bits,
    /// By names below rules, over all domains.
    pub below: Bits,
    /// What an operator added to every limit of this session.
    pub allowance: Bits,
    /// Distinct unlisted names forwarded.
    pub names: u32,
    /// Which domains, when, by which types.
    pub domains: Domains,
    pub times: TimeHistory,
    pub types: TypeHistory,
    /// Rich names over all domains: see [`crate::signals::spread`].
    pub spread: u32,
    /// All that was charged, by the largest of the charges of each event: no account has gained more between two moments.
    pub moved: Bits,
}

/// Numbers that are kept of the accounts that are not a domain's.
pub(crate) const SESSION_WORDS: usize = 16;

impl SessionAccount {
    /// What is kept of it. Their order is the form on disk: new ones go to the end.
    pub fn words(&self) -> [u64; SESSION_WORDS] {
        let [paid, same, next, older, last] = self.domains.words();
        let ([counts, gap], [rows, last_type]) = (self.times.words(), self.types.words());
        let bits = |bits: Bits| u64::from(bits.steps());
        [
            bits(self.spent),
            bits(self.moved),
            self.names.into(),
            paid,
            last,
            rows,
            counts,
            gap,
            same,
            next,
            older,
            last_type,
            self.spread.into(),
            bits(self.listed),
            bits(self.below),
            bits(self.allowance),
        ]
    }

    /// What was kept. A number that does not fit is the largest that does.
    pub fn of_words(words: [u64; SESSION_WORDS]) -> Self {
        let wide = |word: u64| u32::try_from(word).unwrap_or(u32::MAX);
        let bits = |word: u64| Bits::from_steps(wide(word));
        #[rustfmt::skip]
        let [
            spent, moved, names, paid, last, rows, counts, gap, same, next, older, last_type, spread, listed, below,
            allowance,
        ] = words;
        Self {
            spent: bits(spent),
            listed: bits(listed),
            below: bits(below),
            allowance: bits(allowance),
            names: wide(names),
            domains: Domains::of_words([paid, same, next, older, last]),
            times: TimeHistory::of_words([counts, gap]),
            types: TypeHistory::of_words([rows, last_type]),
            spread: wide(spread),
            moved: bits(moved),
        }
    }
}

/// Response code NXDOMAIN (RFC 1035 section 4.1.1, RFC 8020).
const NAME_ERROR: u16 = 3;
/// Octets of one unit of [`Account::answer_volume`].
pub(crate) const VOLUME_UNIT: u32 = 16;

/// What came back for a forwarded query.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Answered {
    /// Response code (RFC 6895 section 2.3).
    pub rcode: u16,
    /// Octets of record data in the answer section.
    pub octets: u32,
}

impl SessionState {
    /// A session that has done nothing. `seed` keys its hashes: random, and unknown to the session, so that nobody can
    /// choose names that collide.
    pub fn new(seed: u64) -> Self {
        Self {
            seed,
            accounts: Accounts::default(),
            sent: Sent::default(),
            refused: Fingerprints::default(),
            session: SessionAccount::default(),
            sinkholed: 0,
            connections_known: false,
            told: Told { whole_due: true, ..Told::default() },
        }
    }

    /// Keyed hash of a name.
    pub(crate) fn hash(&self, name: NameRef<'_>) -> u64 {
        self.hash_octets(name.as_wire())
    }

    /// Keyed hash of octets.
    pub(crate) fn hash_octets(&self, octets: &[u8]) -> u64 {
        FixedState::with_seed(self.seed).hash_one(octets)
    }

    /// Tenants of this session that the score or the ledger has sinkholed.
    pub fn tenants_sinkholed(&self) -> u32 {
        u32::from(self.sinkholed)
    }

    /// Spent over all unlisted domains.
    pub fn spent_session(&self) -> Bits {
        self.session.spent
    }

    /// Spent on the choice among names of exact rules.
    pub fn spent_listed(&self) -> Bits {
        self.session.listed
    }

    /// Spent by names below rules, over all domains.
    pub fn spent_below(&self) -> Bits {
        self.session.below
    }

    /// What an operator has added to every limit of this session.
    pub fn allowance(&self) -> Bits {
        self.session.allowance
    }

    /// Distinct names forwarded for which the session account was charged.
    pub fn names_sent(&self) -> u32 {
        self.session.names
    }

    /// Domains with an account of their own.
    pub fn domains(&self) -> u32 {
        self.accounts.len() as u32
    }

    /// Whether a table is full, so that further domains share one account or further names are charged each time. A
    /// signal in itself: ordinary work stays far below.
    pub fn overflowed(&self) -> bool {
        self.accounts.is_full() || self.sent.is_full() || self.refused.is_full()
    }

    /// An operator lets the session go on: marks and attempts are cleared, the ledger stays as it is, since what was
    /// told is told. Where an account is spent the next query would close the session again: see
    /// [`SessionState::extend`].
    pub fn release(&mut self) {
        for account in self.accounts.iter_mut() {
            account.sinkholed = false;
            account.attempted = Bits::ZERO;
            account.surge = 0;
        }
        self.sinkholed = 0;
        self.session.spread = 0;
        self.refused.clear();
        self.told.whole_due = true;
    }

    /// An operator accepts that this session tells the outside `bits` more: added to each of its limits (unlisted
    /// tenant, ICANN-level domain, session), and taken from what the fan-out signal reads. Adds up over calls.
    pub fn extend(&mut self, bits: Bits) {
        self.session.allowance = self.session.allowance.plus(bits);
    }

    /// An operator allowed this tenant: its mark and attempts are cleared, what it cost stays. No effect on a tenant
    /// that shares the overflow account.
    pub fn forget_tenant(&mut self, tenant: NameRef<'_>) {
        let key = self.hash(tenant);
        let position = self.accounts.position(key);
        if let Some(account) = self.accounts.at_mut(position) {
            self.sinkholed -= u16::from(account.sinkholed);
            account.sinkholed = false;
            account.attempted = Bits::ZERO;
            account.surge = 0;
        }
    }

    /// Notes what came back for a name under `tenant`. Nothing is made room for: an answer to a query that has no
    /// account is not noted.
    pub fn observe(&mut self, tenant: NameRef<'_>, answered: Answered) {
        let position = self.accounts.position(self.hash(tenant));
        if let Some(account) = self.accounts.at_mut(position) {
            if account.answers == u16::MAX {
                // Shares matter, not sums.
                account.answers /= 2;
                account.name_errors /= 2;
            }
            account.answers += 1;
            account.name_errors = account.name_errors.saturating_add(u16::from(answered.rcode == NAME_ERROR));
            let volume = u16::try_from(answered.octets / VOLUME_UNIT).unwrap_or(u16::MAX);
            account.answer_volume = account.answer_volume.saturating_add(volume);
        }
    }

    /// Whether anybody has said what was connected to: before that, nothing connected means nothing.
    pub(crate) fn connections_known(&self) -> bool {
        self.connections_known
    }

    /// Notes that an address was connected to which a name under `tenant` had resolved to.
    pub fn connected(&mut self, tenant: NameRef<'_>) {
        self.connections_known = true;
        let position = self.accounts.position(self.hash(tenant));
        if let Some(account) = self.accounts.at_mut(position) {
            account.connected = account.connected.saturating_add(1);
        }
    }

    /// Octets this state takes, heap included.
    pub fn size(&self) -> usize {
        size_of::<Self>()
            + self.accounts.heap_size()
            + self.sent.heap_size()
            + self.refused.heap_size()
            + self.told.refused.capacity() * size_of::<u64>()
    }

    /// A name that was refused is counted once.
    pub(crate) fn refuse(&mut self, name: u64) {
        if self.refused.insert(name) {
            match self.told.refused.len() < MOST_REFUSED {
                true => self.told.refused.push(name),
                false => self.told.whole_due = true,
            }
        }
    }

    /// Everything, in the form the store keeps: a step of the journal's that stands for all before it.
    pub fn snapshot(&self) -> StateSnapshot {
        let mut accounts: Vec<Account> = self.accounts.iter().copied().collect();
        StateSnapshot {
            version: SNAPSHOT,
            seed: self.seed,
            check: check(self.seed),
            step: self.told.step,
            span: 0,
            lost: Bits::ZERO,
            sinkholed: self.sinkholed,
            session: self.session,
            overflow: accounts.pop(),
            closed: self.accounts.is_closed(),
            accounts,
            names: self.sent.iter().collect(),
            refused: self.refused.iter().collect(),
        }
    }

    /// The next step of what the journal is told: what has changed since the one before, with the accounts that are not a
    /// domain's; everything at first, at every [`MOST_STEPS`]th, and where that is hardly more. A reader puts the steps on
    /// one another in order ([`StateSnapshot::then`]). Where one does not get to the journal: [`SessionState::retell`].
    pub fn step(&mut self) -> StateSnapshot {
        let names = self.sent.touched().filter(|names| self.is_worth_a_delta(names.len()));
        self.told.step += 1;
        let step = match names {
            Some(names) => StateSnapshot {
                version: SNAPSHOT,
                seed: self.seed,
                check: check(self.seed),
                step: self.told.step,
                span: 1,
                lost: Bits::ZERO,
                sinkholed: self.sinkholed,
                session: self.session,
                overflow: self.accounts.touched_overflow().copied(),
                closed: self.accounts.is_closed(),
                accounts: self.accounts.touched().copied().collect(),
                names,
                refused: self.told.refused.clone(),
            },
            None => self.snapshot(),
        };
        self.told.since_whole = if step.is_whole() { 0 } else { self.told.since_whole + 1 };
        self.told.whole_due = false;
        self.told.refused.clear();
        self.accounts.untouch();
        self.sent.untouch();
        step
    }

    /// Steps the journal was told.
    pub fn steps(&self) -> u64 {
        self.told.step
    }

    /// The last step has not come to the journal: the next one is whole.
    pub fn retell(&mut self) {
        self.told.whole_due = true;
    }

    /// Whether a step with what was touched and `names` is allowed, and less than half of everything.
    fn is_worth_a_delta(&self, names: usize) -> bool {
        /// Octets of an account, roughly; a name takes 8.
        const ACCOUNT: usize = 48;
        let touched = self.accounts.touched().count() * ACCOUNT + (names + self.told.refused.len()) * 8;
        let all = self.accounts.len() * ACCOUNT + (self.sent.len() + self.refused.len()) * 8;
        !self.told.whole_due && self.told.since_whole + 1 < MOST_STEPS && touched * 2 < all
    }

    /// The state a snapshot was made of. Never a refund: if the hash that its keys were made with has changed since,
    /// the accounts cannot be told apart any more, so they are added up and every domain shares the sum. Where steps are
    /// missing, each account may have had all that was charged in them; and a domain without an account may have lost
    /// its own, so it shares one that has spent as much as any.
    pub fn restore(snapshot: &StateSnapshot) -> Self {
        let matched = snapshot.version == SNAPSHOT && snapshot.check == check(snapshot.seed);
        let kept = &snapshot.accounts;
        let overflow = snapshot.overflow.unwrap_or_default();
        let marked = kept.iter().chain([&overflow]).filter(|account| account.sinkholed).count();
        let mut accounts =
            if matched { Accounts::restore(kept, overflow) } else { Accounts::restore_unmatched(kept, overflow) };
        if snapshot.lost > Bits::ZERO {
            let most = |of: fn(&Account) -> Bits| accounts.iter().map(of).max().unwrap_or_default();
            let (spent, below) = (most(|account| account.spent), most(|account| account.below));
            (accounts.overflow.spent, accounts.overflow.below) = (spent, below);
            for account in accounts.iter_mut() {
                account.spent = account.spent.plus(snapshot.lost);
                account.below = account.below.plus(snapshot.lost);
            }
            accounts.close();
        }
        if snapshot.closed {
            accounts.close();
        }
        let names = snapshot.names.iter().copied();
        Self {
            seed: snapshot.seed,
            // At most one mark for each account; one whose account is missing still counts.
            sinkholed: snapshot.sinkholed.max(marked as u16),
            accounts,
            sent: names.filter(|_| matched).collect(),
            refused: snapshot.refused.iter().copied().filter(|_| matched).collect(),
            session: snapshot.session,
            connections_known: false,
            told: Told { step: snapshot.step, whole_due: true, ..Told::default() },
        }
    }
}

/// Tells whether a snapshot's keys were made with the hash function of this build.
pub(crate) fn check(seed: u64) -> u64 {
    FixedState::with_seed(seed).hash_one(b"\x05check\x07example\x00".as_slice())
}
