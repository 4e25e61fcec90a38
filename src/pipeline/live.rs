//! What a reload replaces as a whole.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use staunch_scoring::{NameBuf, NameRef};

use super::Pipeline;
use crate::answer::AnswerRules;
use crate::config::{Dnssec, ListReport};
use crate::lists::{Grants, Scope, WrittenRange};
use crate::local::{self, Local};
use crate::model::{Mode, Qtype, Reason, Wall};
use crate::partition::{Partition, Sharing};
use crate::pin::PinPolicy;
use crate::policy::Policy;
use crate::readiness::{Lockdown, Need};
use crate::session::{Configured, Context, Inner};
use crate::validate::{Rollover, Validator};
use crate::wire::Query;
use crate::zones::Zones;
use crate::{forward, learn, partition, rpz};

/// One configuration in force.
pub struct Live {
    /// Never the same for two configurations of one process: [`Live::next_version`].
    pub version: u64,
    /// By which rules answers are vetted: never the same for two of them in one process, and the same for configurations
    /// that agree on them; another one where other keys are trusted than before (`Pipeline::trust_keys`). An answer that was
    /// vetted by others is of no use. Who vets reads it ahead of that ([`Self::vetting`]), and never behind it.
    pub vetting: AtomicU64,
    /// Who may ask what.
    pub policy: Policy,
    /// Authoritative zones of our own.
    pub zones: Zones,
    /// Response policy zones; replaced by transfers too.
    pub rpz: ArcSwap<rpz::Snapshot>,
    /// Zones with upstreams of their own.
    pub forwarded: forward::Zones,
    /// What of an answer may be shown.
    pub answers: AnswerRules,
    /// How signatures are checked.
    pub dnssec: Dnssec,
    /// Checks them, where that is wanted.
    pub validator: Option<Validator>,
    /// Whether clients that ask for it (CD) get what was not checked.
    pub allow_cd: bool,
    /// Lifetimes of pins.
    pub pins: PinPolicy,
    /// Addresses that one name may hold open for one session.
    pub pins_per_name: usize,
    /// Addresses that need no name.
    pub ranges: Vec<WrittenRange>,
    /// How long an acknowledgement of the packet filter is awaited.
    pub pin_deadline: Duration,
    /// What a refusal looks like.
    pub sinkhole: Sinkhole,
    /// How often a question may leave.
    pub repeats: Repeats,
    /// Who is answered from what others have asked.
    pub sharing: partition::Rules,
    /// Whether a packet filter stands behind the answers.
    pub enforcing: bool,
    /// What is wanted of the lockdown.
    pub lockdown: Lockdown,
    /// Runtime allowances; outlive reloads, so they are shared between configurations.
    pub grants: Arc<ArcSwap<Grants>>,
    /// Sessions that the configuration names.
    pub configured: Configured,
    /// Settings that take effect at a restart only, by name, for comparison.
    pub fixed: Vec<(&'static str, String)>,
    /// Stands in the event of a source that has no session.
    pub stranger: Arc<Context>,
    /// Hex digest of the configuration.
    pub digest: String,
    /// The configuration as it was read.
    pub text: Option<Arc<str>>,
    /// What was read from each list.
    pub list_reports: Vec<ListReport>,
    /// Event file, for alerts to point at.
    pub event_file: Option<String>,
    /// How many older ones stand beside it.
    pub event_files_kept: u32,
    /// How thresholds are learned.
    pub learn: Learning,
}

impl Live {
    /// A version that no configuration of this process has had.
    pub fn next_version() -> u64 {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        NEXT.fetch_add(1, Ordering::Relaxed)
    }

    /// By which rules answers are vetted from here on.
    pub fn vetting(&self) -> u64 {
        self.vetting.load(Ordering::Acquire)
    }

    /// Takes over the vetting of the configuration before this one, where it is the same, and what that one has learned of
    /// trust anchors: the file may not have it yet.
    pub(crate) fn vets_like(&self, old: &Self) {
        let trusts_alike = match (&self.validator, &old.validator) {
            (Some(validator), Some(before)) => validator.succeeds(before),
            (None, None) => true,
            _ => false,
        };
        if trusts_alike && self.answers == old.answers && self.dnssec == old.dnssec {
            self.vetting.store(old.vetting(), Ordering::Release);
        }
    }

    /// Whether a name strictly below this one may be answered by somebody else than [`crate::local`]: it is of a zone of our
    /// own, of one with upstreams of its own, or allowed.
    fn knows_below(&self, grants: &Grants, name: NameRef<'_>, wall: Wall) -> bool {
        self.zones.any_below(name) || self.forwarded.any_below(name) || self.policy.allows_below(grants, name, wall)
    }

    /// What is answered here of a special name, or of one that was refused with a search suffix behind it: nothing where
    /// somebody else is asked about it, or a rule or grant allows it.
    pub(crate) fn special(
        &self,
        grants: &Grants,
        context: &Context,
        inner: &Inner,
        query: &Query<'_>,
        wall: Wall,
    ) -> Option<Local> {
        let (name, qtype) = (query.qname.as_ref(), query.qtype);
        // What a session is only watched for was answered, so its stub has tried nothing else; stubs look for addresses so. Lists
        // of bad names, which packs know, are asked by names of just that form.
        let retried = || {
            let tries = qtype.is_host_type() && self.policy.mode_of(context) == Mode::Enforce;
            let refused = inner.samples.iter().map(NameBuf::as_ref).filter(|_| tries);
            local::retried(name, refused).filter(|_| !self.policy.is_packed(context, name, wall))
        };
        let answer = local::special(name, qtype, &context.announcement.search).or_else(retried)?;
        let is_elsewhere = answer.yields_to(self.forwarded.of(name))
            || (answer.is_for_the_parent(qtype) && self.policy.asks_parents(context, query.edns))
            || self.policy.allows(context, grants, name, wall);
        (!is_elsewhere).then(|| answer.above_others(|| self.knows_below(grants, name, wall)))
    }

    /// With whom a session shares answers.
    pub(crate) fn sharing_of(&self, context: &Context) -> Sharing {
        context.partitions.sharing(self.sharing)
    }

    /// With whom it shares what is found of siblings: who is to learn nothing of others finds out for itself.
    pub(crate) fn findings_of(&self, context: &Context) -> Partition {
        let sharing = self.sharing_of(context);
        if sharing.private { context.partitions.alone() } else { sharing.partition }
    }

    /// Whether enforced sessions get addresses only while the lockdown was found to stand.
    pub(crate) fn needs_lockdown(&self) -> bool {
        self.enforcing && self.lockdown.need == Need::Require
    }
}

impl Pipeline {
    /// Puts a configuration in force in place of the one before it.
    pub(crate) fn put_in_force(&self, live: Live) {
        let _one = self.in_force.lock();
        live.vets_like(&self.live.load());
        // An answer may hold what the new rules take out.
        self.cache.vetted_by(live.vetting());
        self.live.store(Arc::new(live));
    }

    /// Has answers checked by the trust anchors that are configured and by what is known of their keys. Where other keys are
    /// trusted than before, no answer that was checked by those is shown any more, kept or under way.
    pub(crate) fn trust_keys(&self, known: &Rollover) {
        {
            let _one = self.in_force.lock();
            let live = self.live.load();
            let Some(validator) = live.validator.as_ref().filter(|validator| validator.follows()) else { return };
            if !validator.follow(known.clone()) {
                return;
            }
            // Ahead of the new vetting: who goes by that finds no finding of before.
            self.decoys.clear();
            let vetting = Live::next_version();
            self.cache.vetted_by(vetting);
            live.vetting.store(vetting, Ordering::Release);
        }
        self.cache.clear();
    }
}

/// How thresholds are learned.
#[derive(Debug, Clone)]
pub struct Learning {
    /// Settings.
    pub config: learn::Config,
    /// What each profile has without anything learned, by [`Scope::index`].
    pub bases: [learn::Base; Scope::COUNT],
}

/// How often one question may leave, and what becomes of one that may not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Repeats {
    /// The same question is forwarded at most once in this time, whatever the answer's TTL.
    pub floor: Duration,
    /// The same after a failure (RFC 9520).
    pub failure: Duration,
    /// How long after its end an answer may serve a question that is held (RFC 8767).
    pub hold_stale: Duration,
    /// Longest random wait of a question whose time could tell something.
    pub jitter: Duration,
    /// Whether names that are held are asked again on our own clock.
    pub refresh: bool,
    /// How long after its end an answer may be shown where no upstream answers in time (RFC 8767); zero is never.
    pub serve_stale: Duration,
    /// Whether names that several owners' sessions asked for again are asked before their answers end.
    pub prefetch: bool,
}

/// What a refused stub is given.
#[derive(Debug, Clone, Default)]
pub struct Sinkhole {
    /// Addresses of a block page's listener; empty for NXDOMAIN.
    pub addresses: Vec<IpAddr>,
    /// TTL of refusals, seconds.
    pub negative_ttl: u32,
    /// Whom to ask.
    pub contact: Option<String>,
}

impl Sinkhole {
    /// The block page's addresses that answer a refused query of this type; none where it gets a negative answer.
    pub fn page_for(&self, qtype: Qtype, nodata: bool, reason: Option<Reason>) -> &[IpAddr] {
        let host = matches!(qtype, Qtype::A | Qtype::AAAA);
        if host && !nodata && reason != Some(Reason::Quarantined) { &self.addresses } else { &[] }
    }

    /// Whether a name that is refused so has the block page's addresses, and so exists.
    pub fn has_page(&self, reason: Reason) -> bool {
        !self.page_for(Qtype::A, false, Some(reason)).is_empty()
    }
}

#[cfg(test)]
mod tests;
