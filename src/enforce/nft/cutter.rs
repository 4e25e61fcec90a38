//! Ends flows that may not go on, and takes those over that may, on a thread of its own.
//!
//! The kernel walks its whole flow table for one question (18 ms were measured on an empty one), and pins of other
//! sessions must not wait for that. Nor need a revoke: from its acknowledgement on the rules refuse every packet of
//! such a flow. What follows here within moments makes sure that nothing of it is `established` any more when the
//! session is released, and that both ends hear of it.
//!
//! Whether a flow has a pin or is of the present generation is asked of the kernel when the flow is found, and not when the
//! order is given: a client may dial between the two, and a flow that was opened with a pin is never ended by an order
//! from before.

use std::collections::{HashMap, HashSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::super::netlink::{Netlink, NetlinkError, Writer};
use super::due::{Due, Pass, Renewal};
use super::flows::{self, Dialled, Flow};
use super::kernel;
use super::resets::Resets;
use super::sets::{self, Element, Kind, MSG_GETSETELEM, Set, lease_kind};
use super::watch::{INET, SUBSYS};
use crate::enforce::Error;
use crate::enforce::state::Target;
use crate::mishap;
use crate::ports::Opening;
use crate::sparing::Sparing;

/// From so many sessions on, one pass over all flows is cheaper than two filtered ones for each.
const MANY: usize = 4;
/// Longest pause after a pass: flows must end within a second of their order.
const PAUSE_MAX: Duration = Duration::from_millis(200);

/// Handle to the thread.
#[derive(Debug)]
pub(super) struct Cutter {
    /// Until the thread is started.
    idle: Option<Worker>,
    thread: Option<JoinHandle<()>>,
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    due: Due,
    cut: AtomicU64,
    errors: AtomicU64,
    /// Renewals that were carried out, as far as anything could be done for them.
    renewed: Mutex<Vec<(IpAddr, u32)>>,
}

impl Cutter {
    /// Opens the sockets, in the calling thread's network namespace.
    pub(super) fn new(table: String) -> Result<Self, Error> {
        let netlink = super::open()?;
        let shared = Arc::new(Shared::default());
        let worker = Worker {
            netlink,
            table,
            resets: Resets::open(),
            shared: Arc::clone(&shared),
            local: LocalAddresses::default(),
        };
        Ok(Self { idle: Some(worker), thread: None, shared })
    }

    /// Starts the thread. Apart from [`Cutter::new`], so that who needs a privilege for sockets only can give it away before
    /// there is a thread that would keep it.
    pub(super) fn start(&mut self) -> Result<(), Error> {
        let Some(worker) = self.idle.take() else { return Ok(()) };
        let thread = std::thread::Builder::new()
            .name("enforce-flows".into())
            .spawn(move || worker.run())
            .map_err(|source| Error::Io { doing: "start the thread that ends flows", source })?;
        self.thread = Some(thread);
        Ok(())
    }

    /// Orders the end of forwarded flows of these sessions that have no pin and are not of a present generation; returns at
    /// once.
    pub(super) fn cut(&self, sessions: Vec<IpAddr>) {
        if !sessions.is_empty() {
            self.ordered(self.shared.due.cut(sessions));
        }
    }

    /// Orders that flows of older generations live on where they may, and end where they may not; returns at once. What is
    /// done is told by [`Cutter::renewed`].
    pub(super) fn renew(&self, renewal: Renewal) {
        self.ordered(self.shared.due.renew(renewal));
    }

    fn ordered(&self, is_taken: bool) {
        if !is_taken {
            self.shared.errors.fetch_add(1, Relaxed);
            tracing::warn!("too many sessions to end flows of; the rules refuse them");
        }
    }

    /// Sessions and generations whose older flows have been taken over since this was last asked.
    pub(super) fn renewed(&self) -> Vec<(IpAddr, u32)> {
        std::mem::take(&mut *self.shared.renewed.lock())
    }

    /// Flows ended, and times that failed.
    pub(super) fn counts(&self) -> (u64, u64) {
        (self.shared.cut.load(Relaxed), self.shared.errors.load(Relaxed))
    }

    /// Waits until all orders are carried out; none are taken any more.
    pub(super) fn finish(&mut self) {
        self.shared.due.close();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Drop for Cutter {
    fn drop(&mut self) {
        self.shared.due.close();
    }
}

#[derive(Debug)]
struct Worker {
    netlink: Netlink,
    table: String,
    resets: Resets,
    shared: Arc<Shared>,
    local: LocalAddresses,
}

impl Worker {
    fn run(mut self) {
        let shared = Arc::clone(&self.shared);
        while let Some(pass) = shared.due.next() {
            // Addresses of the host change rarely, but they change.
            self.local = LocalAddresses::default();
            let started = Instant::now();
            static TOLD: Sparing = Sparing::new();
            let result = mishap::survived("ending flows", &TOLD, || self.carry_out(&pass));
            // Whatever became of it: what has not been taken over by now is refused by the rules.
            self.shared.renewed.lock().extend(pass.renew.values().map(|renewal| (renewal.session, renewal.generation)));
            match result {
                None => {
                    self.shared.errors.fetch_add(1, Relaxed);
                    // Answers to what it has asked may still be there to be read.
                    if let Ok(netlink) = Netlink::open() {
                        self.netlink = netlink;
                    }
                }
                Some(Ok(cut)) => {
                    self.shared.cut.fetch_add(cut, Relaxed);
                }
                Some(Err(error)) => {
                    self.shared.errors.fetch_add(1, Relaxed);
                    let text = kernel(&error, "end flows");
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

    fn carry_out(&mut self, pass: &Pass) -> Result<u64, NetlinkError> {
        let sessions: HashSet<IpAddr> = pass.cut.iter().chain(pass.renew.keys()).copied().collect();
        let local = &self.local;
        let concerned = |flow: &Flow| {
            (sessions.contains(&flow.original.0) || sessions.contains(&flow.reply.0)) && local.forwarded(flow)
        };
        let mut found = Vec::new();
        if sessions.len() < MANY {
            for session in &sessions {
                flows::of_session(&mut self.netlink, *session, &mut found, concerned)?;
            }
        } else {
            flows::all(&mut self.netlink, &mut found, concerned)?;
        }
        let mut ended = 0;
        for flow in found {
            let source = flow.original.0;
            match pass.renew.get(&source) {
                Some(renewal) if flow.mark == renewal.generation => {}
                Some(renewal) if self.may_go_on(renewal, &flow)? => {
                    flows::mark(&mut self.netlink, &flow, renewal.generation)?;
                }
                // A flow of a session whose generation is to be renewed is judged by that alone.
                None if self.pinned(source, &flow)? || self.is_current(source, flow.mark)? => {}
                _ => ended += u64::from(flows::end(&mut self.netlink, &self.resets, &flow)?),
            }
        }
        Ok(ended)
    }

    fn may_go_on(&mut self, renewal: &Renewal, flow: &Flow) -> Result<bool, NetlinkError> {
        // A flow that was never permitted (opened while nothing held it back) needs a pin.
        let kept = |dialled: &Dialled| {
            let Some(port) = dialled.port.filter(|_| flow.mark != 0) else { return false };
            let mut of_address = renewal.keep.iter().filter(|kept| kept.destination.to_canonical() == dialled.address);
            of_address.any(|kept| kept.opens(Opening::One(port)))
        };
        Ok(flow.dialled.iter().any(kept) || self.pinned(renewal.session, flow)? || self.ranged(renewal, flow)?)
    }

    /// Whether a flow leads to a written range that is open to the session.
    fn ranged(&mut self, renewal: &Renewal, flow: &Flow) -> Result<bool, NetlinkError> {
        for target in flow.dialled {
            let Some(port) = target.port else { continue };
            let set = Set::ranges(renewal.class, target.address.is_ipv6());
            let element = super::intervals::single(target.address, port);
            if flow.mark != 0 && self.holds(set, element)? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Whether what a flow was dialled to is leased. Behind a destination translation the answering address is the one that
    /// was pinned.
    fn pinned(&mut self, session: IpAddr, flow: &Flow) -> Result<bool, NetlinkError> {
        for Dialled { address, port } in flow.dialled {
            // Protocols without ports have no leases.
            for open in port.into_iter().flat_map(Opening::of) {
                let target = Target { address, open };
                if self.holds(Set::of(lease_kind(target), session), Element::lease(session, target))? {
                    return Ok(true);
                }
            }
        }
        Ok(false)
    }

    fn is_current(&mut self, session: IpAddr, mark: u32) -> Result<bool, NetlinkError> {
        Ok(mark != 0 && self.holds(Set::of(Kind::Current, session), Element::marked(session, mark))?)
    }

    fn holds(&mut self, set: Set, element: Element) -> Result<bool, NetlinkError> {
        let body = |w: &mut Writer| sets::write_elements(w, &self.table, (set, set.name()), [&element]);
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
