//! Datagrams in batches: recvmmsg and sendmmsg with the destination address kept.
//!
//! The only module of the listeners with system calls of its own. It knows sockets and octets, nothing of DNS. A reply
//! must leave from the address the query was sent to (RFC 1035 section 4.2.1 as every stub enforces it), which a socket
//! bound to a wildcard does only if told, by IP_PKTINFO and IPV6_RECVPKTINFO.

#![allow(
    clippy::indexing_slicing,
    reason = "indices run over arrays of our own, all of one length; what the kernel says of lengths goes through `get`"
)]

use std::io;
use std::mem::{size_of, zeroed};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6, UdpSocket};
use std::os::fd::AsRawFd;

/// Most datagrams in one system call.
pub(super) const BATCH: usize = 64;

/// Longest query taken, octets, on either transport. Real ones are below 600.
pub(super) const QUERY_MAX: usize = 4096;

/// Room for one query. Not a power of two: the first lines of all queries of a batch would share a few places of the
/// processor's cache.
const ROOM: usize = QUERY_MAX + 64;

/// Room for one control message with a packet's addresses: 16 octets of header and at most 24 of data.
const CONTROL: usize = 64;

/// The address a datagram was sent to, and its interface where the address means nothing without it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Local {
    address: IpAddr,
    interface: u32,
}

/// A socket address in the kernel's form. Both views start with the family.
#[repr(C)]
#[derive(Clone, Copy)]
union Address {
    v4: libc::sockaddr_in,
    v6: libc::sockaddr_in6,
}

/// Octets of control messages, aligned as their headers must be.
#[repr(C, align(8))]
#[derive(Clone, Copy)]
struct Control([u8; CONTROL]);

/// Buffers for one batch of received datagrams.
pub(super) struct Inbox {
    octets: Vec<[u8; ROOM]>,
    addresses: Vec<Address>,
    controls: Vec<Control>,
    vectors: Vec<libc::iovec>,
    headers: Vec<libc::mmsghdr>,
    /// How many the next call asks for: grows with the load, so that a quiet socket does not prepare 64 headers.
    ask: usize,
    received: usize,
    drained: bool,
}

/// One received datagram.
pub(super) struct Datagram<'b> {
    /// Its octets.
    pub(super) octets: &'b [u8],
    /// Where it came from; `None` if no reply can reach it.
    pub(super) from: Option<SocketAddr>,
    /// Where it was sent to.
    pub(super) local: Option<Local>,
    /// It was longer than [`QUERY_MAX`].
    pub(super) cut: bool,
}

impl Inbox {
    pub(super) fn new() -> Self {
        // SAFETY: every field of these C structures is an integer or a pointer, for which all zeros is a valid value.
        let (address, vector, header) = unsafe { (zeroed::<Address>(), zeroed(), zeroed()) };
        Self {
            octets: vec![[0; ROOM]; BATCH],
            addresses: vec![address; BATCH],
            controls: vec![Control([0; CONTROL]); BATCH],
            vectors: vec![vector; BATCH],
            headers: vec![header; BATCH],
            ask: 8,
            received: 0,
            drained: true,
        }
    }

    /// Waits for at least one datagram, up to the socket's receive time limit, and takes what else is there.
    pub(super) fn receive(&mut self, socket: &UdpSocket) -> io::Result<usize> {
        self.received = 0;
        for i in 0..self.ask {
            self.vectors[i] = libc::iovec { iov_base: self.octets[i].as_mut_ptr().cast(), iov_len: QUERY_MAX };
            let header = &mut self.headers[i].msg_hdr;
            header.msg_name = (&raw mut self.addresses[i]).cast();
            header.msg_namelen = size_of::<Address>() as libc::socklen_t;
            header.msg_iov = &raw mut self.vectors[i];
            header.msg_iovlen = 1;
            header.msg_control = self.controls[i].0.as_mut_ptr().cast();
            header.msg_controllen = CONTROL as _;
            header.msg_flags = 0;
        }
        // SAFETY: the first `ask` headers were just pointed at buffers of the lengths given, which live as long as
        // `self` and which nothing else touches during the call; a null time limit means that of the socket.
        let count = unsafe {
            libc::recvmmsg(
                socket.as_raw_fd(),
                self.headers.as_mut_ptr(),
                self.ask as libc::c_uint,
                libc::MSG_WAITFORONE as _,
                std::ptr::null_mut(),
            )
        };
        let count = usize::try_from(count).map_err(|_| io::Error::last_os_error())?;
        self.drained = count < self.ask;
        self.ask = (count * 2).clamp(8, BATCH);
        self.received = count;
        Ok(count)
    }

    /// Whether the last batch was all there was.
    pub(super) fn is_drained(&self) -> bool {
        self.drained
    }

    /// Where datagram `i` of the last batch came from, without reading it; `None` beyond its end and for no address.
    pub(super) fn source(&self, i: usize) -> Option<IpAddr> {
        let header = self.headers[..self.received].get(i)?;
        from_kernel(&self.addresses[i], header.msg_hdr.msg_namelen).map(|from| from.ip())
    }

    /// Datagram `i` of the last batch; `None` beyond its end.
    pub(super) fn datagram(&self, i: usize) -> Option<Datagram<'_>> {
        let header = self.headers[..self.received].get(i)?;
        let octets = self.octets.get(i)?;
        Some(Datagram {
            octets: octets.get(..(header.msg_len as usize).min(QUERY_MAX)).unwrap_or_default(),
            from: from_kernel(&self.addresses[i], header.msg_hdr.msg_namelen),
            local: local_of(&header.msg_hdr),
            cut: header.msg_hdr.msg_flags & libc::MSG_TRUNC != 0,
        })
    }
}

/// A reply and its way back.
pub(super) struct Reply {
    /// The message.
    pub(super) octets: Vec<u8>,
    /// The stub.
    pub(super) to: SocketAddr,
    /// The address it asked.
    pub(super) local: Option<Local>,
}

/// Headers for one batch of replies.
pub(super) struct Outbox {
    addresses: Vec<Address>,
    controls: Vec<Control>,
    vectors: Vec<libc::iovec>,
    headers: Vec<libc::mmsghdr>,
}

impl Outbox {
    pub(super) fn new() -> Self {
        // SAFETY: as in `Inbox::new`.
        let (address, vector, header) = unsafe { (zeroed::<Address>(), zeroed(), zeroed()) };
        Self {
            addresses: vec![address; BATCH],
            controls: vec![Control([0; CONTROL]); BATCH],
            vectors: vec![vector; BATCH],
            headers: vec![header; BATCH],
        }
    }

    /// Sends up to [`BATCH`] replies without waiting; returns how many the kernel took. One it refuses is skipped:
    /// the stub asks again.
    pub(super) fn send(&mut self, socket: &UdpSocket, replies: &[Reply]) -> usize {
        let count = replies.len().min(BATCH);
        for (i, reply) in replies.iter().take(count).enumerate() {
            prepare(
                &mut self.headers[i].msg_hdr,
                &mut self.vectors[i],
                &mut self.addresses[i],
                &mut self.controls[i],
                reply,
            );
        }
        let (mut at, mut sent) = (0, 0);
        while at < count {
            // The system call itself, since musl's function of this name makes one for each message. What musl's structures
            // have beside the kernel's is padding, which was zeroed and is never written.
            // SAFETY: headers `at..count` were prepared above; what they point at belongs to `self` and `replies`,
            // neither of which moves or changes before the call returns.
            let done = unsafe {
                libc::syscall(
                    libc::SYS_sendmmsg,
                    socket.as_raw_fd(),
                    self.headers[at..].as_mut_ptr(),
                    (count - at) as libc::c_uint,
                    libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL,
                )
            };
            match usize::try_from(done) {
                Ok(done) if done > 0 => {
                    at += done;
                    sent += done;
                }
                _ => at += 1,
            }
        }
        sent
    }
}

/// Sends one reply without waiting.
pub(super) fn send(socket: &UdpSocket, reply: &Reply) -> io::Result<()> {
    // SAFETY: as in `Inbox::new`.
    let (mut header, mut vector, mut address) = unsafe { (zeroed::<libc::msghdr>(), zeroed(), zeroed::<Address>()) };
    let mut control = Control([0; CONTROL]);
    prepare(&mut header, &mut vector, &mut address, &mut control, reply);
    // SAFETY: `header` points at locals and at `reply`, all of which outlive the call.
    let sent = unsafe { libc::sendmsg(socket.as_raw_fd(), &raw const header, libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL) };
    if sent < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Fills in one message header for sending. The kernel only reads through the pointers.
fn prepare(
    header: &mut libc::msghdr,
    vector: &mut libc::iovec,
    address: &mut Address,
    control: &mut Control,
    reply: &Reply,
) {
    let address_len = to_kernel(reply.to, address);
    *vector = libc::iovec { iov_base: reply.octets.as_ptr().cast_mut().cast(), iov_len: reply.octets.len() };
    header.msg_name = (&raw mut *address).cast();
    header.msg_namelen = address_len;
    header.msg_iov = &raw mut *vector;
    header.msg_iovlen = 1;
    header.msg_flags = 0;
    header.msg_control = control.0.as_mut_ptr().cast();
    header.msg_controllen = CONTROL as _;
    let length = match (reply.local, reply.to) {
        (Some(Local { address: IpAddr::V4(source), .. }), SocketAddr::V4(_)) => {
            let info = libc::in_pktinfo {
                ipi_ifindex: 0, // the route decides
                ipi_spec_dst: libc::in_addr { s_addr: u32::from_ne_bytes(source.octets()) },
                ipi_addr: libc::in_addr { s_addr: 0 },
            };
            write_control(header, libc::IPPROTO_IP, libc::IP_PKTINFO, info)
        }
        (Some(Local { address: IpAddr::V6(source), interface }), SocketAddr::V6(_)) => {
            let info = libc::in6_pktinfo {
                ipi6_addr: libc::in6_addr { s6_addr: source.octets() },
                ipi6_ifindex: interface as _,
            };
            write_control(header, libc::IPPROTO_IPV6, libc::IPV6_PKTINFO, info)
        }
        _ => 0,
    };
    header.msg_controllen = length as _;
    if length == 0 {
        header.msg_control = std::ptr::null_mut();
    }
}

/// Writes one control message into the buffer of `header`; returns its length with padding.
fn write_control<T>(header: &libc::msghdr, level: libc::c_int, kind: libc::c_int, value: T) -> usize {
    let size = size_of::<T>() as libc::c_uint;
    // SAFETY: `msg_control` points at CONTROL (64) aligned octets, which hold one header and a `T` of at most 20
    // octets; CMSG_FIRSTHDR is therefore not null and CMSG_DATA lies inside. The data is written unaligned.
    unsafe {
        let message = libc::CMSG_FIRSTHDR(header);
        (*message).cmsg_level = level;
        (*message).cmsg_type = kind;
        (*message).cmsg_len = libc::CMSG_LEN(size) as _;
        std::ptr::write_unaligned(libc::CMSG_DATA(message).cast::<T>(), value);
        libc::CMSG_SPACE(size) as usize
    }
}

/// The destination address among the control messages of a received datagram.
fn local_of(header: &libc::msghdr) -> Option<Local> {
    // SAFETY: the kernel filled `msg_controllen` octets behind `msg_control` with well-formed control messages, in a
    // buffer of the `Inbox` this header belongs to; the CMSG macros stay within that length, and data is read
    // unaligned after its kind has been checked.
    unsafe {
        let mut message = libc::CMSG_FIRSTHDR(header);
        while !message.is_null() {
            match ((*message).cmsg_level, (*message).cmsg_type) {
                (libc::IPPROTO_IP, libc::IP_PKTINFO) => {
                    let info = std::ptr::read_unaligned(libc::CMSG_DATA(message).cast::<libc::in_pktinfo>());
                    let address = Ipv4Addr::from(info.ipi_spec_dst.s_addr.to_ne_bytes());
                    return Some(Local { address: address.into(), interface: 0 });
                }
                (libc::IPPROTO_IPV6, libc::IPV6_PKTINFO) => {
                    let info = std::ptr::read_unaligned(libc::CMSG_DATA(message).cast::<libc::in6_pktinfo>());
                    let address = Ipv6Addr::from(info.ipi6_addr.s6_addr);
                    let interface = if address.is_unicast_link_local() { info.ipi6_ifindex as u32 } else { 0 };
                    return Some(Local { address: address.into(), interface });
                }
                _ => message = libc::CMSG_NXTHDR(header, message),
            }
        }
    }
    None
}

/// The source of a datagram; `None` where nothing can be sent to it (port 0, RFC 768).
fn from_kernel(address: &Address, length: libc::socklen_t) -> Option<SocketAddr> {
    // SAFETY: both views start with the family, every octet of the union was initialised, and the view used is the one
    // the family and length name.
    let found: SocketAddr = unsafe {
        match libc::c_int::from(address.v4.sin_family) {
            libc::AF_INET if length as usize >= size_of::<libc::sockaddr_in>() => {
                let ip = Ipv4Addr::from(address.v4.sin_addr.s_addr.to_ne_bytes());
                SocketAddrV4::new(ip, u16::from_be(address.v4.sin_port)).into()
            }
            libc::AF_INET6 if length as usize >= size_of::<libc::sockaddr_in6>() => {
                let v6 = address.v6;
                SocketAddrV6::new(v6.sin6_addr.s6_addr.into(), u16::from_be(v6.sin6_port), 0, v6.sin6_scope_id).into()
            }
            _ => return None,
        }
    };
    (found.port() != 0).then_some(found)
}

/// Writes `from` in the kernel's form; returns its length.
fn to_kernel(from: SocketAddr, address: &mut Address) -> libc::socklen_t {
    match from {
        SocketAddr::V4(v4) => {
            address.v4 = libc::sockaddr_in {
                sin_family: libc::AF_INET as libc::sa_family_t,
                sin_port: v4.port().to_be(),
                sin_addr: libc::in_addr { s_addr: u32::from_ne_bytes(v4.ip().octets()) },
                sin_zero: [0; 8],
            };
            size_of::<libc::sockaddr_in>() as libc::socklen_t
        }
        SocketAddr::V6(v6) => {
            address.v6 = libc::sockaddr_in6 {
                sin6_family: libc::AF_INET6 as libc::sa_family_t,
                sin6_port: v6.port().to_be(),
                sin6_flowinfo: 0,
                sin6_addr: libc::in6_addr { s6_addr: v6.ip().octets() },
                sin6_scope_id: v6.scope_id(),
            };
            size_of::<libc::sockaddr_in6>() as libc::socklen_t
        }
    }
}

/// Asks the kernel to tell each datagram's destination where the socket is bound to none, which is the dearer way; and to
/// ignore what strangers claim about the path MTU and not to fragment (RFC 9715 section 3.1; best effort). Replies fit any
/// link that carries IPv6.
pub(super) fn keep_destination(socket: &UdpSocket, bound: IpAddr) -> io::Result<()> {
    let wildcard = bound.is_unspecified();
    match bound {
        IpAddr::V6(_) => {
            let _ = option(socket, libc::IPPROTO_IPV6, libc::IPV6_MTU_DISCOVER, libc::IPV6_PMTUDISC_PROBE);
            if wildcard { option(socket, libc::IPPROTO_IPV6, libc::IPV6_RECVPKTINFO, 1) } else { Ok(()) }
        }
        IpAddr::V4(_) => {
            let _ = option(socket, libc::IPPROTO_IP, libc::IP_MTU_DISCOVER, libc::IP_PMTUDISC_PROBE);
            if wildcard { option(socket, libc::IPPROTO_IP, libc::IP_PKTINFO, 1) } else { Ok(()) }
        }
    }
}

/// Raises the receive and send buffers to `octets` each: beyond the system's limit where the privilege allows, else up
/// to it. Best effort.
pub(super) fn raise_buffers(socket: &UdpSocket, octets: libc::c_int) {
    for (forced, plain) in [(libc::SO_RCVBUFFORCE, libc::SO_RCVBUF), (libc::SO_SNDBUFFORCE, libc::SO_SNDBUF)] {
        let _ = option(socket, libc::SOL_SOCKET, forced, octets)
            .or_else(|_| option(socket, libc::SOL_SOCKET, plain, octets));
    }
}

fn option(socket: &UdpSocket, level: libc::c_int, name: libc::c_int, value: libc::c_int) -> io::Result<()> {
    // SAFETY: the value is a C int that outlives the call, and its true size is given.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            level,
            name,
            (&raw const value).cast(),
            size_of::<libc::c_int>() as libc::socklen_t,
        )
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_survive_the_kernel_form() {
        // SAFETY: as in `Inbox::new`.
        let mut address = unsafe { zeroed::<Address>() };
        for text in ["192.0.2.1:53", "[2001:db8::1]:5300", "[fe80::1%7]:53", "255.255.255.255:65535"] {
            let given: SocketAddr = text.parse().expect("address");
            let length = to_kernel(given, &mut address);
            assert_eq!(from_kernel(&address, length), Some(given));
        }
        let length = to_kernel("192.0.2.1:0".parse().expect("address"), &mut address);
        assert_eq!(from_kernel(&address, length), None, "nothing can be sent to port 0");
        assert_eq!(from_kernel(&address, 2), None, "too short to hold an address");
    }
}
