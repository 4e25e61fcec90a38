//! Where a name's accounts are, and what they hold.

use crate::assess::Facts;
use crate::bits::Bits;
use crate::ledger::accounts::Account;
use crate::ledger::price::{Event, Turn};
use crate::ledger::sent::{Tag, tag};
use crate::model::numbers::Form;
use crate::name::NameRef;
use crate::state::SessionState;

/// Hashes of a name and its owners, keyed by the session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Keys {
    pub tenant: u64,
    pub icann: u64,
    pub name: u64,
    /// Whether the ICANN-level domain has an account of its own: it is a platform, for this name or for one before it.
    pub apart: bool,
    /// Octets left of the tenant and of the ICANN-level domain.
    tenant_at: u8,
    icann_at: u8,
    /// Of the name's form, and what tells it from others of that form, where it has numbers.
    form: Option<(u64, Numbers)>,
}

/// What tells one name of a known form from another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Numbers {
    pub bits: Bits,
    pub symbols: u32,
}

impl Keys {
    pub fn of(state: &SessionState, facts: &Facts<'_>) -> Self {
        let tenant_name = facts.split.tenant(facts.qname);
        let tenant = state.hash(tenant_name);
        let payload = facts.qname.wire_len() - tenant_name.wire_len();
        let form = Form::of(facts.qname, payload)
            .map(|form| (state.hash_octets(form.octets()), Numbers { bits: form.numbers, symbols: form.symbols }));
        // A platform may be a name's tenant too: its two accounts are kept apart.
        let (icann, icann_at) = if facts.split.multi_tenant {
            let name = facts.split.icann(facts.qname);
            (!state.hash(name), facts.qname.wire_len() - name.wire_len())
        } else if state.accounts.position(!tenant) != 0 {
            (!tenant, payload)
        } else {
            (tenant, payload)
        };
        Self {
            tenant,
            icann,
            apart: icann != tenant,
            // A name has at most 255 octets.
            tenant_at: payload as u8,
            icann_at: icann_at as u8,
            name: if payload == 0 { tenant } else { state.hash(facts.qname) },
            form,
        }
    }
}

/// A name's accounts, and where the name stands in their histories.
pub(super) struct Place<'n> {
    pub keys: Keys,
    pub tenant_name: NameRef<'n>,
    pub icann_name: NameRef<'n>,
    /// The name as the set of names sent keeps it.
    pub tag: Tag,
    /// Its form, likewise.
    pub form: Option<Tag>,
    /// Price of the numbers, where the session has forwarded a name of this form.
    pub known_form: Option<Numbers>,
    /// Whether the session has forwarded this name.
    pub paid: bool,
    /// Whether it has been refused this name.
    pub refused: bool,
    /// Whether the tenant shares the overflow account.
    pub shared: bool,
    /// Whether the ICANN-level domain does.
    pub icann_shared: bool,
    pub tenant: Account,
    pub icann: Account,
    pub tenant_event: Event,
    pub icann_event: Event,
    pub turn: (Turn, bool),
}

impl<'n> Place<'n> {
    pub fn of(state: &SessionState, facts: &Facts<'n>, keys: Keys) -> Self {
        let tag = tag(keys.name);
        let paid = state.sent.contains(tag);
        let account = |key| state.accounts.find(key).copied().unwrap_or_default();
        let tenant = account(keys.tenant);
        let icann = match state.accounts.find(keys.icann) {
            _ if !keys.apart => tenant,
            Some(account) => *account,
            // The platform's account begins with what the domain's own names have told.
            None => account(!keys.icann).as_platform(keys.icann),
        };
        let form = keys.form.map(|(hash, _)| crate::ledger::sent::tag(hash));
        let known_form =
            keys.form.zip(form).and_then(|((_, numbers), form)| state.sent.contains(form).then_some(numbers));
        let history = &tenant.history;
        let next = (history.new > 1).then(|| state.sent.next(history.last_name)).flatten();
        let position = state.accounts.position(keys.icann);
        let follows = state.accounts.at(state.session.domains.last).map_or(0, |account| account.next);
        Self {
            tenant_name: facts.qname.at_octet(keys.tenant_at.into()),
            icann_name: facts.qname.at_octet(keys.icann_at.into()),
            tag,
            form,
            known_form,
            paid,
            refused: state.refused.contains(keys.name),
            shared: state.accounts.is_full() && state.accounts.position(keys.tenant) == 0,
            icann_shared: state.accounts.is_full() && state.accounts.position(keys.icann) == 0,
            tenant_event: history.event(tag, paid, next),
            icann_event: icann.history.event(tag, paid, None),
            turn: state.session.domains.turn(position, icann.paid, follows),
            tenant,
            icann,
            keys,
        }
    }

    /// What repeats under the tenant have told lately.
    pub fn echo(&self, facts: &Facts<'_>) -> Bits {
        let passed = u64::from(seconds(facts.now).saturating_sub(self.tenant.echo_at));
        let back = u64::from(facts.budgets.echo_hour.steps()) * passed / 3_600;
        let known = self.tenant.echo_at != 0;
        self.tenant.echo.minus(Bits::from_steps(u32::try_from(back).unwrap_or(u32::MAX) * u32::from(known)))
    }
}

/// Seconds of the scorer's clock, at least 1.
pub(super) fn seconds(now: u64) -> u32 {
    u32::try_from(now / 1_000 + 1).unwrap_or(u32::MAX)
}

/// The wire labels of `name` left of `owner`, an ancestor that [`crate::Split`] found in it; like
/// [`NameRef::payload_part`], without walking the labels to make sure.
pub(super) fn left_of<'n>(name: NameRef<'n>, owner: NameRef<'_>) -> &'n [u8] {
    let wire = name.as_wire();
    wire.get(..wire.len().saturating_sub(owner.wire_len())).unwrap_or_default()
}

/// Whether a name stands in the reverse tree and has the form that is fixed there (RFC 1035 section 3.5, RFC 3596 section 2.5):
/// an address or a part of one. Any other name below a delegation of that tree is its holder's choice like any name.
pub(super) fn is_reverse(name: NameRef<'_>) -> bool {
    let wire = name.as_wire();
    if let Some(nibbles) = wire.strip_suffix(b"\x03ip6\x04arpa\x00") {
        let is_nibble = |pair: &[u8]| matches!(pair, [1, digit] if digit.is_ascii_hexdigit());
        return nibbles.len() <= 2 * 32 && nibbles.chunks(2).all(is_nibble);
    }
    let Some(mut octets) = wire.strip_suffix(b"\x07in-addr\x04arpa\x00") else { return false };
    let mut count = 0;
    while let Some((&len, rest)) = octets.split_first() {
        let (label, next) = rest.split_at(usize::from(len).min(rest.len()));
        let number = label.iter().try_fold(0u32, |sum, digit| {
            digit.is_ascii_digit().then(|| sum.saturating_mul(10).saturating_add(u32::from(digit - b'0')))
        });
        count += 1;
        if count > 4 || label.is_empty() || label.len() > 3 || number.is_none_or(|number| number > 255) {
            return false;
        }
        octets = next;
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::NameBuf;

    #[test]
    fn a_reverse_name_is_an_address_or_a_part_of_one() {
        let is = |text: &str| is_reverse(NameBuf::from_text(text).expect("name").as_ref());
        for text in [
            "4.3.2.1.in-addr.arpa",
            "255.10.in-addr.arpa",
            "in-addr.arpa",
            "ip6.arpa",
            "a.0.F.8.b.d.0.1.0.0.2.ip6.arpa",
        ] {
            assert!(is(text), "{text}");
        }
        let whole = format!("{}ip6.arpa", "f.".repeat(32));
        assert!(is(&whole) && !is(&format!("0.{whole}")), "no more than an address has");
        for text in [
            "payload.2.1.in-addr.arpa",
            "256.1.in-addr.arpa",
            "0001.in-addr.arpa",
            "9.4.3.2.1.in-addr.arpa",
            "0/25.3.2.1.in-addr.arpa",
            "k3.8.b.d.0.1.0.0.2.ip6.arpa",
            "g.0.2.ip6.arpa",
            "www.example",
            "xip6.arpa",
        ] {
            assert!(!is(text), "{text}");
        }
    }
}
