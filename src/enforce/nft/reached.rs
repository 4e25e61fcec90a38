//! Which addresses sandboxes really connect to, from connection tracking, on a thread of its own.
//!
//! Read beside the packet filter, not from it: nothing of the table changes, and no pin waits. Evidence only, and in
//! one direction: a flow that came and went between two looks was never seen.

use std::cell::RefCell;
use std::collections::HashSet;
use std::net::IpAddr;
use std::sync::mpsc::{RecvTimeoutError, SyncSender, sync_channel};
use std::thread::JoinHandle;
use std::time::Duration;

use super::super::netlink::{Netlink, NetlinkError};
use super::{flows, kernel};
use crate::enforce::Error;

/// Most pairs of session and destination told at one look; flows beyond it are not told.
const PAIRS: usize = 65_536;

/// Looks at the host's flows from time to time, until it is dropped.
#[derive(Debug)]
pub struct Connections {
    end: Option<SyncSender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Connections {
    /// Tells `seen` every `every` which session addresses have flows to which destinations, as the sandbox dialled them.
    /// `wanted` says which sources are sessions. Needs `CAP_NET_ADMIN`; looks at the calling thread's network namespace.
    ///
    /// # Errors
    ///
    /// [`Error::Io`] where there is no netfilter netlink or no further thread.
    pub fn watch(
        every: Duration,
        wanted: impl Fn(IpAddr) -> bool + Send + 'static,
        seen: impl Fn(&HashSet<(IpAddr, IpAddr)>) + Send + 'static,
    ) -> Result<Self, Error> {
        let mut netlink = super::open()?;
        let (end, ended) = sync_channel(0);
        let run = move || {
            while let Err(RecvTimeoutError::Timeout) = ended.recv_timeout(every) {
                let (pairs, result) = look(&mut netlink, &wanted);
                seen(&pairs);
                if let Err(error) = result {
                    tracing::debug!(error = %kernel(&error, "look at flows"), "what was connected to is not known");
                    if let (NetlinkError::Io(_), Ok(fresh)) = (error, Netlink::open()) {
                        netlink = fresh;
                    }
                }
            }
        };
        let thread = std::thread::Builder::new()
            .name("connections".into())
            .spawn(run)
            .map_err(|source| Error::Io { doing: "start the thread that looks at flows", source })?;
        Ok(Self { end: Some(end), thread: Some(thread) })
    }
}

impl Drop for Connections {
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

fn look(
    netlink: &mut Netlink,
    wanted: &impl Fn(IpAddr) -> bool,
) -> (HashSet<(IpAddr, IpAddr)>, Result<(), NetlinkError>) {
    let pairs = RefCell::new(HashSet::new());
    let mut result = Ok(());
    for v6 in [false, true] {
        let note = |flow: &flows::Flow| {
            let mut pairs = pairs.borrow_mut();
            if pairs.len() < PAIRS && wanted(flow.original.0) {
                pairs.insert(flow.original);
            }
            false
        };
        // What an interrupted look has seen is there all the same.
        result = flows::all(netlink, v6, &mut Vec::new(), note).and(result);
    }
    (pairs.into_inner(), result)
}
