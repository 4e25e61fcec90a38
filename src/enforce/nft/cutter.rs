//! Ends flows that have no pin, on a thread of its own.
//!
//! The kernel walks its whole flow table for one question (18 ms were measured on an empty one), and pins of other
//! sessions must not wait for that. Nor need a revoke: from its acknowledgement on the rules refuse every packet of
//! such a flow. What follows here within moments makes sure that nothing of it is `established` any more when the
//! session is released, and that both ends hear of it.
//!
//! Whether a flow has a pin is asked of the kernel when the flow is found, and not when the order is given: a client may
//! dial between the two, and a flow that was opened with a pin is never ended by an order from before.

use std::collections::{HashMap, HashSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::super::netlink::{Netlink, NetlinkError, Writer};
use super::flows::{self, Flow};
use super::kernel;
use super::resets::Resets;
use super::sets::{self, Element, Kind, MSG_GETSETELEM, Set};
use super::watch::{INET, SUBSYS};
use crate::enforce::Error;

/// Lists of orders that may wait. A session that is refused this service is counted as an error and stays refused by
/// the rules.
const QUEUE: usize = 4096;
/// From so many sessions on, one pass over all flows is cheaper than two filtered ones for each.
const MANY: usize = 4;
/// Longest pause after a pass: flows must end within a second of their order.
const PAUSE_MAX: Duration = Duration::from_millis(200);
/// Most sessions looked after in one pass.
const BATCH: usize = 16_384;

/// Handle to the thread.
#[derive(Debug)]
pub(super) struct Cutter {
    orders: Option<SyncSender<Vec<IpAddr>>>,
    thread: Option<JoinHandle<()>>,
    counters: Arc<Counters>,
}

#[derive(Debug, Default)]
struct Counters {
    cut: AtomicU64,
    errors: AtomicU64,
}

impl Cutter {
    /// Opens the sockets and starts the thread, both in the calling thread's network namespace.
    pub(super) fn start(table: String) -> Result<Self, Error> {
        let netlink = super::open()?;
        let counters = Arc::new(Counters::default());
        let (orders, queue) = sync_channel(QUEUE);
        let worker = Worker {
            netlink,
            table,
            resets: Resets::open(),
            counters: Arc::clone(&counters),
            local: LocalAddresses::default(),
        };
        let thread = std::thread::Builder::new()
            .name("enforce-flows".into())
            .spawn(move || worker.run(queue))
            .map_err(|source| Error::Io { doing: "start the thread that ends flows", source })?;
        Ok(Self { orders: Some(orders), thread: Some(thread), counters })
    }

    /// Orders the end of forwarded flows of these sessions, as far as they have no pin; returns at once.
    pub(super) fn cut(&self, sessions: Vec<IpAddr>) {
        if sessions.is_empty() {
            return;
        }
        if self.orders.as_ref().is_none_or(|queue| queue.try_send(sessions).is_err()) {
            self.counters.errors.fetch_add(1, Relaxed);
            tracing::warn!("too many sessions to end flows of; the rules refuse them");
        }
    }

    /// Flows ended, and times that failed.
    pub(super) fn counts(&self) -> (u64, u64) {
        (self.counters.cut.load(Relaxed), self.counters.errors.load(Relaxed))
    }

    /// Waits until all orders are carried out; none are taken any more.
    pub(super) fn finish(&mut self) {
        self.orders = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

struct Worker {
    netlink: Netlink,
    table: String,
    resets: Resets,
    counters: Arc<Counters>,
    local: LocalAddresses,
}

impl Worker {
    fn run(mut self, queue: Receiver<Vec<IpAddr>>) {
        while let Ok(first) = queue.recv() {
            let mut sessions: HashSet<IpAddr> = first.into_iter().collect();
            while sessions.len() < BATCH
                && let Ok(more) = queue.try_recv()
            {
                sessions.extend(more);
            }
            // Addresses of the host change rarely, but they change.
            self.local = LocalAddresses::default();
            let started = Instant::now();
            match self.carry_out(&sessions) {
                Ok(cut) => {
                    self.counters.cut.fetch_add(cut, Relaxed);
                }
                Err(error) => {
                    self.counters.errors.fetch_add(1, Relaxed);
                    let text = kernel(&error, "delete flows");
                    tracing::warn!(error = %text, "flows could not be ended; the rules refuse them");
                    if let (NetlinkError::Io(_), Ok(netlink)) = (error, Netlink::open()) {
                        self.netlink = netlink;
                    }
                }
            }
            // At most half of one core, however often sessions come and go.
            std::thread::sleep(started.elapsed().min(PAUSE_MAX));
        }
    }

    fn carry_out(&mut self, sessions: &HashSet<IpAddr>) -> Result<u64, NetlinkError> {
        let local = &self.local;
        let concerned = |flow: &Flow| {
            (sessions.contains(&flow.original.0) || sessions.contains(&flow.reply.0)) && local.forwarded(flow)
        };
        let mut found = Vec::new();
        if sessions.len() < MANY {
            for session in sessions {
                flows::of_session(&mut self.netlink, *session, &mut found, concerned)?;
            }
        } else {
            for v6 in [false, true] {
                if sessions.iter().any(|session| session.is_ipv6() == v6) {
                    flows::all(&mut self.netlink, v6, &mut found, concerned)?;
                }
            }
        }
        let mut cut = 0;
        for flow in found {
            let (source, destination) = flow.original;
            // Behind a destination translation the answering address is the one that was pinned.
            if !self.pinned(source, destination)? && !self.pinned(source, flow.reply.0)? {
                cut += u64::from(flows::end(&mut self.netlink, &self.resets, &flow)?);
            }
        }
        Ok(cut)
    }

    fn pinned(&mut self, session: IpAddr, destination: IpAddr) -> Result<bool, NetlinkError> {
        let set = Set::of(Kind::Pins, session);
        let body = |w: &mut Writer| {
            sets::write_elements(w, &self.table, set.name(), [&Element::pin(session, destination)]);
        };
        match self.netlink.request(SUBSYS | MSG_GETSETELEM, INET, body, |_| {}) {
            Ok(()) => Ok(true),
            Err(error) if error.errno() == Some(libc::ENOENT) => Ok(false),
            Err(error) => Err(error),
        }
    }
}

/// Which addresses are this host's own. Flows that end here are not forwarded and never cut: they carry the very
/// answer that tells a sandbox of its quarantine, and may need their translation entry to reach it.
#[derive(Debug, Default)]
struct LocalAddresses(std::cell::RefCell<HashMap<IpAddr, bool>>);

impl LocalAddresses {
    /// Most answers remembered; a flow table holds addresses a sandbox chose.
    const KEPT: usize = 4096;

    fn forwarded(&self, flow: &Flow) -> bool {
        !self.contains(flow.reply.0) && !self.contains(flow.original.0)
    }

    fn contains(&self, address: IpAddr) -> bool {
        let mut known = self.0.borrow_mut();
        if let Some(local) = known.get(&address) {
            return *local;
        }
        // The kernel's own routing says it, and no packet is sent: towards an own address, the source is that address.
        let any: IpAddr = if address.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
        let local = UdpSocket::bind((any, 0)).is_ok_and(|socket| {
            socket.connect((address, 9)).is_ok() && socket.local_addr().is_ok_and(|source| source.ip() == address)
        });
        if known.len() >= Self::KEPT {
            known.clear();
        }
        known.insert(address, local);
        local
    }
}
