//! One query assessed: readings, families, score, band, charge.
//!
//! Between what policy knows of a name ([`Facts`]) and what it decides. [`Scorer::assess`] is pure: the live path,
//! `explain` and a replay get the same answer for the same state and facts. What an assessment costs the session is
//! written down by [`Scorer::commit`] alone. Knows no rule, no clock and no mode.

use crate::assess::{Assessment, Band, Facts, Listing, Outcome};
use crate::bits::Bits;
use crate::ledger::accounts::Account;
use crate::ledger::price::Seen;
use crate::ledger::{Charge, LedgerScope, LedgerView};
use crate::model::numbers::{self, Form};
use crate::model::{Information, Model};
use crate::name::NameRef;
use crate::signals::{self, Signal, age, entropy, fan_out, length};
use crate::state::SessionState;

/// The scorer: an immutable model and fitted densities.
pub struct Scorer {
    model: &'static Model,
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
        let at = Place::of(state, facts);
        let payload = left_of(facts.qname, at.tenant_name);
        let worth = self.worth(payload, &at);
        let information = worth.total;
        let charge = if facts.cached {
            Charge { repeat: at.paid, ..Charge::default() }
        } else {
            self.charge(state, facts, &at, information)
        };

        let before = LedgerView {
            tenant: if is_below(facts) { at.tenant.below } else { at.tenant.tenant.spent },
            icann: at.icann.icann.spent,
            session: state.session.spent,
            listed: state.session.listed,
            group: facts.group.map_or(Bits::ZERO, |group| group.spent),
        };
        let after = book(before, facts, charge);

        // What would be told under the tenant in all; an accepted allowance is not held against the name.
        let told = at.told_with(worth, at.paid || facts.cached);
        // The form of a reverse name is fixed (RFC 1035 section 3.5, RFC 3596 section 2.5): what it is made of says
        // nothing, how many are asked does.
        let content = (!is_reverse(facts.qname)).then_some(payload);
        let readings = [
            entropy::read(content.map(|_| (told.richest, told.richest_symbols))),
            length::read(content),
            Signal::Encoding.unknown(),
            Signal::Surge.unknown(),
            fan_out::read(told.total.minus(state.session.allowance)),
            Signal::PlatformFanOut.unknown(),
            Signal::Spread.unknown(),
            Signal::AnswerVolume.unknown(),
            age::read(facts.registered_days, facts.first_seen_days),
            Signal::GroupNovelty.unknown(),
            Signal::UniqueNames.unknown(),
            Signal::TypeMix.unknown(),
            Signal::NameErrors.unknown(),
            Signal::Unconnected.unknown(),
            Signal::Regularity.unknown(),
        ];
        debug_assert!(readings.iter().map(|reading| reading.signal).eq(Signal::ALL));
        let (score, agreeing) = signals::combine(&readings, facts.params.without);

        let attempt = if at.refused { Bits::ZERO } else { charge.name };
        let mut assessment = Assessment {
            readings,
            score,
            agreeing,
            information,
            charge,
            before,
            after,
            overdraw: overdraw(state, facts, charge, after),
            slow: false,
            sticky: at.tenant.sinkholed,
            names_sent: u32::from(at.tenant.tenant.history.new),
            attempted: at.tenant.attempted.plus(attempt),
            tenants_sinkholed: state.tenants_sinkholed(),
            band: Band::Answer,
        };
        assessment.band = band(state, facts, &assessment);
        if assessment.band >= Band::Sinkhole && facts.listing == Listing::Unlisted && !assessment.sticky {
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
        let at = Place::of(state, facts);
        if facts.listing == Listing::Unlisted && assessment.band >= Band::Sinkhole {
            let account = state.accounts.entry(at.tenant_key);
            state.sinkholed += u16::from(!account.sinkholed);
            account.sinkholed = true;
        }
        match outcome {
            Outcome::Cached => {}
            Outcome::Refused if facts.listing == Listing::Unlisted && !facts.cached => {
                let account = state.accounts.entry(at.tenant_key);
                if !at.refused {
                    account.attempted = account.attempted.plus(assessment.charge.name);
                    state.refused.insert(at.fingerprint);
                }
            }
            Outcome::Refused => {}
            Outcome::Forwarded => {
                // An answer that was at hand a moment ago and had to be fetched after all: it leaves, so it costs.
                let charge = match facts.cached {
                    true => self.charge(state, facts, &at, assessment.information),
                    false => assessment.charge,
                };
                forwarded(state, facts, &at, charge, || self.worth(left_of(facts.qname, at.tenant_name), &at));
            }
        }
    }

    /// What the payload part is worth behind what was sent under its tenant: by the model, or as a known form with
    /// other numbers, whichever is cheaper, with the price of saying which.
    fn worth(&self, payload: &[u8], at: &Place<'_>) -> Information {
        let plain = self.model.read(payload);
        let sent = at.tenant.tenant.history.new;
        if sent == 0 {
            return plain;
        }
        let plain = Information { total: plain.total.plus(numbers::PLAIN), ..plain };
        let Some(form) = at.known_form else { return plain };
        // There are no more forms than names.
        let numbered = numbers::NUMBERED.plus(Bits::log2(u64::from(sent))).plus(form.bits);
        if numbered >= plain.total {
            return plain;
        }
        Information { total: numbered, richest: form.bits, richest_symbols: form.symbols }
    }

    /// What forwarding costs, whether or not the answer is at hand.
    fn charge(&self, state: &SessionState, facts: &Facts<'_>, at: &Place<'_>, information: Bits) -> Charge {
        if let Listing::Exact { of } = facts.listing {
            // Four combinations of flags with each type.
            let typed = Bits::log2(4 * u64::from(facts.qtypes_allowed));
            return Charge { name: Bits::log2(u64::from(of)).plus(typed), repeat: at.paid, ..Charge::default() };
        }
        // One rhythm for all three accounts: whoever reads the wider ones reads this one too.
        let typed = at.tenant.types.price(facts.qtype, facts.flags, facts.qtypes_allowed);
        let seen = at.tenant.tenant.history.seen(at.fingerprint, at.paid);
        let price = |seen: Seen, whole: Bits| if seen == Seen::New { whole } else { Bits::ZERO };
        let name = at.tenant.tenant.history.price(seen).plus(price(seen, information)).plus(typed);
        if is_below(facts) {
            return Charge { name, repeat: at.paid, ..Charge::default() };
        }

        // A reader of the whole ICANN-level domain, or of several, also sees which tenant of a platform is asked.
        let whole = match facts.split.multi_tenant {
            true if !at.paid => self.model.cost(left_of(facts.qname, at.icann_name)),
            _ => information,
        };
        let seen = at.icann.icann.history.seen(at.fingerprint, at.paid);
        let icann = at.icann.icann.history.price(seen).plus(price(seen, whole)).plus(typed);

        let history = &state.session.history;
        let seen = history.seen(at.fingerprint, at.paid);
        let mut session = history.price(seen).plus(price(seen, whole)).plus(typed);
        if seen == Seen::New {
            session = session.plus(state.session.domains.price(at.icann.paid, history.new));
        }
        let known = facts.group.is_none_or(|group| group.known);
        let group = if known || at.paid { Bits::ZERO } else { session };
        Charge { name, icann, session, group, repeat: at.paid }
    }
}

impl Default for Scorer {
    fn default() -> Self {
        Self::new()
    }
}

/// What tells one name of a known form from another.
#[derive(Clone, Copy)]
struct Numbers {
    bits: Bits,
    symbols: u32,
}

/// Where a name's accounts are, and what they hold.
struct Place<'n> {
    tenant_name: NameRef<'n>,
    icann_name: NameRef<'n>,
    tenant_key: u64,
    icann_key: u64,
    fingerprint: u64,
    /// Hash of the name's form, where it has numbers.
    form: Option<u64>,
    /// Price of the numbers, where the session has forwarded a name of this form.
    known_form: Option<Numbers>,
    /// Whether the session has forwarded this name.
    paid: bool,
    /// Whether it has been refused this name.
    refused: bool,
    tenant: Account,
    icann: Account,
}

impl<'n> Place<'n> {
    fn of(state: &SessionState, facts: &Facts<'n>) -> Self {
        let tenant_name = facts.split.tenant(facts.qname);
        let tenant_key = state.hash(tenant_name);
        let tenant = state.accounts.find(tenant_key).copied().unwrap_or_default();
        let fingerprint = state.hash(facts.qname);
        let (icann_name, icann_key, icann) = if facts.split.multi_tenant {
            let name = facts.split.icann(facts.qname);
            let key = state.hash(name);
            (name, key, state.accounts.find(key).copied().unwrap_or_default())
        } else {
            (tenant_name, tenant_key, tenant)
        };
        let payload = facts.qname.wire_len() - tenant_name.wire_len();
        let (form, known_form) = match Form::of(facts.qname, payload) {
            Some(form) => {
                let hash = state.hash_octets(form.octets());
                (Some(hash), state.sent.contains(hash).then_some(Numbers { bits: form.numbers, symbols: form.symbols }))
            }
            None => (None, None),
        };
        Self {
            tenant_name,
            icann_name,
            tenant_key,
            icann_key,
            fingerprint,
            form,
            known_form,
            paid: state.sent.contains(fingerprint),
            refused: state.refused.contains(fingerprint),
            tenant,
            icann,
        }
    }
}

impl Place<'_> {
    /// Information of the distinct unlisted names sent under the tenant, with this name's unless it adds none.
    fn told_with(&self, worth: Information, adds_none: bool) -> Information {
        let sent = Information {
            total: self.tenant.told,
            richest: self.tenant.richest,
            richest_symbols: self.tenant.richest_symbols,
        };
        if adds_none {
            return sent;
        }
        Information {
            total: sent.total.plus(worth.total),
            richest: sent.richest.plus(worth.richest),
            richest_symbols: sent.richest_symbols.saturating_add(worth.richest_symbols),
        }
    }
}

fn is_below(facts: &Facts<'_>) -> bool {
    matches!(facts.listing, Listing::Below { .. })
}

/// The wire labels of `name` left of `owner`, an ancestor that [`crate::Split`] found in it; like
/// [`NameRef::payload_part`], without walking the labels to make sure.
fn left_of<'n>(name: NameRef<'n>, owner: NameRef<'_>) -> &'n [u8] {
    let wire = name.as_wire();
    wire.get(..wire.len().saturating_sub(owner.wire_len())).unwrap_or_default()
}

fn is_reverse(name: NameRef<'_>) -> bool {
    let wire = name.as_wire();
    wire.ends_with(b"\x03ip6\x04arpa\x00") || wire.ends_with(b"\x07in-addr\x04arpa\x00")
}

/// The accounts after a charge.
fn book(before: LedgerView, facts: &Facts<'_>, charge: Charge) -> LedgerView {
    match facts.listing {
        Listing::Exact { .. } => LedgerView { listed: before.listed.plus(charge.name), ..before },
        Listing::Below { .. } | Listing::Unlisted => LedgerView {
            tenant: before.tenant.plus(charge.name),
            icann: before.icann.plus(charge.icann),
            session: before.session.plus(charge.session),
            listed: before.listed,
            group: before.group.plus(charge.group),
        },
    }
}

/// The account that a charge would take past its limit. What costs nothing overdraws nothing.
fn overdraw(state: &SessionState, facts: &Facts<'_>, charge: Charge, after: LedgerView) -> Option<LedgerScope> {
    let past =
        |charge: Bits, spent: Bits, limit: Bits| charge > Bits::ZERO && spent > limit.plus(state.session.allowance);
    match facts.listing {
        Listing::Exact { .. } => None,
        Listing::Below { budget } => past(charge.name, after.tenant, budget).then_some(LedgerScope::Tenant),
        Listing::Unlisted => [
            (charge.name, after.tenant, facts.budgets.tenant, LedgerScope::Tenant),
            (charge.icann, after.icann, facts.budgets.icann, LedgerScope::Icann),
            (charge.session, after.session, facts.budgets.session, LedgerScope::Session),
            (charge.group, after.group, facts.budgets.group, LedgerScope::Group),
        ]
        .into_iter()
        .find_map(|(charge, spent, limit, scope)| past(charge, spent, limit).then_some(scope)),
    }
}

/// The band of one query, before tenants are counted.
fn band(state: &SessionState, facts: &Facts<'_>, assessment: &Assessment) -> Band {
    let watched = if assessment.score >= facts.params.watch { Band::Watch } else { Band::Answer };
    match facts.listing {
        Listing::Exact { .. } => return Band::Answer,
        Listing::Below { .. } if assessment.overdraw.is_some() => return Band::Sinkhole,
        Listing::Below { .. } => return watched,
        Listing::Unlisted => {}
    }
    let tried = assessment.before.tenant.plus(assessment.attempted);
    let hard = facts.budgets.tenant.plus(state.session.allowance);
    if assessment.overdraw.is_some() || (tried > hard && (assessment.sticky || assessment.charge.name > Bits::ZERO)) {
        return Band::Quarantine;
    }
    if assessment.sticky {
        return Band::Sinkhole;
    }
    // A name the outside already knows, and one that does not leave, tell nothing new.
    let tells = !facts.cached && !assessment.charge.repeat;
    let soft = facts.budgets.tenant_soft.plus(state.session.allowance);
    let enough = assessment.agreeing >= 2 || assessment.after.tenant > soft;
    if tells && enough && assessment.score >= facts.params.sinkhole { Band::Sinkhole } else { watched }
}

/// Books a forwarded query.
fn forwarded(
    state: &mut SessionState,
    facts: &Facts<'_>,
    at: &Place<'_>,
    charge: Charge,
    worth: impl FnOnce() -> Information,
) {
    if matches!(facts.listing, Listing::Exact { .. }) {
        state.session.listed = state.session.listed.plus(charge.name);
        return;
    }
    let seen = at.tenant.tenant.history.seen(at.fingerprint, at.paid);
    let below = is_below(facts);
    let account = state.accounts.entry(at.tenant_key);
    account.tenant.history.book(seen, at.fingerprint);
    account.types.book(facts.qtype, facts.flags);
    if below {
        account.below = account.below.plus(charge.name);
    } else {
        account.tenant.spent = account.tenant.spent.plus(charge.name);
        if !at.paid {
            let told = at.told_with(worth(), false);
            (account.told, account.richest) = (told.total, told.richest);
            account.richest_symbols = told.richest_symbols;
        }
        let account = state.accounts.entry(at.icann_key);
        let seen = account.icann.history.seen(at.fingerprint, at.paid);
        account.icann.history.book(seen, at.fingerprint);
        account.icann.spent = account.icann.spent.plus(charge.icann);

        let seen = state.session.history.seen(at.fingerprint, at.paid);
        if seen == Seen::New && !account.paid {
            // In the overflow account the domains cannot be told apart: each name pays for its domain anew.
            account.paid = account.key == at.icann_key;
            state.session.domains.paid = state.session.domains.paid.saturating_add(1);
        }
        state.session.history.book(seen, at.fingerprint);
        state.session.spent = state.session.spent.plus(charge.session);
    }
    state.sent.insert(at.fingerprint);
    if let Some(form) = at.form {
        state.sent.insert(form);
    }
}
