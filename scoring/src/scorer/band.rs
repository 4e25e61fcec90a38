//! From readings and accounts to a recommendation.

use super::place::Place;
use crate::assess::{Assessment, Band, Facts, Listing};
use crate::bits::Bits;
use crate::ledger::times::price_tick;
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
    // Domains beyond the table share one account; it may hold what one of them may under the wider limit.
    let tenant = if at.shared { facts.budgets.icann } else { facts.budgets.tenant };
    let past =
        |charge: Bits, spent: Bits, limit: Bits| charge > Bits::ZERO && spent > limit.plus(state.session.allowance);
    match facts.listing {
        Listing::Exact { .. } => None,
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

/// The band of one query, before tenants are counted. `echo` is what repeats under the tenant have told lately,
/// `told` what its distinct names have, this one included.
pub(super) fn of(state: &SessionState, facts: &Facts<'_>, assessment: &Assessment, echo: Bits, told: Bits) -> Band {
    let watched = if assessment.score >= facts.params.watch { Band::Watch } else { Band::Answer };
    // A name the outside already knows tells by when and how often it is asked: that can be held back without a loss.
    let repeat = assessment.charge.repeat;
    match (facts.listing, assessment.overdraw) {
        (Listing::Exact { .. }, _) => return Band::Answer,
        (Listing::Below { .. }, Some(_)) if repeat => return Band::Hold,
        (Listing::Below { .. }, Some(_)) => return Band::Sinkhole,
        (Listing::Below { .. }, None) => return watched,
        (Listing::Unlisted, _) => {}
    }
    let tried = assessment.before.tenant.plus(assessment.attempted);
    let hard = facts.budgets.tenant.plus(state.session.allowance);
    let spent = match assessment.overdraw {
        // All sessions of the group together: no reason to close this one.
        Some(LedgerScope::Group) => return Band::Sinkhole,
        Some(_) => !repeat,
        None => false,
    };
    if spent || (tried > hard && (assessment.sticky || (assessment.charge.name > Bits::ZERO && !repeat))) {
        return Band::Quarantine;
    }
    if assessment.sticky {
        return Band::Sinkhole;
    }
    if repeat && !facts.cached {
        let echoed = echo.plus(assessment.charge.name);
        let held = assessment.overdraw.is_some() || echoed > facts.budgets.echo;
        return if held { Band::Hold } else { watched };
    }
    // A name that does not leave tells nothing new.
    let soft = facts.budgets.tenant_soft.plus(state.session.allowance);
    let enough = assessment.agreeing >= 2 || told > soft;
    if !facts.cached && enough && assessment.score >= facts.params.sinkhole { Band::Sinkhole } else { watched }
}

/// What it costs to have the tenant's held names asked again, and for one more name to be among them. Only for names
/// that are sent already; a name that a rule covers is the operator's, and is forwarded.
pub(super) fn refresh(
    state: &SessionState,
    facts: &Facts<'_>,
    at: &Place<'_>,
    before: LedgerView,
) -> (Option<Bits>, Bits) {
    if !at.paid || facts.cached || facts.listing != Listing::Unlisted {
        return (None, Bits::ZERO);
    }
    let price = price_tick(at.tenant.tick, facts.now);
    // Which of the tenant's names, by which type.
    let names = u64::from(at.tenant.history.new.max(1));
    let enter = Bits::log2(names * 4 * u64::from(facts.qtypes_allowed.max(1)));
    let fits = |spent: Bits, limit: Bits| spent.plus(price).plus(enter) <= limit.plus(state.session.allowance);
    let room = fits(before.tenant, facts.budgets.tenant)
        && fits(before.icann, facts.budgets.icann)
        && fits(before.session, facts.budgets.session);
    (room.then_some(price), enter)
}
