//! The enforcer's process: one thread that drives the packet filter and answers one resolver.
//!
//! Waits with poll(2), never in a read or a write: a resolver that neither reads nor speaks must not keep the table from
//! being looked after. An answer that it does not take is waited for, and nothing is read meanwhile.

use std::io::{self, Read, Write};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use super::frame::{self, Incoming};
use super::peer::{self, Peers};
use super::privilege;
use super::session::{Mailbox, Session};
use crate::enforce::owner::{self, CHECK_EVERY};
use crate::enforce::wire::{Fault, Reply, Request};
use crate::enforce::{Backend, Config, Error, Health, Tell};

/// A look may be this old to answer whether all stands.
const FRESH: Duration = Duration::from_millis(5);
/// A resolver speaks every 50 ms; behind so much silence another one may come. Nothing is opened by it.
const SILENCE_MAX: Duration = Duration::from_secs(2);
/// Time to say who one is.
const HELLO_MAX: Duration = Duration::from_secs(1);
/// Octets read at once.
const READ: usize = 64 * 1024;
/// Requests answered in a row before everything else is looked at.
const ROW: usize = 64;
/// Refusals of connections logged, at most one in this time.
const LOG_EVERY: Duration = Duration::from_secs(1);

/// What the enforcer runs by.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The packet filter, as the resolver's file has it.
    pub enforce: Config,
    /// Where to listen.
    pub socket: PathBuf,
    /// Group of the socket, which has mode 0660.
    pub group: Option<String>,
    /// Who may give orders.
    pub peers: Peers,
}

/// Runs until SIGTERM or SIGINT. The table stays and goes on refusing. `begun` is called once there may be further threads: they
/// inherit what signals are waited for, and what privileges are left.
///
/// # Errors
///
/// Where the socket cannot be had or the packet filter cannot be set up: without privilege, or while another process owns the
/// table.
pub fn run(settings: &Settings, begun: impl FnOnce()) -> Result<(), Error> {
    let io = |doing| move |source| Error::Io { doing, source };
    // Before there is a second thread, which would have them delivered.
    let signals = signals().map_err(io("wait for signals"))?;
    let listener = crate::local_socket::bind(&settings.socket, settings.group.as_deref())
        .map_err(|source| Error::Config(format!("socket {}: {source}", settings.socket.display())))?;
    listener.set_nonblocking(true).map_err(io("listen"))?;
    privilege::keep_only(privilege::TO_OPEN).map_err(io("give privileges away"))?;
    let mut backend = owner::in_process(&settings.enforce)?;
    privilege::keep_only(privilege::TO_RUN).map_err(io("give privileges away"))?;
    begun();
    backend.setup()?;
    let mailbox = Mailbox::default();
    let (wake, waker) = UnixStream::pair().map_err(io("make a pair of sockets"))?;
    for end in [&wake, &waker] {
        end.set_nonblocking(true).map_err(io("make a pair of sockets"))?;
    }
    let seen = mailbox.clone();
    // Full is as good as woken.
    backend.observe(Tell::new(move |observed| seen.put(observed), move || drop((&waker).write(&[1]))));
    let mut service = Service {
        listener,
        signals,
        wake,
        peers: settings.peers.clone(),
        config: settings.enforce.clone(),
        mailbox,
        backend,
        watch: Watch { checked: Instant::now(), standing: None, restored: false, stale: true },
        client: None,
        logged: None,
        watchdog: sd_notify::watchdog_enabled().map(|within| (within / 3, Instant::now())),
    };
    tracing::info!(socket = %settings.socket.display(), table = settings.enforce.table, "enforcer ready");
    // Fails only where no supervisor listens.
    let _ = sd_notify::notify(&[sd_notify::NotifyState::Ready]);
    service.run().map_err(io("wait for orders"))?;
    let _ = std::fs::remove_file(&settings.socket);
    tracing::info!("stopping; the table stays");
    service.backend.teardown(false)
}

/// A descriptor that is readable when the process is told to end.
fn signals() -> io::Result<OwnedFd> {
    // SAFETY: the set is initialised by sigemptyset before it is read, and lives through all calls; the descriptor is new and
    // nobody else's.
    unsafe {
        let mut set = std::mem::zeroed::<libc::sigset_t>();
        libc::sigemptyset(&raw mut set);
        libc::sigaddset(&raw mut set, libc::SIGTERM);
        libc::sigaddset(&raw mut set, libc::SIGINT);
        let result = libc::pthread_sigmask(libc::SIG_BLOCK, &raw const set, std::ptr::null_mut());
        if result != 0 {
            return Err(io::Error::from_raw_os_error(result));
        }
        match libc::signalfd(-1, &raw const set, libc::SFD_CLOEXEC | libc::SFD_NONBLOCK) {
            -1 => Err(io::Error::last_os_error()),
            descriptor => Ok(OwnedFd::from_raw_fd(descriptor)),
        }
    }
}

struct Service {
    listener: UnixListener,
    signals: OwnedFd,
    wake: UnixStream,
    peers: Peers,
    config: Config,
    mailbox: Mailbox,
    backend: Box<dyn Backend>,
    watch: Watch,
    client: Option<Client>,
    logged: Option<Instant>,
    /// How often the supervisor is told that this thread turns, where it asks for it, and when it was told last.
    watchdog: Option<(Duration, Instant)>,
}

/// How the packet filter stood when it was last looked at.
struct Watch {
    checked: Instant,
    standing: Option<Fault>,
    /// Put back since this was last told.
    restored: bool,
    /// Something has failed since.
    stale: bool,
}

impl Watch {
    fn look(&mut self, backend: &mut dyn Backend) {
        let result = backend.healthy();
        let was = self.standing.take();
        self.standing = result.as_ref().err().map(Fault::from);
        match (&result, &was) {
            (Err(error), None) => tracing::warn!(%error, "packet filter is not in place"),
            (Ok(_), Some(_)) => tracing::warn!("packet filter stands again"),
            (Ok(Health::Restored), None) => tracing::warn!("packet filter was not as ordered; put back"),
            _ => {}
        }
        self.restored |= matches!(result, Ok(Health::Restored));
        (self.checked, self.stale) = (Instant::now(), false);
    }

    fn tell(&mut self, backend: &mut dyn Backend) -> Result<Health, Error> {
        if self.stale || self.checked.elapsed() >= FRESH {
            self.look(backend);
        }
        match &self.standing {
            Some(fault) => Err(fault.clone().into()),
            None if std::mem::take(&mut self.restored) => Ok(Health::Restored),
            None => Ok(Health::Intact),
        }
    }
}

/// The resolver.
struct Client {
    stream: UnixStream,
    process: i32,
    session: Session,
    incoming: Incoming,
    /// An answer on its way, and how much of it has gone.
    outgoing: Vec<u8>,
    sent: usize,
    /// Nothing follows the answer on its way.
    last: bool,
    /// When it was last heard, or took some of an answer.
    heard: Instant,
    /// Documents may be waiting that have been read already.
    more: bool,
}

impl Service {
    fn run(&mut self) -> io::Result<()> {
        loop {
            let busy = self.client.as_ref().is_some_and(|client| client.more && client.outgoing.is_empty());
            let patience = if busy { Duration::ZERO } else { CHECK_EVERY.saturating_sub(self.watch.checked.elapsed()) };
            let events = self.client.as_ref().map_or(0, Client::events);
            let client = self.client.as_ref().map_or(-1, |client| client.stream.as_raw_fd());
            let waited = [
                (self.signals.as_raw_fd(), libc::POLLIN),
                (self.wake.as_raw_fd(), libc::POLLIN),
                (client, events),
                (self.listener.as_raw_fd(), libc::POLLIN),
            ];
            let [ended, woken, spoken, called] = poll(waited, patience)?;
            if ended {
                return Ok(());
            }
            if woken {
                let mut nothing = [0; 64];
                while matches!((&self.wake).read(&mut nothing), Ok(count) if count > 0) {}
            }
            if (spoken || busy) && self.client.is_some() {
                self.serve();
            }
            if called {
                self.accept();
            }
            if woken || self.watch.checked.elapsed() >= CHECK_EVERY {
                self.watch.look(&mut *self.backend);
            }
            if let Some((every, told)) = &mut self.watchdog
                && told.elapsed() >= *every
            {
                *told = Instant::now();
                let _ = sd_notify::notify(&[sd_notify::NotifyState::Watchdog]);
            }
            if let Some(client) = &self.client
                && client.heard.elapsed() > if client.session.is_welcomed() { SILENCE_MAX } else { HELLO_MAX }
            {
                self.leave("it is silent");
            }
        }
    }

    /// Lets one resolver in.
    fn accept(&mut self) {
        // At most so many in a row: whoever calls in a loop must not keep the resolver waiting.
        for _ in 0..16 {
            let stream = match self.listener.accept() {
                Ok((stream, _)) => stream,
                Err(error) => {
                    if error.kind() != io::ErrorKind::WouldBlock {
                        self.log(&format!("a connection could not be taken: {error}"));
                    }
                    return;
                }
            };
            let (user, process) = match peer::of(&stream) {
                Ok(peer) => peer,
                Err(error) => {
                    self.log(&format!("whose a connection is cannot be told: {error}"));
                    continue;
                }
            };
            // One that has not greeted may have given up while it waited to be let in; it makes way.
            let served =
                self.client.as_ref().filter(|client| client.session.is_welcomed()).map(|client| client.process);
            let why = match served {
                _ if !self.peers.admit(user) => Some(format!("user {user} may not give orders")),
                Some(other) => Some(format!("process {other} is served already, and one resolver at a time")),
                None => None,
            };
            if stream.set_nonblocking(true).is_err() {
                continue;
            }
            if let Some(why) = why {
                self.log(&format!("process {process} of user {user} is refused: {why}"));
                if let Ok(octets) = frame::encode(&Reply::Refused { why }) {
                    let _ = (&stream).write(&octets);
                }
                continue;
            }
            let session = Session::new(&self.config, self.mailbox.clone());
            self.client = Some(Client {
                stream,
                process,
                session,
                incoming: Incoming::default(),
                outgoing: Vec::new(),
                sent: 0,
                last: false,
                heard: Instant::now(),
                more: false,
            });
        }
    }

    fn log(&mut self, what: &str) {
        if self.logged.is_none_or(|at| at.elapsed() >= LOG_EVERY) {
            self.logged = Some(Instant::now());
            tracing::warn!("{what}");
        }
    }

    /// Hears what the resolver has to say and answers it.
    fn serve(&mut self) {
        let Some(client) = &mut self.client else { return };
        let was_welcomed = client.session.is_welcomed();
        let result = client.serve(&mut *self.backend, &mut self.watch);
        if !was_welcomed && client.session.is_welcomed() {
            tracing::info!(process = client.process, "a resolver gives orders");
        }
        if let Err(error) = result {
            self.leave(&error.to_string());
        }
    }

    /// Nothing is opened or closed by it: leases end by themselves, guards and quarantines stay.
    fn leave(&mut self, why: &str) {
        let Some(client) = self.client.take() else { return };
        if client.session.is_welcomed() {
            tracing::warn!(process = client.process, why, "the resolver is gone; nothing new is opened");
        } else {
            let process = client.process;
            self.log(&format!("process {process} is let go: {why}"));
        }
    }
}

impl Client {
    fn events(&self) -> libc::c_short {
        if self.outgoing.is_empty() { libc::POLLIN } else { libc::POLLOUT }
    }

    fn serve(&mut self, backend: &mut dyn Backend, watch: &mut Watch) -> io::Result<()> {
        self.flush()?;
        if !self.outgoing.is_empty() {
            return Ok(());
        }
        // Not before what was read is answered: whoever asks faster than is answered must not fill memory.
        if !self.more {
            let mut buffer = [0; READ];
            match self.stream.read(&mut buffer) {
                Ok(0) => return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "it has closed the connection")),
                Ok(count) => self.incoming.push(buffer.get(..count).unwrap_or_default()),
                Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {}
                Err(error) => return Err(error),
            }
        }
        for _ in 0..ROW {
            let Some(request) = self.incoming.take::<Request>().map_err(io::Error::other)? else {
                self.more = false;
                return Ok(());
            };
            let answer = self.session.answer(request, backend, &mut |backend| watch.tell(backend));
            watch.stale |= match &answer.reply {
                Reply::Results { results } => results.iter().any(Option::is_some),
                Reply::Done { fault } => fault.is_some(),
                _ => false,
            };
            let octets = frame::encode(&answer.reply)
                .or_else(|error| frame::encode(&Reply::Refused { why: format!("the answer cannot be sent: {error}") }));
            self.outgoing = octets.map_err(io::Error::other)?;
            (self.sent, self.last, self.heard) = (0, answer.last, Instant::now());
            self.flush()?;
            if !self.outgoing.is_empty() {
                break;
            }
        }
        self.more = true;
        Ok(())
    }

    /// Sends as much of an answer as the resolver takes.
    fn flush(&mut self) -> io::Result<()> {
        while let Some(rest) = self.outgoing.get(self.sent..).filter(|rest| !rest.is_empty()) {
            match self.stream.write(rest) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(count) => {
                    self.sent += count;
                    self.heard = Instant::now();
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        self.outgoing.clear();
        self.sent = 0;
        if self.last {
            return Err(io::Error::other("it was refused"));
        }
        Ok(())
    }
}

/// Waits until something can be done with one of these descriptors; which.
fn poll<const N: usize>(waited: [(RawFd, libc::c_short); N], patience: Duration) -> io::Result<[bool; N]> {
    let mut descriptors = waited.map(|(fd, events)| libc::pollfd { fd, events, revents: 0 });
    // Rounded up, so that it does not turn in place for the last part of a millisecond.
    let timeout = i32::try_from(patience.as_micros().div_ceil(1000)).unwrap_or(i32::MAX);
    // SAFETY: the array is valid for its length; descriptors below 0 are skipped by the kernel.
    let count = unsafe { libc::poll(descriptors.as_mut_ptr(), N as libc::nfds_t, timeout) };
    if count < 0 {
        let error = io::Error::last_os_error();
        return if error.kind() == io::ErrorKind::Interrupted { Ok([false; N]) } else { Err(error) };
    }
    Ok(descriptors.map(|descriptor| descriptor.revents != 0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::enforce::wire::VERSION;
    use crate::enforce::{BackendKind, DryRun};

    /// A resolver that asks without end, and hears answers or does not.
    #[test]
    fn whoever_asks_faster_than_is_answered_fills_no_memory() {
        let config = Config {
            backend: BackendKind::DryRun,
            table: "test".into(),
            interfaces: Vec::new(),
            guard_unknown: false,
            deadline: Duration::from_secs(1),
            queue: 16,
            capacity: 100,
            own_table: true,
            journal: None,
            outside: Default::default(),
        };
        for hears in [true, false] {
            let (here, there) = UnixStream::pair().expect("a pair");
            here.set_nonblocking(true).expect("set");
            let mut client = Client {
                stream: here,
                process: 0,
                session: Session::new(&config, Mailbox::default()),
                incoming: Incoming::default(),
                outgoing: Vec::new(),
                sent: 0,
                last: false,
                heard: Instant::now(),
                more: false,
            };
            let hello = Request::Hello {
                version: VERSION,
                product: "test".into(),
                table: "test".into(),
                settings: super::super::settings_digest(&config),
            };
            let health = frame::encode(&Request::Health).expect("fits").repeat(1000);
            let mut asks = there.try_clone().expect("a second handle");
            let asking = std::thread::spawn(move || {
                asks.write_all(&frame::encode(&hello).expect("fits")).expect("greets");
                for _ in 0..20 {
                    if asks.write_all(&health).is_err() {
                        break;
                    }
                }
                let _ = asks.shutdown(std::net::Shutdown::Write);
            });
            let hearing = hears.then(|| {
                let mut hears = there.try_clone().expect("a third handle");
                std::thread::spawn(move || io::copy(&mut hears, &mut io::sink()))
            });
            let mut backend = DryRun::new(100);
            let mut watch = Watch { checked: Instant::now(), standing: None, restored: false, stale: true };
            let begun = Instant::now();
            // Ends when all is answered, or when nothing is taken any more.
            while client.serve(&mut backend, &mut watch).is_ok() {
                assert!(client.incoming.kept() <= 2 * READ, "{} octets are kept", client.incoming.kept());
                assert!(begun.elapsed() < Duration::from_secs(30), "never ends");
                if !hears && begun.elapsed() > Duration::from_millis(300) {
                    assert!(!client.outgoing.is_empty() && client.events() == libc::POLLOUT, "reads what nobody hears");
                    break;
                }
            }
            assert!(client.session.is_welcomed());
            drop((client, there));
            asking.join().expect("ends");
            if let Some(hearing) = hearing {
                drop(hearing.join());
            }
        }
    }
}
