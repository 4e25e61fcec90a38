//! The thread that fetches: one list after the other, each at its time.

use std::collections::HashMap;
use std::io::Seek;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use parking_lot::{Condvar, Mutex};

use super::client::{Client, Failure, Fetched};
use super::copies::{Copies, Stamp};
use super::gate::{Judged, judge, pause};
use super::told::{Listener, OrderError, Outcome, Standing, Told, Version};
use super::{Config, Source};
use crate::clock;
use crate::lists::{inspect, survey};
use crate::outbound::HostResolver;
use crate::store::hex;

/// How long a list that could not be put in force waits for the next try, milliseconds.
const PUT_AGAIN_MS: u64 = 60_000;
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

#[derive(Default)]
struct Inner {
    config: Config,
    lists: HashMap<String, State>,
    /// A good copy is not in force yet.
    unapplied: Option<Unapplied>,
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
    /// Waits, for so long, or until it is woken.
    Wait(Option<u64>),
}

impl Inner {
    fn note_good(&mut self, now: u64) {
        let since = self.unapplied.map_or(now, |unapplied| unapplied.since);
        self.unapplied = Some(Unapplied { since, from: now });
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
    /// Held while a list's `state.json` is read and replaced.
    disk: Mutex<()>,
    outcomes: [AtomicU64; Outcome::ALL.len()],
}

/// See the module. Dropping it ends the thread, after a fetch under way.
pub struct Feeds {
    shared: Arc<Shared>,
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
        let feeds = Self { shared: shared.clone() };
        feeds.configure(config);
        let client = Client::new(resolver);
        thread::Builder::new().name("lists".into()).spawn(move || run(&shared, &client, &*listener))?;
        Ok(feeds)
    }

    /// Takes new settings. What is known of lists that stay, stays.
    pub fn configure(&self, config: Config) {
        let now = clock::now();
        let mut inner = self.shared.inner.lock();
        let mut lists = HashMap::new();
        for source in &config.sources {
            let known = inner.lists.remove(&source.id).filter(|known| known.source.url == source.url);
            let mut state = known.unwrap_or_else(|| {
                let kept = Copies::of(&config.state_dir, &source.id).kept();
                // A copy from elsewhere is no copy of this one.
                let fresh = kept.good.as_ref().is_some_and(|good| good.url == source.url);
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
        let copies = {
            let inner = self.shared.inner.lock();
            let known = inner.lists.contains_key(id);
            known.then(|| Copies::of(&inner.config.state_dir, id)).ok_or_else(|| OrderError::Unknown(id.to_owned()))?
        };
        let mut kept;
        let version;
        {
            let _disk = self.shared.disk.lock();
            kept = copies.kept();
            let mut held = kept.held.take().ok_or_else(|| OrderError::NothingHeld(id.to_owned()))?;
            if sha256.is_empty() || !held.sha256.starts_with(sha256) {
                return Err(OrderError::Another(id.to_owned()));
            }
            held.accepted = Some((by.to_owned(), reason.to_owned()));
            version = Version::from(&held);
            kept.before = kept.good.replace(held);
            copies.keep(&kept).map_err(|error| OrderError::Disk(error.to_string()))?;
        }
        let mut inner = self.shared.inner.lock();
        inner.note_good(clock::now().mono);
        if let Some(state) = inner.lists.get_mut(id) {
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
            (inner.config.state_dir.clone(), inner.lists.values().cloned().collect::<Vec<_>>())
        };
        states.sort_by(|a, b| a.source.id.cmp(&b.source.id));
        let standing = |state: State| {
            let kept = Copies::of(&directory, &state.source.id).kept();
            Standing {
                url: super::shown_url(&state.source.url).to_owned(),
                id: state.source.id,
                outcome: state.outcome,
                problem: state.problem,
                failures: state.failures,
                checked: (kept.checked > 0).then_some(kept.checked),
                good: kept.good.as_ref().map(Version::from),
                held: kept.held.as_ref().map(Version::from),
                next: state.next,
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
            Next::Fetch(source, directory) => {
                let result = fetch(shared, client, &Copies::of(&directory, &source.id), &source);
                note(shared, listener, &source, result);
            }
            Next::Wait(_) => {}
        }
    }
}

fn put_in_force(shared: &Shared, listener: &dyn Listener) {
    // Taken away first: what is accepted meanwhile counts anew.
    let before = shared.inner.lock().unapplied.take();
    if let Err(why) = listener.put_in_force() {
        tracing::error!(why, "fetched lists could not be put in force");
        let now = clock::now().mono;
        let since = before.map_or(now, |before| before.since);
        shared.inner.lock().unapplied.get_or_insert(Unapplied { since, from: now + PUT_AGAIN_MS });
        listener.tell(Told::NotInForce { why });
    }
}

/// What came of a fetch: how it ended, and what is wrong.
type Ended = (Outcome, Option<String>);

fn note(shared: &Shared, listener: &dyn Listener, source: &Source, (outcome, problem): Ended) {
    if let Some(count) = Outcome::ALL.iter().position(|o| *o == outcome).and_then(|at| shared.outcomes.get(at)) {
        count.fetch_add(1, Ordering::Relaxed);
    }
    let now = clock::now();
    let failed = matches!(outcome, Outcome::Refused | Outcome::Failed);
    let mut told = Vec::new();
    {
        let mut inner = shared.inner.lock();
        if outcome == Outcome::Fetched {
            inner.note_good(now.mono);
        }
        // It may have left the configuration meanwhile.
        let Some(state) = inner.lists.get_mut(&source.id) else { return };
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

fn fetch(shared: &Shared, client: &Client, copies: &Copies, source: &Source) -> Ended {
    match try_fetch(shared, client, copies, source) {
        Ok(result) => result,
        Err(failure) => (Outcome::Failed, Some(failure.to_string())),
    }
}

fn try_fetch(shared: &Shared, client: &Client, copies: &Copies, source: &Source) -> Result<Ended, Failure> {
    let kept = copies.kept();
    // What the server is told we have must be here whole. A version that waits counts: it need not be sent again.
    let newest = kept.held.as_ref().or(kept.good.as_ref());
    let known = newest.filter(|stamp| stamp.url == source.url && is_whole(copies, stamp));
    let mut draft = copies.draft().map_err(Failure::Disk)?;
    let now = clock::now().wall.shown;
    let (etag, last_modified) = match client.fetch(&source.url, known, source.timeout, source.max_octets, &mut draft)? {
        Fetched::Unchanged => {
            let _disk = shared.disk.lock();
            let mut kept = copies.kept();
            kept.checked = now;
            copies.keep(&kept).map_err(Failure::Disk)?;
            let held = kept.held.and_then(|held| held.held_for);
            return Ok((held.as_ref().map_or(Outcome::Unchanged, |_| Outcome::Held), held));
        }
        Fetched::Body { etag, last_modified } => (etag, last_modified),
    };
    let (mut draft, sha256, octets) = draft.finish().map_err(Failure::Disk)?;
    draft.file.rewind().map_err(Failure::Disk)?;
    let format = match survey(&draft.file, source.format) {
        Ok(found) => found.format,
        Err(error) => return Ok((Outcome::Refused, Some(error.to_string()))),
    };
    draft.file.rewind().map_err(Failure::Disk)?;
    let report = match inspect(&draft.file, format, source.day) {
        Ok(report) => report,
        Err(error) => return Ok((Outcome::Refused, Some(error.to_string()))),
    };
    let mut stamp = Stamp {
        url: source.url.clone(),
        sha256,
        octets,
        entries: report.entries,
        format,
        etag,
        last_modified,
        fetched: now,
        held_for: None,
        accepted: None,
    };
    let _disk = shared.disk.lock();
    let mut kept = copies.kept();
    let good = kept.good.as_ref().map(|good| good.entries);
    let result = match judge(good, report.entries, source.max_growth, source.min_share) {
        Judged::Refused(why) => return Ok((Outcome::Refused, Some(why.to_owned()))),
        Judged::Held(why) => {
            stamp.held_for = Some(why.clone());
            copies.adopt(draft, &stamp).map_err(Failure::Disk)?;
            kept.held = Some(stamp);
            (Outcome::Held, Some(why))
        }
        Judged::Good => {
            copies.adopt(draft, &stamp).map_err(Failure::Disk)?;
            let same = kept.good.as_ref().is_some_and(|good| good.sha256 == stamp.sha256);
            let old = kept.good.replace(stamp);
            if !same {
                kept.before = old;
            }
            kept.held = None;
            (if same { Outcome::Unchanged } else { Outcome::Fetched }, None)
        }
    };
    kept.checked = now;
    copies.keep(&kept).map_err(Failure::Disk)?;
    Ok(result)
}

fn is_whole(copies: &Copies, stamp: &Stamp) -> bool {
    let found = copies.open(stamp).ok().and_then(|mut file| survey(&mut file, Some(stamp.format)).ok());
    found.is_some_and(|found| hex(&found.digest) == stamp.sha256)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state(id: &str, due: u64, failures: u32) -> (String, State) {
        let source = Source {
            id: id.into(),
            url: format!("https://lists.example/{id}"),
            format: None,
            day: None,
            refresh: Duration::from_secs(3600),
            timeout: Duration::from_secs(60),
            max_octets: 1 << 20,
            max_growth: 4.0,
            min_share: 0.25,
        };
        (id.into(), State { source, due, next: 0, outcome: None, problem: None, failures })
    }

    fn next(inner: &Inner, now: u64) -> String {
        match inner.next(now) {
            Next::Stop => "stop".into(),
            Next::Put => "put".into(),
            Next::Fetch(source, _) => source.id,
            Next::Wait(wait) => wait.map_or("wait".into(), |wait| format!("wait {wait}")),
        }
    }

    #[test]
    fn a_server_that_hangs_holds_up_no_list_of_another() {
        let lists = [state("hangs", 10, 3), state("good", 20, 0), state("later", 90_000, 0)];
        let mut inner = Inner { lists: lists.into_iter().collect(), ..Inner::default() };
        assert_eq!(next(&inner, 5), "wait 5");
        assert_eq!(next(&inner, 30), "good", "what is fetched is fetched first");
        inner.lists.extend([state("good", 60_000, 0)]);
        inner.note_good(1_000);
        assert_eq!(next(&inner, 1_000), "hangs", "those that are due may be put in force with it");
        assert_eq!(next(&inner, 1_000 + GATHER_MS), "put", "but not however long they take");
        inner.note_good(8_000);
        assert_eq!(next(&inner, 1_000 + GATHER_MS), "put", "however many come meanwhile");
        // What could not be put in force is tried again, and lists are fetched until then.
        inner.unapplied = Some(Unapplied { since: 1_000, from: 50_000 });
        assert_eq!(next(&inner, 20_000), "hangs");
        inner.lists.extend([state("hangs", 70_000, 4)]);
        assert_eq!(next(&inner, 20_000), "wait 30000");
        assert_eq!(next(&inner, 50_000), "put");
        inner.unapplied = None;
        assert_eq!(next(&inner, 50_000), "wait 10000");
        inner.stopped = true;
        assert_eq!(next(&inner, 50_000), "stop");
    }
}
