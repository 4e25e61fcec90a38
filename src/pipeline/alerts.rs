//! Alerts as they are put together: what has happened, to whom, and what helps.

use staunch_scoring::NameRef;

use super::Pipeline;
use crate::event::{Alert, AlertKind, SCHEMA};
use crate::model::{CaseId, Mode, Now, Reason, SessionId};
use crate::session::{Context, Inner};
use crate::telemetry::{Record, rfc3339};

impl Pipeline {
    #[allow(clippy::too_many_arguments)]
    pub(super) fn alert(
        &self,
        kind: AlertKind,
        inner: &Inner,
        context: &Context,
        record: Option<&Record>,
        reason: impl Into<Option<Reason>>,
        case: CaseId,
        now: Now,
    ) -> Alert {
        let reason = reason.into();
        let live = self.live.load();
        let a = &context.announcement;
        let mut signals = match record.and_then(|r| r.scored.as_ref()) {
            Some((assessment, _)) => assessment.readings.to_vec(),
            None => Vec::new(),
        };
        signals.sort_by(|x, y| y.contribution.total_cmp(&x.contribution));
        let tenant = record.map_or_else(String::new, |r| r.split.tenant(r.qname.as_ref()).to_string());
        let names_forwarded = record.and_then(|r| r.scored.as_ref()).map_or(0, |(a, _)| a.names_sent);
        let leaked = inner.charged;
        let mode = live.policy.mode_of(context);
        let done = match kind {
            AlertKind::Quarantine => "was quarantined",
            AlertKind::WouldQuarantine => "would have been quarantined",
            AlertKind::Release => "was released",
            AlertKind::Degraded => "is affected: the service is degraded",
            AlertKind::VolumeSpent => "has sent as much as it may",
        };
        let mut summary = format!("Session {} {done}", a.id);
        if let Some(record) = record {
            summary += &format!(
                " ({}) while asking {} names under {}",
                reason.map_or("-", Reason::as_str),
                record.qtype,
                record.split.tenant(record.qname.as_ref()),
            );
        }
        summary += &format!("; at most {} octets left in DNS names.", leaked.octets());
        let samples = inner.samples.iter().map(|name| escaped(name.as_ref())).collect();
        let id = &a.id;
        Alert {
            schema: SCHEMA,
            id: alert_id(case, kind, now.wall.shown),
            kind,
            time: rfc3339(now.wall.shown),
            case,
            session: id.clone(),
            session_type: a.kind,
            owner: a.owner.clone(),
            addresses: a.addresses.clone(),
            mode: if mode == Mode::Enforce { Mode::Enforce } else { live.policy.mode },
            reason,
            summary,
            signals,
            tenant,
            leaked_bits_at_most: leaked,
            names_forwarded,
            samples,
            actions: actions(kind, id, case),
            log: live.event_file.clone(),
        }
    }
}

/// Commands that help whoever reads an alert. What is open already is not released once more.
pub(super) fn actions(kind: AlertKind, id: &SessionId, case: CaseId) -> Vec<String> {
    let (why, show) = (format!("staunch why {case}"), format!("staunch session show {id}"));
    match kind {
        AlertKind::Quarantine => vec![why, show, format!("staunch session release {id} --by NAME --reason WHY")],
        AlertKind::WouldQuarantine | AlertKind::Release => vec![why, show],
        AlertKind::VolumeSpent => {
            let allow = format!("staunch allow NAME --for TIME --reason WHY --owner WHO --session {id}");
            vec![why, show, allow]
        }
        AlertKind::Degraded => vec!["staunch status".into()],
    }
}

fn alert_id(case: CaseId, kind: AlertKind, at: u64) -> String {
    format!("{case}-{}-{at:x}", alert_word(kind))
}

impl Alert {
    /// Has it tell of what was at another time, Unix milliseconds; its id is then the same whenever it is told.
    pub(super) fn set_time(&mut self, at: u64) {
        (self.id, self.time) = (alert_id(self.case, self.kind, at), rfc3339(at));
    }
}

fn alert_word(kind: AlertKind) -> &'static str {
    match kind {
        AlertKind::Quarantine => "quarantine",
        AlertKind::WouldQuarantine => "would",
        AlertKind::Release => "release",
        AlertKind::Degraded => "degraded",
        AlertKind::VolumeSpent => "volume",
    }
}

fn escaped(name: NameRef<'_>) -> String {
    name.to_string()
}
