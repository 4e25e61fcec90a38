//! From readings and accounts to a recommendation.

use super::place::Place;
use crate::assess::{Assessment, Band, Facts, Listing};
use crate::bits::Bits;
use crate::ledger::price::NEW_DOMAIN;
use crate::ledger::times::ENTRANT;
use crate::ledger::types::price_alone;
use crate::ledger::{Charge, LedgerScope, LedgerView};
use crate::state::SessionState;

/// The account that a charge would take past its limit. What costs nothing overdraws nothing.
pub(super) fn overdraw(
    state: &SessionState,
    facts: &Facts<'_>,
    at: &Place<'_>,
    charge: Charge,
    after: LedgerView,
) -> Option<LedgerScope> {
    let tenant = hard(facts, at);
    let past =
        |charge: Bits, spent: Bits, limit: Bits| charge > Bits::ZERO && spent > limit.plus(state.session.allowance);
    match facts.listing {
        Listing::Exact { .. } => None,
        // Repeats below a rule are paid for by an allowance that comes back: a rule is for work that goes on.
        Listing::Below { .. } if charge.repeat => None,
        Listing::Below { budget } => past(charge.name, after.tenant, budget).then_some(LedgerScope::Tenant),
        Listing::Unlisted => [
            (charge.name, after.tenant, tenant, LedgerScope::Tenant),
            (charge.icann, after.icann, facts.budgets.icann, LedgerScope::Icann),
            (charge.session, after.session, facts.budgets.session, LedgerScope::Session),
            (charge.group, after.group, facts.budgets.group, LedgerScope::Group),
        ]
        .into_iter()
        .find_map(|(charge, spent, limit, scope)| past(charge, spent, limit).then_some(scope)),
    }
}

/// The limit of a tenant. Domains beyond the table share one account; it may hold what one of them may under the wider
/// limit.
fn hard(facts: &Facts<'_>, at: &Place<'_>) -> Bits {
    if at.shared { facts.budgets.icann } else { facts.budgets.tenant }
}

/// The band of one query, before tenants are counted. `echo` is what repeats under the tenant have told lately.
pub(super) fn of(state: &SessionState, facts: &Facts<'_>, at: &Place<'_>, assessment: &Assessment, echo: Bits) -> Band {
    let watched = if assessment.score >= facts.params.watch { Band::Watch } else { Band::Answer };
    // A name the outside already knows tells by when and how often it is asked: that can be held back without a loss.
    let repeat = assessment.charge.repeat;
    let held = || {
        let echoed = echo.plus(assessment.charge.name);
        // While the tenant's names are asked again on the resolver's clock, nothing is gained by asking between.
        let fresh = at.tenant.ticks.is_active(facts.now) && assessment.refresh.is_some();
        // What was never answered cannot be answered from memory: another type of a name, asked for the first time.
        facts.at_hand && (echoed > facts.budgets.echo || fresh)
    };
    match (facts.listing, assessment.overdraw) {
        (Listing::Exact { .. }, _) => return Band::Answer,
        (Listing::Below { .. }, _) if repeat && !facts.cached => return if held() { Band::Hold } else { watched },
        (Listing::Below { .. }, Some(_)) => return Band::Sinkhole,
        (Listing::Below { .. }, None) => return watched,
        (Listing::Unlisted, _) => {}
    }
    let tried = assessment.before.tenant.plus(assessment.attempted);
    let hard = hard(facts, at).plus(state.session.allowance);
    let soft = facts.budgets.tenant_soft.plus(state.session.allowance);
    let spent = match assessment.overdraw {
        // All sessions of the group together: no reason to close this one.
        Some(LedgerScope::Group) => return Band::Sinkhole,
        Some(LedgerScope::Session) => !repeat && !is_worn(state, facts),
        Some(_) => !repeat,
        None => false,
    };
    // Whoever goes on trying where it was refused is closed by the softer limit.
    let persists =
        if assessment.sticky { tried > soft } else { tried > hard && assessment.charge.name > Bits::ZERO && !repeat };
    if spent || persists {
        return Band::Quarantine;
    }
    if assessment.sticky {
        return Band::Sinkhole;
    }
    if repeat && !facts.cached {
        return if assessment.overdraw.is_some() || held() { Band::Hold } else { watched };
    }
    if assessment.overdraw.is_some() {
        return Band::Sinkhole;
    }
    // A name that does not leave tells nothing new.
    let enough = assessment.agreeing >= 2 || assessment.told > soft;
    if !facts.cached && enough && assessment.score >= facts.params.sinkhole { Band::Sinkhole } else { watched }
}

/// Whether its names took at most half of what the session may tell, so that a ledger that is spent went to repeats. One that works
/// for hours among unlisted domains asks the same names again and again, which is priced and is no reason to close it: what it
/// asks anew is refused, and that is all.
pub(super) fn is_worn(state: &SessionState, facts: &Facts<'_>) -> bool {
    let domains = Bits::from_steps(state.session.domains.paid.saturating_mul(NEW_DOMAIN.steps()));
    let names = state.accounts.iter().fold(domains, |sum, account| sum.plus(account.told));
    names.plus(names) <= facts.budgets.session.plus(state.session.allowance)
}

/// What it costs to have the tenant's held names asked again, and for one more name to be among them. Only for names
/// that are sent already; below a rule nothing, since its budget is for names.
pub(super) fn refresh(
    state: &SessionState,
    facts: &Facts<'_>,
    at: &Place<'_>,
    before: LedgerView,
) -> (Option<Bits>, Bits) {
    if !at.paid || facts.cached || matches!(facts.listing, Listing::Exact { .. }) {
        return (None, Bits::ZERO);
    }
    let price = at.tenant.ticks.price(facts.now);
    // Which of the tenant's names, by which type.
    let names = u64::from(at.tenant.history.new.max(1));
    let enter = Bits::log2(names).plus(price_alone(facts.qtype, facts.flags, facts.qtypes_allowed)).plus(ENTRANT);
    if matches!(facts.listing, Listing::Below { .. }) {
        return (Some(Bits::ZERO), Bits::ZERO);
    }
    let fits = |spent: Bits, limit: Bits| spent.plus(price).plus(enter) <= limit.plus(state.session.allowance);
    let room = fits(before.tenant, facts.budgets.tenant)
        && fits(before.icann, facts.budgets.icann)
        && fits(before.session, facts.budgets.session);
    (room.then_some(price), enter)
}
