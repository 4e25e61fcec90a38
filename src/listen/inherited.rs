//! Sockets that a supervisor opened before us and keeps across our restarts (sd_listen_fds(3)).
//!
//! What comes in while nobody serves waits in their queues, and a service that is handed port 53 needs no privilege for
//! it. Says which socket is which by asking the kernel, never by a name; [`super::Listener`] and the daemon take theirs
//! by address, and what is left over is a mistake: somebody expects it to be served.

use std::fmt;
use std::io;
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::os::fd::{FromRawFd, OwnedFd};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

use socket2::{Domain, Socket, Type};

/// Most descriptors taken. More than addresses that anybody serves; past it the start is refused.
const MOST: usize = 256;

/// Why inherited sockets cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum InheritedError {
    /// `LISTEN_PID` or `LISTEN_FDS` is no number, or names a descriptor that is not open.
    #[error("the sockets that the supervisor announces (LISTEN_FDS) cannot be taken")]
    Environment(#[source] io::Error),
    /// More than are taken.
    #[error("{0} inherited sockets; at most {MOST} are taken")]
    Many(usize),
    /// Neither UDP, nor listening TCP, nor a listening unix socket.
    #[error("inherited {0} is neither UDP nor listening TCP nor a listening unix socket; correct the socket unit")]
    Kind(String),
    /// IPv6 wildcard that takes IPv4 too.
    #[error(
        "inherited {0} takes IPv4 as well, so senders could not be told apart; set BindIPv6Only=ipv6-only in the socket unit"
    )]
    BothFamilies(String),
    /// Nothing in the configuration names it.
    #[error(
        "inherited {0} is served by nothing: name its address in [server] (listen or admin_socket), or take it out of the socket unit"
    )]
    Unwanted(String),
    /// The kernel refused a setting.
    #[error("inherited {what} cannot be set up")]
    Setting {
        /// Which.
        what: String,
        /// What the system said.
        source: io::Error,
    },
}

/// One socket and how its descriptor was announced.
struct Named<T> {
    socket: T,
    name: String,
}

/// Sockets that were handed to this process and not yet taken.
#[derive(Default)]
pub struct Inherited {
    tcp: Vec<(SocketAddr, Named<TcpListener>)>,
    udp: Vec<(SocketAddr, Named<UdpSocket>)>,
    admin: Vec<(PathBuf, Named<UnixListener>)>,
}

impl fmt::Debug for Inherited {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.left()).finish()
    }
}

impl Inherited {
    /// Takes what the environment announces to this process, and takes the announcement out of the environment; each
    /// descriptor is closed at exec from now on. Nothing where nothing is announced, or to another process.
    ///
    /// # Safety
    /// Changes the environment: no other thread may run yet. The announced descriptors must be nobody else's.
    ///
    /// # Errors
    /// If the announcement is damaged or a socket is of a kind that is not served.
    pub unsafe fn from_environment() -> Result<Self, InheritedError> {
        // SAFETY: handed on to the caller.
        let announced = unsafe { sd_notify::listen_fds_with_names_and_unset_env() };
        let announced: Vec<_> = announced.map_err(InheritedError::Environment)?.collect();
        if announced.len() > MOST {
            return Err(InheritedError::Many(announced.len()));
        }
        // SAFETY: announced to this process alone, so nobody else closes them; each is open, or setting its flag had failed.
        let owned = announced.into_iter().map(|(fd, name)| (unsafe { OwnedFd::from_raw_fd(fd) }, name));
        Self::from_descriptors(owned)
    }

    /// Sorts descriptors by what the kernel says they are; the names are for messages.
    ///
    /// # Errors
    /// If one is of a kind that is not served.
    pub fn from_descriptors(descriptors: impl IntoIterator<Item = (OwnedFd, String)>) -> Result<Self, InheritedError> {
        let mut this = Self::default();
        for (number, (descriptor, name)) in descriptors.into_iter().enumerate() {
            this.sort(Socket::from(descriptor), name, number)?;
        }
        Ok(this)
    }

    fn sort(&mut self, socket: Socket, name: String, number: usize) -> Result<(), InheritedError> {
        let unknown = || InheritedError::Kind(format!("descriptor {number} of LISTEN_FDS (`{}`)", name.escape_debug()));
        // Fails for what is no socket.
        let kind = socket.r#type().map_err(|_| unknown())?;
        let domain = socket.domain().map_err(|_| unknown())?;
        let address = socket.local_addr().map_err(|_| unknown())?;
        let listens = kind == Type::STREAM && socket.is_listener().map_err(|_| unknown())?;
        if domain == Domain::UNIX && listens {
            let path = address.as_pathname().ok_or_else(unknown)?.to_owned();
            self.admin.push((path, Named { socket: UnixListener::from(OwnedFd::from(socket)), name }));
            return Ok(());
        }
        let inet = address.as_socket().ok_or_else(unknown)?;
        let what = || format!("{inet} (`{}`)", name.escape_debug());
        let setting = |source| InheritedError::Setting { what: what(), source };
        if inet.is_ipv6() && inet.ip().is_unspecified() && !socket.only_v6().map_err(setting)? {
            return Err(InheritedError::BothFamilies(what()));
        }
        match kind {
            Type::STREAM if listens => {
                socket.set_nonblocking(true).map_err(setting)?;
                self.tcp.push((inet, Named { socket: socket.into(), name }));
            }
            Type::DGRAM => {
                // Workers wait with a time limit instead.
                socket.set_nonblocking(false).map_err(setting)?;
                self.udp.push((inet, Named { socket: socket.into(), name }));
            }
            _ => return Err(unknown()),
        }
        Ok(())
    }

    /// The sockets bound to exactly this address; none of both where it is not among them.
    pub(super) fn take(&mut self, address: SocketAddr) -> (Option<TcpListener>, Vec<UdpSocket>) {
        let tcp = self.tcp.iter().position(|(bound, _)| *bound == address).map(|at| self.tcp.remove(at).1.socket);
        let (mine, others) = std::mem::take(&mut self.udp).into_iter().partition(|(bound, _)| *bound == address);
        self.udp = others;
        let mine: Vec<_> = mine;
        (tcp, mine.into_iter().map(|(_, named)| named.socket).collect())
    }

    /// The listening unix socket at this path.
    pub fn take_admin(&mut self, path: &Path) -> Option<UnixListener> {
        let at = self.admin.iter().position(|(bound, _)| bound == path)?;
        Some(self.admin.remove(at).1.socket)
    }

    /// What nobody has taken, in words.
    fn left(&self) -> Vec<String> {
        let tcp = self.tcp.iter().map(|(address, named)| format!("TCP {address} (`{}`)", named.name.escape_debug()));
        let udp = self.udp.iter().map(|(address, named)| format!("UDP {address} (`{}`)", named.name.escape_debug()));
        let admin = self.admin.iter().map(|(path, named)| {
            format!("unix socket {} (`{}`)", path.display().to_string().escape_debug(), named.name.escape_debug())
        });
        tcp.chain(udp).chain(admin).collect()
    }

    /// Whether everything was taken.
    ///
    /// # Errors
    /// Names what was not.
    pub(super) fn all_taken(&self) -> Result<(), InheritedError> {
        match self.left() {
            left if left.is_empty() => Ok(()),
            left => Err(InheritedError::Unwanted(left.join(", "))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hand<const N: usize>(sockets: [OwnedFd; N]) -> Result<Inherited, InheritedError> {
        Inherited::from_descriptors(sockets.into_iter().map(|socket| (socket, "dns".to_owned())))
    }

    #[test]
    fn each_socket_is_taken_by_its_address() {
        let tcp = TcpListener::bind("127.0.0.1:0").expect("bound");
        let address = tcp.local_addr().expect("address");
        let udp = UdpSocket::bind(address).expect("bound");
        let dir = tempfile::tempdir().expect("directory");
        let path = dir.path().join("admin.sock");
        let admin = UnixListener::bind(&path).expect("bound");
        let mut inherited = hand([admin.into(), udp.into(), tcp.into()]).expect("sorted");

        let (no_tcp, no_udp) = inherited.take("127.0.0.2:53".parse().expect("address"));
        assert!(no_tcp.is_none() && no_udp.is_empty());
        assert!(inherited.take_admin(Path::new("/elsewhere")).is_none());
        assert!(inherited.all_taken().is_err());

        let (tcp, udp) = inherited.take(address);
        assert_eq!(tcp.map(|tcp| tcp.local_addr().expect("address")), Some(address));
        assert_eq!(udp.len(), 1);
        assert!(inherited.take_admin(&path).is_some());
        assert!(inherited.all_taken().is_ok());
    }

    #[test]
    fn what_is_left_over_is_named() {
        let udp = UdpSocket::bind("127.0.0.1:0").expect("bound");
        let address = udp.local_addr().expect("address");
        let error = hand([udp.into()]).expect("sorted").all_taken().expect_err("nobody took it");
        assert!(error.to_string().contains(&format!("UDP {address}")), "{error}");
    }

    #[test]
    fn what_is_not_served_is_refused() {
        let file: OwnedFd = tempfile::tempfile().expect("file").into();
        assert!(matches!(hand([file]), Err(InheritedError::Kind(_))));
        let listening = TcpListener::bind("127.0.0.1:0").expect("bound");
        let connected = std::net::TcpStream::connect(listening.local_addr().expect("address")).expect("connected");
        assert!(matches!(hand([connected.into()]), Err(InheritedError::Kind(_))));
        let unbound = std::os::unix::net::UnixDatagram::unbound().expect("socket");
        assert!(matches!(hand([unbound.into()]), Err(InheritedError::Kind(_))));
        let both = Socket::new(Domain::IPV6, Type::DGRAM, None).expect("socket");
        both.set_only_v6(false).expect("setting");
        both.bind(&"[::]:0".parse::<SocketAddr>().expect("address").into()).expect("bound");
        assert!(matches!(hand([OwnedFd::from(both)]), Err(InheritedError::BothFamilies(_))));
    }
}
