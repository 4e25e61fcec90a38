//! What was done with a query is written down: counts of its session, what monitor mode learns from, and the ledger.
//!
//! Behind [`Policy::decide`], whose decision it takes as it is.

use staunch_scoring::{Band, Outcome};

use super::{Decision, Policy};
use crate::event::Verdict;
use crate::model::{Mode, Reason};
use crate::session::Inner;

impl Policy {
    /// Writes down what was done with a query that was judged on this same state.
    pub fn commit(&self, inner: &mut Inner, decision: &Decision<'_>, outcome: Outcome) {
        inner.counts.queries += 1;
        if decision.applied == Verdict::Hold && matches!(outcome, Outcome::Cached | Outcome::Held { .. }) {
            // Answered, if from memory: that a name is asked often is no reason to watch anybody.
        } else if decision.tells_against() {
            inner.counts.refused += 1;
            inner.watched = true;
            inner.sample(decision.facts.qname);
            if let Some(hash) = decision.tunnel_name {
                inner.note_tunnel_name(hash);
            }
        } else if decision.assessment.band >= Band::Watch {
            inner.watched = true;
        }
        if outcome == Outcome::Forwarded {
            inner.counts.forwarded += 1;
        }
        // What a rule, a list, a type or a quarantine refused says nothing of what the session could have told; what left
        // is booked whatever the reason was.
        let judged = matches!(
            decision.reason,
            None | Some(
                Reason::Score
                    | Reason::LedgerTenant
                    | Reason::LedgerIcann
                    | Reason::LedgerSession
                    | Reason::LedgerGroup
                    | Reason::Held
            )
        );
        // Learned from where nothing is taken away: in enforce mode a refused tenant is not asked for again.
        if judged && decision.mode == Mode::Monitor {
            let allowance = inner.score.allowance();
            inner.maxima.note(decision.scope, &decision.facts, &decision.assessment, allowance);
        }
        if decision.would == Verdict::Quarantine {
            inner.maxima.bar();
        }
        if judged || outcome == Outcome::Forwarded {
            inner.dirty |= outcome == Outcome::Refused || decision.would != Verdict::Answer;
            self.scorer.commit(&mut inner.score, &decision.facts, &decision.assessment, outcome);
        }
    }
}
