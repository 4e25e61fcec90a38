//! One zone's task: asks its primaries in time, puts what is new in force, writes it down, and sees when the zone expires.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use staunch_scoring::{NameBuf, NameRef};
use tokio::time::Instant;

use super::client::{self, Failure};
use super::keeper::{Held, Shared, Slot};
use super::notify::{Bell, is_primary};
use super::records::Copy;
use super::stream::{Change, Outcome, apply};
use super::{Primaries, Primary, schedule};
use crate::clock;
use crate::rpz::{Errors, process_key};

/// Shortest time between two questions to a zone's primaries, whatever they announce.
const PACE: Duration = Duration::from_secs(1);
/// How long a changed copy waits for the disk behind the last one: this many times as long as that took, so that a busy feed of
/// millions of rules does not keep the disk busy, and a minute at most.
const WRITE_SHARE: u32 = 20;
const WRITE_MAX: Duration = Duration::from_secs(60);

/// What one zone's task knows.
pub(super) struct Task {
    pub(super) shared: Arc<Shared>,
    pub(super) zone: NameBuf,
    pub(super) primaries: Primaries,
    pub(super) told: Arc<Bell>,
}

/// Why a zone was not brought up to date.
enum Problem {
    Transfer(Primary, Failure),
    Content(Primary, Errors),
}

impl std::fmt::Display for Problem {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Transfer(server, failure) => write!(f, "{server}: {failure}"),
            Self::Content(server, errors) => write!(f, "{server}: the zone is refused: {errors}"),
        }
    }
}

impl Task {
    pub(super) async fn run(self) {
        let mut failures = 0u32;
        let mut writable = Instant::now();
        self.watch_expiry();
        loop {
            let outcome = self.watching(self.ask_all()).await;
            let now = clock::now().wall.steady;
            let next = match outcome {
                Ok(changed) => {
                    failures = 0;
                    self.heard(now, changed).await
                }
                Err(problem) => {
                    let next = self.failed(&problem, failures, now);
                    failures = failures.saturating_add(1);
                    next
                }
            };
            self.watch_expiry();
            if self.is_unwritten() && Instant::now() >= writable {
                let begun = Instant::now();
                let wait = if self.write().await { begun.elapsed() * WRITE_SHARE } else { WRITE_MAX };
                writable = Instant::now() + wait.min(WRITE_MAX);
            }
            tokio::time::sleep(PACE).await;
            let Some(next) = next else { return };
            let mut wait = Duration::from_millis(next.saturating_sub(clock::now().wall.steady));
            if self.is_unwritten() {
                wait = wait.min(writable.saturating_duration_since(Instant::now()));
            }
            if let Some(left) = self.left() {
                // Whether it has expired is looked at in time, and what follows is one more question, which does no harm.
                wait = wait.min(left);
            }
            let _ = tokio::time::timeout(wait, self.told.heard()).await;
        }
    }

    /// Waits for `work`, and sees meanwhile whether the zone expires: a transfer may take longer than the zone has left.
    async fn watching<T>(&self, work: impl Future<Output = T>) -> T {
        let mut work = std::pin::pin!(work);
        loop {
            let Some(left) = self.left() else { return work.await };
            match tokio::time::timeout(left, work.as_mut()).await {
                Ok(done) => return done,
                Err(_) => self.watch_expiry(),
            }
        }
    }

    /// Asks the primaries one after the other until one has something newer, whoever has sent a NOTIFY first: one that is itself
    /// behind must not hide what another has. Whether there is a new copy.
    async fn ask_all(&self) -> Result<bool, Problem> {
        let by = self.told.take_by();
        let mut servers: Vec<_> = self.primaries.servers.iter().collect();
        servers.sort_by_key(|server| !by.is_some_and(|by| is_primary(std::slice::from_ref(*server), by)));
        let (mut is_confirmed, mut last) = (false, None);
        for server in servers {
            match self.ask(server).await {
                Ok(true) => return Ok(true),
                Ok(false) => is_confirmed = true,
                Err(problem) => last = Some(problem),
            }
        }
        match last {
            Some(problem) if is_confirmed => {
                tracing::debug!(zone = %self.zone, %problem, "another primary has confirmed the copy in force");
                Ok(false)
            }
            // There is at least one server.
            last => last.map_or(Ok(false), Err),
        }
    }

    async fn ask(&self, server: &Primary) -> Result<bool, Problem> {
        let have = self.shared.change(self.zone.as_ref(), |slot| (slot.held.as_ref().map(|h| h.copy.clone()), false));
        let have = have.flatten();
        let failed = |failure| Problem::Transfer(server.clone(), failure);
        let get = |whole| client::transfer(server, self.zone.as_ref(), have.as_deref(), whole, &self.primaries);
        let copy = match get(false).await.map_err(failed)? {
            Outcome::Current => return Ok(false),
            Outcome::Whole(copy) => copy,
            Outcome::Changes(changes) => match self.applied(have.clone(), changes).await {
                Some(copy) => copy,
                // What does not fit on our copy says nothing of the zone: the whole of it does.
                None => match get(true).await.map_err(failed)? {
                    Outcome::Whole(copy) => copy,
                    _ => return Ok(false),
                },
            },
        };
        self.take(server, copy).await
    }

    async fn applied(&self, have: Option<Arc<Copy>>, changes: Vec<Change>) -> Option<Copy> {
        let (have, most) = (have?, self.primaries.max_octets);
        // Off the runtime's threads: a large zone takes a second.
        let applied = tokio::task::spawn_blocking(move || apply(&have, &changes, most)).await.ok()?;
        let misfit = match applied {
            Ok(copy) => return Some(copy),
            Err(misfit) => misfit,
        };
        tracing::warn!(zone = %self.zone, %misfit, "changes do not fit; the whole zone is asked for");
        None
    }

    /// Makes rules of a new copy and puts them in force; a copy that does not load changes nothing.
    async fn take(&self, server: &Primary, copy: Copy) -> Result<bool, Problem> {
        let (zone, lenient) = (self.zone.clone(), self.primaries.lenient);
        let file = self.shared.file(zone.as_ref()).display().to_string();
        let made = tokio::task::spawn_blocking(move || {
            let rules = copy.rules(zone.as_ref(), &file, process_key(), lenient)?;
            Ok::<_, Errors>((copy, rules))
        });
        // Lines are those of a file that is not written.
        let refused = |mut errors: Errors| {
            errors.first.iter_mut().for_each(|problem| problem.line = 0);
            Problem::Content(server.clone(), errors)
        };
        let (copy, rules) = match made.await {
            Ok(made) => made.map_err(refused)?,
            Err(_) => return Err(Problem::Transfer(server.clone(), Failure::Malformed)),
        };
        let serial = rules.soa().serial;
        let held = Held { copy: Arc::new(copy), rules: Arc::new(rules), checked: clock::now().wall.steady };
        let rules = held.rules.len();
        let was_expired = self.shared.change(self.zone.as_ref(), |slot| {
            (slot.held, slot.unwritten) = (Some(held), true);
            slot.transfers += 1;
            (std::mem::take(&mut slot.expired), true)
        });
        if was_expired == Some(true) {
            self.tell_fresh();
        }
        tracing::info!(zone = %self.zone, %server, serial, rules, "a policy zone is in force");
        Ok(true)
    }

    fn tell_fresh(&self) {
        self.shared.alarm(&format!("policy zone {} is fresh again", self.zone));
    }

    /// Notes that a primary was heard; when to ask again, or nothing if the zone is no longer there.
    async fn heard(&self, now: u64, changed: bool) -> Option<u64> {
        let was_expired = self.is_expired();
        let next = self.shared.change(self.zone.as_ref(), |slot| {
            slot.error = None;
            let publish = std::mem::take(&mut slot.expired);
            if let Some(held) = &mut slot.held {
                held.checked = now;
            }
            ((schedule::refreshed(slot.soa().unwrap_or_default(), now), slot.unwritten), publish)
        });
        let (next, is_unwritten) = next.unzip();
        if was_expired {
            self.tell_fresh();
        }
        if !changed && is_unwritten == Some(false) {
            // The file's time is when the primary was last heard, for the next start. One that holds an older copy than the
            // primary has confirmed keeps its own.
            let file = self.shared.file(self.zone.as_ref());
            let confirm = move || {
                let file = std::fs::File::options().append(true).open(file)?;
                file.set_modified(SystemTime::now())
            };
            // A disk may keep it waiting.
            let confirmed = tokio::task::spawn_blocking(confirm).await;
            if let Err(error) = confirmed.map_err(std::io::Error::other).and_then(|confirmed| confirmed) {
                tracing::debug!(%error, zone = %self.zone, "the copy's time could not be set");
            }
        }
        next
    }

    fn failed(&self, problem: &Problem, failures: u32, now: u64) -> Option<u64> {
        let text = problem.to_string();
        tracing::warn!(zone = %self.zone, problem = text, "a policy zone was not brought up to date; what is in force stays");
        let awaited = self.shared.change(self.zone.as_ref(), |slot| {
            slot.failures += 1;
            slot.error = Some(text.clone());
            ((schedule::failed(slot.soa(), failures, now), slot.held.is_none()), false)
        });
        let (next, is_missing) = awaited?;
        if is_missing && failures == 0 {
            self.shared.alarm(&format!("policy zone {} has no copy yet: {text}", self.zone));
        }
        Some(next)
    }

    fn end(&self) -> Option<u64> {
        let held = |slot: &mut Slot| {
            let end = slot.held.as_ref().map(|held| schedule::expires(held.rules.soa(), held.checked));
            (end, false)
        };
        self.shared.change(self.zone.as_ref(), held).flatten()
    }

    /// How long it is until the zone expires, if it can: at least [`PACE`].
    fn left(&self) -> Option<Duration> {
        let end = self.end().filter(|_| !self.is_expired())?;
        Some(Duration::from_millis(end.saturating_sub(clock::now().wall.steady)).max(PACE))
    }

    fn is_expired(&self) -> bool {
        self.shared.change(self.zone.as_ref(), |slot| (slot.expired, false)).unwrap_or_default()
    }

    /// Sees whether the zone has expired, and says so once.
    fn watch_expiry(&self) {
        let now = clock::now().wall.steady;
        if self.is_expired() || self.end().is_none_or(|end| now < end) {
            return;
        }
        let known = self.shared.change(self.zone.as_ref(), |slot| {
            slot.expired = true;
            let heard = slot.held.as_ref().map(|held| crate::telemetry::rfc3339(held.checked));
            ((heard.unwrap_or_default(), slot.error.clone()), true)
        });
        let Some((heard, error)) = known else { return };
        // They may have been there all the while, with copies that were refused.
        let why = error.map_or_else(String::new, |error| format!(" ({error})"));
        let what = match self.primaries.keep_expired {
            true => "its last copy stays in force",
            false => "it is out of force until it is transferred again",
        };
        let zone = &self.zone;
        self.shared.alarm(&format!(
            "policy zone {zone} has expired: no primary has confirmed it, or given a good copy, since {heard}{why}; {what}"
        ));
    }

    fn is_unwritten(&self) -> bool {
        self.shared.change(self.zone.as_ref(), |slot| (slot.unwritten, false)).unwrap_or_default()
    }

    /// Writes the copy in force to disk; whether it is there.
    async fn write(&self) -> bool {
        let (shared, zone) = (self.shared.clone(), self.zone.clone());
        let written = tokio::task::spawn_blocking(move || write_in_force(&shared, zone.as_ref())).await;
        let written = written.map_err(std::io::Error::other).and_then(|written| written);
        if let Err(error) = &written {
            tracing::error!(%error, zone = %self.zone, "the last good copy could not be written; it is tried again");
        }
        written.is_ok()
    }
}

/// Writes the copy that is in force once nobody else writes one of this zone.
fn write_in_force(shared: &Shared, zone: NameRef<'_>) -> std::io::Result<()> {
    let Some(disk) = shared.change(zone, |slot| (slot.disk.clone(), false)) else { return Ok(()) };
    let _one = disk.lock();
    let unwritten = shared.change(zone, |slot| (slot.held.clone().filter(|_| slot.unwritten), false));
    let Some(held) = unwritten.flatten() else { return Ok(()) };
    write_whole(&held, zone, &shared.file(zone))?;
    shared.change(zone, |slot| {
        let is_it = slot.held.as_ref().is_some_and(|now| Arc::ptr_eq(&now.copy, &held.copy));
        slot.unwritten &= !is_it;
        ((), false)
    });
    Ok(())
}

/// Under another name first, so that there is always one whole copy. Its time is when the primary was last heard, which may
/// have been long before it could be written.
fn write_whole(held: &Held, zone: NameRef<'_>, file: &Path) -> std::io::Result<()> {
    let age = Duration::from_millis(clock::now().wall.steady.saturating_sub(held.checked));
    if let Some(dir) = file.parent() {
        crate::private_dir::make(dir)?;
    }
    let new = file.with_extension("new");
    let mut to = std::io::BufWriter::new(std::fs::File::create(&new)?);
    held.copy.write(zone, &mut to)?;
    let to = to.into_inner().map_err(std::io::IntoInnerError::into_error)?;
    to.set_modified(SystemTime::now().checked_sub(age).unwrap_or(SystemTime::UNIX_EPOCH))?;
    to.sync_all()?;
    std::fs::rename(&new, file)
}

#[cfg(test)]
mod tests;
