//! The netfilter netlink socket: batches that take effect whole or not at all, dumps, single requests.
//!
//! One request at a time, with a receive timeout, so that a kernel that does not answer costs one command and not the
//! thread.

use std::io::{self, Read};
use std::os::fd::AsRawFd;

use socket2::{Domain, Protocol, Socket, Type};

use super::TIMEOUT;
use super::message::{Messages, NFGEN, Received, Writer, verdict};

const NLM_F_REQUEST: u16 = 1;
const NLM_F_ACK: u16 = 4;
const NLM_F_DUMP: u16 = 0x300;
const NLM_F_DUMP_INTR: u16 = 0x10;
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const BATCH_BEGIN: u16 = 16;
const BATCH_END: u16 = 17;
const SUBSYS_NFTABLES: u16 = 10;

/// Room for the errors of a whole batch and for large batches; each message may produce one datagram.
const SOCKET_BUFFER: libc::c_int = 4 << 20;
/// Largest datagram the kernel builds for a dump is 32 KiB; twice that.
pub(super) const RECEIVE_BUFFER: usize = 64 << 10;

/// Why a request as a whole did not work.
#[derive(Debug)]
pub(in crate::enforce) enum NetlinkError {
    /// The socket failed or the kernel did not answer in time. What was asked may or may not have happened.
    Io(io::Error),
    /// The kernel refused.
    Refused(Refusal),
    /// A dump changed while it was read: read it again.
    Interrupted,
}

/// One errno with the kernel's words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::enforce) struct Refusal {
    /// Positive errno.
    pub errno: i32,
    /// Extended acknowledgement, may be empty.
    pub words: String,
}

impl NetlinkError {
    /// The errno, where the kernel gave one.
    pub(in crate::enforce) fn errno(&self) -> Option<i32> {
        match self {
            Self::Refused(refusal) => Some(refusal.errno),
            Self::Io(_) | Self::Interrupted => None,
        }
    }
}

impl From<io::Error> for NetlinkError {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

/// Messages of nf_tables that take effect together.
#[derive(Debug)]
pub(in crate::enforce) struct Batch {
    writer: Writer,
    begin: u32,
    count: u32,
    last_at: usize,
}

impl Batch {
    /// Appends one message (`NFT_MSG_*`, without the subsystem) for the `inet` family and gives its place.
    pub(in crate::enforce) fn push(&mut self, message: u16, flags: u16, body: impl FnOnce(&mut Writer)) -> usize {
        const INET: u8 = 1;
        self.last_at = self.writer.as_bytes().len();
        self.count += 1;
        let seq = self.begin.wrapping_add(self.count);
        self.writer.message(SUBSYS_NFTABLES << 8 | message, NLM_F_REQUEST | flags, seq, INET, 0, body);
        self.count as usize - 1
    }

    /// Whether nothing was pushed.
    pub(in crate::enforce) fn is_empty(&self) -> bool {
        self.count == 0
    }
}

/// The socket. It belongs to the network namespace of the thread that opened it.
#[derive(Debug)]
pub(in crate::enforce) struct Netlink {
    socket: Socket,
    seq: u32,
    rx: Box<[u8]>,
    /// Room for the next batch.
    spare: Writer,
}

impl Netlink {
    /// Opens a socket in the calling thread's network namespace.
    pub(in crate::enforce) fn open() -> io::Result<Self> {
        let socket = Socket::new(
            Domain::from(libc::AF_NETLINK),
            Type::RAW.cloexec(),
            Some(Protocol::from(libc::NETLINK_NETFILTER)),
        )?;
        // Words in refusals, and refusals without a copy of what was refused. Old kernels know neither: no harm.
        let _ = set_option(&socket, libc::SOL_NETLINK, libc::NETLINK_EXT_ACK, 1);
        let _ = set_option(&socket, libc::SOL_NETLINK, libc::NETLINK_CAP_ACK, 1);
        // The limit of an ordinary process is far below a batch's worst case; forcing needs the same capability as the
        // table does, so a failure shows itself at the first request.
        let _ = set_option(&socket, libc::SOL_SOCKET, libc::SO_RCVBUFFORCE, SOCKET_BUFFER);
        let _ = set_option(&socket, libc::SOL_SOCKET, libc::SO_SNDBUFFORCE, SOCKET_BUFFER);
        socket.set_read_timeout(Some(TIMEOUT))?;
        socket.set_write_timeout(Some(TIMEOUT))?;
        Ok(Self { socket, seq: 1, rx: vec![0; RECEIVE_BUFFER].into_boxed_slice(), spare: Writer::default() })
    }

    /// The kernel's name for this socket, which it tells with every change made through it.
    pub(in crate::enforce) fn port(&self) -> u32 {
        // SAFETY: all-zero is a valid `sockaddr_nl`.
        let mut address: libc::sockaddr_nl = unsafe { std::mem::zeroed() };
        let mut length = size_of::<libc::sockaddr_nl>() as libc::socklen_t;
        // SAFETY: the descriptor is open while `self` is borrowed; pointer and length describe `address`.
        let done = unsafe { libc::getsockname(self.socket.as_raw_fd(), (&raw mut address).cast(), &raw mut length) };
        if done == 0 { address.nl_pid } else { 0 }
    }

    /// Starts a batch.
    pub(in crate::enforce) fn batch(&mut self) -> Batch {
        let mut writer = std::mem::take(&mut self.spare);
        let begin = self.next_seq();
        writer.message(BATCH_BEGIN, NLM_F_REQUEST, begin, 0, SUBSYS_NFTABLES, |_| {});
        Batch { writer, begin, count: 0, last_at: 0 }
    }

    /// Sends a batch and waits for the kernel's word on it.
    ///
    /// `Ok(vec![])` means that everything took effect. `Ok` with refusals (place of the message, why) means that
    /// nothing did, and that the messages not named were good. Only the last message asks for an acknowledgement: the
    /// kernel reports refusals in order and always, so what is not named when that one arrives was accepted.
    ///
    /// # Errors
    ///
    /// [`NetlinkError`], where the batch as a whole failed.
    pub(in crate::enforce) fn commit(&mut self, mut batch: Batch) -> Result<Vec<(usize, Refusal)>, NetlinkError> {
        if batch.is_empty() {
            return Ok(Vec::new());
        }
        batch.writer.add_flags(batch.last_at, NLM_F_ACK);
        let last = batch.begin.wrapping_add(batch.count);
        let end = last.wrapping_add(1);
        batch.writer.message(BATCH_END, NLM_F_REQUEST, end, 0, SUBSYS_NFTABLES, |_| {});
        self.seq = end.wrapping_add(1);
        self.send(batch.writer.as_bytes())?;
        self.spare = batch.writer.again();
        let mut refusals = Vec::new();
        loop {
            let length = self.receive()?;
            for message in Messages(self.rx.get(..length).unwrap_or(&[])) {
                let place = message.seq.wrapping_sub(batch.begin);
                if message.kind != NLMSG_ERROR || place > batch.count + 1 {
                    continue;
                }
                let Some(said) = verdict(&message) else { continue };
                if place == 0 || place > batch.count {
                    if said.errno != 0 {
                        return Err(NetlinkError::Refused(Refusal { errno: said.errno, words: said.words }));
                    }
                    continue;
                }
                if said.errno != 0 {
                    refusals.push((place as usize - 1, Refusal { errno: said.errno, words: said.words }));
                }
                if message.seq == last {
                    return Ok(refusals);
                }
            }
        }
    }

    /// Asks for everything of a kind; `each` gets the attributes of every reply.
    ///
    /// # Errors
    ///
    /// [`NetlinkError::Interrupted`] where the set changed meanwhile and `each` may have seen only part of it.
    pub(in crate::enforce) fn dump(
        &mut self,
        kind: u16,
        family: u8,
        body: impl FnOnce(&mut Writer),
        mut each: impl FnMut(&[u8]),
    ) -> Result<(), NetlinkError> {
        let seq = self.next_seq();
        let mut writer = Writer::default();
        writer.message(kind, NLM_F_REQUEST | NLM_F_DUMP, seq, family, 0, body);
        self.send(writer.as_bytes())?;
        let mut interrupted = false;
        self.replies(seq, |message| {
            interrupted |= message.flags & NLM_F_DUMP_INTR != 0;
            each(message.payload.get(NFGEN..).unwrap_or(&[]));
        })
        .and(if interrupted { Err(NetlinkError::Interrupted) } else { Ok(()) })
    }

    /// Asks one thing; `each` gets the attributes of the reply, if there is one beside the acknowledgement.
    pub(in crate::enforce) fn request(
        &mut self,
        kind: u16,
        family: u8,
        body: impl FnOnce(&mut Writer),
        mut each: impl FnMut(&[u8]),
    ) -> Result<(), NetlinkError> {
        let seq = self.next_seq();
        let mut writer = Writer::default();
        writer.message(kind, NLM_F_REQUEST | NLM_F_ACK, seq, family, 0, body);
        self.send(writer.as_bytes())?;
        self.replies(seq, |message| each(message.payload.get(NFGEN..).unwrap_or(&[])))
    }

    /// Reads replies to `seq` until the kernel says that there are no more.
    fn replies(&mut self, seq: u32, mut each: impl FnMut(&Received<'_>)) -> Result<(), NetlinkError> {
        loop {
            let length = self.receive()?;
            for message in Messages(self.rx.get(..length).unwrap_or(&[])) {
                if message.seq != seq {
                    continue;
                }
                match message.kind {
                    NLMSG_ERROR => {
                        let Some(said) = verdict(&message) else { continue };
                        return match said.errno {
                            0 => Ok(()),
                            errno => Err(NetlinkError::Refused(Refusal { errno, words: said.words })),
                        };
                    }
                    NLMSG_DONE => {
                        // A dump that fails on its way says so in its last message.
                        let errno = verdict(&message).map_or(0, |said| said.errno);
                        return if errno != 0 {
                            Err(NetlinkError::Refused(Refusal { errno, words: String::new() }))
                        } else if message.flags & NLM_F_DUMP_INTR != 0 {
                            Err(NetlinkError::Interrupted)
                        } else {
                            Ok(())
                        };
                    }
                    _ => each(&message),
                }
            }
        }
    }

    fn send(&self, bytes: &[u8]) -> io::Result<()> {
        // No address: a netlink socket that was never connected speaks to the kernel.
        match self.socket.send(bytes)? {
            sent if sent == bytes.len() => Ok(()),
            _ => Err(io::Error::new(io::ErrorKind::WriteZero, "netlink message was cut")),
        }
    }

    fn receive(&mut self) -> io::Result<usize> {
        loop {
            match (&self.socket).read(&mut self.rx) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    return Err(io::Error::new(io::ErrorKind::TimedOut, "the kernel did not answer in time"));
                }
                other => return other,
            }
        }
    }

    fn next_seq(&mut self) -> u32 {
        let seq = self.seq;
        self.seq = self.seq.wrapping_add(1);
        seq
    }
}

fn set_option(socket: &Socket, level: libc::c_int, name: libc::c_int, value: libc::c_int) -> io::Result<()> {
    // SAFETY: the descriptor is open for as long as `socket` is borrowed, and the pointer and length describe one
    // `c_int` that lives across the call.
    let done = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            level,
            name,
            (&raw const value).cast(),
            size_of::<libc::c_int>() as libc::socklen_t,
        )
    };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
