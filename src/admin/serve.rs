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
use crate::model::{CaseId, SessionId};
use crate::pipeline::{Ending, NotReleased, Pipeline};
use crate::session::Session;
use crate::store::{self, Commit, Grant};

/// Clients served at once; more wait to be accepted.
const CLIENTS: usize = 64;
/// Of whom so many may follow events, which may last for ever; their places are their own, so that they close the socket to
/// nobody.
const OBSERVERS: usize = 32;
/// Time a client has to send its request, and to take its answer.
const PATIENCE: Duration = Duration::from_secs(5);

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
                for session in &sessions {
                    let pending = session.inner.lock().pending();
                    pipeline.settle(session, pending).await;
                }
                let all: Vec<_> = sessions.iter().map(|s| pipeline.summary(s)).collect();
                Ok(json!({ "schema": 1, "sessions": all }))
            }
            Request::Show { session } => {
                let session = self.session(&session)?;
                let pending = session.inner.lock().pending();
                pipeline.settle(&session, pending).await;
                Ok(pipeline.show(&session, now))
            }
            Request::Announce { announcement } => {
                let (known, commit) = pipeline
                    .announce_recorded(announcement)
                    .map_err(|error| Response::error(ErrorCode::Conflict, error.to_string()))?;
                durable(commit).await?;
                Ok(json!({ "schema": 1, "session": pipeline.summary(&known) }))
            }
            Request::End { session } => {
                let commit = pipeline.end(&session, Ending::Word, now).ok_or_else(|| gone(&session))?;
                durable(commit).await?;
                Ok(json!({ "schema": 1, "ended": session }))
            }
            Request::Quarantine { session, by, reason } => {
                require("reason", &reason)?;
                let session = self.session(&session)?;
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
                            "closed in memory; the journal did not take it",
                        ));
                    }
                }
                Ok(json!({ "schema": 1, "session": session.id(), "state": "quarantined", "case": case }))
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
                Ok(json!({
                    "schema": 1,
                    "session": session.id(),
                    "state": "active",
                    "released": was_closed,
                    "ledger_spent": pipeline.ledger_spent(&session),
                }))
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
            Request::Why { case } => self.why(case).await,
            Request::Learned => Ok(pipeline.learned(now)),
            Request::ForgetLearned { by, reason } => {
                require("reason", &reason)?;
                require("by", &by)?;
                let (told, commit) = pipeline.forget_learned(&by, now).map_err(|error| {
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

    /// A case's event from memory, else from the event files, newest first, with the quarantine that stands under it;
    /// where neither is left, what the journal says. Events are lossy by design, the journal is not.
    async fn why(&self, case: CaseId) -> Result<Value, Response> {
        let mut answer = json!({ "schema": 1 });
        if let Some(event) = self.event_of(case).await {
            answer["event"] = event;
        }
        for session in self.pipeline.sessions.all() {
            let quarantine = session.inner.lock().quarantine.clone();
            if let Some(quarantine) = quarantine
                && quarantine.case == case
            {
                answer["session"] = json!(session.id());
                answer["quarantine"] = json!(quarantine);
                break;
            }
        }
        if answer["event"].is_null() && answer["quarantine"].is_null() {
            return self.journalled(case).await;
        }
        Ok(answer)
    }

    async fn event_of(&self, case: CaseId) -> Option<Value> {
        let line = match self.pipeline.telemetry.case(case) {
            Some(line) => line.as_bytes().to_vec(),
            None => {
                let live = self.pipeline.live.load_full();
                tokio::task::spawn_blocking(move || {
                    find_case(Path::new(live.event_file.as_ref()?), live.event_files_kept, case)
                })
                .await
                .ok()??
            }
        };
        serde_json::from_slice(&line).ok()
    }

    async fn journalled(&self, case: CaseId) -> Result<Value, Response> {
        let store = self.pipeline.store.clone();
        let found = tokio::task::spawn_blocking(move || store.case(case)).await;
        let found = match found {
            Ok(Ok(Some(found))) => found,
            Ok(Ok(None)) => {
                let nothing = format!("nothing of case {case} is kept here, neither an event nor an alert");
                return Err(Response::error(ErrorCode::NotFound, nothing));
            }
            Ok(Err(error)) => return Err(Response::error(ErrorCode::Failed, error.to_string())),
            Err(error) => return Err(Response::error(ErrorCode::Failed, error.to_string())),
        };
        let mut answer = json!({ "schema": 1 });
        if let Some(alert) = found.alert {
            answer["alert"] = json!(alert);
        }
        if let Some(q) = found.quarantine {
            answer["session"] = json!(q.session);
            answer["quarantine"] = json!({ "case": q.case, "reason": q.reason, "by": q.by, "note": q.note, "since": q.since, "applied": true });
        }
        if let Some(release) = found.release {
            answer["release"] = json!({
                "by": release.by, "note": release.note, "time": release.time, "extended_bits": release.extend,
            });
        }
        Ok(answer)
    }
}

pub(super) fn require(field: &str, value: &str) -> Result<(), Response> {
    if value.trim().is_empty() {
        return Err(Response::error(ErrorCode::BadRequest, format!("`{field}` is empty; say it in a few words")));
    }
    Ok(())
}

/// The newest event of `case` in the event file or its `kept` rotated predecessors. A file or a line that cannot be read is
/// passed over.
fn find_case(file: &Path, kept: u32, case: CaseId) -> Option<Vec<u8>> {
    use std::io::BufRead;
    // Quotes inside a JSON string are escaped, so no name can imitate the field.
    let field = format!("\"case\":\"{case}\"");
    let rotated = (1..=kept).map(|n| {
        let mut name = file.as_os_str().to_owned();
        name.push(format!(".{n}"));
        std::path::PathBuf::from(name)
    });
    for path in std::iter::once(file.to_owned()).chain(rotated) {
        let Ok(open) = std::fs::File::open(&path) else { continue };
        let mut lines = std::io::BufReader::new(open);
        let (mut line, mut found) = (Vec::new(), None);
        while matches!(lines.read_until(b'\n', &mut line), Ok(1..)) {
            let has_field = std::str::from_utf8(&line).is_ok_and(|text| text.contains(&field));
            // A torn line may hold the field as well.
            if has_field && serde_json::from_slice::<serde::de::IgnoredAny>(&line).is_ok() {
                found = Some(std::mem::take(&mut line));
            }
            line.clear();
        }
        if found.is_some() {
            return found;
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_whole_event_of_a_case_is_found_wherever_it_was_rotated_to() {
        let dir = tempfile::tempdir().expect("directory");
        let file = dir.path().join("events.jsonl");
        let case = CaseId::from_random(7);
        assert_eq!(find_case(&file, 40, case), None);
        let line = |n: u32| format!("{{\"n\":{n},\"case\":\"{case}\"}}\n");
        // The current file is gone; what is rotated is read all the same.
        let old = [line(1).as_bytes(), line(2).as_bytes(), b"\xff\xfe\n", &line(3).as_bytes()[1..]].concat();
        std::fs::write(dir.path().join("events.jsonl.40"), old).expect("written");
        assert_eq!(find_case(&file, 40, case).expect("found"), line(2).as_bytes());
        assert_eq!(find_case(&file, 39, case), None, "left from a time when more were kept");
        std::fs::write(&file, line(4)).expect("written");
        assert_eq!(find_case(&file, 40, case).expect("found"), line(4).as_bytes());
        assert_eq!(find_case(&file, 40, CaseId::from_random(8)), None);
    }
}
