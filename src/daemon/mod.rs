//! The daemon: builds the stages from the configuration, joins them, serves until told to stop.

pub mod build;
mod causes;
mod configured;
mod fixed;
mod http;
mod log;
mod privilege;
mod ready;
mod reconcile;
mod reload;
mod restore;
mod rollover;
mod room;
mod sampled;
mod sinks;
mod steady;
mod supervisor;
mod tasks;
mod watchdog;
mod zone_metrics;

use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::Context as _;
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::admin::{self, Admin};
use crate::config::{self, ConfigError, Loaded};
use crate::enforce::BackendKind;
use crate::feed::Feeds;
use crate::learn::NotLearned;
use crate::listen::Listener;
use crate::model::{Now, Qtype, SessionType};
use crate::pipeline::Pipeline;
use crate::rdap::Rdap;
use crate::{clock, fds, listen, mishap};
pub use causes::in_words;
use reload::{Fetched, Reloader};
use supervisor::Supervised;
use tasks::{Panics, Tasks, Threads};
use watchdog::Watchdog;

/// How often what sessions teach is taken over; a crash loses at most this much of it, and a second or two of the
/// index.
const LEARNING: Duration = Duration::from_secs(10);

/// Descriptors that stages open for themselves: journal, index, events, netlink, the metrics page, alert sinks. Ten were
/// counted with the nft backend and no sink.
const FILES: usize = 16;

/// What was said on the command line.
#[derive(Debug, Clone, Default)]
pub struct Start {
    /// Configuration file.
    pub config: Option<PathBuf>,
    /// Overrides the file's state directory.
    pub state_dir: Option<PathBuf>,
    /// Overrides the file's admin socket.
    pub socket: Option<PathBuf>,
}

/// Why the daemon did not start, or ended.
#[derive(Debug)]
pub enum StartError {
    /// The configuration does not load.
    Config(Vec<ConfigError>),
    /// Anything else.
    Other(anyhow::Error),
}

impl From<anyhow::Error> for StartError {
    fn from(error: anyhow::Error) -> Self {
        Self::Other(error)
    }
}

/// Reads the configuration again. A trait so that the admin socket need not know the daemon.
pub trait Reload: Send + Sync {
    /// The digest of what is now in force, or why the old one stays.
    fn reload(&self) -> Pin<Box<dyn Future<Output = Result<String, String>> + Send + '_>>;
}

/// A path as whoever is told of it needs it: he may be elsewhere than this process.
fn absolute(path: &Path) -> String {
    std::path::absolute(path).unwrap_or_else(|_| path.to_owned()).display().to_string()
}

/// Runs until SIGTERM or SIGINT. To be called before the process has other threads.
pub fn run(start: Start) -> Result<(), StartError> {
    // SAFETY: no thread has been started yet, and only what was announced to this process is taken.
    let supervised = unsafe { Supervised::take() }.map_err(anyhow::Error::from)?;
    let _log = log::start();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .thread_name("slow")
        .global_queue_interval(FROM_OUTSIDE)
        .build()
        .context("no runtime")?;
    // Heard from the start on: who asks for a reload while lists are read must not end the service.
    let hang_up = {
        let _within = runtime.enter();
        signal(SignalKind::hangup()).context("signal handler")?
    };
    let loaded = build::load(&start)?;
    for assumed in loaded.assumptions() {
        log::say(&assumed);
    }
    runtime.block_on(serve(start, loaded, supervised, hang_up))?;
    // What still waits for an upstream has nobody left to answer.
    runtime.shutdown_timeout(Duration::from_secs(1));
    Ok(())
}

/// Runs the enforcer until SIGTERM or SIGINT, by the resolver's configuration file; `socket` goes before the file's.
pub fn run_enforcer(config: &Path, socket: Option<PathBuf>) -> Result<(), StartError> {
    let (settings, warnings) = config::load_enforcer(config, socket).map_err(StartError::Config)?;
    let mut log = None;
    // The log has a thread, which must neither be told of signals nor keep privileges.
    let begun = || {
        log = Some(log::start());
        for warning in warnings {
            tracing::warn!("{warning}");
        }
    };
    crate::enforce::remote::run(&settings, begun).context("enforcer").map_err(StartError::Other)
}

/// What stubs may make us open, of the descriptors that the system allows: `used` ones are opened beside it.
fn share_out(listen: &listen::Config, used: usize) -> fds::Budget {
    // Half as many exchanges as sockets, so that a second query of some leaves room for the first of others.
    let wants = fds::Wants { upstream: listen.in_flight.saturating_mul(2), tcp: listen.tcp_connections };
    let limit = match fds::raise() {
        Ok(limit) => limit,
        Err(error) => {
            tracing::warn!(%error, "the limit of open files is unknown; 1024 are assumed");
            1024
        }
    };
    let budget = fds::Budget::share_out(limit, used, wants);
    if !budget.is_whole(wants) {
        tracing::warn!(
            limit,
            exchanges = budget.upstream / 2,
            connections = budget.tcp,
            wanted = used + fds::RESERVED + wants.upstream + wants.tcp,
            "few files may be open, so fewer questions and TCP clients are served at once than [limits] allows; raise the \
             hard limit (LimitNOFILE= in the unit, ulimit -Hn), or lower limits.in_flight and limits.tcp_connections"
        );
    }
    budget
}

async fn serve(start: Start, loaded: Loaded, supervised: Supervised, mut hang_up: Signal) -> Result<(), StartError> {
    let ends = || -> Result<_, StartError> {
        let terminate = signal(SignalKind::terminate()).context("signal handler")?;
        Ok((terminate, signal(SignalKind::interrupt()).context("signal handler")?))
    };
    // The first process of a container hears nothing that it has no handler for.
    let early = if std::process::id() == 1 { Some(ends()?) } else { None };

    let mut listen = loaded.listen.clone();
    let admin_config = loaded.admin.clone();
    let metrics = loaded.metrics;
    let state_dir = loaded.state_dir.clone();
    let socket = start.socket.clone().unwrap_or_else(|| admin_config.socket.clone());
    // The socket first: a second daemon on the same state must not get as far as the packet filter.
    let mut inherited = supervised.inherited;
    let handed = inherited.take_admin(&socket);
    let ours = handed.is_none();
    let admin_socket = match handed {
        Some(handed) => {
            if let Some(group) = &admin_config.group {
                tracing::warn!(
                    group,
                    "server.admin_group does nothing: the supervisor has made the admin socket, and its unit says whose it is \
                     (SocketGroup= in staunch.socket)"
                );
            }
            admin::adopt(handed)
        }
        None => admin::bind(&socket, admin_config.group.as_deref()),
    };
    let admin_socket = admin_socket.with_context(|| format!("admin socket {}", socket.display()))?;
    // A listening socket and one for each worker and address; `FILES` are opened by stages.
    let used = fds::open().unwrap_or(FILES) + FILES + listen.addresses.len() * (1 + listen.workers_each());
    let budget = share_out(&listen, used);
    listen.tcp_connections = budget.tcp;
    // No client gets more than a quarter where there are few.
    listen.tcp_per_source = listen.tcp_per_source.min(budget.tcp.div_ceil(4));
    let room = listen.in_flight.min(budget.upstream / 2);
    let built = build::pipeline(loaded, room).await.map_err(not_learned)?;
    let pipeline = built.pipeline;

    // Ahead of the first question, so that it is known by then how to ask.
    let forwarder = pipeline.forwarder.clone();
    let manners_task = tokio::spawn(async move { forwarder.know_upstreams().await });
    pipeline.watch_flows(pipeline.enforcer.status().backend == BackendKind::Nft);
    ready::before_serving(&pipeline).await;
    give_back();
    // Until here there is nothing to be ended in order, and a start that hangs can be ended at all.
    let (mut terminate, mut interrupt) = match early {
        Some(signals) => signals,
        None => ends()?,
    };
    let runtime = tokio::runtime::Handle::current();
    let listener = privilege::with_low_ports(|| Listener::start_with(&listen, inherited, pipeline.clone(), &runtime))
        .map_err(causes::cannot_listen)?;
    let listeners = listener.counters().clone();
    let page_closed = http::Closed::default();
    let (memory, reloads) = (Arc::<room::Counters>::default(), Arc::<reload::Counters>::default());
    let stages = sampled::Stages {
        pipeline: Arc::downgrade(&pipeline),
        listeners,
        page_closed: page_closed.clone(),
        memory: memory.clone(),
        reloads: reloads.clone(),
    };
    pipeline.telemetry.metrics.register(Arc::new(stages));
    let zones = zone_metrics::ZoneMetrics(Arc::downgrade(&pipeline));
    pipeline.telemetry.metrics.register_collector(Box::new(zones));
    if let Some(address) = metrics {
        http::serve(address, pipeline.clone(), page_closed)
            .await
            .with_context(|| format!("metrics page on {address}"))?;
    }
    let reloader = Reloader::start(start.clone(), &pipeline, reloads).context("thread for reloads")?;
    let fetched = Fetched { reloader: reloader.clone(), pipeline: Arc::downgrade(&pipeline) };
    let feeds = Feeds::start(built.feeds, Some(built.resolver), Arc::new(fetched)).context("thread for lists")?;
    drop(pipeline.feeds.set(feeds));
    let reload: Arc<dyn Reload> = Arc::new(reloader);
    let node = Arc::new(built.node);
    let admin = Arc::new(Admin { pipeline: pipeline.clone(), reload: reload.clone(), node });
    let mut tasks = Tasks::default();
    tasks.spawn("the admin socket", admin::serve(admin_socket, admin));
    tasks.spawn("asking held names again", pipeline.clone().keep_held_fresh());
    tasks.spawn("asking popular names ahead", pipeline.clone().keep_popular_fresh());
    tasks.spawn("keeping late answers", pipeline.clone().keep_late_answers());
    tasks.spawn("following trust anchors", rollover::keep(pipeline.clone(), state_dir));
    tasks.spawn("keeping caches within memory", room::keep(pipeline.clone(), memory));
    let (listening, socket_text) = (listener.local_addrs().to_vec(), absolute(&socket));
    tasks.spawn("readiness", ready::keep(pipeline.clone(), listening, socket_text));
    let (mut panics, mut mishaps, mut threads) = (Panics::default(), Panics::default(), Threads::default());
    let watchdog = supervised.watchdog.map(|period| {
        Watchdog::start(period, listener.beats().to_vec(), pipeline.enforcer.clone()).context("watchdog")
    });
    let watchdog = watchdog.transpose()?;

    // What a session has spent since its last step in the journal; a crash gives back a second's worth at most.
    let mut ledgers = tokio::time::interval(Duration::from_secs(1));
    ledgers.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut standing = tokio::time::interval(Duration::from_millis(500));
    standing.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut set = clock::Watch::default();
    let mut learning = tokio::time::interval(LEARNING);
    learning.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = standing.tick() => pipeline.settle_standing(clock::now(), false),
            _ = learning.tick() => pipeline.fold_sessions(clock::now()),
            _ = ledgers.tick() => {
                let now = clock::now();
                if let Some(by) = set.look(now.wall) {
                    clock_was_set(&pipeline, by, now);
                }
                if pipeline.enforcer.healthy() {
                    built.filter.look(&pipeline, true, now);
                }
                let panicked = listener.counters().panics.load(std::sync::atomic::Ordering::Relaxed);
                if let Some(fresh) = panics.look(panicked, now.mono) {
                    broken(&pipeline, &format!("{fresh} questions met a mistake in the service and were answered SERVFAIL"), now);
                }
                if let Some(fresh) = mishaps.look(mishap::count(), now.mono) {
                    broken(&pipeline, &format!("{fresh} times a part of the service met a mistake in it, and went on; its log says which"), now);
                }
                let parts = tasks.ended().into_iter().map(str::to_owned);
                let parts: Vec<_> = parts.chain(threads.fresh(ended(&listener, &built.events, &pipeline))).collect();
                for what in parts {
                    broken(&pipeline, &format!("a part of the service has ended: {what}; restart it"), now);
                }
                pipeline.save_groups(clock::now(), false);
                // The one goes through all sessions, the other judges what very many have open where a grant for all of
                // them has ended.
                let pipeline = pipeline.clone();
                drop(tokio::task::spawn_blocking(move || {
                    pipeline.save_ledgers(clock::now());
                    pipeline.close_ended(clock::now());
                }));
            }
            _ = terminate.recv() => break,
            _ = interrupt.recv() => break,
            _ = hang_up.recv() => {
                // Aside: lists may take seconds, and ledgers and signals do not wait for them.
                let (reload, pipeline) = (reload.clone(), pipeline.clone());
                drop(tokio::spawn(async move {
                    // A supervisor that waits for the start would take the end of a reload for it.
                    let is_told = pipeline.gate.is_announced();
                    if is_told {
                        supervisor::reloading();
                    }
                    let result = reload.reload().await;
                    if is_told {
                        let missing = pipeline.gate.report(clock::now().mono).missing();
                        supervisor::reloaded(&result, missing.as_deref());
                    }
                }));
            }
        }
    }
    tracing::info!("stopping");
    let _ = sd_notify::notify(&[sd_notify::NotifyState::Stopping]);
    drop(watchdog);
    listener.shutdown().await;
    pipeline.transfers.stop();
    tasks.abort();
    manners_task.abort();
    if ours {
        let _ = std::fs::remove_file(&socket);
    }
    let last = pipeline.clone();
    // Threads are joined away from the runtime: each may need a moment for its last write.
    let joined = tokio::task::spawn_blocking(move || {
        last.settle_standing(clock::now(), true);
        last.save_ledgers(clock::now());
        last.fold_sessions(clock::now());
        last.save_groups(clock::now(), true);
        if let Some(delivery) = last.delivery.lock().take() {
            delivery.shutdown(Duration::from_secs(2));
        }
        // The table stays: pins and guards outlive a restart, and a stopped resolver opens nothing.
        if let Err(error) = last.enforcer.shutdown(false) {
            tracing::warn!(%error, "the packet filter's owner");
        }
        last.store.close();
        last.telemetry.stop();
        let _ = built.events.join();
    });
    let _ = tokio::time::timeout(Duration::from_secs(5), joined).await;
    Ok(())
}

/// Threads that have ended, by what they did. That of the packet filter closes everything with its end, that of the journal shows in
/// readiness besides.
fn ended(listener: &Listener, events: &JoinHandle<()>, pipeline: &Pipeline) -> Vec<String> {
    let mut ended: Vec<_> = listener.ended().map(|place| format!("answering datagrams (worker {place})")).collect();
    if events.is_finished() {
        ended.push("writing events".into());
    }
    if pipeline.store.has_ended() {
        ended.push("writing the journal".into());
    }
    if pipeline.ages.rdap.as_ref().is_some_and(Rdap::has_ended) {
        ended.push("asking registries".into());
    }
    if pipeline.feeds.get().is_some_and(Feeds::has_ended) {
        ended.push("fetching lists".into());
    }
    if let Some(delivery) = &*pipeline.delivery.lock() {
        ended.extend(delivery.ended().map(|sink| format!("delivering alerts to {sink}")));
    }
    ended
}

/// Tells of a mistake in the service itself.
fn broken(pipeline: &Pipeline, what: &str, now: Now) {
    tracing::error!("{what}");
    pipeline.degraded(what, now);
}

/// Tells that somebody has set the wall clock, by so many milliseconds.
fn clock_was_set(pipeline: &Pipeline, by: i64, now: Now) {
    let text = format!(
        "the wall clock was set {} by {} s, or the machine slept: pins, grants, quarantines, budgets and ages go on by the \
         monotonic clock, and a rule that ends on a written day opens nothing once either clock has reached it; where the \
         clock is right now, a restart takes it over",
        if by < 0 { "back" } else { "forward" },
        by.unsigned_abs() / 1000,
    );
    tracing::warn!("{text}");
    pipeline.degraded(&text, now);
}

/// Too small a sample is a mistake of the configuration, told like any other.
fn not_learned(error: anyhow::Error) -> StartError {
    match error.downcast::<NotLearned>() {
        Ok(NotLearned { place, problems, remedy }) => {
            let error = |problem| ConfigError {
                file: place.file.clone(),
                line: place.line,
                field: "learn.thresholds".into(),
                problem,
                remedy: remedy.clone(),
            };
            StartError::Config(problems.into_iter().map(error).collect())
        }
        Err(error) => StartError::Other(error),
    }
}

/// Why an offline explanation failed.
#[derive(Debug)]
pub enum OfflineError {
    /// The configuration does not load.
    Config(Vec<ConfigError>),
    /// Anything else.
    Other(String),
}

/// Judges a name by a configuration file for a session that has asked nothing yet, by the code that judges live ones.
pub fn explain_offline(
    file: &Path,
    name: &str,
    qtype: Qtype,
    kind: SessionType,
) -> Result<serde_json::Value, OfflineError> {
    let (loaded, _) = config::look_at(file).map_err(OfflineError::Config)?;
    let other = |error: anyhow::Error| OfflineError::Other(in_words(&error));
    let explanation = build::offline(loaded, name, qtype, kind).map_err(other)?;
    explanation.to_json().map_err(OfflineError::Other)
}

/// A worker of the slow path that always has something to do looks once in so many turns for what was handed over from other
/// threads: every question is, and one that has just come must not stand behind all that goes on meanwhile.
const FROM_OUTSIDE: u32 = 4;

/// Gives memory back to the system that is free again and would be held as long as the process lives: what reading a file of a
/// hundred thousand sessions has taken, or a cache that had to shrink.
fn give_back() {
    // SAFETY: it takes a number and touches free memory alone.
    #[cfg(target_env = "gnu")]
    unsafe {
        libc::malloc_trim(0);
    }
}
