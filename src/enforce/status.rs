//! How enforcement stands.

use super::{BackendKind, Counts};

/// How enforcement stands, for readiness and metrics.
#[derive(Debug, Clone, serde::Serialize)]
pub struct Status {
    /// Which backend.
    pub backend: BackendKind,
    /// Whether the table stood when it was last looked at, at most 100 ms ago, and the owner lives.
    pub healthy: bool,
    /// The last error, with its causes; kept after recovery.
    pub last_error: Option<String>,
    /// Sizes and counters of the backend, at most 100 ms old.
    pub counts: Counts,
    /// Commands and other jobs in the queue.
    pub waiting: usize,
    /// Commands taken into the queue.
    pub submitted: u64,
    /// Commands acknowledged by the kernel.
    pub applied: u64,
    /// Commands that failed.
    pub failed: u64,
    /// Commands that a later one for the same address made idle while the queue was full.
    pub superseded: u64,
    /// Commands refused because the queue was full.
    pub queue_full: u64,
    /// Pins refused because the table was not in place.
    pub refused_unhealthy: u64,
    /// Longest time from submission to result, microseconds.
    pub ack_latency_max_us: u64,
    /// Sum of the times from submission to result, microseconds, over `applied + failed` commands.
    pub ack_latency_sum_us: u64,
}
