//! Keeps every transferred zone fresh: one task a zone, the last good copy on disk, and one snapshot of all zones in force.

use std::collections::HashMap;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use parking_lot::Mutex;
use serde::Serialize;
use staunch_scoring::NameRef;
use tokio::task::JoinHandle;

use super::notify::Bell;
use super::records::Copy;
use super::task::Task;
use super::{Primaries, Source, TsigKey, ZoneConfig, notify};
use crate::clock;
use crate::rpz::{Counters, Rules, Snapshot, Soa, Zone, process_key};
use crate::sparing::Sparing;

/// Puts zones in force.
type Publish = Box<dyn Fn(Snapshot) + Send + Sync>;
/// Tells somebody.
type Alarm = Box<dyn Fn(&str) + Send + Sync>;

/// A zone's copy in force.
#[derive(Clone)]
pub(super) struct Held {
    pub(super) copy: Arc<Copy>,
    pub(super) rules: Arc<Rules>,
    /// When a primary was last heard to have nothing newer, milliseconds since the Unix epoch.
    pub(super) checked: u64,
}

/// How a zone stands.
#[derive(Debug, Clone, Default, Serialize)]
pub struct ZoneStatus {
    /// Its name.
    pub zone: String,
    /// `file` or `primaries`.
    pub source: &'static str,
    /// Serial of the copy in force; nothing where there is none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub serial: Option<u32>,
    /// Triggers.
    pub rules: usize,
    /// Octets of the tables that queries are judged by.
    pub octets: usize,
    /// Octets of the copy that changes are applied to.
    #[serde(skip_serializing_if = "is_zero")]
    pub copy_octets: usize,
    /// Records that were left out because they have no meaning here.
    #[serde(skip_serializing_if = "is_zero_u32")]
    pub left_out: u32,
    /// When a primary was last heard to have nothing newer (RFC 3339).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub checked: Option<String>,
    /// Whether it is past the time that its SOA gives it.
    pub expired: bool,
    /// Transfers that were put in force.
    pub transfers: u64,
    /// Tries that failed.
    pub failures: u64,
    /// What went wrong last, until something goes right.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde hands in a reference")]
fn is_zero(n: &usize) -> bool {
    *n == 0
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde hands in a reference")]
fn is_zero_u32(n: &u32) -> bool {
    *n == 0
}

/// One zone.
pub(super) struct Slot {
    config: ZoneConfig,
    counters: Arc<Counters>,
    pub(super) held: Option<Held>,
    /// Whether the copy in force is not on disk yet. Outlives the task that is to write it, which a reload may end.
    pub(super) unwritten: bool,
    /// Held while a copy is written: a task that has ended may still be about it.
    pub(super) disk: Arc<Mutex<()>>,
    pub(super) expired: bool,
    told: Arc<Bell>,
    pub(super) transfers: u64,
    pub(super) failures: u64,
    pub(super) error: Option<String>,
    task: Option<JoinHandle<()>>,
}

/// What tasks share.
pub(super) struct Shared {
    dir: PathBuf,
    /// Held while a snapshot is put in force, so that a reload and a transfer cannot undo each other.
    slots: Mutex<Vec<Slot>>,
    publish: OnceLock<Publish>,
    alarm: OnceLock<Alarm>,
    refused_notifies: AtomicU64,
    /// Tells of those of primaries.
    pub(super) untaken: Sparing,
    /// The second in which a primary's NOTIFY came last, and how many of each in it.
    heard: Mutex<(u64, HashMap<IpAddr, u32>)>,
}

/// The keeper of all zones.
pub struct Keeper {
    pub(super) shared: Arc<Shared>,
    listeners: Mutex<Vec<JoinHandle<()>>>,
}

impl Keeper {
    /// Copies lie in `rpz` within `state_dir`. Asks nobody yet.
    pub fn new(state_dir: &Path) -> Self {
        let shared = Shared {
            dir: state_dir.join("rpz"),
            slots: Mutex::default(),
            publish: OnceLock::new(),
            alarm: OnceLock::new(),
            refused_notifies: AtomicU64::new(0),
            untaken: Sparing::new(),
            heard: Mutex::default(),
        };
        Self { shared: Arc::new(shared), listeners: Mutex::default() }
    }

    /// Where snapshots go, and what somebody should know. To be said once.
    pub fn tell(&self, publish: Publish, alarm: Alarm) {
        let _ = self.shared.publish.set(publish);
        let _ = self.shared.alarm.set(alarm);
    }

    /// Takes over a configuration: copies and counters of zones that stay are kept, the last good copies of new ones are read
    /// from disk. `put` puts the snapshot in force, together with all else of the configuration, before any transfer can.
    pub fn configure<T>(&self, zones: &[ZoneConfig], put: impl FnOnce(Snapshot) -> T) -> T {
        // Large copies take seconds to read, and tasks that questions wait behind take the lock.
        let read: Vec<_> = zones.iter().map(|config| self.shared.read_ahead(config)).collect();
        let mut slots = self.shared.slots.lock();
        let mut old = std::mem::take(&mut *slots);
        for (config, read) in zones.iter().zip(read) {
            let before = old.iter().position(|slot| slot.config.name == config.name).map(|at| old.swap_remove(at));
            slots.push(self.shared.slot(config, before, read));
        }
        for slot in old {
            if let Some(task) = slot.task {
                task.abort();
            }
        }
        put(self.shared.snapshot(&slots))
    }

    /// Begins to ask primaries, for every zone that nobody asks for yet. Within a runtime.
    pub fn start(&self) {
        for slot in self.shared.slots.lock().iter_mut() {
            let Source::Primaries(primaries) = &slot.config.source else { continue };
            if slot.task.is_none() {
                let task = Task {
                    shared: self.shared.clone(),
                    zone: slot.config.name.clone(),
                    primaries: primaries.clone(),
                    told: slot.told.clone(),
                };
                slot.task = Some(tokio::spawn(task.run()));
            }
        }
    }

    /// Takes NOTIFY messages from these sockets. Within a runtime.
    ///
    /// # Errors
    /// A socket cannot be taken over.
    pub fn listen(&self, udp: std::net::UdpSocket, tcp: std::net::TcpListener) -> std::io::Result<()> {
        udp.set_nonblocking(true)?;
        tcp.set_nonblocking(true)?;
        let (udp, tcp) = (tokio::net::UdpSocket::from_std(udp)?, tokio::net::TcpListener::from_std(tcp)?);
        let mut listeners = self.listeners.lock();
        listeners.push(tokio::spawn(notify::listen(udp, self.shared.clone())));
        listeners.push(tokio::spawn(notify::listen_tcp(tcp, self.shared.clone())));
        Ok(())
    }

    /// How each zone stands, in their order.
    pub fn status(&self) -> Vec<ZoneStatus> {
        self.shared.slots.lock().iter().map(Slot::status).collect()
    }

    /// What each zone's rules have done.
    pub fn counters(&self) -> Vec<(Arc<str>, Arc<Counters>)> {
        let slots = self.shared.slots.lock();
        slots.iter().map(|slot| (slot.config.settings.id.clone(), slot.counters.clone())).collect()
    }

    /// NOTIFY messages that were nobody's, or not signed as they must be.
    pub fn refused_notifies(&self) -> u64 {
        self.shared.refused_notifies.load(Ordering::Relaxed)
    }

    /// Ends all tasks.
    pub fn stop(&self) {
        for slot in self.shared.slots.lock().iter_mut() {
            if let Some(task) = slot.task.take() {
                task.abort();
            }
        }
        for listener in self.listeners.lock().drain(..) {
            listener.abort();
        }
    }
}

impl Slot {
    pub(super) fn soa(&self) -> Option<Soa> {
        self.held.as_ref().map(|held| held.rules.soa())
    }

    fn status(&self) -> ZoneStatus {
        let rules = match (&self.config.source, &self.held) {
            (Source::File(rules), _) => Some(rules),
            (Source::Primaries(_), held) => held.as_ref().map(|held| &held.rules),
        };
        ZoneStatus {
            zone: self.config.name.to_string(),
            source: match self.config.source {
                Source::File(_) => "file",
                Source::Primaries(_) => "primaries",
            },
            serial: rules.map(|rules| rules.soa().serial),
            rules: rules.map_or(0, |rules| rules.len()),
            octets: rules.map_or(0, |rules| rules.octets()),
            copy_octets: self.held.as_ref().map_or(0, |held| held.copy.records.octets()),
            left_out: rules.map_or(0, |rules| rules.left_out()),
            checked: self.held.as_ref().map(|held| crate::telemetry::rfc3339(held.checked)),
            expired: self.expired,
            transfers: self.transfers,
            failures: self.failures,
            error: self.error.clone(),
        }
    }
}

/// What a new configuration makes of a zone's copy.
struct ReadAhead {
    /// The copy it was made of; nothing where that is the one on disk.
    of: Option<Arc<Copy>>,
    held: Option<Held>,
}

impl Shared {
    /// Reads what a new configuration of this zone needs, without holding anybody up.
    fn read_ahead(&self, config: &ZoneConfig) -> ReadAhead {
        let none = ReadAhead { of: None, held: None };
        let Source::Primaries(primaries) = &config.source else { return none };
        let before = {
            let slots = self.slots.lock();
            let slot = slots.iter().find(|slot| slot.config.name == config.name);
            slot.and_then(|slot| Some((slot.held.clone()?, slot.config.source.asks_as(&config.source))))
        };
        match before {
            Some((_, true)) => none,
            Some((held, false)) => {
                ReadAhead { of: Some(held.copy.clone()), held: Some(self.made_anew(config, primaries, held)) }
            }
            None => ReadAhead { of: None, held: self.last_good(config, primaries) },
        }
    }

    fn slot(&self, config: &ZoneConfig, before: Option<Slot>, read: ReadAhead) -> Slot {
        let mut slot = before.unwrap_or_else(|| Slot {
            config: config.clone(),
            counters: Arc::default(),
            held: None,
            unwritten: false,
            disk: Arc::default(),
            expired: false,
            told: Arc::default(),
            transfers: 0,
            failures: 0,
            error: None,
            task: None,
        });
        let is_same = slot.config.source.asks_as(&config.source);
        if !is_same && let Some(task) = slot.task.take() {
            task.abort();
        }
        slot.config = config.clone();
        // What is read from disk is there.
        slot.unwritten &= slot.held.is_some() && matches!(config.source, Source::Primaries(_));
        slot.held = match (&config.source, slot.held.take()) {
            (Source::File(_), _) => {
                slot.expired = false;
                None
            }
            (Source::Primaries(_), None) => read.held,
            (Source::Primaries(_), Some(held)) if is_same => Some(held),
            // What is left out may have changed, so its rules are made anew.
            (Source::Primaries(primaries), Some(held)) => match (read.of, read.held) {
                (Some(of), Some(anew)) if Arc::ptr_eq(&of, &held.copy) => Some(Held { checked: held.checked, ..anew }),
                // Transferred since it was read.
                _ => Some(self.made_anew(config, primaries, held)),
            },
        };
        slot
    }

    fn made_anew(&self, config: &ZoneConfig, primaries: &Primaries, held: Held) -> Held {
        let (name, file) = (config.name.as_ref(), self.file(config.name.as_ref()));
        match held.copy.rules(name, &file.display().to_string(), process_key(), primaries.lenient) {
            Ok(rules) => Held { rules: Arc::new(rules), ..held },
            Err(errors) => {
                tracing::error!(zone = %name, %errors, "the copy in force stays although the new settings refuse it");
                held
            }
        }
    }

    pub(super) fn file(&self, zone: NameRef<'_>) -> PathBuf {
        // A host name, as the configuration has checked.
        self.dir.join(format!("{zone}.zone"))
    }

    /// The last good copy on disk, if there is one that reads.
    fn last_good(&self, config: &ZoneConfig, primaries: &Primaries) -> Option<Held> {
        let (name, file) = (config.name.as_ref(), self.file(config.name.as_ref()));
        let octets = match std::fs::read(&file) {
            Ok(octets) => octets,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return None,
            Err(error) => {
                tracing::error!(zone = %name, %error, "the last good copy cannot be read");
                return None;
            }
        };
        let shown = file.display().to_string();
        let read = Copy::read(&octets, name, primaries.max_octets).and_then(|copy| {
            let rules = copy.rules(name, &shown, process_key(), primaries.lenient).map_err(|e| e.to_string())?;
            Ok((copy, rules))
        });
        match read {
            Ok((copy, rules)) => {
                let checked = std::fs::metadata(&file).and_then(|m| m.modified()).ok();
                let checked = checked.and_then(|at| at.duration_since(std::time::UNIX_EPOCH).ok());
                // A file of a clock that was ahead would never expire.
                let checked = checked.map_or(0, |since| since.as_millis() as u64).min(clock::now().wall.steady);
                Some(Held { copy: Arc::new(copy), rules: Arc::new(rules), checked })
            }
            Err(error) => {
                tracing::error!(zone = %name, error, "the last good copy is damaged");
                None
            }
        }
    }

    fn snapshot(&self, slots: &[Slot]) -> Snapshot {
        Snapshot::new(slots.iter().map(|slot| {
            let empty = || Arc::new(Rules::empty(slot.config.name.as_ref(), *process_key()));
            let (rules, awaited) = match (&slot.config.source, &slot.held) {
                (Source::File(rules), _) => (rules.clone(), false),
                (Source::Primaries(primaries), Some(_)) if slot.expired && !primaries.keep_expired => (empty(), false),
                (Source::Primaries(_), Some(held)) => (held.rules.clone(), false),
                (Source::Primaries(primaries), None) => (empty(), primaries.required),
            };
            Zone { settings: slot.config.settings.clone(), rules, counters: slot.counters.clone(), awaited }
        }))
    }

    /// Changes one zone and puts all in force. `None`: the zone is no longer there.
    pub(super) fn change<T>(&self, zone: NameRef<'_>, change: impl FnOnce(&mut Slot) -> (T, bool)) -> Option<T> {
        let mut slots = self.slots.lock();
        let slot = slots.iter_mut().find(|slot| slot.config.name.as_ref() == zone)?;
        let (value, publish) = change(slot);
        if publish && let Some(put) = self.publish.get() {
            put(self.snapshot(&slots));
        }
        Some(value)
    }

    pub(super) fn alarm(&self, text: &str) {
        if let Some(alarm) = self.alarm.get() {
            alarm(text);
        }
    }

    pub(super) fn count_refused_notify(&self) {
        self.refused_notifies.fetch_add(1, Ordering::Relaxed);
    }

    /// One more message of a primary in this second: how many there were of it. There are no more of them than are written.
    pub(super) fn heard_in(&self, second: u64, primary: IpAddr) -> u32 {
        let mut heard = self.heard.lock();
        if heard.0 != second {
            heard.0 = second;
            heard.1.clear();
        }
        let count = heard.1.entry(primary).or_default();
        *count = count.saturating_add(1);
        *count
    }

    /// Whether `address` is a primary of any zone.
    pub(super) fn has_primary(&self, address: IpAddr) -> bool {
        self.slots.lock().iter().any(|slot| match &slot.config.source {
            Source::Primaries(primaries) => notify::is_primary(&primaries.servers, address),
            Source::File(_) => false,
        })
    }

    /// Key and bell of a zone that `address` is a primary of.
    pub(super) fn primary_of(&self, zone: NameRef<'_>, address: IpAddr) -> Option<(Option<TsigKey>, Arc<Bell>)> {
        let slots = self.slots.lock();
        let slot = slots.iter().find(|slot| slot.config.name.as_ref() == zone)?;
        let Source::Primaries(primaries) = &slot.config.source else { return None };
        notify::is_primary(&primaries.servers, address).then(|| (primaries.tsig.clone(), slot.told.clone()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::transfer::zone_for_test::{primaries, zone};

    #[test]
    fn a_copy_from_a_clock_that_was_ahead_is_of_now() {
        let dir = tempfile::tempdir().expect("directory");
        let keeper = Keeper::new(dir.path());
        let config = zone(primaries(Vec::new()));
        let file = keeper.shared.file(config.name.as_ref());
        std::fs::create_dir(file.parent().expect("a directory")).expect("made");
        let text = "rpz.test. 60 IN SOA ns.test. h.test. 7 3600 600 86400 60\na.rpz.test. 60 IN CNAME .\n";
        for (ahead, day) in [(-1, true), (0, false), (3650, false)] {
            std::fs::write(&file, text).expect("written");
            let written = std::fs::File::options().append(true).open(&file).expect("opens");
            let days = std::time::Duration::from_secs(86_400 * i64::unsigned_abs(ahead));
            let now = std::time::SystemTime::now();
            written.set_modified(if ahead < 0 { now - days } else { now + days }).expect("set");
            keeper.configure(&[], |_| ());
            keeper.configure(std::slice::from_ref(&config), |_| ());
            let slots = keeper.shared.slots.lock();
            let checked = slots[0].held.as_ref().expect("a copy").checked;
            let age = clock::now().wall.steady.checked_sub(checked).expect("not ahead of now");
            assert_eq!(age >= 86_399_000, day, "{ahead} days ahead");
            assert!(age < 86_500_000, "{ahead} days ahead: {age}");
        }
    }

    #[test]
    fn a_copy_that_takes_long_to_read_holds_nobody_up() {
        let dir = tempfile::tempdir().expect("directory");
        let keeper = Keeper::new(dir.path());
        let config = zone(Primaries { keep_expired: false, ..primaries(Vec::new()) });
        // Who reads a pipe waits until somebody writes, and who opens it to write waits until somebody reads.
        let pipe = keeper.shared.file(config.name.as_ref());
        std::fs::create_dir(pipe.parent().expect("a directory")).expect("made");
        let path = std::ffi::CString::new(pipe.as_os_str().as_encoded_bytes()).expect("a path");
        // SAFETY: the pointer is to a NUL-terminated string that lives until the call is over.
        assert_eq!(unsafe { libc::mkfifo(path.as_ptr(), 0o600) }, 0);
        std::thread::scope(|scope| {
            let configured = scope.spawn(|| keeper.configure(&[config], |_| ()));
            let mut writer = std::fs::OpenOptions::new().write(true).open(&pipe).expect("it is read");
            let is_free = keeper.shared.slots.try_lock().is_some();
            let zone = "rpz.test. 60 IN SOA ns.test. h.test. 7 3600 600 86400 60\na.rpz.test. 60 IN CNAME .\n";
            std::io::Write::write_all(&mut writer, zone.as_bytes()).expect("written");
            drop(writer);
            configured.join().expect("configured");
            assert!(is_free, "whoever takes the lock meanwhile waits for the file");
        });
        assert_eq!(keeper.status()[0].serial, Some(7));
    }
}
