//! A socket that hears every commit to nf_tables in its network namespace.

use std::io::{self, Read};
use std::os::fd::AsRawFd;
use std::time::Duration;

use socket2::{Domain, Protocol, SockFilter, Socket, Type};

use super::message::Messages;
use super::socket::RECEIVE_BUFFER;

/// The group that is told of commits (`NFNLGRP_NFTABLES`).
const GROUP_NFTABLES: u32 = 7;
/// The last message of a commit (`NFT_MSG_NEWGEN`).
const NEW_GENERATION: u16 = 10 << 8 | 15;

/// What was heard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::enforce) enum Heard {
    /// A commit by the socket of this port.
    Change(u32),
    /// The kernel had more to tell than there was room for.
    Lost,
    /// Nothing within the patience, or nothing of interest.
    Nothing,
}

/// See the module.
#[derive(Debug)]
pub(in crate::enforce) struct Listener {
    socket: Socket,
    rx: Box<[u8]>,
}

impl Listener {
    /// Opens it in the calling thread's network namespace; [`Listener::hear`] waits `patience` at most.
    pub(in crate::enforce) fn open(patience: Duration) -> io::Result<Self> {
        let socket = Socket::new(
            Domain::from(libc::AF_NETLINK),
            Type::RAW.cloexec(),
            Some(Protocol::from(libc::NETLINK_NETFILTER)),
        )?;
        socket.set_read_timeout(Some(patience))?;
        // SAFETY: all-zero is a valid `sockaddr_nl`.
        let mut address: libc::sockaddr_nl = unsafe { std::mem::zeroed() };
        address.nl_family = libc::AF_NETLINK as libc::sa_family_t;
        address.nl_groups = 1 << (GROUP_NFTABLES - 1);
        let length = size_of::<libc::sockaddr_nl>() as libc::socklen_t;
        // SAFETY: the descriptor is open; pointer and length describe `address`. A socket without a port, which the kernel
        // gives it here, hears nothing.
        if unsafe { libc::bind(socket.as_raw_fd(), (&raw const address).cast(), length) } != 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(Self { socket, rx: vec![0; RECEIVE_BUFFER].into_boxed_slice() })
    }

    /// From here on what the socket with this port has changed is passed over by the kernel: all messages of a datagram are
    /// of one change, and the first one says whose.
    ///
    /// # Errors
    ///
    /// Where the kernel does not take the filter; then everything is heard as before.
    pub(in crate::enforce) fn pass_over(&self, port: u32) -> io::Result<()> {
        const LOAD_WORD: u16 = (libc::BPF_LD | libc::BPF_W | libc::BPF_ABS) as u16;
        const JUMP_EQUAL: u16 = (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16;
        const RETURN: u16 = (libc::BPF_RET | libc::BPF_K) as u16;
        // `nlmsg_pid`; the filter reads words in network order.
        const PORT_AT: u32 = 12;
        let port = u32::from_be_bytes(port.to_ne_bytes());
        self.socket.attach_filter(&[
            SockFilter::new(LOAD_WORD, 0, 0, PORT_AT),
            SockFilter::new(JUMP_EQUAL, 0, 1, port),
            SockFilter::new(RETURN, 0, 0, 0),
            SockFilter::new(RETURN, 0, 0, u32::MAX),
        ])
    }

    /// Waits for the next datagram.
    ///
    /// # Errors
    ///
    /// Where the socket failed.
    pub(in crate::enforce) fn hear(&mut self) -> io::Result<Heard> {
        let length = match (&self.socket).read(&mut self.rx) {
            Ok(length) => length,
            Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => return Ok(Heard::Lost),
            Err(error) if matches!(error.kind(), io::ErrorKind::Interrupted | io::ErrorKind::WouldBlock) => {
                return Ok(Heard::Nothing);
            }
            Err(error) => return Err(error),
        };
        let mut messages = Messages(self.rx.get(..length).unwrap_or(&[]));
        Ok(messages.find(|message| message.kind == NEW_GENERATION).map_or(Heard::Nothing, |m| Heard::Change(m.port)))
    }
}
