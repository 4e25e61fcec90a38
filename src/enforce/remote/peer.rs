//! Who is at the other end of a unix socket, as the kernel says (`SO_PEERCRED`, unix(7)).

use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;

/// Which users may give orders.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Peers(Vec<u32>);

impl Peers {
    /// Only this user.
    pub fn only(user: u32) -> Self {
        Self(vec![user])
    }

    /// Root and the user of this process: where nobody is named.
    pub fn usual() -> Self {
        // SAFETY: geteuid takes nothing and cannot fail.
        Self(vec![0, unsafe { libc::geteuid() }])
    }

    /// Whether a user is among them.
    pub fn admit(&self, user: u32) -> bool {
        self.0.contains(&user)
    }
}

/// User and process at the other end, as of when it connected.
pub(super) fn of(stream: &UnixStream) -> io::Result<(u32, i32)> {
    let mut credentials = libc::ucred { pid: 0, uid: u32::MAX, gid: u32::MAX };
    let mut length = size_of::<libc::ucred>() as libc::socklen_t;
    // SAFETY: both pointers are to places of the sizes told, and the descriptor is open.
    let result = unsafe {
        libc::getsockopt(
            stream.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_PEERCRED,
            (&raw mut credentials).cast(),
            &raw mut length,
        )
    };
    if result != 0 || length as usize != size_of::<libc::ucred>() {
        return Err(io::Error::last_os_error());
    }
    Ok((credentials.uid, credentials.pid))
}

/// A user's number from /etc/passwd, or the number itself.
pub fn user_id(user: &str) -> Option<u32> {
    crate::local_socket::number_in("/etc/passwd", user)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_says_who_it_is() {
        let (here, _there) = UnixStream::pair().expect("a pair");
        // SAFETY: geteuid takes nothing and cannot fail.
        let own = unsafe { libc::geteuid() };
        assert_eq!(of(&here).expect("credentials"), (own, std::process::id() as i32));
        assert!(Peers::usual().admit(own) && Peers::usual().admit(0));
        assert!(Peers::only(7).admit(7) && !Peers::only(7).admit(0));
        assert_eq!((user_id("root"), user_id("4711"), user_id("no such user")), (Some(0), Some(4711), None));
    }
}
