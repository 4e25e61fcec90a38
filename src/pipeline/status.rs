//! What the service as a whole says of itself.

use serde_json::{Value, json};

use super::Pipeline;
use crate::model::{Mode, Now};

impl Pipeline {
    /// The service in one object.
    pub fn status(&self, now: Now) -> Value {
        let live = self.live.load();
        let enforce = self.enforcer.status();
        json!({
            "schema": 1,
            "version": env!("CARGO_PKG_VERSION"),
            "mode": live.policy.mode,
            "unready": self.unready(now),
            "digest": live.digest,
            "sessions": self.sessions.len(),
            "groups": self.show_groups(now),
            "cache_entries": self.cache.len(),
            "upstreams": self.show_upstreams(),
            "events_dropped": self.telemetry.dropped(),
            "alerts_waiting": self.alerts_waiting(),
            "alert_receivers": self.alert_receivers(),
            "enforcement": enforce,
            "readiness": self.readiness(now),
            "thresholds": self.thresholds(),
            "lists": self.list_sums(),
            "rpz": self.transfers.status(),
        })
    }

    /// Why the service should get no new sandboxes; `None` when all is well.
    pub fn unready(&self, now: Now) -> Option<String> {
        let live = self.live.load();
        if live.enforcing && live.policy.mode != Mode::Monitor && !self.enforcer.healthy() {
            return Some("the packet filter does not hold what was ordered".into());
        }
        self.gate.report(now.mono).missing()
    }
}
