//! The lease journal: what was opened and closed, for whom, and when, as JSON lines. For an auditor's question: might this
//! sandbox reach that address then?
//!
//! A backend around another one. A line's `time` is when the packet filter was told, `took_us` later it had taken it: nothing
//! is open before the first and nothing that was closed stays open behind the second. A pin with an `error` was not acknowledged
//! and may have been open all the same. A line is handed to a thread through
//! a bounded queue and enforcement never waits for the file; what found the queue full is counted in the next line's `lost`,
//! and is behind [`Counts::unrecorded`].

use std::io;
use std::net::IpAddr;
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::thread::JoinHandle;
use std::time::{Instant, SystemTime};

use serde::Serialize;

use super::{Active, Backend, BackendKind, Command, Counts, Error, Health, Images, Range, Tell, View, wire};
use crate::lines::{self, LineFile};

/// Version of the lines, in each as `schema`.
const SCHEMA: u32 = 1;
/// Batches of lines that may wait for the file.
const QUEUE: usize = 4096;

/// A backend whose changes are written down.
pub struct Journalled {
    inner: Box<dyn Backend>,
    lines: Option<SyncSender<Vec<u8>>>,
    thread: Option<JoinHandle<()>>,
    /// Lines that were not written, in all, and since the last that was.
    unrecorded: u64,
    lost: u64,
    /// Times the packet filter was put back, as told.
    restored: u64,
}

/// What a line tells.
#[derive(Serialize)]
#[serde(untagged)]
enum Told<'a> {
    Order(&'a Command),
    Fact(Fact<'a>),
}

/// What is no order for one session.
#[derive(Serialize)]
#[serde(tag = "fact", rename_all = "kebab-case")]
enum Fact<'a> {
    /// A session that was taken over from an earlier run, and its leases.
    Held(&'a wire::Held),
    /// All others that an earlier run knew are gone.
    Reconciled { sessions: usize },
    /// The written ranges, by class as a bit, are these.
    Ranges { ranges: &'a [Range] },
    /// Somebody had changed the packet filter; it stands again.
    Restored,
}

#[derive(Serialize)]
struct Line<'a> {
    schema: u32,
    time: &'a str,
    took_us: u64,
    #[serde(flatten)]
    told: Told<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
    #[serde(skip_serializing_if = "is_none_lost")]
    lost: u64,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde gives a reference")]
fn is_none_lost(lost: &u64) -> bool {
    *lost == 0
}

/// When something was begun.
#[derive(Clone, Copy)]
struct Begun {
    wall: SystemTime,
    at: Instant,
}

impl Begun {
    fn now() -> Self {
        Self { wall: SystemTime::now(), at: Instant::now() }
    }

    /// RFC 3339, UTC, with microseconds.
    fn text(self) -> String {
        jiff::Timestamp::try_from(self.wall).map_or_else(|_| String::new(), |time| format!("{time:.6}"))
    }
}

impl Journalled {
    /// Writes what `inner` does to this file.
    ///
    /// # Errors
    ///
    /// Where the file cannot be opened or the thread cannot be started.
    pub fn new(inner: Box<dyn Backend>, config: &lines::Config) -> io::Result<Self> {
        let file = LineFile::open(config, "leases")?;
        let (lines, waiting) = sync_channel(QUEUE);
        let thread = std::thread::Builder::new().name("leases".into()).spawn(move || write(file, &waiting))?;
        Ok(Self { inner, lines: Some(lines), thread: Some(thread), unrecorded: 0, lost: 0, restored: 0 })
    }

    fn tell_restored(&mut self, begun: Begun) {
        let restored = self.inner.restored();
        if std::mem::replace(&mut self.restored, restored) != restored {
            self.tell(begun, [(Told::Fact(Fact::Restored), None)]);
        }
    }

    fn tell<'a>(&mut self, begun: Begun, told: impl IntoIterator<Item = (Told<'a>, Option<&'a Error>)>) {
        let took_us = begun.at.elapsed().as_micros() as u64;
        let time = begun.text();
        let (mut batch, mut count) = (Vec::with_capacity(256), 0);
        for (told, error) in told {
            let lost = if count == 0 { self.lost } else { 0 };
            let error = error.map(ToString::to_string);
            let line = Line { schema: SCHEMA, time: &time, took_us, told, error, lost };
            // Into memory it fails only for map keys that are not strings; a line has none.
            if serde_json::to_writer(&mut batch, &line).is_ok() {
                batch.push(b'\n');
                count += 1;
            }
        }
        if count == 0 {
            return;
        }
        let sent = self.lines.as_ref().map(|lines| lines.try_send(batch));
        match sent {
            Some(Ok(())) => self.lost = 0,
            Some(Err(TrySendError::Full(_) | TrySendError::Disconnected(_))) | None => {
                self.lost += count;
                self.unrecorded += count;
            }
        }
    }
}

impl std::fmt::Debug for Journalled {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Journalled").field("kind", &self.inner.kind()).finish_non_exhaustive()
    }
}

impl Drop for Journalled {
    fn drop(&mut self) {
        self.lines = None;
        if let Some(thread) = self.thread.take() {
            // What waits is written; a panic of the thread was logged by the panic hook.
            let _ = thread.join();
        }
    }
}

fn write(mut file: LineFile, waiting: &Receiver<Vec<u8>>) {
    while let Ok(mut batch) = waiting.recv() {
        // What has gathered meanwhile goes in one write.
        while batch.len() < 1 << 16
            && let Ok(more) = waiting.try_recv()
        {
            batch.extend_from_slice(&more);
        }
        file.write(&batch);
    }
}

impl Backend for Journalled {
    fn kind(&self) -> BackendKind {
        self.inner.kind()
    }

    fn setup(&mut self) -> Result<(), Error> {
        self.inner.setup()
    }

    fn apply(&mut self, commands: &[Command]) -> Vec<Result<(), Error>> {
        let begun = Begun::now();
        let results = self.inner.apply(commands);
        self.tell_restored(begun);
        // A pin that was refused leaves nothing behind. One whose acknowledgement was lost on its way from another process
        // may have been open for a while; any other order is wanted all the same.
        let stands = |(command, result): &(&Command, &Result<(), Error>)| match result {
            Ok(()) | Err(Error::Unhealthy(_) | Error::Io { .. }) => true,
            Err(_) => !matches!(command, Command::Pin { .. }),
        };
        let all = commands.iter().zip(&results).filter(stands);
        self.tell(begun, all.map(|(command, result)| (Told::Order(command), result.as_ref().err())));
        results
    }

    fn reconcile(&mut self, active: &[Active]) -> Result<(), Error> {
        let begun = Begun::now();
        let result = self.inner.reconcile(active);
        let mut all: Vec<wire::Held> = Vec::new();
        loop {
            let (some, more) = self.inner.held(all.last().map(|held| held.session));
            all.extend(some);
            if !more {
                break;
            }
        }
        let held = all.iter().map(|held| (Told::Fact(Fact::Held(held)), None));
        let end = (Told::Fact(Fact::Reconciled { sessions: active.len() }), result.as_ref().err());
        self.tell(begun, held.chain([end]));
        result
    }

    fn ranges(&mut self, ranges: &[Range]) -> Result<(), Error> {
        let begun = Begun::now();
        let result = self.inner.ranges(ranges);
        self.tell(begun, [(Told::Fact(Fact::Ranges { ranges }), result.as_ref().err())]);
        result
    }

    fn observe(&mut self, tell: Tell) {
        self.inner.observe(tell);
    }

    fn healthy(&mut self) -> Result<Health, Error> {
        let begun = Begun::now();
        let result = self.inner.healthy();
        self.tell_restored(begun);
        result
    }

    fn restored(&self) -> u64 {
        self.restored
    }

    fn images(&mut self, table: &str, apart: &str) -> Result<Images, Error> {
        self.inner.images(table, apart)
    }

    fn held(&self, after: Option<IpAddr>) -> (Vec<wire::Held>, bool) {
        self.inner.held(after)
    }

    fn hold(&mut self, held: Vec<wire::Held>) -> Result<(), Error> {
        self.inner.hold(held)
    }

    fn teardown(&mut self, remove_table: bool) -> Result<(), Error> {
        self.inner.teardown(remove_table)
    }

    fn view(&self, session: IpAddr) -> View {
        self.inner.view(session)
    }

    fn counts(&self) -> Counts {
        Counts { unrecorded: self.unrecorded, ..self.inner.counts() }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use serde_json::Value;

    use super::super::{Class, DryRun, Kept};
    use super::*;
    use crate::ports::Ports;

    fn lines(path: &std::path::Path) -> Vec<Value> {
        let text = std::fs::read_to_string(path).expect("the journal");
        text.lines().map(|line| serde_json::from_str(line).expect(line)).collect()
    }

    #[test]
    fn every_change_is_a_line_and_a_refused_pin_is_none() {
        let dir = tempfile::tempdir().expect("directory");
        let config = lines::Config { file: dir.path().join("leases.jsonl"), rotate_bytes: 1 << 20, keep: 1 };
        let mut backend = Journalled::new(Box::new(DryRun::new(1)), &config).expect("opens");
        let session = IpAddr::from([10, 77, 1, 2]);
        let pin = |n: u8| Command::Pin {
            session,
            destinations: vec![IpAddr::from([192, 0, 2, n])],
            ports: Ports::web(),
            volume: Some(9),
            lifetime: Duration::from_secs(60),
        };
        backend
            .reconcile(&[Active { session, guard: Some(Class(1)), quarantined: false }])
            .expect("nothing stands in the way");
        let keep = vec![Kept { destination: IpAddr::from([192, 0, 2, 1]), ports: vec![Ports::Any], volume: None }];
        let commands = [pin(1), pin(2), Command::Renew { session, class: Class(2), keep }];
        let results = backend.apply(&commands);
        assert!(results[0].is_ok() && matches!(results[1], Err(Error::Full { .. })) && results[2].is_ok());
        backend.apply(&[Command::Quarantine { session }, pin(1)]);
        assert_eq!(backend.counts().unrecorded, 0);
        drop(backend);
        let lines = lines(&config.file);
        let ops: Vec<_> = lines.iter().filter_map(|line| line["order"].as_str().or(line["fact"].as_str())).collect();
        assert_eq!(ops, ["held", "reconciled", "pin", "renew", "quarantine"]);
        assert_eq!((&lines[0]["session"], &lines[0]["guard"]), (&"10.77.1.2".into(), &1.into()));
        assert_eq!(lines[2]["destinations"], serde_json::json!(["192.0.2.1"]));
        assert_eq!(lines[2]["ports"], serde_json::json!(["tcp/80", "tcp/443", "udp/443"]));
        assert_eq!((&lines[2]["lifetime_ms"], &lines[2]["volume"]), (&60_000.into(), &9.into()));
        assert_eq!(lines[3]["keep"][0]["ports"], serde_json::json!([["any"]]));
        for line in &lines {
            let time: jiff::Timestamp = line["time"].as_str().expect("a time").parse().expect("RFC 3339");
            assert!(time.as_second() > 1_700_000_000 && line["took_us"].is_u64() && line["schema"] == 1, "{line}");
            assert!(line.get("lost").is_none() && line.get("error").is_none(), "{line}");
        }
    }

    #[test]
    fn what_finds_the_queue_full_is_counted_and_said() {
        let dir = tempfile::tempdir().expect("directory");
        let config = lines::Config { file: dir.path().join("leases.jsonl"), rotate_bytes: 1 << 20, keep: 1 };
        let mut backend = Journalled::new(Box::new(DryRun::new(4)), &config).expect("opens");
        // A queue that nobody empties.
        let (full, kept) = sync_channel(1);
        drop(backend.lines.replace(full));
        let session = IpAddr::from([10, 77, 1, 2]);
        for _ in 0..3 {
            backend.apply(&[Command::Release { session }]);
        }
        assert_eq!(backend.counts().unrecorded, 2);
        drop(kept.recv());
        backend.apply(&[Command::Release { session }]);
        let line: Value = serde_json::from_slice(&kept.recv().expect("a line")).expect("JSON");
        assert_eq!(line["lost"], 2);
        assert_eq!(backend.counts().unrecorded, 2);
    }
}
