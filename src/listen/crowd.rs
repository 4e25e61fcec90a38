//! How much waits in a socket's queue.
//!
//! A worker that takes a full batch only knows that there may be more. One client with some hundred questions under way at
//! once keeps every batch full and harms nobody; what harms others is a queue in which they wait long, or find no room.

use std::io;
use std::net::UdpSocket;
use std::os::fd::AsRawFd;

/// So much memory of datagrams that wait is a crowd, octets: some thousand questions, a few milliseconds of work.
const MANY: u32 = 1 << 20;
/// One part in so many of a socket's room is one too, where the system allows little.
const PART: u32 = 2;

/// What the kernel tells of a socket's memory (`SO_MEMINFO`, socket(7)).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Memory {
    /// Octets that received datagrams take, the kernel's own included.
    waiting: u32,
    /// Octets that they may take.
    room: u32,
    /// Datagrams that found no room so far, or that [`super::bar`] has dropped: behind a bar that was lifted the first look may
    /// find a crowd that is none, which is one batch of many.
    dropped: u32,
}

/// A worker's own.
#[derive(Debug, Default)]
pub(super) struct Crowd {
    dropped: u32,
}

impl Crowd {
    /// Whether others may have to wait or find no room, as far as the kernel tells; `true` where it does not.
    pub(super) fn is_there(&mut self, socket: &UdpSocket) -> bool {
        read(socket).map_or(true, |memory| self.judge(memory))
    }

    fn judge(&mut self, memory: Memory) -> bool {
        let has_dropped = std::mem::replace(&mut self.dropped, memory.dropped) != memory.dropped;
        has_dropped || memory.waiting > MANY.min(memory.room / PART)
    }
}

fn read(socket: &UdpSocket) -> io::Result<Memory> {
    /// On every architecture that Rust has Linux for but SPARC and PA-RISC (`asm-generic/socket.h`).
    const SO_MEMINFO: libc::c_int = 55;
    const WAITING: usize = libc::SK_MEMINFO_RMEM_ALLOC as usize;
    const ROOM: usize = libc::SK_MEMINFO_RCVBUF as usize;
    const DROPPED: usize = libc::SK_MEMINFO_DROPS as usize;
    let mut values = [0u32; DROPPED + 1];
    let mut length = size_of_val(&values) as libc::socklen_t;
    // SAFETY: the place is as large as is said, and any value of it is valid.
    let done = unsafe {
        libc::getsockopt(socket.as_raw_fd(), libc::SOL_SOCKET, SO_MEMINFO, values.as_mut_ptr().cast(), &raw mut length)
    };
    if done != 0 {
        return Err(io::Error::last_os_error());
    }
    if (length as usize) < size_of_val(&values) {
        return Err(io::ErrorKind::Unsupported.into());
    }
    Ok(Memory { waiting: values[WAITING], room: values[ROOM], dropped: values[DROPPED] })
}

#[cfg(test)]
mod tests {
    use super::super::mmsg::raise_buffers;
    use super::*;

    #[test]
    fn what_waits_and_what_is_dropped_is_seen() {
        let socket = UdpSocket::bind("127.0.0.1:0").expect("loopback");
        raise_buffers(&socket, 256 << 10);
        let to = socket.local_addr().expect("an address");
        let sender = UdpSocket::bind("127.0.0.1:0").expect("loopback");
        let mut crowd = Crowd::default();
        assert!(!crowd.is_there(&socket), "nobody");
        for _ in 0..64 {
            sender.send_to(&[0; 40], to).expect("sent");
        }
        assert!(!crowd.is_there(&socket), "a client with a batch under way");
        for _ in 0..20_000 {
            sender.send_to(&[0; 40], to).expect("sent");
        }
        let memory = read(&socket).expect("told");
        assert!(memory.dropped > 0 && memory.waiting > memory.room / 2, "{memory:?}");
        assert!(crowd.is_there(&socket), "full");
        socket.set_nonblocking(true).expect("set");
        while socket.recv(&mut [0; 64]).is_ok() {}
        assert!(!crowd.is_there(&socket), "what was dropped is told once");
    }

    #[test]
    fn a_crowd_is_measured_by_the_room_there_is() {
        let memory = |waiting, room, dropped| Memory { waiting, room, dropped };
        let mut crowd = Crowd::default();
        assert!(!crowd.judge(memory(MANY, 8 << 20, 0)));
        assert!(crowd.judge(memory(MANY + 1, 8 << 20, 0)));
        assert!(crowd.judge(memory(110_000, 212_992, 0)), "a small socket");
        assert!(crowd.judge(memory(0, 8 << 20, 5)) && !crowd.judge(memory(0, 8 << 20, 5)));
    }
}
