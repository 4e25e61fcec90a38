//! One query assessed: readings, families, score, band, charge.
//!
//! Between what policy knows of a name ([`Facts`]) and what it decides. [`Scorer::assess`] is pure: the live path,
//! `explain` and a replay get the same answer for the same state and facts. What an assessment costs the session is
//! written down by [`Scorer::commit`] alone. Knows no rule, no clock and no mode.

mod band;
mod book;
mod labels;
mod place;
mod readings;

use crate::assess::{Assessment, Band, Facts, Listing, Outcome};
use crate::bits::Bits;
use crate::ledger::price::Seen;
use crate::ledger::sent::tag;
use crate::ledger::times::MOMENT;
use crate::ledger::{Charge, LedgerScope, LedgerView};
use crate::model::numbers;
use crate::model::{Information, Model};
use crate::name::NameRef;
use crate::signals::{self, Signal};
use crate::state::SessionState;
use place::{Keys, Place, left_of};

/// The scorer: an immutable model and fitted densities.
pub struct Scorer {
    model: &'static Model,
}

/// What an assessment found out that its commit needs again: hashes and worths, which depend on the name alone and on
/// which forms were known.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Trail {
    keys: Keys,
    /// Of the payload part under the tenant.
    worth: Information,
    /// Of the payload part under the ICANN-level domain.
    whole: Information,
}

impl Scorer {
    /// A scorer over the shipped model.
    pub fn new() -> Self {
        Self { model: Model::shipped() }
    }

    /// A scorer over another model, for tools that compare models. Charges are a bound under any.
    pub fn over(model: &'static Model) -> Self {
        Self { model }
    }

    /// Assesses a query and changes nothing.
    pub fn assess(&self, state: &SessionState, facts: &Facts<'_>) -> Assessment {
        let keys = Keys::of(state, facts);
        let at = Place::of(state, facts, keys);
        let payload = left_of(facts.qname, at.tenant_name);
        let plain = self.read(payload);
        let worth = self.worth(state, payload, plain, &at);
        // A reader of the whole ICANN-level domain, or of several, also sees which tenant of a platform is asked.
        let whole = match facts.split.multi_tenant {
            true if !at.paid => {
                let read = self.read(left_of(facts.qname, at.icann_name));
                // The platform's own names may be coded in other ways, and say so.
                let said = if at.icann.history.new > 0 { numbers::PLAIN } else { Bits::ZERO };
                Information { total: read.total.plus(said), ..read }
            }
            _ => worth,
        };
        let trail = Trail { keys, worth, whole };
        let charge = if facts.cached {
            Charge { repeat: at.paid, ..Charge::default() }
        } else {
            charge(state, facts, &at, &trail)
        };

        let before = LedgerView {
            tenant: if is_below(facts) { at.tenant.below } else { at.tenant.spent },
            icann: if keys.apart { at.icann.spent } else { at.tenant.spent },
            session: state.session.spent,
            listed: state.session.listed,
            group: facts.group.map_or(Bits::ZERO, |group| group.spent),
        };
        let after = book::after(before, facts, charge);
        let readings = readings::read(state, facts, &at, &trail, plain, after);
        debug_assert!(readings.iter().map(|reading| reading.signal).eq(Signal::ALL));
        // What domains beyond the table told is not known of any of them.
        let before_told = if at.shared { Bits::ZERO } else { at.tenant.told };
        let told = if at.paid { before_told } else { before_told.plus(worth.total) };
        let (score, agreeing) = signals::combine(&readings, facts.params.without);

        let attempt = if at.refused { Bits::ZERO } else { charge.name };
        let echo = at.echo(facts);
        let (refresh, enter) = band::refresh(state, facts, &at, before);
        let mut assessment = Assessment {
            readings,
            score,
            agreeing,
            information: worth.total,
            told,
            charge,
            before,
            after,
            overdraw: band::overdraw(state, facts, &at, charge, after),
            slow: at.paid
                && !facts.cached
                && !is_exact(facts)
                && echo.plus(echo).plus(echo).plus(echo) > facts.budgets.echo,
            refresh,
            enter,
            sticky: at.tenant.sinkholed && !at.shared,
            names_sent: u32::from(at.tenant.history.new),
            attempted: at.tenant.attempted.plus(attempt),
            tenants_sinkholed: state.tenants_sinkholed(),
            band: Band::Answer,
            trail,
        };
        assessment.band = band::of(state, facts, &at, &assessment, echo);
        if marks(state, facts, &at, &assessment) && !assessment.sticky {
            assessment.tenants_sinkholed += 1;
            if assessment.tenants_sinkholed >= u32::from(facts.params.quarantine_tenants) {
                assessment.band = Band::Quarantine;
            }
        }
        assessment
    }

    /// Writes down what was done with a query that [`Scorer::assess`] judged on this same state.
    ///
    /// A refusal is to be committed where the score, the ledger or a mark of theirs refused; names that a deny rule
    /// or list refuses need not be, since they say nothing of what the session could have told.
    pub fn commit(&self, state: &mut SessionState, facts: &Facts<'_>, assessment: &Assessment, outcome: Outcome) {
        let trail = assessment.trail;
        let at = Place::of(state, facts, trail.keys);
        if marks(state, facts, &at, assessment) {
            let account = state.accounts.entry(at.keys.tenant);
            state.sinkholed += u16::from(!account.sinkholed);
            account.sinkholed = true;
        }
        match outcome {
            Outcome::Cached => {}
            Outcome::Held { refreshed, entered } => {
                // Without room for the tick nothing is asked again, and nothing enters.
                if let Some(refresh) = assessment.refresh.filter(|_| refreshed) {
                    let enter = if entered { assessment.enter } else { Bits::ZERO };
                    book::held(state, facts, &at, refresh.plus(enter));
                }
            }
            Outcome::Refused => {
                let counts = facts.listing == Listing::Unlisted && !facts.cached && assessment.band >= Band::Sinkhole;
                if counts && !at.refused && assessment.overdraw != Some(LedgerScope::Group) {
                    let account = state.accounts.entry(at.keys.tenant);
                    account.attempted = account.attempted.plus(assessment.charge.name);
                    state.refuse(at.keys.name);
                }
            }
            Outcome::Forwarded => {
                // An answer that was at hand a moment ago and had to be fetched after all: it leaves, so it costs.
                let charge = match facts.cached {
                    true => charge(state, facts, &at, &trail),
                    false => assessment.charge,
                };
                book::forwarded(state, facts, &at, charge, Some(&trail));
            }
        }
    }

    /// Books names of the resolver's own choosing that are sent beside a query, under the one name that was assessed in their
    /// place. They cost what they can tell, and what they are made of is no evidence of what the session does: what it has chosen
    /// itself, the query, is evidence when it leaves.
    pub fn commit_beside(&self, state: &mut SessionState, facts: &Facts<'_>, assessment: &Assessment) {
        let at = Place::of(state, facts, assessment.trail.keys);
        book::forwarded(state, facts, &at, assessment.charge, None);
    }

    /// Whether the session has sent `name` at any time: a question for it would be a repeat ([`Charge::repeat`]).
    pub fn was_sent(&self, state: &SessionState, name: NameRef<'_>) -> bool {
        state.sent.contains(tag(state.hash(name)))
    }

    /// What a payload part is worth; of its labels, the one least like a host's by the price it has as one: a run of
    /// hexadecimal digits costs little as such, and is no host's label for that.
    fn read(&self, payload: &[u8]) -> Information {
        let (information, strange) = self.model.examine(payload);
        Information { richest: strange.bits, richest_symbols: strange.symbols, ..information }
    }

    /// What the payload part is worth behind what was sent under its tenant: by the model, as a known form with other
    /// numbers, or in known labels, whichever is cheapest, with the price of saying which.
    fn worth(&self, state: &SessionState, payload: &[u8], plain: Information, at: &Place<'_>) -> Information {
        let sent = at.tenant.history.new;
        if sent == 0 || at.paid {
            return plain;
        }
        let mut least = Information { total: plain.total.plus(numbers::PLAIN), ..plain };
        if let Some(form) = at.known_form {
            let which = match at.form == Some(at.tenant.form) {
                true => numbers::SAME_FORM,
                // There are no more forms than names.
                false => numbers::NUMBERED.plus(Bits::log2(u64::from(sent))),
            };
            let total = which.plus(form.bits);
            if total < least.total {
                least = Information { total, richest: form.bits, richest_symbols: form.symbols };
            }
        }
        match labels::worth(|label| self.read(label), state, at.keys.tenant, at.tenant.labels, payload) {
            Some(labelled) if labelled.total < least.total => labelled,
            _ => least,
        }
    }
}

impl Default for Scorer {
    fn default() -> Self {
        Self::new()
    }
}

/// Whether this query marks its tenant as sinkholed.
fn marks(state: &SessionState, facts: &Facts<'_>, at: &Place<'_>, assessment: &Assessment) -> bool {
    // What a group has spent says nothing of this session, and what repeats have nothing of this tenant; a mark on the overflow
    // account would refuse every domain beyond the table.
    let says_nothing = || match assessment.overdraw {
        Some(LedgerScope::Group) => true,
        Some(LedgerScope::Session) => band::is_worn(state, facts),
        _ => false,
    };
    !at.shared && facts.listing == Listing::Unlisted && assessment.band >= Band::Sinkhole && !says_nothing()
}

fn is_exact(facts: &Facts<'_>) -> bool {
    matches!(facts.listing, Listing::Exact { .. })
}

fn is_below(facts: &Facts<'_>) -> bool {
    matches!(facts.listing, Listing::Below { .. })
}

/// What forwarding costs, whether or not the answer is at hand.
fn charge(state: &SessionState, facts: &Facts<'_>, at: &Place<'_>, trail: &Trail) -> Charge {
    if let Listing::Exact { of } = facts.listing {
        // Four combinations of flags with each type.
        let typed = Bits::log2(4 * u64::from(facts.qtypes_allowed));
        return Charge { name: Bits::log2(u64::from(of)).plus(typed), repeat: at.paid, ..Charge::default() };
    }
    let price = |seen: Seen, whole: Bits| if seen == Seen::New { whole } else { Bits::ZERO };
    let tenant = &at.tenant;
    let typed = tenant.types.price(facts.qtype, facts.flags, facts.qtypes_allowed);
    let event = at.tenant_event;
    let which = tenant.history.price(event).plus(price(event.seen, trail.worth.total));
    // The same name's other types, asked at once, have no moment of their own.
    let apart = at.paid && tenant.times.gap(facts.now).is_some_and(|gap| gap > 0);
    let moment = if apart { MOMENT } else { Bits::ZERO };
    let name = which.plus(typed).plus(tenant.times.price(facts.now)).plus(moment);
    if is_below(facts) {
        return Charge { name, repeat: at.paid, ..Charge::default() };
    }

    let (icann, which) = if at.keys.apart {
        let event = at.icann_event;
        let which = at.icann.history.price(event).plus(price(event.seen, trail.whole.total));
        (which.plus(typed).plus(at.icann.times.price(facts.now)).plus(moment), which)
    } else {
        (name, which)
    };

    // A reader of all domains sees the turn to this one, and times and types over all of them.
    let session = which
        .plus(state.session.domains.price(at.turn))
        .plus(state.session.types.price(facts.qtype, facts.flags, facts.qtypes_allowed))
        .plus(state.session.times.price(facts.now))
        .plus(moment);
    let known = facts.group.is_none_or(|group| group.known);
    let group = if known || at.paid { Bits::ZERO } else { session };
    Charge { name, icann, session, group, repeat: at.paid }
}
