//! Values on the metrics page that live in other stages.

use std::sync::Weak;

use crate::pipeline::Pipeline;
use crate::session::State;
use crate::telemetry::Sampled;

/// Reads the pipeline's stages when the page is asked for. Holds no stage alive.
pub struct Stages(pub Weak<Pipeline>);

impl Sampled for Stages {
    fn sample(&self) -> Vec<(&'static str, &'static str, Vec<(&'static str, &'static str)>, f64)> {
        let Some(pipeline) = self.0.upgrade() else { return Vec::new() };
        let mut all = Vec::new();
        let mut add = |name, help, value: f64| all.push((name, help, Vec::new(), value));
        let enforce = pipeline.enforcer.status();
        add("cache_entries", "Answers at hand", pipeline.cache.len() as f64);
        add("events_dropped_total", "Events dropped because the queue was full", pipeline.telemetry.dropped() as f64);
        add("alerts_waiting", "Alerts not yet taken by every sink", pipeline.alerts_waiting() as f64);
        add(
            "enforcement_healthy",
            "1 if the packet filter holds what was ordered",
            f64::from(u8::from(enforce.healthy)),
        );
        add("enforcement_orders_total", "Orders to the packet filter", enforce.submitted as f64);
        add("enforcement_failed_total", "Orders the packet filter did not carry out", enforce.failed as f64);
        add("enforcement_queue_full_total", "Orders refused because the queue was full", enforce.queue_full as f64);
        let mut states = [0u32; State::ALL.len()];
        for session in pipeline.sessions.all() {
            let state = session.inner.lock().state();
            if let Some(at) = State::ALL.iter().position(|s| *s == state) {
                states[at] += 1;
            }
        }
        for (state, count) in State::ALL.iter().zip(states) {
            all.push(("sessions", "Sessions by state", vec![("state", state.as_str())], f64::from(count)));
        }
        all
    }
}
