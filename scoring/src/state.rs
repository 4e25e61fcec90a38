//! What a session has done so far, in bounded memory.
//!
//! Written only by [`crate::Scorer::commit`] and by an operator's release, extension or grant. Knows no clock: nothing
//! here ages, so a sender that waits gains nothing.

use std::hash::BuildHasher;

use foldhash::quality::FixedState;

use crate::bits::Bits;
use crate::ledger::accounts::{Account, Accounts};
use crate::ledger::fingerprints::{Fingerprints, MAX_REFUSED_NAMES};
use crate::ledger::price::{Domains, History};
use crate::ledger::sent::{Sent, Tag, tag};
use crate::ledger::times::TimeHistory;
use crate::ledger::types::TypeHistory;
use crate::name::NameRef;

/// Version of [`StateSnapshot`] as written.
pub const SNAPSHOT: u32 = 2;

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
        if let Some(account) = self.accounts.iter_mut().find(|account| account.key == key && key != 0) {
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
        size_of::<Self>() + self.accounts.heap_size() + self.sent.heap_size() + self.refused.heap_size()
    }

    /// Everything, in the form the store keeps.
    pub fn snapshot(&self) -> StateSnapshot {
        let mut accounts: Vec<Account> = self.accounts.iter().copied().collect();
        let overflow = accounts.pop().unwrap_or_default();
        StateSnapshot {
            version: SNAPSHOT,
            seed: self.seed,
            check: check(self.seed),
            session: self.session,
            accounts: accounts.into_iter().map(Kept::from).collect(),
            overflow: Box::new(Kept::from(overflow)),
            names: self.sent.iter().collect(),
            refused: self.refused.iter().collect(),
            sent: Vec::new(),
        }
    }

    /// The state a snapshot was made of. Never a refund: if the hash that its keys were made with has changed since,
    /// the accounts cannot be told apart any more, so they are added up and every domain shares the sum.
    pub fn restore(snapshot: &StateSnapshot) -> Self {
        let known = snapshot.version == 1 || snapshot.version == SNAPSHOT;
        let matched = known && snapshot.check == check(snapshot.seed);
        let kept: Vec<Account> = snapshot.accounts.iter().flat_map(Kept::accounts).collect();
        let overflow = snapshot.overflow.accounts().next().unwrap_or_default();
        let mut session = snapshot.session;
        if snapshot.version == 1 {
            session.below = kept.iter().fold(overflow.below, |sum, account| sum.plus(account.below));
        }
        let marked = kept.iter().chain([&overflow]).filter(|account| account.sinkholed).count();
        let accounts =
            if matched { Accounts::restore(&kept, overflow) } else { Accounts::restore_unmatched(&kept, overflow) };
        let names = snapshot.names.iter().copied().chain(snapshot.sent.iter().map(|name| (tag(*name), 0)));
        Self {
            seed: snapshot.seed,
            // At most one mark for each account.
            sinkholed: marked as u16,
            accounts,
            sent: names.filter(|_| matched).collect(),
            refused: snapshot.refused.iter().copied().filter(|_| matched).collect(),
            session,
            connections_known: false,
        }
    }
}

/// Tells whether a snapshot's keys were made with the hash function of this build.
fn check(seed: u64) -> u64 {
    FixedState::with_seed(seed).hash_one(b"\x05check\x07example\x00".as_slice())
}

/// [`SessionState`] in the form the store keeps: versioned, every field defaulted. Holds hashes, no names.
#[derive(Debug, Clone, Default, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(default)]
pub struct StateSnapshot {
    /// [`SNAPSHOT`].
    pub version: u32,
    seed: u64,
    check: u64,
    session: SessionAccount,
    accounts: Vec<Kept>,
    overflow: Box<Kept>,
    /// Names and what came behind each; until version 1 `sent`.
    names: Vec<(Tag, Tag)>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    sent: Vec<u64>,
    refused: Vec<u64>,
}

/// An account as the store keeps it, or as version 1 did: a domain's spending as a tenant and as an ICANN-level domain
/// apart inside.
#[derive(Debug, Clone, Default, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(default)]
struct Kept {
    #[serde(flatten)]
    account: Account,
    #[serde(skip_serializing)]
    tenant: Option<Side>,
    #[serde(skip_serializing)]
    icann: Option<Side>,
}

/// What version 1 kept of a domain in one role.
#[derive(Debug, Clone, Copy, Default, PartialEq, serde::Deserialize)]
#[serde(default)]
struct Side {
    spent: Bits,
    history: History,
}

impl From<Account> for Kept {
    fn from(account: Account) -> Self {
        Self { account, tenant: None, icann: None }
    }
}

impl Kept {
    /// The account or, from version 1, the one or two that it is now.
    fn accounts(&self) -> impl Iterator<Item = Account> + use<> {
        let side = |side: Side, account: Account| Account { spent: side.spent, history: side.history, ..account };
        let own = match self.tenant {
            Some(tenant) => side(tenant, self.account),
            None => self.account,
        };
        // What differs between the two was told by tenants of a platform.
        let platform = self.icann.filter(|icann| Some(icann.spent) != self.tenant.map(|tenant| tenant.spent));
        let platform = platform.map(|icann| {
            let key = !self.account.key;
            side(icann, Account { key, paid: self.account.paid, ..Account::default() })
        });
        std::iter::once(own).chain(platform)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::name::NameBuf;

    /// As version 1 wrote it, cut down to two accounts.
    #[test]
    fn a_snapshot_of_version_1_refunds_nothing() {
        let (one, two) = (NameBuf::from_text("one.example").unwrap(), NameBuf::from_text("github.io").unwrap());
        let state = SessionState::new(7);
        let (one, two) = (state.hash(one.as_ref()), state.hash(two.as_ref()));
        let text = format!(
            r#"{{"version":1,"seed":7,"check":{},"session":{{"spent":5000.0}},"accounts":[
                {{"key":{one},"tenant":{{"spent":2040.0,"history":{{"new":9,"last":1,"older":2,"last_name":5}}}},
                  "icann":{{"spent":2040.0}},"below":12.0,"sinkholed":true}},
                {{"key":{two},"icann":{{"spent":4000.0,"history":{{"new":30}}}},"paid":true}}],
              "sent":[81985529216486895],"refused":[3]}}"#,
            check(7)
        );
        let snapshot: StateSnapshot = serde_json::from_str(&text).expect("an older release's");
        let state = SessionState::restore(&snapshot);
        let spent = |key| state.accounts.find(key).map(|account| (account.spent, account.history.new));
        assert_eq!(spent(one), Some((Bits::whole(2040), 9)));
        assert_eq!(spent(!two), Some((Bits::whole(4000), 30)), "a platform's tenants");
        assert_eq!((state.spent_session(), state.spent_below()), (Bits::whole(5000), Bits::whole(12)));
        assert_eq!(state.tenants_sinkholed(), 1);
        assert!(state.sent.contains(tag(81_985_529_216_486_895)));

        let mut other = snapshot.clone();
        other.check ^= 1;
        let state = SessionState::restore(&other);
        let shared = state.accounts.find(12_345).expect("every domain shares one account");
        assert_eq!((shared.spent, shared.sinkholed), (Bits::whole(6040), false), "and no mark refuses them all");
        assert_eq!(state.tenants_sinkholed(), 1, "a mark still counts");
    }
}
