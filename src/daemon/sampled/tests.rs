//! How values of other stages read on the page.

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
    alerts(&mut all, &[sink(3, Some(7_000), 5, true), sink(1, Some(9_500), 7, false), sink(0, None, 8, false)], 10_000);
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
