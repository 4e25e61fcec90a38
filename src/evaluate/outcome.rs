//! What became of one session: what left, what was stopped and why.
//!
//! Data that [`super::replay`] writes and [`super::count`] reads.

use staunch_scoring::{Assessment, Bits, NameBuf};

use super::corpus::Label;
use crate::event::{RuleRef, Verdict};
use crate::model::{Qtype, Reason};

/// What has left of one tool's rows.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Left {
    /// Queries forwarded, each held name that joined those asked again among them.
    pub queries: u64,
    /// Ticks of the resolver's clock in which held names were asked again and none had joined: all that shows of one is
    /// whether it took place.
    pub ticks: u64,
    /// Octets of the payload parts of distinct names forwarded, without the separators.
    pub characters: u64,
}

/// A point at which something was stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stop {
    /// Which query of this tool in this session, from 1; those answered locally are not counted.
    pub query: u64,
    /// Why.
    pub reason: Reason,
    /// What had left before.
    pub left: Left,
}

/// A query that was forwarded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Forwarded {
    /// Milliseconds since the session's first row.
    pub at: u64,
    /// Octets of its payload part, 0 for a name that had left before.
    pub characters: u64,
    /// Whether it counts to [`Left::ticks`] and not to [`Left::queries`].
    pub tick: bool,
}

/// What became of one tool's attack in one session.
#[derive(Debug, Clone)]
pub struct AttackRun {
    /// Its label.
    pub label: Label,
    /// An index of [`super::Corpus::tools`].
    pub tool: u16,
    /// Queries that came to a judgement, those of a closed session included.
    pub queries: u64,
    /// Its first query that was not simply answered.
    pub first_action: Option<Stop>,
    /// Its first query that met a closed session, or closed it.
    pub quarantine: Option<Stop>,
    /// What left in all.
    pub left: Left,
    /// Bits charged for it.
    pub charged: Bits,
    /// Every forwarded query.
    pub forwarded: Vec<Forwarded>,
    /// Times of its first and last row, milliseconds since the session's first.
    pub span: (u64, u64),
}

/// The first refusal of a benign name under one tenant.
#[derive(Debug, Clone)]
pub struct Alarm {
    /// Which query of the session, from 1; those answered locally are not counted.
    pub query: u64,
    /// The type asked for.
    pub qtype: Qtype,
    /// Refused, or quarantined for it.
    pub verdict: Verdict,
    /// Why.
    pub reason: Reason,
    /// The rule or list that refused.
    pub rule: Option<RuleRef>,
    /// The score and the ledger.
    pub assessment: Assessment,
}

/// What became of one session's queries under one tenant, or of one label among them.
#[derive(Debug, Clone)]
pub struct PairRun {
    /// The registrable domain.
    pub tenant: NameBuf,
    /// Of the rows; a tenant that rows of two labels ask for is two pairs.
    pub label: Label,
    /// Of the first row.
    pub tool: u16,
    /// The first refusal that was not that of a closed session.
    pub refused: Option<Alarm>,
    /// Queries that met a closed session.
    pub closed: u64,
}

/// Counts of judged queries.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize)]
pub struct Counts {
    /// In all.
    pub judged: u64,
    /// Sent to an upstream.
    pub forwarded: u64,
    /// Answered from what was at hand.
    pub cached: u64,
    /// Held: answered from what was at hand and stale.
    pub held: u64,
    /// Held with nothing at hand: refused.
    pub held_empty: u64,
    /// Refused otherwise.
    pub refused: u64,
    /// Refused because the session was closed.
    pub closed: u64,
}

/// What became of one session.
#[derive(Debug, Clone, Default)]
pub struct SessionRun {
    /// The query that closed it, from 1, its label and the reason.
    pub quarantined: Option<(u64, Label, Reason)>,
    /// Its attacks, by first row.
    pub attacks: Vec<AttackRun>,
    /// Its tenants, by first row.
    pub pairs: Vec<PairRun>,
    /// Counts of rows that are to be let through.
    pub benign: Counts,
    /// Counts of rows that are to be stopped.
    pub attack: Counts,
    /// Rows answered locally: never scored.
    pub local: u64,
    /// Rows that no query can carry or no resolver answers (AXFR): refused before anything is judged.
    pub rejected: u64,
    /// Spent over unlisted domains.
    pub spent: Bits,
    /// Spent on listed names and below rules.
    pub spent_listed: Bits,
}

impl Left {
    /// Bits that have left: `per_query` true ones for each forwarded query where that is known, and of them at most one
    /// for a tick; else five for each character of a payload part (what base32 carries).
    pub fn bits(&self, per_query: Option<f64>) -> f64 {
        per_query
            .map_or(self.characters as f64 * 5.0, |bits| self.queries as f64 * bits + self.ticks as f64 * bits.min(1.0))
    }

    /// Adds one query.
    pub fn add(&mut self, one: Forwarded) {
        self.queries += u64::from(!one.tick);
        self.ticks += u64::from(one.tick);
        self.characters += one.characters;
    }

    /// Takes one query away that was added.
    pub fn take(&mut self, one: Forwarded) {
        self.queries -= u64::from(!one.tick);
        self.ticks -= u64::from(one.tick);
        self.characters -= one.characters;
    }
}

impl SessionRun {
    /// Queries judged so far, of either label.
    pub(super) fn judged(&self) -> u64 {
        self.benign.judged + self.attack.judged
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bits_are_counted_by_query_by_tick_or_by_character() {
        let forwarded = |characters, tick| Forwarded { at: 0, characters, tick };
        let mut left = Left::default();
        [forwarded(32, false), forwarded(0, false), forwarded(0, true)].into_iter().for_each(|one| left.add(one));
        assert_eq!(left, Left { queries: 2, ticks: 1, characters: 32 });
        for (per_query, bits, why) in [
            (None, 160.0, "five bits a character, and repeats have none"),
            (Some(44.0), 89.0, "a tick tells only that it took place"),
            (Some(0.5), 1.5, "and no more than a query of the scheme"),
            (Some(0.0), 0.0, "a scheme that carries nothing"),
        ] {
            assert_eq!(left.bits(per_query), bits, "{why}");
        }
        left.take(forwarded(0, true));
        assert_eq!(left, Left { queries: 2, ticks: 0, characters: 32 });
    }
}
