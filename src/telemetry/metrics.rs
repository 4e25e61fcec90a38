//! Counters with closed label sets: no name that is asked for, session or address is ever a label value.

use std::sync::Arc;

use parking_lot::Mutex;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric, text::encode};
use prometheus_client::metrics::counter::{ConstCounter, Counter};
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

use super::Record;
use crate::event::{Source, Verdict};
use crate::model::{Mode, Reason, Transport};

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct VerdictLabels {
    verdict: &'static str,
    mode: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ReasonLabels {
    reason: &'static str,
    applied: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct SourceLabels {
    source: &'static str,
    proto: &'static str,
}

/// Values that are read when somebody asks for the page, from where they live.
pub trait Sampled: Send + Sync + 'static {
    /// The values now.
    fn sample(&self) -> Vec<Sample>;
}

/// One value read from another stage.
#[derive(Debug, Clone, Copy)]
pub struct Sample {
    /// Name without the prefix; a counter's ends in `_total`.
    pub name: &'static str,
    /// What it is.
    pub help: &'static str,
    /// One label from a closed set.
    pub label: Option<(&'static str, &'static str)>,
    /// The value.
    pub value: f64,
}

/// Counters the query path holds by handle.
pub struct Metrics {
    registry: Mutex<Registry>,
    verdicts: [[Counter; 4]; 2],
    reasons: [[Counter; 2]; Reason::ALL.len()],
    sources: [[Counter; 2]; 7],
    duration: Histogram,
    charged: Counter<f64, std::sync::atomic::AtomicU64>,
    not_durable: Counter,
}

const VERDICTS: [Verdict; 4] = [Verdict::Answer, Verdict::Hold, Verdict::Sinkhole, Verdict::Quarantine];
const SOURCES: [(Source, &str); 7] = [
    (Source::Local, "local"),
    (Source::Zone, "zone"),
    (Source::Cache, "cache"),
    (Source::Decoy, "decoy"),
    (Source::Upstream, "upstream"),
    (Source::Policy, "policy"),
    (Source::Failed, "failed"),
];

impl Metrics {
    /// Every series exists from the start, at zero.
    pub fn new() -> Self {
        let mut registry = Registry::with_prefix("staunch");
        let verdicts: Family<VerdictLabels, Counter> = Family::default();
        let reasons: Family<ReasonLabels, Counter> = Family::default();
        let sources: Family<SourceLabels, Counter> = Family::default();
        let duration = Histogram::new([0.000_005, 0.000_02, 0.000_1, 0.000_5, 0.002, 0.01, 0.05, 0.2, 1.0, 2.5]);
        let charged = Counter::default();
        registry.register("verdicts", "Verdicts applied, by the session's mode", verdicts.clone());
        registry.register("refusals", "Refusals by reason, applied or only recorded", reasons.clone());
        registry.register("answers", "Replies by where they came from", sources.clone());
        registry.register("request_duration_seconds", "From packet to reply", duration.clone());
        registry.register("ledger_charged_bits", "Bits booked to ledgers", charged.clone());
        let not_durable = Counter::default();
        registry.register("not_durable", "Decisions that the journal did not take", not_durable.clone());
        let held =
            |verdict: Verdict, mode| verdicts.get_or_create(&VerdictLabels { verdict: verdict.as_str(), mode }).clone();
        Self {
            verdicts: ["monitor", "enforce"].map(|mode| VERDICTS.map(|verdict| held(verdict, mode))),
            reasons: Reason::ALL.map(|reason| {
                ["yes", "no"]
                    .map(|applied| reasons.get_or_create(&ReasonLabels { reason: reason.as_str(), applied }).clone())
            }),
            sources: SOURCES.map(|(_, source)| {
                ["udp", "tcp"].map(|proto| sources.get_or_create(&SourceLabels { source, proto }).clone())
            }),
            duration,
            charged,
            not_durable,
            registry: Mutex::new(registry),
        }
    }

    /// Adds values that live elsewhere.
    pub fn register(&self, sampled: Arc<dyn Sampled>) {
        self.registry.lock().register_collector(Box::new(Page(sampled)));
    }

    /// Adds values whose labels a configuration gives.
    pub fn register_collector(&self, collector: Box<dyn Collector>) {
        self.registry.lock().register_collector(collector);
    }

    /// A decision holds in memory only.
    pub fn not_durable(&self) {
        self.not_durable.inc();
    }

    pub(super) fn count(&self, record: &Record) {
        let mode = usize::from(record.mode == Mode::Enforce);
        let verdict = VERDICTS.iter().position(|v| *v == record.verdict).unwrap_or(0);
        self.verdicts[mode][verdict].inc_by(record.count);
        if let Some(reason) = record.reason
            && let Some(at) = Reason::ALL.iter().position(|r| *r == reason)
        {
            // For these nothing is answered in any mode, though policy has nothing against the question.
            let unanswered = matches!(reason, Reason::NotPinned | Reason::Share);
            let recorded = record.verdict == Verdict::Answer && !unanswered;
            self.reasons[at][usize::from(recorded)].inc_by(record.count);
        }
        let source = SOURCES.iter().position(|(s, _)| *s == record.source).unwrap_or(0);
        self.sources[source][usize::from(record.over == Transport::Tcp)].inc_by(record.count);
        for _ in 0..record.count {
            self.duration.observe(f64::from(record.duration_us) / 1e6);
        }
        if let Some((_, charged)) = &record.scored {
            self.charged.inc_by(charged.as_f64());
        }
    }

    /// The page in the OpenMetrics text format.
    pub fn page(&self) -> String {
        let mut page = String::new();
        match encode(&mut page, &self.registry.lock()) {
            Ok(()) => page,
            // Writing to a string does not fail.
            Err(_) => "# EOF\n".to_owned(),
        }
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

struct Page(Arc<dyn Sampled>);

impl std::fmt::Debug for Page {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Page")
    }
}

impl Collector for Page {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        let mut samples = self.0.sample();
        // Series of one name must stand together.
        samples.sort_by_key(|s| s.name);
        for same in samples.chunk_by(|a, b| a.name == b.name) {
            let Some(Sample { name, help, .. }) = same.first().copied() else { continue };
            let counter = name.strip_suffix("_total");
            let kind = if counter.is_some() {
                prometheus_client::metrics::MetricType::Counter
            } else {
                prometheus_client::metrics::MetricType::Gauge
            };
            let mut metric = encoder.encode_descriptor(counter.unwrap_or(name), help, None, kind)?;
            for sample in same {
                let labels = sample.label.as_slice();
                if counter.is_some() {
                    ConstCounter::new(sample.value).encode(metric.encode_family(&labels)?)?;
                } else {
                    ConstGauge::new(sample.value).encode(metric.encode_family(&labels)?)?;
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr};

    use staunch_scoring::{QName, Split};

    use super::*;
    use crate::model::{Announcement, Qtype, SessionId, SessionType};
    use crate::session::Context;

    #[test]
    fn what_is_not_answered_counts_as_applied_whatever_the_verdict() {
        let address = IpAddr::V4(Ipv4Addr::LOCALHOST);
        let announcement = Announcement {
            id: SessionId::new("a").expect("id"),
            addresses: vec![address],
            kind: SessionType::Batch,
            phase: None,
            owner: None,
            search: Vec::new(),
        };
        let answered = Record {
            wall: 0,
            context: Arc::new(Context::new(announcement, true)),
            address,
            transport: Transport::Udp,
            over: Transport::Udp,
            qname: QName::from_text("www.site.example").expect("a name"),
            qtype: Qtype::A,
            split: Split::NONE,
            mode: Mode::Monitor,
            verdict: Verdict::Answer,
            would: Verdict::Answer,
            reason: None,
            case: None,
            rule: None,
            rpz: None,
            source: Source::Failed,
            decoy: None,
            rcode: 2,
            scored: None,
            pins: Vec::new(),
            shared: Vec::new(),
            withheld: Vec::new(),
            duration_us: 7,
            count: 3,
        };
        let metrics = Metrics::new();
        for (reason, verdict) in [
            (Reason::NotPinned, Verdict::Answer),
            (Reason::Share, Verdict::Answer),
            (Reason::Score, Verdict::Answer),
            (Reason::Score, Verdict::Sinkhole),
        ] {
            metrics.count(&Record { reason: Some(reason), verdict, ..answered.clone() });
        }
        let page = metrics.page();
        for (reason, yes, no) in [("not-pinned", 3, 0), ("share", 3, 0), ("score", 3, 3), ("rpz", 0, 0)] {
            for (applied, count) in [("yes", yes), ("no", no)] {
                let line = format!("staunch_refusals_total{{reason=\"{reason}\",applied=\"{applied}\"}} {count}\n");
                assert!(page.contains(&line), "{line} is not in {page}");
            }
        }
    }
}
