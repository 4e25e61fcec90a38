//! Connection tracking: finds flows, marks them and deletes them.
//!
//! Knows the messages of ctnetlink. Which flows are to end and which live on, [`super::cutter`] says.

use std::net::{IpAddr, SocketAddr};

use super::super::netlink::{Attributes, DUMP_TRIES, Netlink, NetlinkError, Writer};
use super::resets::{Ends, Resets};
use super::sets::address;
use crate::ports::{Port, Protocol};

const SUBSYS_CTNETLINK: u16 = 1;
const MSG_CT_NEW: u16 = 0;
const MSG_CT_GET: u16 = 1;
const MSG_CT_DELETE: u16 = 2;
const CTA_TUPLE_ORIG: u16 = 1;
const CTA_TUPLE_REPLY: u16 = 2;
const CTA_MARK: u16 = 8;
const CTA_ID: u16 = 12;
const CTA_ZONE: u16 = 18;
const CTA_FILTER: u16 = 25;
const CTA_TUPLE_IP: u16 = 1;
const CTA_TUPLE_PROTO: u16 = 2;
const NESTED: u16 = 0x8000;

/// One direction's source and destination address.
type Pair = (IpAddr, IpAddr);

/// What a flow was dialled to.
#[derive(Debug, Clone, Copy)]
pub(super) struct Dialled {
    /// Address.
    pub address: IpAddr,
    /// Of TCP and UDP.
    pub port: Option<Port>,
}

/// A tracked flow, as much of it as is needed to judge, mark and delete it.
#[derive(Debug)]
pub(super) struct Flow {
    /// As the first packet had them, before any translation.
    pub original: Pair,
    /// As replies have them.
    pub reply: Pair,
    /// IP protocol number.
    pub protocol: u8,
    /// Source and destination port in the original direction, and in the reply's; `None` where the protocol has none.
    pub ports: [Option<(u16, u16)>; 2],
    /// The conntrack mark ([`crate::enforce::mark`]).
    pub mark: u32,
    /// What was dialled, before and behind a translation of destinations; without a port where the protocol is neither TCP nor
    /// UDP.
    pub dialled: [Dialled; 2],
    family: u8,
    /// Attributes that name it to the kernel, byte for byte as received.
    name: Vec<(u16, Vec<u8>)>,
}

impl Flow {
    fn read(attributes: &[u8]) -> Option<Self> {
        let (mut pairs, mut ports, mut protocol, mut mark) = ([None, None], [None, None], 0, 0);
        let mut name = Vec::with_capacity(3);
        for (kind, value) in Attributes(attributes) {
            match kind {
                CTA_TUPLE_ORIG => {
                    (pairs[0], (protocol, ports[0])) = (pair(value), transport(value));
                    name.push((kind | NESTED, value.to_vec()));
                }
                CTA_TUPLE_REPLY => (pairs[1], ports[1]) = (pair(value), transport(value).1),
                CTA_MARK => mark = u32::from_be_bytes(value.try_into().ok()?),
                CTA_ID | CTA_ZONE => name.push((kind, value.to_vec())),
                _ => {}
            }
        }
        let [Some(original), Some(reply)] = pairs else { return None };
        let target = |address, port: Option<u16>| Dialled {
            address,
            port: port.zip(Protocol::from_number(protocol)).map(|(number, protocol)| Port { protocol, number }),
        };
        let dialled = [
            target(original.1, ports[0].map(|(_, to): (u16, u16)| to)),
            target(reply.0, ports[1].map(|(from, _): (u16, u16)| from)),
        ];
        Some(Self { original, reply, protocol, ports, mark, dialled, family: family(original.0), name })
    }

    /// For TCP: each end, and its peer as it knows it.
    fn ends(&self) -> Option<[Ends; 2]> {
        let ends = |pair: Pair, ports: (u16, u16)| (SocketAddr::new(pair.1, ports.1), SocketAddr::new(pair.0, ports.0));
        match self.ports {
            [Some(original), Some(reply)] if self.protocol == libc::IPPROTO_TCP as u8 => {
                Some([ends(self.original, original), ends(self.reply, reply)])
            }
            _ => None,
        }
    }
}

/// The protocol of a tuple, and source and destination port where it has ports.
fn transport(tuple: &[u8]) -> (u8, Option<(u16, u16)>) {
    const NUMBER: u16 = 1;
    let Some(transport) = Attributes(tuple).inside(CTA_TUPLE_PROTO) else { return (0, None) };
    let port = |kind| Some(u16::from_be_bytes(transport.find(kind)?.try_into().ok()?));
    let protocol = transport.find(NUMBER).and_then(|octets| octets.first().copied()).unwrap_or(0);
    (protocol, port(2).zip(port(3)))
}

fn pair(tuple: &[u8]) -> Option<Pair> {
    let ip = Attributes(tuple).inside(CTA_TUPLE_IP)?;
    // 1 and 2 are the IPv4 addresses, 3 and 4 the IPv6 ones.
    let source = ip.find(1).or_else(|| ip.find(3))?;
    let destination = ip.find(2).or_else(|| ip.find(4))?;
    Some((address(source)?, address(destination)?))
}

/// Finds the flows of one session that `doomed` names.
pub(super) fn of_session(
    netlink: &mut Netlink,
    session: IpAddr,
    flows: &mut Vec<Flow>,
    doomed: impl Fn(&Flow) -> bool,
) -> Result<(), NetlinkError> {
    for tuple in [CTA_TUPLE_ORIG, CTA_TUPLE_REPLY] {
        find(netlink, session, tuple, flows, &doomed)?;
    }
    Ok(())
}

/// Finds the flows of both families that `doomed` names, in one pass: the kernel goes through all of its table for either.
pub(super) fn all(
    netlink: &mut Netlink,
    flows: &mut Vec<Flow>,
    doomed: impl Fn(&Flow) -> bool,
) -> Result<(), NetlinkError> {
    dump(netlink, libc::AF_UNSPEC as u8, |_| {}, flows, doomed)
}

/// Tells who speaks with whom in all flows of both families, as they were dialled.
pub(super) fn dialled(netlink: &mut Netlink, mut each: impl FnMut(Pair)) -> Result<(), NetlinkError> {
    netlink.dump(
        SUBSYS_CTNETLINK << 8 | MSG_CT_GET,
        libc::AF_UNSPEC as u8,
        |_| {},
        |attributes| {
            if let Some(original) = Attributes(attributes).find(CTA_TUPLE_ORIG).and_then(pair) {
                each(original);
            }
        },
    )
}

fn family(address: IpAddr) -> u8 {
    if address.is_ipv6() { libc::AF_INET6 as u8 } else { libc::AF_INET as u8 }
}

/// Flows with the session as source address of one direction. Kernels before 5.8 ignore the filter and give all; `keep`
/// looks again.
fn find(
    netlink: &mut Netlink,
    session: IpAddr,
    tuple: u16,
    flows: &mut Vec<Flow>,
    keep: impl Fn(&Flow) -> bool,
) -> Result<(), NetlinkError> {
    const SOURCE_ADDRESS: u32 = 1;
    let family = family(session);
    let filter = |w: &mut Writer| {
        w.nest(tuple, |w| {
            w.nest(CTA_TUPLE_IP, |w| match session {
                IpAddr::V4(v4) => w.attr(1, &v4.octets()),
                IpAddr::V6(v6) => w.attr(3, &v6.octets()),
            });
        });
        w.nest(CTA_FILTER, |w| {
            let (original, reply) = if tuple == CTA_TUPLE_ORIG { (SOURCE_ADDRESS, 0) } else { (0, SOURCE_ADDRESS) };
            w.attr(1, &original.to_ne_bytes());
            w.attr(2, &reply.to_ne_bytes());
        });
    };
    match dump(netlink, family, filter, flows, &keep) {
        Err(NetlinkError::Refused(_)) => dump(netlink, family, |_| {}, flows, &keep),
        other => other,
    }
}

fn dump(
    netlink: &mut Netlink,
    family: u8,
    filter: impl Fn(&mut Writer),
    flows: &mut Vec<Flow>,
    keep: impl Fn(&Flow) -> bool,
) -> Result<(), NetlinkError> {
    let before = flows.len();
    for _ in 0..DUMP_TRIES {
        let result = netlink.dump(SUBSYS_CTNETLINK << 8 | MSG_CT_GET, family, &filter, |attributes| {
            if let Some(flow) = Flow::read(attributes).filter(&keep) {
                flows.push(flow);
            }
        });
        match result {
            Err(NetlinkError::Interrupted) => flows.truncate(before),
            other => return other,
        }
    }
    Err(NetlinkError::Interrupted)
}

/// Writes a mark to a flow; whether it was there.
pub(super) fn mark(netlink: &mut Netlink, flow: &Flow, mark: u32) -> Result<bool, NetlinkError> {
    let body = |w: &mut Writer| {
        flow.name.iter().filter(|(kind, _)| *kind != CTA_ID).for_each(|(kind, value)| w.attr(*kind, value));
        w.be32(CTA_MARK, mark);
    };
    // Without the flag to create one, only a flow that exists is changed.
    match netlink.request(SUBSYS_CTNETLINK << 8 | MSG_CT_NEW, flow.family, body, |_| {}) {
        Ok(()) => Ok(true),
        Err(NetlinkError::Refused(refusal)) if refusal.errno == libc::ENOENT => Ok(false),
        Err(error) => Err(error),
    }
}

/// Deletes a flow and asks both ends for a sign of life; whether it was there.
pub(super) fn end(netlink: &mut Netlink, resets: &Resets, flow: &Flow) -> Result<bool, NetlinkError> {
    // The tuple is always there (`Flow::read`): a deletion that named none would empty the whole table.
    let body = |w: &mut Writer| flow.name.iter().for_each(|(kind, value)| w.attr(*kind, value));
    match netlink.request(SUBSYS_CTNETLINK << 8 | MSG_CT_DELETE, flow.family, body, |_| {}) {
        Ok(()) => {
            flow.ends().into_iter().flatten().for_each(|ends| resets.ask(ends));
            Ok(true)
        }
        // It ended by itself, or the same flow was found in both directions.
        Err(NetlinkError::Refused(refusal)) if refusal.errno == libc::ENOENT => Ok(false),
        Err(error) => Err(error),
    }
}
