//! The thread that fetches: one list after the other, each at its time.

mod fetch;

use std::collections::{HashMap, HashSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use parking_lot::{Condvar, Mutex};

use super::client::Client;
use super::copies::Copies;
use super::gate::pause;
use super::told::{Listener, OrderError, Outcome, Standing, Told, Version};
use super::{Config, Source};
use crate::clock;
use crate::outbound::HostResolver;
use fetch::{Ended, fetch, has_room, is_within};

/// How long a list that could not be put in force waits for the next try, milliseconds.
const PUT_AGAIN_MS: u64 = 60_000;
/// How long what keeps lists from being put in force is not told again while it stays the same, milliseconds.
const TOLD_AGAIN_MS: u64 = 3_600_000;
/// How long a good copy waits for others that are due, so that they are put in force together, milliseconds. A server that
/// keeps us waiting must not hold up the lists of others.
const GATHER_MS: u64 = 10_000;

#[derive(Debug, Clone)]
struct State {
    source: Source,
    due: u64,
    next: u64,
    outcome: Option<Outcome>,
    problem: Option<String>,
    failures: u32,
}

impl State {
    fn asks_as(&self, source: &Source) -> bool {
        self.source.url == source.url && self.source.format == source.format
    }
}

#[derive(Default)]
struct Inner {
    config: Config,
    lists: HashMap<String, State>,
    /// A good copy is not in force yet.
    unapplied: Option<Unapplied>,
    /// Whose.
    waiting: HashSet<String>,
    /// Whose are being put in force just now.
    trying: HashSet<String>,
    /// Why the last try to put copies in force failed, and when that was told.
    not_in_force: Option<(String, u64)>,
    /// What settings have shown and nobody was told of yet.
    untold: Vec<Told>,
    stopped: bool,
}

/// Good copies that are not in force, by the monotonic clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Unapplied {
    /// Since when there is one.
    since: u64,
    /// When to try, at the earliest.
    from: u64,
}

/// What the thread does next.
enum Next {
    /// Ends.
    Stop,
    /// Puts in force what is good.
    Put,
    /// Fetches a list.
    Fetch(Source, PathBuf),
    /// Tells people.
    Tell(Vec<Told>),
    /// Waits, for so long, or until it is woken.
    Wait(Option<u64>),
}

impl Inner {
    /// What is known of a list, if it is still fetched from there and read so.
    fn asked_mut(&mut self, source: &Source) -> Option<&mut State> {
        self.lists.get_mut(&source.id).filter(|state| state.asks_as(source))
    }

    fn note_good(&mut self, id: &str, now: u64) {
        self.waiting.insert(id.to_owned());
        let since = self.unapplied.map_or(now, |unapplied| unapplied.since);
        self.unapplied = Some(Unapplied { since, from: now });
    }

    /// Why the good copy of a list is not in force, where that is known.
    fn unused(&self, source: &Source) -> Option<String> {
        let is_waiting = self.waiting.contains(&source.id) || self.trying.contains(&source.id);
        let waits = self.not_in_force.as_ref().filter(|_| is_waiting);
        source.problem.clone().or_else(|| waits.map(|(why, _)| why.clone()))
    }

    /// What is to be put in force now. What is good from here on counts anew.
    fn take(&mut self) -> Option<Unapplied> {
        self.trying = std::mem::take(&mut self.waiting);
        self.unapplied.take()
    }

    /// Notes how a try to put in force what was taken ended; what is to be told of it.
    fn put(&mut self, before: Option<Unapplied>, result: Result<(), String>, now: u64) -> Option<Told> {
        let tried = std::mem::take(&mut self.trying);
        let Err(why) = result else { return self.not_in_force.take().map(|_| Told::InForce) };
        tracing::error!(why, "fetched lists could not be put in force");
        self.waiting.extend(tried);
        let since = before.map_or(now, |before| before.since);
        self.unapplied.get_or_insert(Unapplied { since, from: now + PUT_AGAIN_MS });
        let is_told = |(told, at): &(String, u64)| *told == why && now.saturating_sub(*at) < TOLD_AGAIN_MS;
        if self.not_in_force.as_ref().is_some_and(is_told) {
            return None;
        }
        self.not_in_force = Some((why.clone(), now));
        Some(Told::NotInForce { why })
    }

    fn next(&self, now: u64) -> Next {
        if self.stopped {
            return Next::Stop;
        }
        // Those that fail go behind: each may cost its whole timeout.
        let due = self.lists.values().filter(|state| state.due <= now);
        let due = due.min_by_key(|state| (state.failures > 0, state.due));
        // Lists that are due together are put in force together, if that is soon.
        let ripe = |unapplied: Unapplied| {
            unapplied.from <= now && (due.is_none() || now.saturating_sub(unapplied.since) >= GATHER_MS)
        };
        if self.unapplied.is_some_and(ripe) {
            return Next::Put;
        }
        if let Some(state) = due {
            return Next::Fetch(state.source.clone(), self.config.state_dir.clone());
        }
        let times = self.lists.values().map(|state| state.due).chain(self.unapplied.map(|unapplied| unapplied.from));
        Next::Wait(times.min().map(|time| time.saturating_sub(now)))
    }
}

struct Shared {
    inner: Mutex<Inner>,
    changed: Condvar,
    /// Held while a list's `state.json` is read and replaced, and while settings change: what is fetched from where a list is
    /// not fetched from any more replaces nothing. Taken ahead of `inner`.
    disk: Mutex<()>,
    outcomes: [AtomicU64; Outcome::ALL.len()],
}

impl Shared {
    /// Whether a list is still fetched from there.
    fn asks(&self, source: &Source) -> bool {
        self.inner.lock().asked_mut(source).is_some()
    }
}

/// See the module. Dropping it ends the thread, after a fetch under way.
pub struct Feeds {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

impl Feeds {
    /// Starts the thread.
    ///
    /// # Errors
    /// Where the system has none to give.
    pub fn start(
        config: Config,
        resolver: Option<Arc<dyn HostResolver>>,
        listener: Arc<dyn Listener>,
    ) -> std::io::Result<Self> {
        let shared = Arc::new(Shared {
            inner: Mutex::default(),
            changed: Condvar::new(),
            disk: Mutex::new(()),
            outcomes: Default::default(),
        });
        let mut feeds = Self { shared: shared.clone(), thread: None };
        feeds.configure(config);
        let client = Client::new(resolver);
        let thread = thread::Builder::new().name("lists".into());
        feeds.thread = Some(thread.spawn(move || run(&shared, &client, &*listener))?);
        Ok(feeds)
    }

    /// Whether the thread has ended, which it does not by itself.
    pub fn has_ended(&self) -> bool {
        self.thread.as_ref().is_none_or(JoinHandle::is_finished)
    }

    /// Takes new settings. What is known of lists that stay, stays.
    pub fn configure(&self, config: Config) {
        let now = clock::now();
        let _disk = self.shared.disk.lock();
        let mut inner = self.shared.inner.lock();
        let (mut lists, mut untold) = (HashMap::new(), Vec::new());
        for source in &config.sources {
            let known = inner.lists.remove(&source.id);
            let problem = known.as_ref().and_then(|known| known.source.problem.as_ref());
            let id = || source.id.clone();
            match &source.problem {
                Some(why) if problem != Some(why) => untold.push(Told::Unused { id: id(), why: why.clone() }),
                None if problem.is_some() => untold.push(Told::Recovered { id: id() }),
                _ => {}
            }
            let kept = || Copies::of(&config.state_dir, &source.id).kept();
            let mut known = known.filter(|known| known.asks_as(source));
            if let Some(known) = &mut known {
                let limits = |source: &Source| (source.max_growth, source.min_share);
                // Another copy may help, and what waits may be within other limits.
                let is_due = source.problem.is_some() && known.source.problem != source.problem
                    || limits(source) != limits(&known.source) && kept().held.is_some();
                if is_due {
                    (known.due, known.next) = (now.mono, now.wall.shown);
                }
            }
            let mut state = known.unwrap_or_else(|| {
                let kept = kept();
                // A copy from elsewhere is no copy of this one.
                let fresh = source.problem.is_none() && kept.good.as_ref().is_some_and(|good| good.is_of(source));
                let fresh = fresh && !kept.held.as_ref().is_some_and(|held| is_within(source, &kept, held));
                let age = now.wall.shown.saturating_sub(kept.checked);
                let refresh = source.refresh.as_millis() as u64;
                let wait = if fresh { pause(refresh, 0, draw()).saturating_sub(age) } else { 0 };
                // After a start many lists may be due: the first answers to queries matter more.
                let wait = if fresh { wait.max(pause(30_000, 0, draw())) } else { 0 };
                let (due, next) = (now.mono + wait, now.wall.shown + wait);
                State { source: source.clone(), due, next, outcome: None, problem: None, failures: 0 }
            });
            state.source = source.clone();
            lists.insert(source.id.clone(), state);
        }
        inner.lists = lists;
        inner.untold.append(&mut untold);
        inner.config = config;
        drop(inner);
        self.shared.changed.notify_all();
    }

    /// Has a list fetched now, or all of them.
    ///
    /// # Errors
    /// [`OrderError::Unknown`].
    pub fn fetch(&self, id: Option<&str>) -> Result<usize, OrderError> {
        let now = clock::now();
        let mut inner = self.shared.inner.lock();
        let mut ordered = 0;
        for (_, state) in inner.lists.iter_mut().filter(|(known, _)| id.is_none_or(|id| id == known.as_str())) {
            (state.due, state.next) = (now.mono, now.wall.shown);
            ordered += 1;
        }
        drop(inner);
        self.shared.changed.notify_all();
        match id {
            Some(id) if ordered == 0 => Err(OrderError::Unknown(id.to_owned())),
            _ => Ok(ordered),
        }
    }

    /// Makes the version that waits the good one, by somebody's word. `sha256` is how the digest of the version that was
    /// looked at begins.
    ///
    /// # Errors
    /// [`OrderError`].
    pub fn accept(&self, id: &str, sha256: &str, by: &str, reason: &str) -> Result<Version, OrderError> {
        let version;
        {
            let _disk = self.shared.disk.lock();
            let (config, source) = {
                let inner = self.shared.inner.lock();
                let known = inner.lists.get(id).ok_or_else(|| OrderError::Unknown(id.to_owned()))?;
                (inner.config.clone(), known.source.clone())
            };
            let copies = Copies::of(&config.state_dir, id);
            let mut kept = copies.kept();
            // What waits from where the list came from before is none of this one's.
            let held = kept.held.take().filter(|held| held.is_of(&source));
            let mut held = held.ok_or_else(|| OrderError::NothingHeld(id.to_owned()))?;
            if sha256.is_empty() || !held.sha256.starts_with(sha256) {
                return Err(OrderError::Another(id.to_owned()));
            }
            if !has_room(&config, &source, &held) {
                return Err(OrderError::NoRoom(id.to_owned()));
            }
            held.accepted = Some((by.to_owned(), reason.to_owned()));
            version = Version::from(&held);
            kept.before = kept.good.replace(held);
            copies.keep(&kept).map_err(|error| OrderError::Disk(error.to_string()))?;
        }
        let mut inner = self.shared.inner.lock();
        inner.note_good(id, clock::now().mono);
        // Whether its server is reached is another matter.
        if let Some(state) = inner.lists.get_mut(id).filter(|state| state.failures == 0) {
            (state.outcome, state.problem) = (Some(Outcome::Fetched), None);
        }
        drop(inner);
        self.shared.changed.notify_all();
        Ok(version)
    }

    /// Where every list stands, by id.
    pub fn standing(&self) -> Vec<Standing> {
        let (directory, mut states) = {
            let inner = self.shared.inner.lock();
            let states = inner.lists.values().map(|state| (state.clone(), inner.unused(&state.source)));
            (inner.config.state_dir.clone(), states.collect::<Vec<_>>())
        };
        states.sort_by(|(a, _), (b, _)| a.source.id.cmp(&b.source.id));
        let standing = |(state, unused): (State, Option<String>)| {
            let kept = Copies::of(&directory, &state.source.id).kept();
            Standing {
                url: super::shown_url(&state.source.url).to_owned(),
                outcome: state.outcome,
                problem: state.problem,
                unused,
                failures: state.failures,
                checked: (kept.checked > 0).then_some(kept.checked),
                good: kept.good.as_ref().map(Version::from),
                held: kept.held.as_ref().filter(|held| held.is_of(&state.source)).map(Version::from),
                next: state.next,
                id: state.source.id,
            }
        };
        states.into_iter().map(standing).collect()
    }

    /// Fetches of this process by how they ended.
    pub fn outcomes(&self) -> impl Iterator<Item = (Outcome, u64)> {
        Outcome::ALL.into_iter().zip(self.shared.outcomes.iter().map(|count| count.load(Ordering::Relaxed)))
    }
}

impl Drop for Feeds {
    fn drop(&mut self) {
        self.shared.inner.lock().stopped = true;
        self.shared.changed.notify_all();
    }
}

fn draw() -> u32 {
    let mut octets = [0; 4];
    // Without randomness all wait alike, which harms nobody here.
    let _ = getrandom::fill(&mut octets);
    u32::from_le_bytes(octets)
}

fn run(shared: &Shared, client: &Client, listener: &dyn Listener) {
    loop {
        let next = {
            let mut inner = shared.inner.lock();
            loop {
                if !inner.untold.is_empty() && !inner.stopped {
                    break Next::Tell(std::mem::take(&mut inner.untold));
                }
                match inner.next(clock::now().mono) {
                    Next::Wait(Some(wait)) => drop(shared.changed.wait_for(&mut inner, Duration::from_millis(wait))),
                    Next::Wait(None) => shared.changed.wait(&mut inner),
                    next => break next,
                }
            }
        };
        match next {
            Next::Stop => return,
            Next::Put => put_in_force(shared, listener),
            Next::Tell(untold) => untold.into_iter().for_each(|told| listener.tell(told)),
            Next::Fetch(source, directory) => {
                let ended = fetch(shared, client, &Copies::of(&directory, &source.id), &source);
                if let Some(ended) = ended {
                    note(shared, listener, &source, ended);
                }
            }
            Next::Wait(_) => {}
        }
    }
}

fn put_in_force(shared: &Shared, listener: &dyn Listener) {
    let taken = shared.inner.lock().take();
    let result = listener.put_in_force();
    let told = shared.inner.lock().put(taken, result, clock::now().mono);
    if let Some(told) = told {
        listener.tell(told);
    }
}

fn note(shared: &Shared, listener: &dyn Listener, source: &Source, (outcome, problem): Ended) {
    if let Some(count) = Outcome::ALL.iter().position(|o| *o == outcome).and_then(|at| shared.outcomes.get(at)) {
        count.fetch_add(1, Ordering::Relaxed);
    }
    let now = clock::now();
    let failed = matches!(outcome, Outcome::Refused | Outcome::Failed);
    let mut told = Vec::new();
    {
        let mut inner = shared.inner.lock();
        // Even if another address was written since: its copy is on disk.
        if outcome == Outcome::Fetched {
            inner.note_good(&source.id, now.mono);
        }
        // It may have left the configuration meanwhile, or be fetched from elsewhere.
        let Some(state) = inner.asked_mut(source) else { return };
        let (id, why) = (source.id.clone(), problem.clone().unwrap_or_default());
        if failed && state.failures == 0 {
            told.push(Told::Failing { id: id.clone(), why: why.clone() });
        } else if !failed && state.failures > 0 {
            told.push(Told::Recovered { id: id.clone() });
        }
        if outcome == Outcome::Held && state.problem != problem {
            told.push(Told::Held { id, why });
        }
        state.failures = if failed { state.failures.saturating_add(1) } else { 0 };
        let wait = pause(source.refresh.as_millis() as u64, state.failures, draw());
        (state.due, state.next) = (now.mono + wait, now.wall.shown + wait);
        (state.outcome, state.problem) = (Some(outcome), problem);
    }
    told.into_iter().for_each(|told| listener.tell(told));
}

#[cfg(test)]
mod tests;
