//! What is recorded and told: the journal, its index, and alerts on their way.

use super::{flag, plain};
use crate::alert::SinkStatus;
use crate::store;
use crate::telemetry::Sample;

pub(super) fn journal(all: &mut Vec<Sample>, status: &store::Status) {
    all.extend([
        flag("journal_failing", "1 if the last write to the journal failed or does not end", status.failing),
        plain("journal_write_errors_total", "Failed tries to write the journal", status.write_errors as f64),
        plain("journal_lost_total", "Records that had to be given up", status.lost as f64),
        plain("journal_backlog", "Records kept in memory because they could not be written", status.backlog as f64),
        plain("journal_lines_total", "Lines written to the journal", status.lines as f64),
        plain("journal_syncs_total", "Writes of the journal that became durable", status.syncs as f64),
        plain("journal_sync_seconds_total", "Time spent in these writes", status.sync_time.as_secs_f64()),
        plain("journal_bytes", "Size of all journal segments", status.journal_octets as f64),
        plain("journal_segments", "Journal segments", status.segments as f64),
        plain("journal_held_bytes", "Size of the segments kept for alerts not yet taken", status.held_octets as f64),
        flag("index_failed", "1 if the index failed and is not used any more", status.index_failed),
        plain("index_skipped_total", "Changes the index did not get in time", status.index_skipped as f64),
        plain("index_bytes", "Size of the index", status.index_octets as f64),
    ]);
}

/// Sums and maxima over all sinks: a sink's name comes from a configuration file and is never a label. `now` is Unix
/// milliseconds.
pub(super) fn alerts(all: &mut Vec<Sample>, sinks: &[SinkStatus], now: u64) {
    let sum = |of: fn(&SinkStatus) -> u64| sinks.iter().map(of).fold(0, u64::saturating_add) as f64;
    let oldest = sinks.iter().filter_map(|sink| sink.oldest).min().map_or(0, |raised| now.saturating_sub(raised));
    all.extend([
        plain("alert_sinks", "Alert sinks configured", sinks.len() as f64),
        plain("alert_sinks_failing", "Alert sinks whose last try failed", sum(|sink| u64::from(sink.failing))),
        plain("alert_deliveries_waiting", "Alerts not yet taken, summed over all sinks", sum(|sink| sink.depth)),
        plain("alert_oldest_seconds", "Age of the oldest alert that some sink has not taken", oldest as f64 / 1e3),
        plain("alert_deliveries_total", "Alerts taken, summed over all sinks", sum(|sink| sink.taken)),
        plain("alert_tries_failed_total", "Failed tries to deliver an alert", sum(|sink| sink.failed)),
    ]);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value(all: &[Sample], name: &str) -> f64 {
        all.iter().find(|sample| sample.name == name).expect("a sample").value
    }

    #[test]
    fn sinks_are_told_as_sums_and_maxima_without_names() {
        let sink = |depth, oldest, taken, failing| SinkStatus {
            name: "hostile\"} 1\n".into(),
            depth,
            oldest,
            taken,
            failed: 2,
            failing,
        };
        let mut all = Vec::new();
        alerts(
            &mut all,
            &[sink(3, Some(7_000), 5, true), sink(1, Some(9_500), 7, false), sink(0, None, 8, false)],
            10_000,
        );
        for (name, expected) in [
            ("alert_sinks", 3.0),
            ("alert_sinks_failing", 1.0),
            ("alert_deliveries_waiting", 4.0),
            ("alert_oldest_seconds", 3.0),
            ("alert_deliveries_total", 20.0),
            ("alert_tries_failed_total", 6.0),
        ] {
            assert_eq!(value(&all, name), expected, "{name}");
        }
        assert!(all.iter().all(|sample| sample.label.is_none()));
        let mut none = Vec::new();
        alerts(&mut none, &[], 10_000);
        assert_eq!(value(&none, "alert_oldest_seconds"), 0.0);
    }

    #[test]
    fn the_journals_health_is_told() {
        let status = store::Status { failing: true, write_errors: 4, lost: 2, backlog: 9, ..store::Status::default() };
        let mut all = Vec::new();
        journal(&mut all, &status);
        let told = ["journal_failing", "journal_write_errors_total", "journal_lost_total", "journal_backlog"];
        assert_eq!(told.map(|name| value(&all, name)), [1.0, 4.0, 2.0, 9.0]);
    }
}
