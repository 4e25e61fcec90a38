//! What each signal reads of one query.

use super::Trail;
use super::place::{Place, is_reverse, left_of};
use crate::assess::Facts;
use crate::bits::Bits;
use crate::ledger::LedgerView;
use crate::ledger::accounts::Account;
use crate::ledger::price::Seen;
use crate::model::{Information, fixed};
use crate::signals::{
    Reading, Signal, age, encoding, entropy, errors, fan_out, group, length, platform, regularity, spread, surge,
    types, unconnected, unique, volume,
};
use crate::state::{SessionState, VOLUME_UNIT};

/// Every signal's reading, in the order of [`Signal::ALL`].
pub(super) fn read(
    state: &SessionState,
    facts: &Facts<'_>,
    at: &Place<'_>,
    trail: &Trail,
    plain: Information,
    after: LedgerView,
) -> [Reading; Signal::COUNT] {
    // What domains beyond the table did is not known of any of them.
    let nothing = Account::default();
    let account = if at.shared { &nothing } else { &at.tenant };
    // What was told before adds nothing, and neither does what does not leave.
    let adds = !at.paid && !facts.cached;
    // The form of a reverse name is fixed, most addresses have none, and each address is another name: what it is made of,
    // whether it is there and whether it is new say nothing. How many are asked does.
    let reverse = is_reverse(facts.qname);
    let content = (!reverse).then(|| left_of(facts.qname, at.tenant_name));
    let told = told_with(account, trail.worth, adds);
    let allowance = state.session.allowance;
    let runs = adds && content.is_some();
    let surge = if runs { surge::with(account.surge, trail.worth) } else { account.surge };
    let spread = if runs { spread::with(state.session.spread, trail.whole) } else { state.session.spread };
    // A platform's tenant is a choice too: its own label is read with the first name below it.
    let first = !reverse && facts.split.multi_tenant && adds && account.history.new == 0;
    let own = first.then(|| left_of(facts.qname, at.icann_name));
    let rich = own.map(|_| (trail.whole.richest, trail.whole.richest_symbols)).unwrap_or_default();
    let history = &account.history;
    let names = u32::from(history.new) + u32::from(adds);
    let rich_types = u32::from(account.odd_types) + u32::from(adds && is_odd_type(facts, at));
    let fresh = u32::from(history.new) + u32::from(at.tenant_event.seen == Seen::New);
    let (even, gaps) = account.times.even();
    // Without the packet filter's word nothing is known of connections.
    let (used, resolved) = (u32::from(account.connected), resolved_names(account));
    let unused = if state.connections_known() { (resolved.saturating_sub(used), resolved) } else { (0, 0) };
    [
        entropy::read(content.map(|_| (told.richest, told.richest_symbols)), rich),
        length::read(content),
        encoding::read(match own {
            Some(own) => richest_label(own, trail.whole),
            None => content.and_then(|payload| richest_label(payload, plain)),
        }),
        surge::read(surge, allowance),
        fan_out::read(told.total.minus(allowance)),
        platform::read((facts.split.multi_tenant && !at.icann_shared).then_some(after.icann.minus(allowance))),
        spread::read(spread, allowance),
        volume::read(told_by_answers(account)),
        age::read(facts.registered_days, facts.first_seen_days),
        group::read(facts.group_seen_days),
        if reverse { Signal::UniqueNames.unknown() } else { unique::read(fresh, history.queries() + 1) },
        types::read(rich_types, names),
        if reverse {
            Signal::NameErrors.unknown()
        } else {
            errors::read(account.name_errors.into(), account.answers.into())
        },
        unconnected::read(unused.0, unused.1),
        regularity::read(even, gaps),
    ]
}

/// Names that were answered with more than a denial, of those sent: a connection is noted once a name, however often and by
/// however many types it was asked.
fn resolved_names(account: &Account) -> u32 {
    let (names, answers) = (u32::from(account.history.new), u32::from(account.answers));
    let good = answers.saturating_sub(account.name_errors.into());
    // Both are counts of 16 bits.
    (names * good).checked_div(answers).unwrap_or(0).min(good)
}

/// Answers of one name that may each say something else: to its questions for A, AAAA and HTTPS.
const ANSWERS_A_NAME: u64 = 3;
/// Octets of an answer as names of hosts have it, an alias or two and some addresses. Chosen without a source.
const ORDINARY: u64 = 256;

/// Octets that answers can have brought, `None` before the first: an answer that comes again, because its time was up, brings what
/// it brought before, and a name that is polled all day would look like a download. What is longer than such an answer may be one.
fn told_by_answers(account: &Account) -> Option<u32> {
    let (names, answers) = (u64::from(account.history.new), u64::from(account.answers));
    let octets = u64::from(account.answer_volume) * u64::from(VOLUME_UNIT);
    let each = octets.checked_div(answers)?;
    let other = answers.min(names * ANSWERS_A_NAME);
    let again = (answers - other) * each.saturating_sub(ORDINARY);
    // No more than is kept of the sum, which is 20 bits.
    u32::try_from(octets * other / answers + again).ok()
}

/// Names of a tenant of which those with a registered label may have anything beside it.
const FEW_NAMES: u16 = 4;
/// Octets beside registered labels that say nothing: the name of a key, a host, a site.
const BESIDE: usize = 12;

/// Whether a name is asked by a type that carries more than an address, and is none that a standard has asked so: by one of
/// its types, with a label of its list, and with no more beside it than a key's name or a service's place unless it is one of
/// the tenant's first names (some keys have long names of random letters, and one domain has few).
pub(super) fn is_odd_type(facts: &Facts<'_>, at: &Place<'_>) -> bool {
    let beside = if at.tenant.history.new < FEW_NAMES { usize::MAX } else { BESIDE };
    let is_registered = || fixed::is_registered_name(left_of(facts.qname, at.tenant_name), beside);
    types::is_rich(facts.qtype) && !(types::is_for_registered(facts.qtype) && is_registered())
}

/// Information of the distinct unlisted names sent under the tenant, with this name's if it adds some.
fn told_with(account: &Account, worth: Information, adds: bool) -> Information {
    let Account { told: total, richest, richest_symbols, .. } = *account;
    let sent = Information { total, richest, richest_symbols };
    if !adds {
        return sent;
    }
    Information {
        total: sent.total.plus(worth.total),
        richest: sent.richest.plus(worth.richest),
        richest_symbols: sent.richest_symbols.saturating_add(worth.richest_symbols),
    }
}

/// The label that is worth most, and its worth.
fn richest_label(payload: &[u8], plain: Information) -> Option<(&[u8], Bits)> {
    let length = plain.richest_symbols.checked_sub(1)?;
    let (mut rest, mut short) = (payload, 0);
    while let Some((&len, tail)) = rest.split_first() {
        let (label, next) = tail.split_at_checked(usize::from(len))?;
        short += fixed::is_short(label);
        // The first of its length: the model keeps the first of equals too.
        if u32::from(len) == length && fixed::speaks(label, short) {
            return Some((label, plain.richest));
        }
        rest = next;
    }
    None
}
