//! What is seen of flows and volumes: evidence for the score, for what is evicted, and for whoever watches what goes out.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use staunch_scoring::NameRef;

use super::{Pipeline, Walk};
use crate::clock;
use crate::enforce::{Observed, Used};
use crate::event::{AlertKind, Notice, NoticeKind};
use crate::model::Now;
use crate::pin::Passed;
use crate::session::Session;
use crate::store;
use crate::telemetry::rfc3339;

impl Pipeline {
    /// Has what the packet filter sees told to sessions. `tells`: whether it sees flows at all.
    pub fn watch_flows(self: &Arc<Self>, tells: bool) {
        let told = Arc::downgrade(self);
        self.enforcer.on_observed(move |observed| {
            if let Some(pipeline) = told.upgrade() {
                pipeline.observed(observed, clock::now());
            }
        });
        self.connections_told.store(tells, Ordering::Relaxed);
    }

    /// Notes the name of an answer that was released, so that a connection can be put down to it.
    pub(super) fn note_resolved(&self, walk: &Walk, addresses: &[IpAddr]) {
        if addresses.is_empty() || !self.connections_told.load(Ordering::Relaxed) {
            return;
        }
        let qname = walk.record.qname.as_ref();
        let name = self.hash(qname);
        walk.session.inner.lock().resolved.note(name, walk.record.split.tenant(qname), addresses);
    }

    fn observed(&self, observed: &Observed, now: Now) {
        let mut flows: HashMap<IpAddr, Vec<IpAddr>> = HashMap::new();
        for (source, to) in &observed.flows {
            flows.entry(*source).or_default().push(*to);
        }
        for (source, destinations) in flows {
            let Some(session) = self.sessions.by_address(source) else { continue };
            let mut inner = session.inner.lock();
            for to in destinations {
                inner.pins.seen(to, now.mono);
                for tenant in inner.resolved.connected(to) {
                    inner.score.connected(tenant.as_ref());
                }
            }
        }
        for used in &observed.volumes {
            if let Some(session) = self.sessions.by_address(used.session) {
                self.used(&session, used, now);
            }
        }
        let live = self.live.load();
        for range in observed.ranges.iter().filter_map(|id| live.ranges.get(*id as usize)) {
            self.note_used(&range.reference.id, now);
        }
    }

    /// Tells of a volume that has passed a mark or its limit, each once for a session and an address.
    fn used(&self, session: &Session, used: &Used, now: Now) {
        let live = self.live.load();
        let context = session.context();
        let profile = live.policy.profiles.of(context.kind(), context.phase());
        let grants = live.grants.load();
        let listed =
            |name: NameRef<'_>| live.policy.opens(&context, &grants, name, now.wall).is_ok_and(|opens| opens.listed);
        let mut inner = session.inner.lock();
        let mark = profile.volume.warn;
        let Some(passed) = inner.pins.used(used.destination, used.octets, used.limit, mark, listed) else { return };
        let names = inner.pins.names_of(used.destination);
        let a = &context.announcement;
        let (kind, what) = match passed {
            Passed::Mark => (NoticeKind::VolumeMarked, "has sent"),
            Passed::Limit => (NoticeKind::VolumeSpent, "has sent all it may:"),
        };
        let mut text = format!("Session {} {what} {} octets to {}", a.id, used.octets, used.destination);
        if let Some(name) = names.last() {
            text += &format!(" ({name})");
        }
        text += ", which no rule names.";
        if passed == Passed::Limit {
            let case = self.fresh_case(self.hash((&a.id, used.destination)), now.wall);
            let mut alert = self.alert(AlertKind::VolumeSpent, &inner, &context, None, None, case, now);
            alert.summary.clone_from(&text);
            alert.samples.clone_from(&names);
            tracing::info!(session = %a.id, %case, octets = used.octets, "a volume is spent");
            drop(self.spool(vec![store::Record::Alert { alert: Box::new(alert) }]));
        }
        drop(inner);
        self.telemetry.notice(Notice {
            session: Some(a.id.clone()),
            owner: a.owner.clone(),
            address: Some(used.destination),
            names,
            octets: Some(used.octets),
            limit: used.limit,
            ..Notice::new(kind, rfc3339(now.wall.shown), text)
        });
    }
}
