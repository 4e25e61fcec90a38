//! A session's state as the store keeps it: whole, or as steps that are put on one another.
//!
//! On disk it is one Base64 string of numbers: a session that asks fresh names is noted every few questions, so a line has
//! to be small, and nobody reads hashes. Until version 2 it was an object with a name for every number; it is still read.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use serde::de::Error as _;

use crate::bits::Bits;
use crate::ledger::accounts::{Account, MAX_ACCOUNTS};
use crate::ledger::price::History;
use crate::ledger::sent::{Tag, tag};
use crate::state::SessionAccount;

/// Version of [`StateSnapshot`] as written.
pub const SNAPSHOT: u32 = 3;

/// [`crate::SessionState`] in the form the store keeps, or what has changed of it since an earlier one. Holds hashes, no names.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct StateSnapshot {
    /// [`SNAPSHOT`]; else nothing is known of its keys.
    pub(crate) version: u32,
    pub(crate) seed: u64,
    pub(crate) check: u64,
    /// Number of the step.
    pub(crate) step: u64,
    /// Steps it covers, this one included; zero where it is whole.
    pub(crate) span: u64,
    /// The most that any account may have been charged in steps that are missing.
    pub(crate) lost: Bits,
    /// Accounts marked as sinkholed.
    pub(crate) sinkholed: u16,
    pub(crate) session: SessionAccount,
    pub(crate) overflow: Option<Account>,
    /// Whether further domains share the overflow account whatever room there is.
    pub(crate) closed: bool,
    pub(crate) accounts: Vec<Account>,
    /// Names and what came behind each.
    pub(crate) names: Vec<(Tag, Tag)>,
    pub(crate) refused: Vec<u64>,
}

impl StateSnapshot {
    /// Whether it stands for everything before it.
    pub fn is_whole(&self) -> bool {
        self.span == 0
    }

    /// Number of the step, or of the last one before it was made whole.
    pub fn step(&self) -> u64 {
        self.step
    }

    /// Whether `self` and `other` are of one life of a session, so that their steps can be compared.
    pub fn is_of(&self, other: &Self) -> bool {
        self.seed == other.seed
    }

    /// Whether no step is missing in it.
    pub fn is_complete(&self) -> bool {
        self.is_whole() && self.lost == Bits::ZERO
    }

    /// Whether `newer` can be put on it without anything missing between them.
    pub fn is_followed_by(&self, newer: &Self) -> bool {
        newer.is_whole() || self.is_of(newer) && newer.step.saturating_sub(newer.span) <= self.step
    }

    /// Both together, as if there had been one step. Where steps between them are missing, what was charged in them is noted
    /// as lost ([`crate::SessionState::restore`]). A step that is known already adds nothing.
    #[must_use]
    pub fn then(self, newer: Self) -> Self {
        if newer.is_whole() {
            return newer;
        }
        if !self.is_of(&newer) {
            return newer.alone();
        }
        if newer.step <= self.step {
            return self;
        }
        let lost = match self.is_followed_by(&newer) {
            true => Bits::ZERO,
            // Also what the newer one itself says, since only the sums are known.
            false => newer.session.moved.minus(self.session.moved).max(Bits::from_steps(1)),
        };
        let span = if self.is_whole() { 0 } else { newer.step - self.step + self.span };
        let Self { mut accounts, mut names, mut refused, .. } = self;
        for account in newer.accounts {
            match accounts.iter_mut().find(|known| known.key == account.key) {
                Some(known) => *known = account,
                None => accounts.push(account),
            }
        }
        // A name that is there twice has behind it what was written last.
        names.extend(newer.names);
        refused.extend(newer.refused);
        let (lost, overflow) = (self.lost.plus(newer.lost).plus(lost), newer.overflow.or(self.overflow));
        Self { span, lost, overflow, accounts, names, refused, ..newer }
    }

    /// A step with nothing below it, as everything that is known.
    #[must_use]
    pub fn alone(self) -> Self {
        if self.is_whole() {
            return self;
        }
        Self { span: 0, lost: self.lost.plus(self.session.moved).max(Bits::from_steps(1)), ..self }
    }

    /// As if another build with another hash function had written it, which a test cannot have at hand.
    #[doc(hidden)]
    #[must_use]
    pub fn of_another_build(self) -> Self {
        Self { check: !self.check, ..self }
    }

    fn encoded(&self) -> String {
        let mut out = Out(Vec::with_capacity(128 + 64 * self.accounts.len() + 8 * self.names.len()));
        out.numbers([u64::from(FORM), self.version.into(), self.step, self.span, self.lost.steps().into()]);
        out.0.extend_from_slice(&self.seed.to_le_bytes());
        out.0.extend_from_slice(&self.check.to_le_bytes());
        out.number(self.sinkholed.into());
        out.words(&self.session.words());
        out.number(u64::from(self.overflow.is_some()) | u64::from(self.closed) << 1);
        if let Some(overflow) = &self.overflow {
            out.words(&overflow.words());
        }
        out.number(self.accounts.len() as u64);
        for account in &self.accounts {
            out.0.extend_from_slice(&account.key.to_le_bytes());
            out.words(&account.words());
        }
        out.number(self.names.len() as u64);
        for (name, next) in &self.names {
            out.0.extend_from_slice(&name.to_le_bytes());
            out.0.extend_from_slice(&next.to_le_bytes());
        }
        out.number(self.refused.len() as u64);
        self.refused.iter().for_each(|name| out.0.extend_from_slice(&name.to_le_bytes()));
        STANDARD_NO_PAD.encode(&out.0)
    }

    fn decoded(text: &str) -> Option<Self> {
        let octets = STANDARD_NO_PAD.decode(text).ok()?;
        let mut rest = In(&octets);
        if rest.number()? != u64::from(FORM) {
            return None;
        }
        let mut state = Self {
            version: u32::try_from(rest.number()?).ok()?,
            step: rest.number()?,
            span: rest.number()?,
            lost: Bits::from_steps(u32::try_from(rest.number()?).ok()?),
            seed: rest.fixed().map(u64::from_le_bytes)?,
            check: rest.fixed().map(u64::from_le_bytes)?,
            sinkholed: u16::try_from(rest.number()?).ok()?,
            session: SessionAccount::of_words(rest.words()?),
            ..Self::default()
        };
        let flags = rest.number()?;
        state.closed = flags & 2 != 0;
        if flags & 1 != 0 {
            state.overflow = Some(Account::of_words(0, rest.words()?));
        }
        for _ in 0..rest.number()? {
            let key = rest.fixed().map(u64::from_le_bytes)?;
            state.accounts.push(Account::of_words(key, rest.words()?));
        }
        for _ in 0..rest.number()? {
            let name = rest.fixed().map(u32::from_le_bytes)?;
            state.names.push((name, rest.fixed().map(u32::from_le_bytes)?));
        }
        for _ in 0..rest.number()? {
            state.refused.push(rest.fixed().map(u64::from_le_bytes)?);
        }
        Some(state)
    }
}

impl serde::Serialize for StateSnapshot {
    fn serialize<S: serde::Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(&self.encoded())
    }
}

impl<'de> serde::Deserialize<'de> for StateSnapshot {
    fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        match Wire::deserialize(from)? {
            Wire::Numbers(text) => Self::decoded(&text).ok_or_else(|| D::Error::custom("no state of this version")),
            Wire::Named(named) => Ok((*named).into()),
        }
    }
}

/// How the numbers are put together.
const FORM: u8 = 1;

/// Octets of a snapshot as they are written. Numbers are LEB128, so small ones are short; a group of them begins with a number that says
/// by its bits which are not zero, so that new ones can be added at the end.
pub(crate) struct Out(pub(crate) Vec<u8>);

impl Out {
    pub(crate) fn number(&mut self, mut number: u64) {
        while number >= 0x80 {
            self.0.push(number as u8 | 0x80);
            number >>= 7;
        }
        self.0.push(number as u8);
    }

    pub(crate) fn numbers<const N: usize>(&mut self, numbers: [u64; N]) {
        numbers.into_iter().for_each(|number| self.number(number));
    }

    pub(crate) fn words(&mut self, words: &[u64]) {
        let there = words.iter().rev().fold(0, |mask: u64, word| mask << 1 | u64::from(*word != 0));
        self.number(there);
        words.iter().filter(|word| **word != 0).for_each(|word| self.number(*word));
    }
}

/// The same as they are read.
pub(crate) struct In<'a>(pub(crate) &'a [u8]);

impl In<'_> {
    pub(crate) fn number(&mut self) -> Option<u64> {
        let mut number = 0;
        for shift in (0..64).step_by(7) {
            let (octet, rest) = self.0.split_first()?;
            self.0 = rest;
            number |= u64::from(octet & 0x7f) << shift;
            if octet & 0x80 == 0 {
                return Some(number);
            }
        }
        None
    }

    /// Words this version does not know are passed over.
    pub(crate) fn words<const N: usize>(&mut self) -> Option<[u64; N]> {
        let there = self.number()?;
        let mut words = [0; N];
        for at in (0..64).filter(|at| there >> at & 1 != 0) {
            let word = self.number()?;
            if let Some(slot) = words.get_mut(at) {
                *slot = word;
            }
        }
        Some(words)
    }

    pub(crate) fn fixed<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (octets, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(*octets)
    }
}

#[derive(serde::Deserialize)]
#[serde(untagged)]
enum Wire {
    Numbers(String),
    Named(Box<Named>),
}

/// As versions 1 and 2 wrote it, every field defaulted.
#[derive(Default, serde::Deserialize)]
#[serde(default)]
struct Named {
    version: u32,
    seed: u64,
    check: u64,
    session: SessionAccount,
    accounts: Vec<Kept>,
    overflow: Box<Kept>,
    /// Until version 1 `sent`.
    names: Vec<(Tag, Tag)>,
    sent: Vec<u64>,
    refused: Vec<u64>,
}

impl From<Named> for StateSnapshot {
    fn from(named: Named) -> Self {
        let accounts: Vec<Account> = named.accounts.iter().flat_map(Kept::accounts).take(2 * MAX_ACCOUNTS).collect();
        let overflow = named.overflow.accounts().next().unwrap_or_default();
        let mut session = named.session;
        if named.version == 1 {
            session.below = accounts.iter().fold(overflow.below, |sum, account| sum.plus(account.below));
        }
        let names = named.names.into_iter().chain(named.sent.into_iter().map(|name| (tag(name), 0)));
        Self {
            // Their keys are those of this version.
            version: if named.version == 1 || named.version == 2 { SNAPSHOT } else { 0 },
            seed: named.seed,
            check: named.check,
            session,
            overflow: Some(overflow),
            accounts,
            names: names.collect(),
            refused: named.refused,
            ..Self::default()
        }
    }
}

/// An account of version 2, or of version 1: a domain's spending as a tenant and as an ICANN-level domain apart inside.
#[derive(Default, serde::Deserialize)]
#[serde(default)]
struct Kept {
    #[serde(flatten)]
    account: Account,
    tenant: Option<Side>,
    icann: Option<Side>,
}

/// What version 1 kept of a domain in one role.
#[derive(Clone, Copy, Default, serde::Deserialize)]
#[serde(default)]
struct Side {
    spent: Bits,
    history: History,
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
mod tests;
