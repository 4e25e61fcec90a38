//! Ends flows that somebody names, in one pass: for rules that were put beside flows older than they are.
//!
//! Needs no table of ours. [`super::cutter`] is the same for sessions, on a thread of its own.

use std::cell::RefCell;
use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};

use super::super::netlink::{Routes, Way};
use super::flows::{self, Flow};
use super::resets::Resets;
use super::{kernel, open};
use crate::enforce::{Error, interface_name};

/// A tracked flow as a caller may judge it. Ports are 0 where the protocol has none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tracked {
    /// IP protocol number.
    pub protocol: u8,
    /// The conntrack mark ([`crate::enforce::mark`]).
    pub mark: u32,
    /// Who sent the first packet.
    pub from: SocketAddr,
    /// Where to, before any translation.
    pub to: SocketAddr,
    /// Who really answers: differs from `to` behind a destination translation.
    pub answers: SocketAddr,
}

impl Tracked {
    fn of(flow: &Flow) -> Self {
        let [original, reply] = flow.ports.map(Option::unwrap_or_default);
        Self {
            protocol: flow.protocol,
            mark: flow.mark,
            from: SocketAddr::new(flow.original.0, original.0),
            to: SocketAddr::new(flow.original.1, original.1),
            answers: SocketAddr::new(flow.reply.0, reply.0),
        }
    }
}

/// Where an address lies, as the kernel's routing has it now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// On this host.
    Here,
    /// Behind this interface.
    Behind(String),
    /// Nowhere that packets could be sent.
    Nowhere,
}

/// Deletes the flows that `doomed` names and asks both ends of those over TCP for a sign of life, so that they meet the
/// rules; gives how many there were. `doomed` gets the flow and a way to ask where an address lies.
///
/// Looks at the calling thread's network namespace. Needs `CAP_NET_ADMIN`, and `CAP_NET_RAW` for silent ends.
///
/// # Errors
///
/// [`Error`] of the kernel or the sockets. Flows already ended stay ended.
pub fn end_flows(doomed: impl Fn(&Tracked, &dyn Fn(IpAddr) -> Place) -> bool) -> Result<u64, Error> {
    let mut netlink = open()?;
    let routes = Routes::open().map_err(|source| Error::Io { doing: "open a socket for routes", source })?;
    let places = Places { routes: RefCell::new(routes), known: RefCell::default() };
    let place = |address| places.of(address);
    let mut found = Vec::new();
    flows::all(&mut netlink, &mut found, |flow| doomed(&Tracked::of(flow), &place))
        .map_err(|error| kernel(&error, "look at flows"))?;
    let resets = Resets::open();
    let mut ended = 0;
    for flow in &found {
        ended += u64::from(flows::end(&mut netlink, &resets, flow).map_err(|error| kernel(&error, "delete a flow"))?);
    }
    Ok(ended)
}

struct Places {
    routes: RefCell<Routes>,
    known: RefCell<HashMap<IpAddr, Place>>,
}

impl Places {
    /// Most answers remembered; a flow table holds addresses a sandbox chose.
    const KEPT: usize = 4096;

    fn of(&self, address: IpAddr) -> Place {
        if let Some(place) = self.known.borrow().get(&address) {
            return place.clone();
        }
        let place = match self.routes.borrow_mut().way(address) {
            Ok(Way::Here) => Place::Here,
            Ok(Way::Out(index)) => interface_name(index).map_or(Place::Nowhere, Place::Behind),
            // A flow that cannot be placed is nobody's; the rules refuse it all the same.
            Ok(Way::Nowhere) | Err(_) => Place::Nowhere,
        };
        let mut known = self.known.borrow_mut();
        if known.len() >= Self::KEPT {
            known.clear();
        }
        known.insert(address, place.clone());
        place
    }
}
