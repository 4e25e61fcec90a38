//! Values on the metrics page that live in other stages.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};

use crate::forward::FailKind;
use crate::listen;
use crate::pipeline::Pipeline;
use crate::session::State;
use crate::telemetry::{Sample, Sampled};

/// Reads the pipeline's stages when the page is asked for. Holds no stage alive.
pub struct Stages {
    /// The walk.
    pub pipeline: Weak<Pipeline>,
    /// What the listeners count.
    pub listeners: Arc<listen::Counters>,
}

impl Sampled for Stages {
    fn sample(&self) -> Vec<Sample> {
        let Some(pipeline) = self.pipeline.upgrade() else { return Vec::new() };
        let mut all = Vec::new();
        own(&mut all, &pipeline);
        listeners(&mut all, &self.listeners);
        upstream(&mut all, &pipeline);
        sessions(&mut all, &pipeline);
        all
    }
}

fn plain(name: &'static str, help: &'static str, value: f64) -> Sample {
    Sample { name, help, label: None, value }
}

fn read(counter: &AtomicU64) -> f64 {
    counter.load(Ordering::Relaxed) as f64
}

fn own(all: &mut Vec<Sample>, pipeline: &Pipeline) {
    let enforce = pipeline.enforcer.status();
    all.extend([
        plain("cache_entries", "Answers at hand", pipeline.cache.len() as f64),
        plain("events_dropped_total", "Events dropped because the queue was full", pipeline.telemetry.dropped() as f64),
        plain("alerts_waiting", "Alerts not yet taken by every sink", pipeline.alerts_waiting() as f64),
        plain(
            "enforcement_healthy",
            "1 if the packet filter holds what was ordered",
            f64::from(u8::from(enforce.healthy)),
        ),
        plain("enforcement_orders_total", "Orders to the packet filter", enforce.submitted as f64),
        plain("enforcement_failed_total", "Orders the packet filter did not carry out", enforce.failed as f64),
        plain("enforcement_queue_full_total", "Orders refused because the queue was full", enforce.queue_full as f64),
        plain(
            "enforcement_ack_seconds_total",
            "Sum of times from an order to its acknowledgement",
            enforce.ack_latency_sum_us as f64 / 1e6,
        ),
    ]);
}

fn listeners(all: &mut Vec<Sample>, counters: &listen::Counters) {
    all.extend([
        plain("packets_total", "Messages received", read(&counters.packets)),
        plain("dropped_total", "Messages that got no reply", read(&counters.drops)),
        plain("rejected_total", "Messages that were no query we answer", read(&counters.rejects)),
        plain("queue_full_total", "Queries answered SERVFAIL because too many waited", read(&counters.queue_full)),
        plain("tcp_accepted_total", "Connections accepted", read(&counters.tcp_accepted)),
        plain("tcp_refused_total", "Connections closed at a limit", read(&counters.tcp_refused)),
        plain("panics_total", "Panics caught and answered SERVFAIL", read(&counters.panics)),
    ]);
}

fn upstream(all: &mut Vec<Sample>, pipeline: &Pipeline) {
    let counters = pipeline.forwarder.counters();
    all.extend([
        plain("upstream_questions_total", "Questions for an upstream", read(&counters.questions)),
        plain("upstream_coalesced_total", "Of these, joined to one under way", read(&counters.coalesced)),
        plain("upstream_failed_total", "Of these, failed at every upstream", read(&counters.failed)),
        plain("upstream_all_down_total", "Of these, failed at once with every upstream down", read(&counters.all_down)),
        plain("upstream_mismatches_total", "Datagrams that fitted no question", read(&counters.mismatches)),
    ]);
    for (kind, count) in FailKind::ALL.iter().zip(&counters.failures) {
        all.push(Sample {
            name: "upstream_tries_failed_total",
            help: "Failed tries at an upstream",
            label: Some(("kind", kind.as_str())),
            value: read(count),
        });
    }
}

fn sessions(all: &mut Vec<Sample>, pipeline: &Pipeline) {
    let mut states = [0u32; State::ALL.len()];
    for session in pipeline.sessions.all() {
        let state = session.inner.lock().state();
        if let Some(at) = State::ALL.iter().position(|s| *s == state) {
            states[at] += 1;
        }
    }
    for (state, count) in State::ALL.iter().zip(states) {
        all.push(Sample {
            name: "sessions",
            help: "Sessions by state",
            label: Some(("state", state.as_str())),
            value: f64::from(count),
        });
    }
}
