//! What is written down.

use super::place::{Place, is_reverse, left_of, seconds};
use super::readings::is_odd_type;
use super::{Trail, is_below, labels};
use crate::assess::{Facts, Listing};
use crate::bits::Bits;
use crate::ledger::accounts::Account;
use crate::ledger::price::Turn;
use crate::ledger::{Charge, LedgerView};
use crate::model::Information;
use crate::signals::{spread, surge};
use crate::state::SessionState;

/// The accounts after a charge.
pub(super) fn after(before: LedgerView, facts: &Facts<'_>, charge: Charge) -> LedgerView {
    match facts.listing {
        Listing::Exact { .. } => LedgerView { listed: before.listed.plus(charge.name), ..before },
        // Repeats below a rule are paid for by the allowance for repeats.
        Listing::Below { .. } if charge.repeat => before,
        Listing::Below { .. } | Listing::Unlisted => LedgerView {
            tenant: before.tenant.plus(charge.name),
            icann: before.icann.plus(charge.icann),
            session: before.session.plus(charge.session),
            listed: before.listed,
            group: before.group.plus(charge.group),
        },
    }
}

/// Books a forwarded query. Without its trail what the name is made of is nobody's doing.
pub(super) fn forwarded(
    state: &mut SessionState,
    facts: &Facts<'_>,
    at: &Place<'_>,
    charge: Charge,
    trail: Option<&Trail>,
) {
    state.session.moved = state.session.moved.plus(charge.name.max(charge.icann).max(charge.session));
    if matches!(facts.listing, Listing::Exact { .. }) {
        state.session.listed = state.session.listed.plus(charge.name);
        return;
    }
    let below = is_below(facts);
    let echo = at.echo(facts);
    let last_name = at.tenant.history.last_name;
    let account = state.accounts.entry(at.keys.tenant);
    account.history.book(at.tenant_event, at.tag);
    account.types.book(facts.qtype, facts.flags);
    account.times.book(facts.now);
    if below {
        if at.paid {
            account.echo = echo.plus(charge.name);
            account.echo_at = seconds(facts.now);
        } else {
            account.below = account.below.plus(charge.name);
            state.session.below = state.session.below.plus(charge.name);
        }
        if at.keys.apart {
            // Should the rule end, its names are among those that were sent.
            platform(state, at).history.book(at.icann_event, at.tag);
        }
    } else {
        account.spent = account.spent.plus(charge.name);
        if at.paid {
            account.echo = echo.plus(charge.name);
            account.echo_at = seconds(facts.now);
        } else if let Some(trail) = trail {
            let Information { total, richest, richest_symbols } = trail.worth;
            account.told = account.told.plus(total);
            account.richest = account.richest.plus(richest);
            account.richest_symbols = account.richest_symbols.saturating_add(richest_symbols);
            account.odd_types = account.odd_types.saturating_add(is_odd_type(facts, at).into());
            if !is_reverse(facts.qname) {
                account.surge = surge::with(account.surge, trail.worth);
                state.session.spread = spread::with(state.session.spread, trail.whole);
            }
        }
        unlisted(state, facts, at, charge);
    }
    if !at.paid {
        let new = labels::remember(state, at.keys.tenant, left_of(facts.qname, at.tenant_name));
        let account = state.accounts.entry(at.keys.tenant);
        account.labels = account.labels.saturating_add(new);
    }
    if at.tenant.history.queries() > 0 {
        state.sent.follow(last_name, at.tag);
    }
    state.sent.insert(at.tag);
    if let Some(form) = at.form
        && state.sent.has_spare_room()
    {
        state.sent.insert(form);
        state.accounts.entry(at.keys.tenant).form = form;
    }
}

/// The account of the platform, made from that of the domain's own names where it is new.
fn platform<'s>(state: &'s mut SessionState, at: &Place<'_>) -> &'s mut Account {
    let known = state.accounts.position(at.keys.icann);
    let own = state.accounts.position(!at.keys.icann);
    let account = state.accounts.entry(at.keys.icann);
    if known == 0 && account.key == at.keys.icann {
        *account = at.icann;
        let made = state.accounts.position(at.keys.icann);
        if own != 0 {
            // Whoever pointed at the domain points at the platform.
            for position in state.accounts.positions() {
                if state.accounts.at(position).is_some_and(|account| account.next == own)
                    && let Some(account) = state.accounts.at_mut(position)
                {
                    account.next = made;
                }
            }
            if state.session.domains.last == own {
                state.session.domains.last = made;
            }
        }
    }
    state.accounts.entry(at.keys.icann)
}

/// The wider accounts.
fn unlisted(state: &mut SessionState, facts: &Facts<'_>, at: &Place<'_>, charge: Charge) {
    if at.keys.apart {
        let account = platform(state, at);
        account.history.book(at.icann_event, at.tag);
        account.spent = account.spent.plus(charge.icann);
        account.times.book(facts.now);
    }
    // The account may have been made a moment ago; in the overflow account domains cannot be told apart, so each name
    // pays for its domain anew.
    let position = state.accounts.position(at.keys.icann);
    let (turn, _) = at.turn;
    if turn == Turn::New
        && let Some(account) = state.accounts.at_mut(position)
    {
        account.paid = true;
    }
    let last = state.session.domains.last;
    if let Some(account) = state.accounts.at_mut(last) {
        account.next = position;
    }
    state.session.domains.book(turn, position);
    state.session.names = state.session.names.saturating_add(u32::from(!at.paid));
    state.session.times.book(facts.now);
    state.session.types.book(facts.qtype, facts.flags);
    state.session.spent = state.session.spent.plus(charge.session);
}

/// Books a held name's part in what is asked again on the resolver's clock.
pub(super) fn held(state: &mut SessionState, facts: &Facts<'_>, at: &Place<'_>, charge: Bits) {
    state.session.moved = state.session.moved.plus(charge);
    let account = state.accounts.entry(at.keys.tenant);
    account.ticks.book(facts.now);
    if is_below(facts) {
        return;
    }
    account.spent = account.spent.plus(charge);
    if at.keys.apart {
        let account = platform(state, at);
        account.spent = account.spent.plus(charge);
    }
    state.session.spent = state.session.spent.plus(charge);
}
