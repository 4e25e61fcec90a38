//! Looks at flows, volumes and written ranges from time to time, on a thread of its own.
//!
//! Read beside the packet filter, not from its owner: no pin waits. What is read of volumes goes back to the owner too, so
//! that a table that has to be built anew goes on counting where it was.

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::mpsc::{RecvTimeoutError, SyncSender, sync_channel};
use std::thread::JoinHandle;
use std::time::Duration;

use parking_lot::{Mutex, RwLock};

use super::super::netlink::{Netlink, NetlinkError};
use super::pace::Work;
use super::sets::{self, Held, Key, Kind, MSG_GETSETELEM, Set};
use super::watch::{INET, SUBSYS};
use super::{flows, intervals, kernel};
use crate::background::stand_back;
use crate::enforce::state::Volume;
use crate::enforce::{Error, Observed, Range, Tell, Used};
use crate::mishap;
use crate::sparing::Sparing;

/// Shortest time from one look to the next.
const EVERY: Duration = Duration::from_secs(2);
/// A look may take one part in so many of a processor's time: on a host with very many flows and leases it comes later.
const SHARE: u32 = 50;
/// Most pairs of session and destination told at one look; flows beyond it are not told.
const PAIRS: usize = 65_536;
/// Most volumes whose last reading is remembered; beyond it changes are told only once a lease is made anew.
const VOLUMES: usize = 1 << 19;

/// What owner and observer tell each other.
#[derive(Debug, Clone, Default)]
pub(super) struct Readings(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    /// Source addresses that are sessions.
    sessions: RwLock<HashSet<IpAddr>>,
    /// Elements of written ranges by their sets, and whose they are.
    ranges: Mutex<HashMap<(Set, Key), u32>>,
    /// Read since the owner last asked.
    used: Mutex<Vec<Used>>,
}

impl Readings {
    /// Whether an address is a session.
    pub(super) fn know(&self, session: IpAddr, is_session: bool) {
        if self.0.sessions.read().contains(&session) == is_session {
            return;
        }
        let mut sessions = self.0.sessions.write();
        if is_session {
            sessions.insert(session)
        } else {
            sessions.remove(&session)
        };
    }

    /// Which addresses are sessions, all of them.
    pub(super) fn know_all(&self, sessions: impl Iterator<Item = IpAddr>) {
        *self.0.sessions.write() = sessions.collect();
    }

    /// Which written ranges there are.
    pub(super) fn ranges(&self, ranges: &[Range]) {
        let elements = |set| intervals::elements(ranges, set).into_iter().map(move |(id, e)| ((set, e.key), id));
        *self.0.ranges.lock() = intervals::sets(ranges).flat_map(elements).collect();
    }

    /// What was read of volumes since this was last asked.
    pub(super) fn take(&self) -> Vec<Used> {
        std::mem::take(&mut *self.0.used.lock())
    }
}

/// Handle to the thread; it ends when this is dropped.
#[derive(Debug)]
pub(super) struct Observer {
    end: Option<SyncSender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Observer {
    /// Opens a socket and starts the thread, both in the calling thread's network namespace.
    pub(super) fn start(table: String, readings: Readings, tell: Tell) -> Result<Self, Error> {
        let mut eye =
            Eye { netlink: super::open()?, table, readings, volumes: HashMap::new(), packets: HashMap::new() };
        let failed = |source| Error::Io { doing: "start the thread that looks at flows", source };
        let out = tell.aside().map_err(failed)?;
        let (end, ended) = sync_channel(0);
        let run = move || {
            stand_back();
            let mut pause = EVERY;
            while let Err(RecvTimeoutError::Timeout) = ended.recv_timeout(pause) {
                let work = Work::begin();
                static TOLD: Sparing = Sparing::new();
                let Some((observed, result)) = mishap::survived("looking at flows", &TOLD, || eye.look()) else {
                    // Answers to what it has asked may still be there to be read.
                    if let Ok(fresh) = Netlink::open() {
                        eye.netlink = fresh;
                    }
                    continue;
                };
                // Who is told goes with the observer.
                let _ = out.send(observed);
                if let Err(error) = result {
                    tracing::debug!(error = %kernel(&error, "look at flows"), "not all of flows and volumes is known");
                    if let (NetlinkError::Io(_), Ok(fresh)) = (error, Netlink::open()) {
                        eye.netlink = fresh;
                    }
                }
                pause = EVERY.max(work.rest(SHARE));
            }
        };
        let thread = std::thread::Builder::new().name("observer".into()).spawn(run).map_err(failed)?;
        Ok(Self { end: Some(end), thread: Some(thread) })
    }
}

impl Drop for Observer {
    fn drop(&mut self) {
        self.end = None;
        if let Some(thread) = self.thread.take() {
            // Only if the thread itself holds the last owner of what it tells is it dropped there.
            if thread.thread().id() != std::thread::current().id() {
                let _ = thread.join();
            }
        }
    }
}

struct Eye {
    netlink: Netlink,
    table: String,
    readings: Readings,
    /// What was read last.
    volumes: HashMap<(IpAddr, IpAddr), u64>,
    packets: HashMap<(Set, Key), u64>,
}

impl Eye {
    /// What is seen, and whether all of it could be read.
    fn look(&mut self) -> (Observed, Result<(), NetlinkError>) {
        let mut observed = Observed::default();
        // What a look that failed has seen is there all the same.
        let mut result = self.flows(&mut observed);
        for v6 in [false, true] {
            result = self.volumes(v6, &mut observed).and(result);
        }
        result = self.ranges(&mut observed).and(result);
        self.readings.0.used.lock().extend(observed.volumes.iter().copied());
        (observed, result)
    }

    fn flows(&mut self, observed: &mut Observed) -> Result<(), NetlinkError> {
        let sessions = &self.readings.0.sessions;
        flows::dialled(&mut self.netlink, |pair| {
            // Not held from one flow to the next: the owner must not wait for who stands back.
            if observed.flows.len() < PAIRS && sessions.read().contains(&pair.0) {
                observed.flows.insert(pair);
            }
        })
    }

    fn volumes(&mut self, v6: bool, observed: &mut Observed) -> Result<(), NetlinkError> {
        // Both kinds have the same keys.
        let set = Set::family(Kind::Volumes, v6);
        let (mut held, whole) = self.elements(set)?;
        held.extend(self.elements(Set::family(Kind::Counts, v6))?.0);
        let of_family = |pair: &(IpAddr, IpAddr)| pair.0.is_ipv6() == v6;
        let mut now: HashMap<(IpAddr, IpAddr), u64> = HashMap::with_capacity(held.len());
        for held in held {
            let Some(parts) = held.key.parts(set) else { continue };
            let (Some(session), Some(destination), Some(volume)) = (parts.first, parts.second, held.volume) else {
                continue;
            };
            let pair = (session, destination);
            // A count may have begun before there was a limit.
            if now.contains_key(&pair) {
                continue;
            }
            let before = self.volumes.get(&pair).copied().unwrap_or(0);
            let used = octets(before, volume, whole);
            if now.len() < VOLUMES {
                now.insert(pair, used);
            }
            if used != before {
                observed.volumes.push(Used { session, destination, octets: volume.used, limit: volume.limit });
            }
        }
        self.volumes.retain(|pair, _| !of_family(pair));
        self.volumes.extend(now);
        Ok(())
    }

    fn ranges(&mut self, observed: &mut Observed) -> Result<(), NetlinkError> {
        let known = self.readings.0.ranges.lock().clone();
        let sets: HashSet<Set> = known.keys().map(|(set, _)| *set).collect();
        self.packets.retain(|key, _| known.contains_key(key));
        for set in sets {
            for held in self.elements(set)?.0 {
                let (key, packets) = ((set, held.key), held.packets.unwrap_or(0));
                if self.packets.insert(key, packets).unwrap_or(0) < packets
                    && let Some(id) = known.get(&key)
                    && !observed.ranges.contains(id)
                {
                    observed.ranges.push(*id);
                }
            }
        }
        Ok(())
    }

    /// What is read of a set, and whether the owner has not changed it meanwhile: where answers come all the time it always has.
    /// An element that is missed so is seen at the next look.
    fn elements(&mut self, set: Set) -> Result<(Vec<Held>, bool), NetlinkError> {
        let mut elements = Vec::new();
        let result = self.netlink.dump(
            SUBSYS | MSG_GETSETELEM,
            INET,
            |w| sets::write_name(w, &self.table, set.name()),
            |attributes| sets::read_elements(attributes, |held| elements.push(held)),
        );
        match result {
            // The table is gone for a moment, or for good: the owner sees to that.
            Err(error) if error.errno() == Some(libc::ENOENT) => Ok((Vec::new(), true)),
            Ok(()) => Ok((elements, true)),
            Err(NetlinkError::Interrupted) => Ok((elements, false)),
            Err(error) => Err(error),
        }
    }
}

/// What a pair has used by now, of what was read of it `before`. A count that has begun before there was a limit stays behind the
/// volume with the limit, which a reading that is not `whole` may have missed.
fn octets(before: u64, read: Volume, whole: bool) -> u64 {
    if whole || read.limit.is_some() { read.used } else { read.used.max(before) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reading_in_parts_takes_nothing_back() {
        let count = |used| Volume { limit: None, used };
        assert_eq!(octets(70, count(20), false), 70, "the volume with the limit was missed");
        assert_eq!((octets(70, count(20), true), octets(70, count(90), false)), (20, 90));
        assert_eq!(octets(70, Volume { limit: Some(500), used: 30 }, false), 30, "begun anew");
    }
}
