//! The daemon's side of the admin socket.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::unix::OwnedWriteHalf;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::observe::{Wanted, observe};
use super::protocol::{ErrorCode, MAX_REQUEST, Request, Response};
use crate::clock;
use crate::daemon::Reload;
use crate::identity::NodeKey;
use crate::local::token::NONCE;
use crate::model::{SessionId, SessionType};
use crate::pipeline::{Ending, NotReleased, Pipeline};
use crate::session::Session;
use crate::store::{self, Commit, Grant};
use crate::words;

/// Clients served at once; more wait to be accepted.
const CLIENTS: usize = 64;
/// Of whom so many may follow events, which may last for ever; their places are their own, so that they close the socket to
/// nobody.
const OBSERVERS: usize = 32;
/// Time a client has to send its request, and to take its answer.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long what is shown waits for the disk: longer than for one that is merely busy.
const SETTLED: Duration = Duration::from_secs(1);

/// What the socket acts on.
pub struct Admin {
    /// The walk.
    pub pipeline: Arc<Pipeline>,
    /// Reads the configuration again.
    pub reload: Arc<dyn Reload>,
    /// Signs receipts.
    pub node: Arc<NodeKey>,
}

/// Binds the socket with mode 0660, replacing one that nobody listens on.
pub fn bind(path: &Path, group: Option<&str>) -> std::io::Result<UnixListener> {
    let listener = crate::local_socket::bind(path, group)?;
    listener.set_nonblocking(true)?;
    UnixListener::from_std(listener)
}

/// Takes a socket that a supervisor bound; its mode and group are the supervisor's, and so is its path.
pub fn adopt(listener: std::os::unix::net::UnixListener) -> std::io::Result<UnixListener> {
    listener.set_nonblocking(true)?;
    UnixListener::from_std(listener)
}

/// Answers clients until the task is dropped.
pub async fn serve(listener: UnixListener, admin: Arc<Admin>) {
    let places = Arc::new(Semaphore::new(CLIENTS));
    let observers = Arc::new(Semaphore::new(OBSERVERS));
    loop {
        let Ok(place) = places.clone().acquire_owned().await else { return };
        match listener.accept().await {
            Ok((stream, _)) => {
                let (admin, observers) = (admin.clone(), observers.clone());
                tokio::spawn(async move {
                    // A client that goes away in the middle harms nobody.
                    let _ = client(stream, &admin, place, &observers).await;
                });
            }
            Err(error) => {
                tracing::warn!(%error, "admin socket");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

async fn client(
    stream: UnixStream,
    admin: &Admin,
    place: OwnedSemaphorePermit,
    observers: &Semaphore,
) -> std::io::Result<()> {
    let (read, mut write) = stream.into_split();
    let mut line = Vec::new();
    let mut limited = BufReader::new(read.take(MAX_REQUEST as u64));
    match tokio::time::timeout(PATIENCE, limited.read_until(b'\n', &mut line)).await {
        Ok(result) => result?,
        Err(_) => return Ok(()),
    };
    if line.len() >= MAX_REQUEST && !line.ends_with(b"\n") {
        let what = format!("a request is one line of less than {MAX_REQUEST} octets");
        return send(&mut write, &Response::error(ErrorCode::BadRequest, what)).await;
    }
    let request = match serde_json::from_slice(&line) {
        Ok(request) => request,
        Err(error) => {
            let response = Response::error(ErrorCode::BadRequest, format!("request not understood: {error}"));
            return send(&mut write, &response).await;
        }
    };
    if let Request::Observe { last, follow, session, refused } = request {
        let wanted = Wanted { session: session.map(|id| id.as_str().to_owned()), refused };
        let Ok(_place) = observers.try_acquire() else {
            let full = format!("{OBSERVERS} observers are there already; end one of them");
            return send(&mut write, &Response::error(ErrorCode::Failed, full)).await;
        };
        drop(place);
        return observe(&mut write, admin, last, follow, &wanted).await;
    }
    let response = admin.answer(request).await;
    send(&mut write, &response).await
}

pub(super) async fn send(write: &mut OwnedWriteHalf, response: &Response) -> std::io::Result<()> {
    let mut line = serde_json::to_vec(response)?;
    line.push(b'\n');
    tokio::time::timeout(PATIENCE, write.write_all(&line)).await?
}

/// Waits for the journal to have what is done in memory already; the operator's word counts only once it is durable.
pub(super) async fn durable(commit: Result<Commit, store::Error>) -> Result<(), Response> {
    let failed = |text| Response::error(ErrorCode::Failed, text);
    let commit = commit.map_err(|error| failed(format!("done in memory; the journal did not take it: {error}")))?;
    commit.await.map_err(|error| failed(format!("done in memory, but not durable: {error}")))?;
    Ok(())
}

pub(super) fn gone(id: &SessionId) -> Response {
    Response::error(ErrorCode::NotFound, format!("no session `{id}`; `staunch session list` names all"))
}

impl Admin {
    /// Carries out one request other than `observe`.
    pub async fn answer(&self, request: Request) -> Response {
        match self.carry_out(request).await {
            Ok(value) => Response::Ok(value),
            Err(response) => response,
        }
    }

    fn session(&self, id: &SessionId) -> Result<Arc<Session>, Response> {
        self.pipeline.sessions.by_id(id).ok_or_else(|| gone(id))
    }

    /// Waits until what was decided of these is on disk. On one that hangs an operator has to see all the same what stands: each
    /// is shown with a word on that.
    async fn settled(&self, sessions: &[Arc<Session>]) {
        let all = async {
            for session in sessions {
                let pending = session.inner.lock().pending();
                self.pipeline.settle(session, pending).await;
            }
        };
        let _ = tokio::time::timeout(SETTLED, all).await;
    }

    async fn carry_out(&self, request: Request) -> Result<Value, Response> {
        let pipeline = &self.pipeline;
        let now = clock::now();
        pipeline.settle_standing(now, true);
        match request {
            Request::Status => {
                let mut status = pipeline.status(now);
                status["node"] = json!({ "kid": self.node.kid(), "public_key": self.node.public() });
                Ok(status)
            }
            Request::Prove { nonce } => {
                let token =
                    pipeline.token().ok_or_else(|| Response::error(ErrorCode::Failed, "this node has no key"))?;
                let nonce: Vec<u8> = nonce.bytes().take(*NONCE.end()).collect();
                Ok(json!({ "schema": 1, "text": token.text(&nonce) }))
            }
            Request::Receipt { report } => {
                let signed = super::receipt::sign(pipeline, &self.node, *report, now)?;
                Ok(json!({ "schema": 1, "receipt": signed }))
            }
            Request::List => {
                let sessions = pipeline.sessions.by_name();
                self.settled(&sessions).await;
                let all: Vec<_> = sessions.iter().map(|s| pipeline.summary(s)).collect();
                Ok(json!({ "schema": 1, "sessions": all }))
            }
            Request::Show { session } => {
                let session = self.session(&session)?;
                self.settled(std::slice::from_ref(&session)).await;
                Ok(pipeline.show(&session, now))
            }
            Request::Announce { announcement } => {
                plain("owner", announcement.owner.as_deref().unwrap_or_default())?;
                if announcement.kind == SessionType::Unannounced {
                    let what = "`type`: `unannounced` is for sources that nobody announces; use interactive, batch or scheduled";
                    return Err(Response::error(ErrorCode::BadRequest, what));
                }
                let nobodys = announcement.addresses.iter().find_map(|ip| Some((ip, words::no_source(*ip)?)));
                if let Some((ip, what)) = nobodys {
                    let remedy = "announce the sandbox's own address";
                    return Err(Response::error(ErrorCode::BadRequest, format!("{ip} {what}; {remedy}")));
                }
                let is_known = pipeline.sessions.by_id(&announcement.id).is_some();
                let (known, commit) = pipeline
                    .announce_recorded(announcement)
                    .map_err(|error| Response::error(ErrorCode::Conflict, error.to_string()))?;
                durable(commit).await?;
                let told = json!({ "schema": 1, "session": pipeline.summary(&known) });
                // What a new one may do is ordered ahead of its first answer.
                if is_known {
                    return Ok(in_step(pipeline, told).await);
                }
                pipeline.followed().await;
                Ok(told)
            }
            Request::End { session } => {
                let commit = pipeline.end(&session, Ending::Word, now).ok_or_else(|| gone(&session))?;
                durable(commit).await?;
                Ok(in_step(pipeline, json!({ "schema": 1, "ended": session })).await)
            }
            Request::Quarantine { session, by, reason } => {
                require("reason", &reason)?;
                require("by", &by)?;
                let session = self.session(&session)?;
                let before = session.inner.lock().quarantine.clone().filter(|quarantine| quarantine.applied);
                let case = pipeline.quarantine_by(&session, &by, &reason, now).ok_or_else(|| gone(session.id()))?;
                let pending = session.inner.lock().pending.clone();
                match pending {
                    Some(pending) if !pending.is_done() => {
                        pending.wait().await.map_err(|error| {
                            let what = format!("closed in memory, but not durable: {error}");
                            Response::error(ErrorCode::Failed, what)
                        })?;
                    }
                    Some(_) => {}
                    // Neither durable nor on its way there, unless it was recorded before this process started.
                    None if pipeline.is_recorded(&session) => {}
                    None => {
                        return Err(Response::error(
                            ErrorCode::Failed,
                            "closed in memory; the journal has no room for it now, and gets it as soon as it has",
                        ));
                    }
                }
                let mut told = json!({ "schema": 1, "session": session.id(), "state": "quarantined", "case": case });
                // Closed under the case that it has: what was said of it now is not on record.
                if let Some(before) = before.filter(|before| before.case == case) {
                    let since = crate::telemetry::rfc3339(before.since);
                    told["already"] =
                        json!({ "since": since, "by": before.by, "note": before.note, "reason": before.reason });
                }
                Ok(in_step(pipeline, told).await)
            }
            Request::Release { session, by, reason, extend } => {
                require("reason", &reason)?;
                require("by", &by)?;
                let session = self.session(&session)?;
                // Known beforehand: what nobody could know of after a crash is not done at all.
                if pipeline.store.status().failing {
                    return Err(Response::error(
                        ErrorCode::Failed,
                        "not released: the journal cannot be written; `staunch status` says when it can",
                    ));
                }
                let released = pipeline.release_by(&session, &by, &reason, extend, now).await;
                let was_closed = released.map_err(|error| match error {
                    NotReleased::Ended => gone(session.id()),
                    error @ NotReleased::TooMuch { .. } => Response::error(ErrorCode::BadRequest, error.to_string()),
                    error => Response::error(ErrorCode::Failed, error.to_string()),
                })?;
                let told = json!({
                    "schema": 1,
                    "session": session.id(),
                    "state": "active",
                    "released": was_closed,
                    "ledger_spent": pipeline.ledger_spent(&session),
                });
                Ok(in_step(pipeline, told).await)
            }
            Request::Allow { name, seconds, reason, owner, session, ports } => {
                let from = now.wall.shown;
                let until = from.saturating_add(seconds.saturating_mul(1000));
                let grant =
                    Grant { id: String::new(), name, session, ports, owner, reason, from, until, withdrawn: None };
                super::grants::allow(pipeline, grant, now).await
            }
            Request::Grants => Ok(json!({ "schema": 1, "grants": pipeline.grants_in_force(now) })),
            Request::Withdraw { grant, by, reason } => {
                super::grants::withdraw(pipeline, &grant, &by, &reason, now).await
            }
            Request::Explain { name, qtype, session } => {
                let session = self.session(&session)?;
                let explanation = pipeline
                    .explain(&session, &name, qtype, now)
                    .map_err(|error| Response::error(ErrorCode::BadRequest, error))?;
                let mut told = explanation.to_json().map_err(|error| Response::error(ErrorCode::Failed, error))?;
                super::grants::name_grant(pipeline, &mut told, now);
                Ok(told)
            }
            Request::Why { case } => super::why::why(pipeline, case).await,
            Request::Learned => Ok(pipeline.learned(now)),
            Request::ForgetLearned { by, reason } => {
                require("reason", &reason)?;
                require("by", &by)?;
                let (told, commit) = pipeline.forget_learned(&by, &reason, now).map_err(|error| {
                    Response::error(ErrorCode::Failed, format!("forgotten in memory only: {error}"))
                })?;
                durable(Ok(commit)).await?;
                Ok(told)
            }
            Request::Lists => Ok(pipeline.show_lists()),
            Request::FetchList { list } => super::lists::fetch(pipeline, list.as_deref()),
            Request::AcceptList { list, sha256, by, reason } => {
                require("reason", &reason)?;
                require("by", &by)?;
                super::lists::accept(pipeline, &list, &sha256, &by, &reason, now)
            }
            Request::Reload => match self.reload.reload().await {
                Ok(digest) => Ok(json!({ "schema": 1, "digest": digest })),
                Err(error) => Err(Response::error(ErrorCode::Invalid, error)),
            },
            Request::Observe { .. } => {
                Err(Response::error(ErrorCode::BadRequest, "observe streams; it has no single answer"))
            }
        }
    }
}

/// `told`, with a word about the packet filter where it does not hold yet what was ordered.
pub(super) async fn in_step(pipeline: &Pipeline, mut told: Value) -> Value {
    if !pipeline.followed().await && pipeline.live.load().enforcing {
        told["packet_filter"] = "behind".into();
    }
    told
}

pub(super) fn require(field: &str, value: &str) -> Result<(), Response> {
    if value.trim().is_empty() {
        return Err(Response::error(ErrorCode::BadRequest, format!("`{field}` is empty; say it in a few words")));
    }
    plain(field, value)
}

/// Refuses words that could forge lines where they are shown.
fn plain(field: &str, value: &str) -> Result<(), Response> {
    match words::problem(value) {
        Some(problem) => Err(Response::error(ErrorCode::BadRequest, format!("`{field}`: {problem}"))),
        None => Ok(()),
    }
}
