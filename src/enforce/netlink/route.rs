//! One question to the kernel's routing: where would a packet to this address go?
//!
//! Needs no privilege. Another netlink family than the rest of this module, and another header behind the common one.

use std::io::{self, Read};
use std::net::IpAddr;

use socket2::{Domain, Protocol, Socket, Type};

use super::TIMEOUT;
use super::message::{Attributes, HEADER, Messages, Writer, verdict};

const NLM_F_REQUEST: u16 = 1;
const NLMSG_ERROR: u16 = 2;
const RTM_NEWROUTE: u16 = 24;
const RTM_GETROUTE: u16 = 26;
const RTA_DST: u16 = 1;
const RTA_OIF: u16 = 4;
/// Length of `rtmsg`.
const RTMSG: usize = 12;
/// Place of `rtm_type` in it.
const RTM_TYPE: usize = 7;
const RTN_LOCAL: u8 = 2;
/// One route with its attributes is some dozens of octets.
const RECEIVE_BUFFER: usize = 8 << 10;

/// Where packets to an address go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::enforce) enum Way {
    /// Nowhere: there is no route.
    Nowhere,
    /// To this host itself.
    Here,
    /// Out of the interface with this index.
    Out(u32),
}

/// The routing of one network namespace.
#[derive(Debug)]
pub(in crate::enforce) struct Routes {
    socket: Socket,
    seq: u32,
    rx: Box<[u8]>,
}

impl Routes {
    /// Opens a socket in the calling thread's network namespace.
    pub(in crate::enforce) fn open() -> io::Result<Self> {
        let socket = Socket::new(
            Domain::from(libc::AF_NETLINK),
            Type::RAW.cloexec(),
            Some(Protocol::from(libc::NETLINK_ROUTE)),
        )?;
        socket.set_read_timeout(Some(TIMEOUT))?;
        socket.set_write_timeout(Some(TIMEOUT))?;
        Ok(Self { socket, seq: 0, rx: vec![0; RECEIVE_BUFFER].into_boxed_slice() })
    }

    /// The way to `address`.
    pub(in crate::enforce) fn way(&mut self, address: IpAddr) -> io::Result<Way> {
        self.seq = self.seq.wrapping_add(1);
        self.socket.send(&request(self.seq, address))?;
        loop {
            let length = match (&self.socket).read(&mut self.rx) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                other => other?,
            };
            for message in Messages(self.rx.get(..length).unwrap_or(&[])) {
                if message.seq != self.seq {
                    continue;
                }
                match message.kind {
                    RTM_NEWROUTE => return Ok(read(message.payload)),
                    // Unreachable, prohibited, none at all: no packet goes there.
                    NLMSG_ERROR if verdict(&message).is_some_and(|said| said.errno != 0) => return Ok(Way::Nowhere),
                    _ => {}
                }
            }
        }
    }
}

fn request(seq: u32, address: IpAddr) -> Vec<u8> {
    let mut attributes = Writer::default();
    let (family, bits) = match address {
        IpAddr::V4(v4) => {
            attributes.attr(RTA_DST, &v4.octets());
            (libc::AF_INET as u8, 32)
        }
        IpAddr::V6(v6) => {
            attributes.attr(RTA_DST, &v6.octets());
            (libc::AF_INET6 as u8, 128)
        }
    };
    let mut message = Vec::with_capacity(HEADER + RTMSG + 20);
    message.extend_from_slice(&((HEADER + RTMSG + attributes.as_bytes().len()) as u32).to_ne_bytes());
    message.extend_from_slice(&RTM_GETROUTE.to_ne_bytes());
    message.extend_from_slice(&NLM_F_REQUEST.to_ne_bytes());
    message.extend_from_slice(&seq.to_ne_bytes());
    message.extend_from_slice(&[0; 4]);
    message.extend_from_slice(&[family, bits, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    message.extend_from_slice(attributes.as_bytes());
    message
}

fn read(payload: &[u8]) -> Way {
    if payload.get(RTM_TYPE) == Some(&RTN_LOCAL) {
        return Way::Here;
    }
    let interface = Attributes(payload.get(RTMSG..).unwrap_or(&[])).find(RTA_OIF);
    match interface.and_then(|octets| octets.try_into().ok()) {
        Some(index) => Way::Out(u32::from_ne_bytes(index)),
        None => Way::Nowhere,
    }
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, Ipv6Addr};

    use super::*;

    #[test]
    fn the_loopback_address_leads_here() {
        let mut routes = Routes::open().expect("a socket for routes");
        assert_eq!(routes.way(Ipv4Addr::LOCALHOST.into()).expect("an answer"), Way::Here);
        assert_eq!(routes.way(Ipv4Addr::new(127, 3, 2, 1).into()).expect("an answer"), Way::Here);
        assert_ne!(routes.way(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1).into()).expect("an answer"), Way::Here);
    }

    #[test]
    fn a_reply_that_is_cut_is_no_way() {
        assert_eq!(read(&[]), Way::Nowhere);
        assert_eq!(read(&[0; RTMSG]), Way::Nowhere);
        assert_eq!(read(&[0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 8, 0, 4, 0, 7, 0]), Way::Nowhere);
        let mut whole = vec![0; RTMSG];
        whole.extend_from_slice(&[8, 0, 4, 0]);
        whole.extend_from_slice(&7u32.to_ne_bytes());
        assert_eq!(read(&whole), Way::Out(7));
    }
}
