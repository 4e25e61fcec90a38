//! Delivery: a thread for each sink that takes alerts from its spool and does not let go until they are taken. A sink whose own
//! code panics is made anew and tried again: one alert's text must not keep the next ones from being heard.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};
use serde::Serialize;

use super::file::FileSink;
use super::syslog_sink::SyslogSink;
use super::webhook::Webhook;
use super::{Config, Error, Failure, Retry, Sink, SinkConfig, SinkKind, backoff, bare};
use crate::event::Alert;
use crate::outbound::HostResolver;
use crate::store::{Progress, Spool, Store};

/// How long a thread waits for an alert before it looks around.
const WAIT: Duration = Duration::from_secs(60);

/// Pause between log lines about one alert that is not taken.
const LOG_EVERY: Duration = Duration::from_secs(60);

/// Running deliveries. Dropping it stops them without waiting; what is not delivered stays in the journal.
pub struct Delivery {
    store: Store,
    stop: Arc<Stop>,
    sinks: Vec<Running>,
}

struct Running {
    name: String,
    progress: Arc<Progress>,
    counters: Arc<Counters>,
    thread: JoinHandle<()>,
}

#[derive(Default)]
struct Stop {
    stopped: Mutex<bool>,
    changed: Condvar,
}

#[derive(Default)]
struct Counters {
    taken: AtomicU64,
    failed: AtomicU64,
    failing: AtomicBool,
}

/// State of one sink, for metrics and the status.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct SinkStatus {
    /// Its name.
    pub name: String,
    /// Alerts it has yet to take.
    #[serde(rename = "waiting")]
    pub depth: u64,
    /// When the oldest of them was raised, Unix milliseconds.
    pub oldest: Option<u64>,
    /// Alerts taken since start.
    pub taken: u64,
    /// Failed tries since start.
    pub failed: u64,
    /// The last try failed, or there was none because alerts cannot be read from the journal.
    pub failing: bool,
}

impl Delivery {
    /// Starts a thread for each sink. `store` must have been opened with [`Config::sink_names`]; what was not delivered
    /// before goes out first. `resolver` may be `None` where every host is an address.
    pub fn start(config: Config, store: &Store, resolver: Option<Arc<dyn HostResolver>>) -> Result<Self, Error> {
        config.check()?;
        let stop = Arc::new(Stop::default());
        let mut delivery = Self { store: store.clone(), stop: stop.clone(), sinks: Vec::new() };
        for sink in &config.sinks {
            let spool = store.spool(&sink.name).ok_or_else(|| Error::Unregistered(sink.name.clone()))?;
            let progress = spool.progress();
            let counters = Arc::new(Counters::default());
            let (own, settings, resolver) = (sink.clone(), config.clone(), resolver.clone());
            let make: Make = Box::new(move || build(&own, &settings, resolver.clone()));
            let worker = Worker {
                sink: make(),
                make,
                spool,
                retry: config.retry,
                stop: stop.clone(),
                counters: counters.clone(),
                refused: None,
            };
            let thread = thread::Builder::new()
                .name(format!("alert-{}", sink.name))
                .spawn(|| worker.run())
                .map_err(|source| Error::Thread { sink: sink.name.clone(), source })?;
            delivery.sinks.push(Running { name: sink.name.clone(), progress, counters, thread });
        }
        Ok(delivery)
    }

    /// State of each sink.
    pub fn status(&self) -> Vec<SinkStatus> {
        let each = self.sinks.iter().map(|sink| SinkStatus {
            name: sink.name.clone(),
            depth: sink.progress.depth(&self.store),
            oldest: sink.progress.oldest(),
            taken: sink.counters.taken.load(Ordering::Relaxed),
            failed: sink.counters.failed.load(Ordering::Relaxed),
            failing: sink.counters.failing.load(Ordering::Relaxed),
        });
        each.collect()
    }

    /// Alerts that the sink furthest behind has yet to take.
    pub fn depth(&self) -> u64 {
        self.sinks.iter().map(|sink| sink.progress.depth(&self.store)).max().unwrap_or(0)
    }

    /// When the oldest alert that some sink has not taken was raised, Unix milliseconds.
    pub fn oldest(&self) -> Option<u64> {
        self.sinks.iter().filter_map(|sink| sink.progress.oldest()).min()
    }

    /// Sinks whose thread has ended, which none does by itself before [`Delivery::shutdown`].
    pub fn ended(&self) -> impl Iterator<Item = &str> {
        self.sinks.iter().filter(|sink| sink.thread.is_finished()).map(|sink| sink.name.as_str())
    }

    /// Stops after the tries under way, but waits for them no longer than `patience`. Call before [`Store::close`].
    pub fn shutdown(mut self, patience: Duration) {
        self.stop.stop();
        self.store.wake();
        let deadline = Instant::now() + patience;
        for sink in self.sinks.drain(..) {
            while !sink.thread.is_finished() && Instant::now() < deadline {
                // A wake may have come just before the thread began to wait.
                self.store.wake();
                thread::sleep(Duration::from_millis(5));
            }
            if sink.thread.is_finished() {
                // A panic has been reported by the runtime; there is nothing to add.
                let _ = sink.thread.join();
            }
        }
    }
}

impl Drop for Delivery {
    fn drop(&mut self) {
        self.stop.stop();
        self.store.wake();
    }
}

impl Stop {
    fn stop(&self) {
        *self.stopped.lock() = true;
        self.changed.notify_all();
    }

    fn is_stopped(&self) -> bool {
        *self.stopped.lock()
    }

    /// Sleeps, but not past a stop.
    fn sleep(&self, pause: Duration) {
        let deadline = Instant::now() + pause;
        let mut stopped = self.stopped.lock();
        while !*stopped && !self.changed.wait_until(&mut stopped, deadline).timed_out() {}
    }
}

fn build(sink: &SinkConfig, config: &Config, resolver: Option<Arc<dyn HostResolver>>) -> Box<dyn Sink> {
    match sink.kind.clone() {
        SinkKind::Webhook { url, secret, roots, timeout } => {
            Box::new(Webhook::new(url, config.source.clone(), secret, roots.as_ref(), timeout, resolver))
        }
        SinkKind::Syslog { target } => Box::new(SyslogSink::new(target, config.hostname.clone(), resolver)),
        SinkKind::File { path } => Box::new(FileSink::new(path)),
    }
}

/// Makes a sink that knows nothing of earlier tries.
type Make = Box<dyn Fn() -> Box<dyn Sink> + Send>;

struct Worker {
    sink: Box<dyn Sink>,
    make: Make,
    spool: Spool,
    retry: Retry,
    stop: Arc<Stop>,
    counters: Arc<Counters>,
    /// Since when no alert was taken as it is, and one was refused.
    refused: Option<Instant>,
}

impl Worker {
    fn run(mut self) {
        while !self.stop.is_stopped() {
            match self.spool.next(WAIT) {
                Ok(Some(spooled)) => {
                    if self.deliver(&spooled.alert) {
                        self.spool.taken();
                    }
                }
                // The journal can be read, and nothing waits.
                Ok(None) => self.counters.failing.store(false, Ordering::Relaxed),
                Err(error) => {
                    // Nothing is delivered, whoever is at fault.
                    self.counters.failing.store(true, Ordering::Relaxed);
                    tracing::error!(sink = self.spool.sink(), %error, "alerts cannot be read from the journal");
                    self.stop.sleep(self.retry.most);
                }
            }
        }
    }

    /// Tries until the alert is taken; false when told to stop before.
    fn deliver(&mut self, alert: &Alert) -> bool {
        let mut tries: u32 = 0;
        let mut logged: Option<Instant> = None;
        while let Err(failure) = self.hand_over(alert) {
            tries = tries.saturating_add(1);
            self.counters.failed.fetch_add(1, Ordering::Relaxed);
            self.counters.failing.store(true, Ordering::Relaxed);
            if logged.is_none_or(|at| at.elapsed() >= LOG_EVERY) {
                logged = Some(Instant::now());
                tracing::warn!(sink = self.spool.sink(), alert = %alert.id, tries, %failure, "alert not taken; trying on");
            }
            let mut random = [0; 4];
            // Without randomness the pause is merely the shortest.
            let _ = getrandom::fill(&mut random);
            self.stop.sleep(backoff::pause(self.retry, tries, &failure, u32::from_ne_bytes(random)));
            if self.stop.is_stopped() {
                return false;
            }
        }
        if self.counters.failing.swap(false, Ordering::Relaxed) {
            tracing::info!(sink = self.spool.sink(), tries, "alerts are taken again");
        }
        self.counters.taken.fetch_add(1, Ordering::Relaxed);
        true
    }

    /// One try: the alert as it is, and where it has been refused for long without what a sandbox can have chosen of it.
    fn hand_over(&mut self, alert: &Alert) -> Result<(), Failure> {
        let failure = match self.send(alert) {
            Err(failure) if failure.may_be_of_content() => failure,
            outcome => {
                if outcome.is_ok() {
                    self.refused = None;
                }
                return outcome;
            }
        };
        // Since the last one that was taken as it is: of many that are refused only the first waits.
        if self.refused.get_or_insert_with(Instant::now).elapsed() < self.retry.whole {
            return Err(failure);
        }
        self.send(&bare::of(alert, &failure))?;
        tracing::warn!(sink = self.spool.sink(), alert = %alert.id, %failure, "alert taken without the names in it");
        Ok(())
    }

    fn send(&mut self, alert: &Alert) -> Result<(), Failure> {
        catch_unwind(AssertUnwindSafe(|| self.sink.deliver(alert))).unwrap_or_else(|_| {
            // What the sink has half done goes with it.
            self.sink = (self.make)();
            Err(Failure::Unreachable("a mistake in the service: it panicked".into()))
        })
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicU32;

    use super::*;
    use crate::store::testing::alert_record;
    use crate::store::{IndexKind, Options};

    /// Panics at every second try, also as it is made anew.
    struct Fragile {
        tries: Arc<AtomicU32>,
        taken: Arc<Mutex<Vec<String>>>,
    }

    impl Sink for Fragile {
        fn deliver(&mut self, alert: &Alert) -> Result<(), Failure> {
            assert!(self.tries.fetch_add(1, Ordering::Relaxed) % 2 == 1, "what a mistake in our own code does");
            self.taken.lock().push(alert.id.clone());
            Ok(())
        }
    }

    #[test]
    fn a_sink_that_panics_loses_no_alert_and_its_thread_goes_on() {
        let dir = tempfile::tempdir().unwrap();
        let options = Options { sinks: vec!["soc".into()], index: IndexKind::Memory, ..Options::default() };
        let (store, _) = Store::open(dir.path(), options).unwrap();
        let (tries, taken) = (Arc::<AtomicU32>::default(), Arc::<Mutex<Vec<String>>>::default());
        let make: Make = Box::new({
            let (tries, taken) = (tries.clone(), taken.clone());
            move || Box::new(Fragile { tries: tries.clone(), taken: taken.clone() })
        });
        let (stop, counters) = (Arc::<Stop>::default(), Arc::<Counters>::default());
        let retry = Retry { first: Duration::from_millis(1), most: Duration::from_millis(2), ..Retry::default() };
        let spool = store.spool("soc").unwrap();
        let (stopped, counted) = (stop.clone(), counters.clone());
        let worker = Worker { sink: make(), make, spool, retry, stop: stopped, counters: counted, refused: None };
        let thread = thread::spawn(|| worker.run());
        for n in 0..3 {
            store.append(vec![alert_record(n)]).unwrap().wait_blocking().unwrap();
        }
        let begun = Instant::now();
        while taken.lock().len() < 3 {
            assert!(begun.elapsed() < Duration::from_secs(10) && !thread.is_finished(), "{:?}", taken.lock());
            thread::sleep(Duration::from_millis(1));
        }
        stop.stop();
        store.wake();
        thread.join().unwrap();
        assert_eq!(*taken.lock(), ["alert-0", "alert-1", "alert-2"]);
        assert_eq!(counters.failed.load(Ordering::Relaxed), 3);
        store.close();
    }
}
