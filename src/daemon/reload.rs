//! Reloads: one thread that reads a configuration and puts it in force, one after the other, away from everything that
//! answers queries.
//!
//! What was in force is kept here until nobody uses it any more, so that it is this thread that gives its memory back
//! and never one that has a query in hand.

use std::iter;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::sync::{Arc, Weak};
use std::thread;
use std::time::Duration;

use anyhow::anyhow;
use tokio::runtime::Handle;
use tokio::sync::oneshot;

use super::{Reload, Start, StartError, build, in_words};
use crate::background::stand_back;
use crate::clock;
use crate::config::Loaded;
use crate::event::{Notice, NoticeKind};
use crate::feed::{Listener, Told};
use crate::mishap;
use crate::pipeline::{Live, Pipeline};
use crate::sparing::Sparing;
use crate::telemetry::rfc3339;

/// How often it is looked whether what was in force can go.
const RETIRE: Duration = Duration::from_millis(50);

/// Reloads of the file, by how they ended.
#[derive(Debug, Default)]
pub(super) struct Counters {
    /// Put in force.
    pub(super) done: AtomicU64,
    /// Refused: what was in force before stayed.
    pub(super) refused: AtomicU64,
    /// Whether the last one was refused, so that the file says something else than what is in force.
    pub(super) is_refused: AtomicBool,
}

impl Counters {
    fn note(&self, is_done: bool) {
        if is_done { &self.done } else { &self.refused }.fetch_add(1, Relaxed);
        self.is_refused.store(!is_done, Relaxed);
    }
}

/// What to read.
#[derive(Clone, Copy, PartialEq, Eq)]
enum What {
    /// The file, as it is now.
    File,
    /// The text in force, for lists that have changed: what somebody is writing in the file is not ready for that. Other files
    /// that it names are read as they are.
    Lists,
}

struct Job {
    what: What,
    done: oneshot::Sender<Result<String, String>>,
}

/// See the module. The thread ends with the last of these.
#[derive(Clone)]
pub(super) struct Reloader {
    jobs: mpsc::Sender<Job>,
}

impl Reloader {
    /// Starts the thread. `pipeline` is not kept alive by it.
    pub(super) fn start(start: Start, pipeline: &Arc<Pipeline>, counters: Arc<Counters>) -> std::io::Result<Self> {
        let (jobs, waiting) = mpsc::channel();
        let pipeline = Arc::downgrade(pipeline);
        let runtime = Handle::current();
        thread::Builder::new().name("reload".into()).spawn(move || {
            run(&start, &pipeline, &runtime, &waiting, &counters);
        })?;
        Ok(Self { jobs })
    }

    fn order(&self, what: What) -> oneshot::Receiver<Result<String, String>> {
        let (done, result) = oneshot::channel();
        // Where the thread is gone the sender is dropped with the job, which the receiver is told.
        drop(self.jobs.send(Job { what, done }));
        result
    }
}

impl Reload for Reloader {
    fn reload(&self) -> Pin<Box<dyn Future<Output = Result<String, String>> + Send + '_>> {
        let result = self.order(What::File);
        Box::pin(async move { result.await.unwrap_or_else(|_| Err("the service is stopping".into())) })
    }
}

fn run(start: &Start, pipeline: &Weak<Pipeline>, runtime: &Handle, jobs: &mpsc::Receiver<Job>, counters: &Counters) {
    let mut retired: Vec<Arc<Live>> = Vec::new();
    // What was in force as a whole before a reload that stopped half-way.
    let mut behind: Option<Arc<Live>> = None;
    loop {
        retired.retain(|live| Arc::strong_count(live) > 1);
        let job = if retired.is_empty() {
            jobs.recv().map_err(|_| RecvTimeoutError::Disconnected)
        } else {
            jobs.recv_timeout(RETIRE)
        };
        let first = match job {
            Ok(job) => job,
            Err(RecvTimeoutError::Timeout) => continue,
            Err(RecvTimeoutError::Disconnected) => return,
        };
        // Whoever asked before the reading begins is served by it: a hundred signals are one reload, and not a hundred.
        let (files, lists): (Vec<_>, Vec<_>) =
            iter::once(first).chain(jobs.try_iter()).partition(|job| job.what == What::File);
        for (what, asked) in [(What::File, files), (What::Lists, lists)] {
            if asked.is_empty() {
                continue;
            }
            let Some(pipeline) = pipeline.upgrade() else { return };
            let old = pipeline.live.load_full();
            static TOLD: Sparing = Sparing::new();
            let result =
                mishap::survived("reloading", &TOLD, || reload(start, &pipeline, runtime, what, behind.clone()));
            let is_whole = Arc::ptr_eq(&old, &pipeline.live.load());
            match &result {
                Some(Ok(_)) => behind = None,
                None if !is_whole => behind = behind.or_else(|| Some(old.clone())),
                _ => {}
            }
            let result = result.unwrap_or_else(|| Err(panicked(is_whole).into()));
            if !is_whole {
                retired.push(old);
            }
            // Of fetched lists `lists_failing` and an alert tell, and the file may be refused all the while.
            if what == What::File {
                counters.note(result.is_ok());
                // Whoever asked for it, by a signal or over the socket.
                match &result {
                    Ok(digest) => tracing::info!(digest, "configuration reloaded"),
                    Err(error) if behind.is_some() => tracing::error!(error, "a configuration is in force in part"),
                    Err(error) => tracing::error!(error, "the old configuration stays"),
                }
            }
            for job in asked {
                // Who asked may have gone away.
                drop(job.done.send(result.clone()));
            }
        }
    }
}

/// What is said of a reload that met a mistake of our own.
fn panicked(is_whole: bool) -> &'static str {
    if is_whole {
        "a mistake in the service: it panicked; see the log"
    } else {
        "a mistake in the service: it panicked half-way, and the new configuration is in force in part; reload again, or restart"
    }
}

fn reload(
    start: &Start,
    pipeline: &Pipeline,
    runtime: &Handle,
    what: What,
    behind: Option<Arc<Live>>,
) -> Result<String, String> {
    if start.config.is_none() {
        return Err("there is no configuration file to read again".into());
    }
    let text = match what {
        What::File => None,
        What::Lists => pipeline.live.load().text.clone(),
    };
    let loaded = load(start, text.as_deref()).map_err(|error| match error {
        StartError::Config(errors) => errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"),
        StartError::Other(error) => in_words(&error),
    })?;
    // One behind the other: what was read last is in force last, and named last by the journal.
    let digest = runtime.block_on(build::apply(pipeline, loaded, behind)).map_err(|error| in_words(&error))?;
    pipeline.gate.nudge();
    Ok(digest)
}

/// Reads on a thread of its own, which stands back behind all others: a list of ten million names takes seconds.
fn load(start: &Start, text: Option<&str>) -> Result<Loaded, StartError> {
    thread::scope(|scope| {
        let aside = thread::Builder::new().name("load".into()).spawn_scoped(scope, || {
            stand_back();
            build::load_text(start, text)
        });
        let joined = aside.map_err(anyhow::Error::from)?.join();
        joined.unwrap_or_else(|_| Err(anyhow!("reading the configuration failed; see the log").into()))
    })
}

/// What fetched lists need of the service.
pub(super) struct Fetched {
    pub(super) reloader: Reloader,
    pub(super) pipeline: Weak<Pipeline>,
}

impl Listener for Fetched {
    fn put_in_force(&self) -> Result<(), String> {
        let result = self.reloader.order(What::Lists).blocking_recv();
        let digest = result.unwrap_or_else(|_| Err("the service is stopping".into()))?;
        tracing::info!(digest, "fetched lists are in force");
        Ok(())
    }

    fn tell(&self, told: Told) {
        let (kind, text) = match told {
            Told::Failing { id, why } => {
                (NoticeKind::ListFailing, format!("List {id} is not fetched; its last good copy stays: {why}."))
            }
            Told::Unused { id, why } => {
                (NoticeKind::ListFailing, format!("List {id} is not in force as it was fetched last: {why}."))
            }
            Told::Recovered { id } => (NoticeKind::ListRecovered, format!("List {id} is fetched again.")),
            Told::Held { id, why } => (
                NoticeKind::ListHeld,
                format!("A new version of list {id} waits, the good one stays: {why}; `staunch lists show` has both."),
            ),
            Told::NotInForce { why } => {
                (NoticeKind::ListFailing, format!("Fetched lists are not in force; those before stay: {why}"))
            }
            Told::InForce => (NoticeKind::ListRecovered, "Fetched lists are in force again.".into()),
        };
        tracing::warn!("{text}");
        if let Some(pipeline) = self.pipeline.upgrade() {
            pipeline.telemetry.notice(Notice::new(kind, rfc3339(clock::now().wall.shown), text));
        }
    }
}
