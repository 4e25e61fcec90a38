//! Telemetry: one event a decision to a file and to observers, and counters.
//!
//! The query path hands over a [`Record`] through a bounded ring and never waits; a writer thread turns records into
//! [`Event`] lines. A full ring drops the event and counts it; what the disk does not take waits in bounded memory. Alerts do not travel here: they are journalled.

mod metrics;
mod spill;
mod writer;

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use crossbeam_queue::ArrayQueue;
use parking_lot::Mutex;
use staunch_scoring::{Assessment, Bits, QName, Split};
use tokio::sync::{broadcast, oneshot};

use crate::at_work::AtWork;
use crate::clock;
use crate::event::{Event, Notice, Rpz, RuleRef, SCHEMA, Scored, Source, Verdict};
use crate::lines::{self, LineFile};
use crate::model::{CaseId, Mode, Qtype, Reason, Transport};
use crate::session::Context;

pub use metrics::{Metrics, Sample, Sampled};
pub use writer::{HELD, Recent, rfc3339};

/// Settings of this stage.
#[derive(Debug, Clone)]
pub struct Config {
    /// Event file; `None` writes none.
    pub file: Option<lines::Config>,
    /// Events that may wait for the writer.
    pub queue: usize,
}

/// A decision as the query path hands it over: nothing in it is allocated there.
#[derive(Debug, Clone)]
pub struct Record {
    /// Milliseconds since the Unix epoch.
    pub wall: u64,
    /// Whose query.
    pub context: Arc<Context>,
    /// Where it came from.
    pub address: IpAddr,
    /// How its reply is written.
    pub transport: Transport,
    /// How it came.
    pub over: Transport,
    /// The name.
    pub qname: QName,
    /// The type.
    pub qtype: Qtype,
    /// The name's owners.
    pub split: Split,
    /// Mode of the session.
    pub mode: Mode,
    /// What was done.
    pub verdict: Verdict,
    /// What enforce mode does.
    pub would: Verdict,
    /// Why.
    pub reason: Option<Reason>,
    /// The case.
    pub case: Option<CaseId>,
    /// The rule or list.
    pub rule: Option<RuleRef>,
    /// What a response policy zone says of it.
    pub rpz: Option<Rpz>,
    /// Where the answer came from.
    pub source: Source,
    /// What random siblings were found to get.
    pub decoy: Option<crate::decoy::Kind>,
    /// Response code sent.
    pub rcode: u16,
    /// The score and what was booked.
    pub scored: Option<(Assessment, Bits)>,
    /// Pins made for this answer.
    pub pins: Vec<IpAddr>,
    /// How many other names are known behind each of them.
    pub shared: Vec<u32>,
    /// Addresses taken out of the answer.
    pub withheld: Vec<IpAddr>,
    /// From packet to reply, microseconds.
    pub duration_us: u32,
    /// How many questions this stands for: the same one of the same session, answered alike within a second.
    pub count: u64,
}

impl Record {
    /// The event as written.
    pub fn to_event(&self) -> Event {
        let a = &self.context.announcement;
        Event {
            schema: SCHEMA,
            time: rfc3339(self.wall),
            session: a.id.clone(),
            kind: a.kind,
            phase: a.phase,
            owner: a.owner.clone(),
            address: self.address,
            transport: self.over,
            qname: self.qname.as_ref().to_string(),
            qtype: self.qtype,
            tenant: self.split.tenant(self.qname.as_ref()).to_string(),
            mode: self.mode,
            verdict: self.verdict,
            would: self.would,
            reason: self.reason,
            case: self.case,
            rule: self.rule.clone(),
            rpz: self.rpz.clone(),
            source: self.source,
            decoy: self.decoy,
            rcode: self.rcode,
            score: self.scored.as_ref().map(|(assessment, charged)| {
                let mut score = scored(assessment, *charged);
                // A line for every question: what a signal has no word on is not repeated each time.
                score.readings.retain(|reading| reading.value.is_some());
                score
            }),
            pins: self.pins.clone(),
            shared: if self.shared.iter().any(|n| *n > 0) { self.shared.clone() } else { Vec::new() },
            withheld: self.withheld.clone(),
            duration_us: self.duration_us,
            count: self.count,
        }
    }
}

/// How the event file fares.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SpillStatus {
    /// The last write failed.
    pub failing: bool,
    /// Events that wait in memory for the disk.
    pub waiting: u64,
    /// Events given up for want of that memory, since the start; those of answers first.
    pub shed: u64,
}

/// A score in the form records keep.
pub fn scored(assessment: &Assessment, charged: Bits) -> Scored {
    Scored {
        total: assessment.score,
        agreeing: assessment.agreeing,
        band: assessment.band,
        readings: assessment.readings.to_vec(),
        information_bits: assessment.information,
        charged_bits: charged,
        ledger_before: assessment.before,
        ledger_after: assessment.after,
    }
}

/// How long an observer waits for what was decided before it asked.
const CATCH_UP: Duration = Duration::from_secs(1);

/// What waits for the writer.
// Nearly all of them are decisions, and a box for each would be the only allocation on their path.
#[allow(clippy::large_enum_variant)]
enum Item {
    Decision(Record),
    Notice(Box<Notice>),
    /// Somebody waits until all before it is written.
    Mark(oneshot::Sender<()>),
}

/// The handle that the query path holds.
pub struct Telemetry {
    ring: ArrayQueue<Item>,
    dropped: AtomicU64,
    spilled: AtomicU64,
    shed: AtomicU64,
    failing: AtomicBool,
    /// What the writer does with the disk.
    writing: AtWork,
    /// Counters.
    pub metrics: Metrics,
    tap: broadcast::Sender<Arc<str>>,
    recent: Mutex<Recent>,
    stop: AtomicBool,
}

impl Telemetry {
    /// Starts the writer thread.
    pub fn start(config: &Config) -> std::io::Result<(Arc<Self>, JoinHandle<()>)> {
        let (tap, _) = broadcast::channel(1024);
        let telemetry = Arc::new(Self {
            ring: ArrayQueue::new(config.queue.max(64)),
            dropped: AtomicU64::new(0),
            spilled: AtomicU64::new(0),
            shed: AtomicU64::new(0),
            failing: AtomicBool::new(false),
            writing: AtWork::default(),
            metrics: Metrics::new(),
            tap,
            recent: Mutex::default(),
            stop: AtomicBool::new(false),
        });
        let file = config.file.as_ref().map(|file| LineFile::open(file, "events")).transpose()?;
        let writer = telemetry.clone();
        let thread = std::thread::Builder::new().name("events".into()).spawn(move || writer::run(&writer, file))?;
        Ok((telemetry, thread))
    }

    /// Hands over one decision; drops and counts it if the ring is full.
    pub fn record(&self, record: Record) {
        self.metrics.count(&record);
        self.push(Item::Decision(record));
    }

    /// Hands over what is no decision; drops and counts it if the ring is full.
    pub fn notice(&self, notice: Notice) {
        self.push(Item::Notice(Box::new(notice)));
    }

    fn push(&self, item: Item) {
        if self.ring.push(item).is_err() {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Waits until what was handed over before can be seen, for a second at most: a writer that far behind has lost events too.
    pub async fn caught_up(&self) {
        let (mark, written) = oneshot::channel();
        if self.ring.push(Item::Mark(mark)).is_ok() {
            let _ = tokio::time::timeout(CATCH_UP, written).await;
        }
    }

    /// Events dropped because the ring was full.
    pub fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }

    /// How the event file fares.
    pub fn spill(&self) -> SpillStatus {
        SpillStatus {
            failing: self.failing.load(Ordering::Relaxed) || self.writing.hangs(clock::now().mono),
            waiting: self.spilled.load(Ordering::Relaxed),
            shed: self.shed.load(Ordering::Relaxed),
        }
    }

    /// The newest lines, oldest first, [`HELD`] at most, and a stream of those that come behind them: none is in both and none
    /// is missing between. A reader that falls behind loses lines and is told how many.
    pub fn follow(&self) -> (Vec<Arc<str>>, broadcast::Receiver<Arc<str>>) {
        let recent = self.recent.lock();
        (recent.lines(), self.tap.subscribe())
    }

    /// The newest event line of a case that is still in memory.
    pub fn case(&self, case: CaseId) -> Option<Arc<str>> {
        self.recent.lock().case(case)
    }

    /// Ends the writer after it has written what is queued.
    pub fn stop(&self) {
        self.stop.store(true, Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::NoticeKind;

    #[test]
    fn whoever_follows_gets_every_line_once() {
        let (telemetry, writer) = Telemetry::start(&Config { file: None, queue: 1 << 16 }).expect("a thread");
        let told = telemetry.clone();
        let teller = std::thread::spawn(move || {
            for n in 0..20_000 {
                told.notice(Notice::new(NoticeKind::Drift, rfc3339(0), format!("{n}")));
                if n % 16 == 0 {
                    std::thread::sleep(Duration::from_micros(50));
                }
            }
        });
        let number = |line: &str| -> usize {
            let notice: Notice = serde_json::from_str(line).expect("a notice");
            notice.text.parse().expect("a number")
        };
        let mut looks = 0;
        while !teller.is_finished() {
            let (before, mut behind) = telemetry.follow();
            let next = loop {
                match behind.try_recv() {
                    Ok(line) => break Some(line),
                    Err(broadcast::error::TryRecvError::Empty) if !teller.is_finished() => std::thread::yield_now(),
                    Err(_) => break None,
                }
            };
            if let (Some(last), Some(next)) = (before.last(), next) {
                assert_eq!(number(&next), number(last) + 1);
                looks += 1;
            }
        }
        assert!(looks > 0);
        teller.join().expect("told");
        telemetry.stop();
        writer.join().expect("ended");
    }

    #[test]
    fn what_waits_for_the_disk_is_written_at_the_end() {
        use std::io::{BufRead as _, BufReader};
        let dir = tempfile::tempdir().expect("directory");
        let file = dir.path().join("events.pipe");
        let name = std::ffi::CString::new(file.as_os_str().as_encoded_bytes()).expect("a path");
        // SAFETY: the pointer is to a NUL-terminated string.
        assert_eq!(unsafe { libc::mkfifo(name.as_ptr(), 0o600) }, 0);
        let lines = lines::Config { file: file.clone(), rotate_bytes: 1 << 16, keep: 1 };
        let (telemetry, writer) = Telemetry::start(&Config { file: Some(lines), queue: 1 << 16 }).expect("a thread");
        let all = 4_000;
        for n in 0..all {
            telemetry.notice(Notice::new(NoticeKind::Drift, rfc3339(0), format!("{n}")));
        }
        // More than a pipe holds that nobody reads.
        while !telemetry.spill().failing {
            std::thread::yield_now();
        }
        let (begun, reads) = std::sync::mpsc::channel();
        let reader = std::thread::spawn(move || {
            let pipe = std::fs::File::options().read(true).write(true).open(&file).expect("opens");
            let lines = BufReader::new(pipe).lines().map(|line| line.expect("text"));
            // What a pipe holds is a small part of all.
            let lines = lines.inspect(|_| begun.send(()).unwrap_or(()));
            lines.take_while(|line| !line.contains(&format!("\"{}\"", all - 1))).count()
        });
        reads.recv().expect("it reads");
        telemetry.stop();
        writer.join().expect("ended");
        let end = std::time::Instant::now() + Duration::from_secs(10);
        while !reader.is_finished() {
            assert!(std::time::Instant::now() < end, "the last one never comes");
            std::thread::sleep(Duration::from_millis(10));
        }
        assert!(reader.join().expect("read") >= all - 2, "one may have been torn");
    }
}
