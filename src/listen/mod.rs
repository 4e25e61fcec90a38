//! Listening: datagrams and connections in, replies out. Knows the packet and who sent it, nothing of policy.
//!
//! [`udp`] and [`tcp`] hand every message to [`Service::fast`], which [`crate::pipeline`] implements; what it defers
//! goes through one bounded queue ([`dispatch`]) to [`Service::finish`]. Clocks are read here ([`crate::clock`]) and handed
//! down.
//!
//! Invariant: every message that [`Service`] wants answered is answered once, with SERVFAIL if the queue is full or
//! the judgement panics; nothing here waits for a stub, and nothing a stub does grows without a limit of [`Config`].

// Octets from outside are read here: nothing may panic on them.
#![cfg_attr(
    not(test),
    warn(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic,
        clippy::unreachable,
        clippy::indexing_slicing,
        clippy::string_slice
    )
)]

use std::future::Future;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::{Notify, Semaphore, watch};

use crate::model::{Now, Transport};
use crate::range::prefix_of;

mod bar;
mod counters;
mod crowd;
mod dispatch;
mod fair;
mod gather;
mod inherited;
mod mmsg;
mod tcp;
mod udp;

pub use counters::Counters;
pub use inherited::{Inherited, InheritedError};

/// Settings of this stage.
#[derive(Debug, Clone)]
pub struct Config {
    /// Addresses to serve, UDP and TCP alike.
    pub addresses: Vec<SocketAddr>,
    /// UDP worker threads for each address; 0 means one a core.
    pub workers: usize,
    /// Queries that may wait for the slow path; when full they are answered SERVFAIL at once.
    pub queue: usize,
    /// Queries in the slow path at once.
    pub in_flight: usize,
    /// TCP connections at once, all sources.
    pub tcp_connections: usize,
    /// TCP connections at once of one client, all its addresses together.
    pub tcp_per_source: usize,
    /// A connection that says nothing for this long is closed.
    pub tcp_idle: Duration,
}

impl Config {
    /// UDP worker threads of each address.
    pub fn workers_each(&self) -> usize {
        match self.workers {
            0 => std::thread::available_parallelism().map_or(1, usize::from),
            workers => workers,
        }
    }
}

/// What stands for all addresses of one client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Home {
    /// One of its addresses, always the same one.
    pub address: IpAddr,
    /// Whether the client is known: those who are not have limits together.
    pub announced: bool,
}

/// What a listener needs from the rest: [`crate::pipeline`] implements it.
pub trait Service: Send + Sync + 'static {
    /// A query that could not be answered on the spot.
    type Deferred: Send + 'static;

    /// Judges one packet without waiting for anything. Writes the reply, if there is one, into `out` (cleared by the
    /// caller, at least 65,535 octets of room for TCP and 1,232 for UDP).
    fn fast(
        &self,
        packet: &[u8],
        from: SocketAddr,
        transport: Transport,
        now: Now,
        out: &mut Vec<u8>,
    ) -> Fast<Self::Deferred>;

    /// Finishes a deferred query; `None` means that nothing is to be sent.
    fn finish(&self, deferred: Self::Deferred) -> impl Future<Output = Option<Vec<u8>>> + Send;

    /// Writes the reply for a query that found the queue full: SERVFAIL with a reason.
    fn overloaded(&self, deferred: Self::Deferred, out: &mut Vec<u8>);

    /// By what the connections of a client at `from` are counted. Unless the service knows better, each address stands for
    /// itself, and those of an IPv6 /64 for each other, since one host may use any of them.
    fn home(&self, from: IpAddr) -> Home {
        Home { address: prefix_of(from.to_canonical(), (32, 64)), announced: true }
    }
}

/// Outcome of [`Service::fast`].
#[derive(Debug)]
pub enum Fast<D> {
    /// The reply is in the buffer.
    Reply,
    /// Nothing is sent.
    Drop,
    /// To be finished by [`Service::finish`].
    Deferred(D),
}

/// Why listening could not start.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No address is configured.
    #[error("no address to listen on")]
    NoAddress,
    /// An address could not be had, for example because another resolver serves it.
    #[error("cannot listen on {address} ({transport:?})")]
    Bind {
        /// The address.
        address: SocketAddr,
        /// Datagrams or connections.
        transport: Transport,
        /// What the system said.
        source: io::Error,
    },
    /// A worker thread could not be started.
    #[error("cannot start a worker thread")]
    Thread(#[source] io::Error),
    /// Sockets that were handed to us do not fit the configuration.
    #[error(transparent)]
    Inherited(#[from] InheritedError),
}

/// How often a free port is looked for that both transports can have, where port 0 is asked for.
const PORT_TRIES: usize = 16;

/// Open sockets and what serves them. Dropping it stops serving without waiting.
#[derive(Debug)]
pub struct Listener {
    addresses: Vec<SocketAddr>,
    counters: Arc<Counters>,
    quit: Arc<AtomicBool>,
    stop: watch::Sender<bool>,
    workers: Vec<JoinHandle<()>>,
    beats: Vec<Arc<AtomicU64>>,
    tasks: Vec<tokio::task::JoinHandle<()>>,
    /// Nothing new comes in any more.
    quiet: Arc<Notify>,
    /// Ends when the slow path has nothing left to do behind that.
    drained: tokio::task::JoinHandle<()>,
}

impl Listener {
    /// Opens every address for both transports and serves it: datagrams on threads, connections and the slow path on
    /// `runtime`.
    ///
    /// # Errors
    /// If an address is taken or not ours, no address is given, or a thread cannot be started; nothing is served then.
    pub fn start<S: Service>(config: &Config, service: Arc<S>, runtime: &Handle) -> Result<Self, Error> {
        Self::start_with(config, Inherited::default(), service, runtime)
    }

    /// As [`Listener::start`], with sockets that are open already in the place of those that would be opened.
    ///
    /// # Errors
    /// As [`Listener::start`], and if one of `inherited` is left over.
    pub fn start_with<S: Service>(
        config: &Config,
        mut inherited: Inherited,
        service: Arc<S>,
        runtime: &Handle,
    ) -> Result<Self, Error> {
        if config.addresses.is_empty() {
            return Err(Error::NoAddress);
        }
        let workers = config.workers_each();
        let open = config.addresses.iter().map(|address| Sockets::open(*address, workers, &mut inherited));
        let sockets = open.collect::<Result<Vec<_>, _>>()?;
        inherited.all_taken()?;

        let counters = Arc::new(Counters::default());
        let (stop, stopped) = watch::channel(false);
        let (owned, handle) = (Arc::clone(&service), runtime.clone());
        let slow = dispatch::Slow::new(owned, handle, Arc::clone(&counters), config.queue, config.in_flight);
        let slow = Arc::new(slow);
        let quiet = Arc::new(Notify::new());
        let drained = {
            let (quiet, slow) = (Arc::clone(&quiet), Arc::clone(&slow));
            runtime.spawn(async move {
                quiet.notified().await;
                slow.drained().await;
            })
        };
        let mut listener = Self {
            addresses: sockets.iter().map(|sockets| sockets.address).collect(),
            counters: Arc::clone(&counters),
            quit: Arc::new(AtomicBool::new(false)),
            stop,
            workers: Vec::new(),
            beats: Vec::new(),
            tasks: Vec::new(),
            quiet,
            drained,
        };
        let shared = Arc::new(tcp::Shared {
            service: Arc::clone(&service),
            slow: Arc::clone(&slow),
            counters: Arc::clone(&counters),
            table: tcp::Table::new(config.tcp_connections, config.tcp_per_source),
            open: Arc::new(Semaphore::new(tcp::sockets(config.tcp_connections))),
            idle: config.tcp_idle,
            stop: stopped,
        });
        for Sockets { address, tcp, udp, own } in sockets {
            let bind_error = |source| Error::Bind { address, transport: Transport::Tcp, source };
            let accepting = {
                let _inside = runtime.enter();
                tokio::net::TcpListener::from_std(tcp).map_err(bind_error)?
            };
            listener.tasks.push(runtime.spawn(tcp::accept(accepting, Arc::clone(&shared))));
            for (i, socket) in udp.into_iter().enumerate() {
                let beat = Arc::new(AtomicU64::new(0));
                listener.beats.push(Arc::clone(&beat));
                let worker = udp::Worker {
                    beat,
                    socket: Arc::new(socket),
                    service: Arc::clone(&service),
                    slow: Arc::clone(&slow),
                    counters: Arc::clone(&counters),
                    stop: Arc::clone(&listener.quit),
                    bars: i < own,
                };
                let thread = std::thread::Builder::new().name(format!("udp-{i}"));
                listener.workers.push(thread.spawn(move || worker.run()).map_err(Error::Thread)?);
            }
            tracing::info!(%address, workers, "listening");
        }
        Ok(listener)
    }

    /// The addresses served, in the order of the configuration, with the ports chosen where 0 was asked for.
    pub fn local_addrs(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// What was counted so far.
    pub fn counters(&self) -> &Arc<Counters> {
        &self.counters
    }

    /// A count for each UDP worker that rises at least ten times a second while the worker is well.
    pub fn beats(&self) -> &[Arc<AtomicU64>] {
        &self.beats
    }

    /// Workers that have ended, which none does by itself before [`Listener::shutdown`], by their places in [`Self::beats`].
    pub fn ended(&self) -> impl Iterator<Item = usize> {
        self.workers.iter().enumerate().filter(|(_, worker)| worker.is_finished()).map(|(place, _)| place)
    }

    /// Stops taking queries, lets those in the slow path finish for a few seconds, and returns when all sockets are
    /// closed.
    pub async fn shutdown(mut self) {
        self.end();
        let workers = std::mem::take(&mut self.workers);
        // Joining blocks for up to a tenth of a second.
        let joined =
            tokio::task::spawn_blocking(move || workers.into_iter().filter_map(|worker| worker.join().err()).count());
        if joined.await.is_ok_and(|panicked| panicked > 0) {
            tracing::error!("a worker thread had panicked");
        }
        for task in std::mem::take(&mut self.tasks) {
            let _ = task.await;
        }
        self.quiet.notify_one();
        let _ = (&mut self.drained).await;
    }

    fn end(&self) {
        self.quit.store(true, Relaxed);
        self.stop.send_replace(true);
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.end();
        self.quiet.notify_one();
    }
}

/// The sockets of one address.
struct Sockets {
    address: SocketAddr,
    tcp: std::net::TcpListener,
    udp: Vec<std::net::UdpSocket>,
    /// How many of them are sockets of their own; those behind are the same ones again.
    own: usize,
}

impl Sockets {
    /// Opens the listening socket first: it is exclusive, so that a second instance fails here instead of taking half
    /// of the datagrams.
    ///
    /// An inherited socket for datagrams is shared by all workers: another one beside it would take its part of the queue
    /// with it at a restart.
    fn open(asked: SocketAddr, workers: usize, inherited: &mut Inherited) -> Result<Self, Error> {
        let (tcp, udp) = inherited.take(asked);
        if tcp.is_some() || !udp.is_empty() {
            let error = |transport| move |source| Error::Bind { address: asked, transport, source };
            let tcp = tcp.map_or_else(|| tcp::bind(asked), tcp::take_over).map_err(error(Transport::Tcp))?;
            let own = if udp.is_empty() { workers.max(1) } else { udp.len() };
            let udp = match udp.is_empty() {
                true => (0..own).map(|_| udp::bind(asked)).collect(),
                false => udp::share(udp, workers),
            };
            return Ok(Self { address: asked, tcp, udp: udp.map_err(error(Transport::Udp))?, own });
        }
        let mut tries = if asked.port() == 0 { PORT_TRIES } else { 1 };
        loop {
            tries -= 1;
            let error = |transport| move |source| Error::Bind { address: asked, transport, source };
            let tcp = tcp::bind(asked).map_err(error(Transport::Tcp))?;
            let address = tcp.local_addr().map_err(error(Transport::Tcp))?;
            let own = workers.max(1);
            match (0..own).map(|_| udp::bind(address)).collect() {
                Ok(udp) => return Ok(Self { address, tcp, udp, own }),
                // The port is free for connections and taken for datagrams: look for another.
                Err(_) if tries > 0 => {}
                Err(source) => return Err(error(Transport::Udp)(source)),
            }
        }
    }
}
