//! How upstreams stand, for operators.

use serde_json::{Value, json};

use super::Pipeline;
use crate::forward::{FailKind, UpstreamStatus};

impl Pipeline {
    /// Every upstream, in the order of the configuration, those of zones last.
    pub(super) fn show_upstreams(&self) -> Value {
        self.forwarder.upstreams().iter().map(show).collect()
    }
}

fn show(upstream: &UpstreamStatus) -> Value {
    json!({
        "server": upstream.upstream.to_string(),
        "standing": upstream.standing.as_str(),
        "rtt_ms": upstream.rtt.map(|rtt| rtt.as_secs_f64() * 1000.0),
        "keeps_case": upstream.keeps_case,
        "cookies": upstream.has_cookies,
        "connections": upstream.connections,
        "unconnected": upstream.unconnected.map(FailKind::as_str),
    })
}
