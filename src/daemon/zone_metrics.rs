//! Policy zones on the metrics page: what each has done, and how it stands. Their names are the configuration's own, of the
//! alphabet of host names.

use std::sync::Weak;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;

use crate::pipeline::Pipeline;
use crate::transfer::ZoneStatus;

/// Name, help, and a zone's value.
type Series<T> = (&'static str, &'static str, fn(&ZoneStatus) -> T);

/// Reads them when the page is asked for. Holds no stage alive.
#[derive(Debug)]
pub(super) struct ZoneMetrics(pub(super) Weak<Pipeline>);

impl Collector for ZoneMetrics {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        let Some(pipeline) = self.0.upgrade() else { return Ok(()) };
        let help = "Matches of a policy zone, by what was done; `logged`: recorded only";
        let mut family = encoder.encode_descriptor("rpz_matches", help, None, MetricType::Counter)?;
        for (zone, counters) in pipeline.transfers.counters() {
            for (action, count) in counters.read() {
                ConstCounter::new(count).encode(family.encode_family(&[("zone", &*zone), ("action", action)])?)?;
            }
        }
        let status = pipeline.transfers.status();
        let counts: [Series<u64>; 2] = [
            ("rpz_transfers", "Copies of a policy zone that were put in force", |zone| zone.transfers),
            ("rpz_transfer_failures", "Tries to transfer a policy zone that failed", |zone| zone.failures),
        ];
        for (name, help, value) in counts {
            let mut family = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
            for zone in &status {
                ConstCounter::new(value(zone)).encode(family.encode_family(&[("zone", &*zone.zone)])?)?;
            }
        }
        let values: [Series<i64>; 4] = [
            ("rpz_rules", "Triggers of a policy zone in force", |zone| zone.rules as i64),
            ("rpz_octets", "Octets of its tables", |zone| zone.octets as i64),
            ("rpz_serial", "Serial of the copy in force", |zone| zone.serial.map_or(-1, i64::from)),
            ("rpz_expired", "1 if it is past the time that its SOA gives it", |zone| i64::from(zone.expired)),
        ];
        for (name, help, value) in values {
            let mut family = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
            for zone in &status {
                ConstGauge::new(value(zone)).encode(family.encode_family(&[("zone", &*zone.zone)])?)?;
            }
        }
        let help = "NOTIFY messages that were nobody's, or not signed as they must be";
        let refused = encoder.encode_descriptor("rpz_notify_refused", help, None, MetricType::Counter)?;
        ConstCounter::new(pipeline.transfers.refused_notifies()).encode(refused)
    }
}
