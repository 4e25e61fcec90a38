//! Gathers what readiness is judged by, again and again, and tells the supervisor, the log and the operator of changes.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use sd_notify::NotifyState;

use crate::clock;
use crate::enforce::BackendKind;
use crate::lockdown::{self, SEAL, Standing};
use crate::model::Mode;
use crate::pipeline::{Live, Pipeline};
use crate::readiness::{self, Facts, Listeners, Need, Records, Report, State, ask};

/// How long the packet filter's owner may take to read a table, or to take an order for ranges.
const PATIENCE: Duration = Duration::from_secs(2);
/// Rounds in which an address must stay silent before a service that was ready is not: a sandbox can keep a listener
/// busy for a moment, and must not make the service look dead by it.
const SILENT_ROUNDS: u32 = 3;

/// Looks once before anything is served: where all stands, the first question is answered like any other. Of the listening
/// sockets nothing is known yet, so it is not ready.
pub async fn before_serving(pipeline: &Pipeline) {
    let live = pipeline.live.load_full();
    let report = look(pipeline, &live, std::future::ready(Listeners::default())).await;
    pipeline.gate.put(Report { ready: false, ..report }, clock::now().mono);
}

/// Checks until the task is dropped. READY is told once, after the first round that finds all that is wanted.
pub async fn keep(pipeline: Arc<Pipeline>, listening: Vec<SocketAddr>, socket: String) {
    let mut announced = false;
    let mut silent_rounds = 0;
    // As told, which before serving was nothing.
    let mut before = Report::default();
    loop {
        let live = pipeline.live.load_full();
        let asked = async {
            let (silent, all) = match pipeline.token() {
                Some(token) => ask::all(&listening, token).await,
                None => (Vec::new(), 0),
            };
            silent_rounds = if silent.is_empty() { 0 } else { silent_rounds + 1 };
            Listeners { silent, all, excused: announced && silent_rounds < SILENT_ROUNDS }
        };
        let report = look(&pipeline, &live, asked).await;
        pipeline.gate.put(report.clone(), clock::now().mono);
        tell(&pipeline, &before, &report, announced);
        if !announced && report.ready {
            announced = true;
            let addresses: Vec<_> = listening.iter().map(ToString::to_string).collect();
            tracing::info!(addresses = addresses.join(","), mode = ?live.policy.mode, socket, "ready");
            // Ahead of it: who hears it may ask for a reload at once.
            pipeline.gate.announce();
            notify(&[NotifyState::Ready, NotifyState::Status("ready")]);
        }
        if !announced {
            // Waiting for an operator is no failed start: a supervisor that gave up would only start us again.
            notify(&[NotifyState::ExtendTimeoutUsec((3 * readiness::EVERY).as_micros() as u32)]);
        }
        before = report;
        pipeline.gate.due().await;
    }
}

/// One round. Its questions do not wait for each other: one that hangs must not make the whole round late.
async fn look(pipeline: &Pipeline, live: &Live, asked: impl Future<Output = Listeners>) -> Report {
    let (ranges, standing, listeners, astray) =
        tokio::join!(ranges(pipeline, live), standing(pipeline, live), asked, astray(pipeline));
    let store = pipeline.store.status();
    readiness::judge(&Facts {
        mode: live.policy.mode,
        backend: pipeline.enforcer.status().backend,
        healthy: pipeline.enforcer.healthy(),
        ranges,
        lockdown: &live.lockdown,
        standing,
        listeners,
        records: Records {
            journal: store.failing,
            index: store.index_failed,
            events: pipeline.telemetry.spill().failing,
            held: store.held_much,
            astray,
        },
    })
}

/// Fails only where no supervisor listens.
fn notify(states: &[NotifyState<'_>]) {
    let _ = sd_notify::notify(states);
}

async fn ranges(pipeline: &Pipeline, live: &Live) -> Result<(), String> {
    match pipeline.reopen_ranges(live, clock::now()) {
        Ok(None) => Ok(()),
        Ok(Some(ticket)) => ticket.wait(PATIENCE).await.map_err(|error| error.to_string()),
        Err(why) => Err(why.into()),
    }
}

/// Of a disk that does not answer nothing is known.
async fn astray(pipeline: &Pipeline) -> bool {
    // One at a time: on a disk that hangs each would hold a thread.
    static LOOKING: AtomicBool = AtomicBool::new(false);
    if LOOKING.swap(true, Relaxed) {
        return false;
    }
    let store = pipeline.store.clone();
    let looked = tokio::task::spawn_blocking(move || {
        let astray = store.is_astray();
        LOOKING.store(false, Relaxed);
        astray
    });
    matches!(tokio::time::timeout(PATIENCE, looked).await, Ok(Ok(true)))
}

async fn standing(pipeline: &Pipeline, live: &Live) -> Option<Result<Standing, String>> {
    let table = &live.lockdown.table;
    if live.lockdown.need == Need::Off || pipeline.enforcer.status().backend != BackendKind::Nft {
        return None;
    }
    let images = match pipeline.enforcer.images(table, SEAL) {
        Ok(ticket) => ticket.wait(PATIENCE).await,
        Err(error) => Err(error),
    };
    Some(images.map(|images| lockdown::judge(table, &images, None)).map_err(|error| error.to_string()))
}

/// Says what has changed since the round before. What the configuration only wants a warning of is no alert at the start, since
/// it is no change; the packet filter's own health is told by its watcher.
fn tell(pipeline: &Pipeline, before: &Report, report: &Report, announced: bool) {
    let mode = pipeline.live.load().policy.mode;
    for check in &report.checks {
        let was = before.checks.iter().find(|other| other.id == check.id);
        if was.is_some_and(|was| was.state == check.state && was.text == check.text) {
            continue;
        }
        let alerted = check.id != "packet-filter" && mode != Mode::Monitor;
        match check.state {
            State::Failed | State::Warned => {
                tracing::warn!(check = %check.id, "{}", check.text);
                let known = check.state == State::Warned && was.is_none();
                if alerted && !known {
                    pipeline.degraded(&check.text, clock::now());
                }
            }
            State::Ok if was.is_some_and(|was| matches!(was.state, State::Failed | State::Warned)) => {
                tracing::info!(check = %check.id, "{}", check.text);
                if alerted {
                    pipeline.degraded(&check.text, clock::now());
                }
            }
            State::Ok | State::NotChecked => {}
        }
    }
    let (was, is) = (before.missing(), report.missing());
    if was == is {
        return;
    }
    match is {
        Some(missing) => {
            tracing::warn!(missing, "not ready");
            notify(&[NotifyState::Status(&format!("not ready: {missing}"))]);
        }
        None if announced => {
            tracing::info!("ready again");
            notify(&[NotifyState::Status("ready")]);
        }
        None => {}
    }
}
