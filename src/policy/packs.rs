//! What packs change: which queries an entry is for, who is one owner, and where their common limit is.
//!
//! Beside [`super::Policy::decide`], which asks packs last. Knows no mode and gives no verdict.

use staunch_scoring::{Bits, NameRef, Split};

use super::{Assessment, Profile};
use crate::lists::{Action, Allowance, Reach, Rule, RuleMatch};
use crate::model::Qtype;
use crate::session::Inner;

/// Whether what allows the name stands above its tenant, so that it covers the platform's other tenants too.
/// Then the platform is one owner and the choice among its tenants is paid for: a tenant's account would not see it.
pub(super) fn covers_tenants(
    qname: NameRef<'_>,
    split: Split,
    grant: Option<&Allowance>,
    hit: Option<RuleMatch<'_>>,
) -> bool {
    if !split.multi_tenant {
        return false;
    }
    let labels = match (grant, hit) {
        (Some(grant), _) if grant.form.reach != Reach::Exact => grant.form.name.as_ref().label_count(),
        (None, Some(hit)) if hit.rule.action == Action::Allow && hit.reach != Reach::Exact => usize::from(hit.labels),
        _ => return false,
    };
    labels < split.tenant(qname).label_count()
}

/// Whether a pack's entry is for this type.
pub(super) fn knows(entry: &Rule, qtype: Qtype) -> bool {
    entry.qtypes.is_empty() || entry.qtypes.binary_search(&qtype).is_ok()
}

/// Whether a name of a pack would take what the session told below rules and packs past the profile's limit for packs.
/// Names below rules count as well: they have no account of their own, and counting them can only refuse earlier.
pub(super) fn overdraws(profile: &Profile, inner: &Inner, assessment: &Assessment) -> bool {
    let charge = assessment.charge.name;
    let limit = profile.pack_session.plus(inner.score.allowance());
    charge > Bits::ZERO && inner.score.spent_below().plus(charge) > limit
}
