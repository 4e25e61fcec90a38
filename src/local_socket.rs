//! Unix sockets that we listen on: made with mode 0660, one that nobody listens on is replaced.

use std::fs::Metadata;
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::net::UnixListener;
use std::path::Path;

use socket2::{Domain, SockAddr, Socket, Type};

use crate::private_dir;

/// Binds the socket with mode 0660, replacing one that nobody listens on; the directory is made where it is missing, and whoever
/// is of the group may pass through it and no more.
///
/// # Errors
///
/// Where something else stands there, somebody listens on it, the group is not known, or the system refuses.
pub fn bind(path: &Path, group: Option<&str>) -> io::Result<UnixListener> {
    let group = match group {
        Some(group) => {
            let unknown = || io::Error::other(format!("no group `{group}` for the socket"));
            Some(number_in("/etc/group", group).ok_or_else(unknown)?)
        }
        None => None,
    };
    if let Some(parent) = path.parent()
        && private_dir::make(parent)?
        && let Some(group) = group
    {
        let_pass(parent, group)?;
    }
    if let Ok(existing) = std::fs::symlink_metadata(path) {
        if !existing.file_type().is_socket() {
            return Err(io::Error::other(format!("{} exists and is not a socket", path.display())));
        }
        if is_heard(path)? {
            return Err(io::Error::other(format!("another daemon listens on {}", path.display())));
        }
        std::fs::remove_file(path)?;
    }
    let listener = UnixListener::bind(path)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o660))?;
    if group.is_some() {
        std::os::unix::fs::chown(path, None, group)?;
    }
    Ok(listener)
}

/// Whether somebody listens on a socket. Waits for nobody: whoever takes no connection may be stopped, and listens all the same.
/// An error where that cannot be told, because the socket is another user's or of another kind: it is not ours to replace.
fn is_heard(path: &Path) -> io::Result<bool> {
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    socket.set_nonblocking(true)?;
    match socket.connect(&SockAddr::unix(path)?) {
        Ok(()) => Ok(true),
        Err(error) => match error.kind() {
            io::ErrorKind::WouldBlock => Ok(true),
            io::ErrorKind::ConnectionRefused => Ok(false),
            kind => {
                let path = path.display();
                let told =
                    format!("whether somebody listens on {path} cannot be told: {error}; remove it if nobody does");
                Err(io::Error::new(kind, told))
            }
        },
    }
}

/// Makes a directory for a socket to be in, if it is missing, which the group may pass through and not read: no file in it that
/// is its owner's alone is open to anybody by that.
///
/// # Errors
///
/// Where the group is not known, or the system refuses.
pub fn make_room(directory: &Path, group: &str) -> io::Result<()> {
    let number = number_in("/etc/group", group).ok_or_else(|| io::Error::other(format!("no group `{group}`")))?;
    if private_dir::make(directory)? { let_pass(directory, number) } else { Ok(()) }
}

/// Whether a group may pass through a directory that is there. By its mode alone: its owner may be of the group, or its superior.
pub fn passes(directory: &Metadata, group: u32) -> bool {
    let mode = directory.mode();
    mode & 0o001 != 0 || (directory.gid() == group && mode & 0o010 != 0)
}

fn let_pass(directory: &Path, group: u32) -> io::Result<()> {
    std::os::unix::fs::chown(directory, None, Some(group))?;
    std::fs::set_permissions(directory, std::fs::Permissions::from_mode(0o710))
}

/// The number of a user or group by one of these files, or the number itself.
pub fn number_in(file: &str, name: &str) -> Option<u32> {
    if let Ok(number) = name.parse() {
        return Some(number);
    }
    let text = std::fs::read_to_string(file).ok()?;
    text.lines().find_map(|line| {
        let mut fields = line.split(':');
        (fields.next()? == name).then(|| fields.nth(1)?.parse().ok())?
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_socket_that_nobody_listens_on_is_replaced() {
        let dir = tempfile::tempdir().expect("directory");
        let path = dir.path().join("socket");
        drop(UnixListener::bind(&path).expect("bound"));
        drop(bind(&path, None).expect("nobody listens on what is left"));
        std::fs::remove_file(&path).expect("removed");
        // One that takes no connections, with as many waiting as there is room for: who asks has to wait.
        let stopped = Socket::new(Domain::UNIX, Type::STREAM, None).expect("socket");
        stopped.bind(&SockAddr::unix(&path).expect("an address")).expect("bound");
        stopped.listen(0).expect("listens");
        let _waiting = std::os::unix::net::UnixStream::connect(&path).expect("taken by the kernel");
        let error = bind(&path, None).expect_err("somebody listens");
        assert!(error.to_string().contains("another daemon"), "{error}");
        std::fs::remove_file(&path).expect("removed");
        // Such as a log's.
        let _datagrams = std::os::unix::net::UnixDatagram::bind(&path).expect("bound");
        let error = bind(&path, None).expect_err("not ours");
        assert!(error.to_string().contains("cannot be told") && path.exists(), "{error}");
    }

    #[test]
    fn a_directory_that_is_made_for_a_socket_is_for_its_group_at_most() {
        let dir = tempfile::tempdir().expect("directory");
        let own = dir.path().metadata().expect("there").gid().to_string();
        for (name, group, mode) in [("a", None, 0o700), ("b", Some(&*own), 0o710)] {
            let path = dir.path().join(name).join("socket");
            let _socket = bind(&path, group).expect("bound");
            let made = dir.path().join(name).metadata().expect("made");
            assert_eq!(made.mode() & 0o777, mode, "{group:?}");
        }
        for (name, made, mode) in [("d", false, 0o710), ("e", true, 0o700)] {
            let path = dir.path().join(name);
            if made {
                private_dir::make(&path).expect("made before");
            }
            make_room(&path, &own).expect("there");
            let there = path.metadata().expect("there");
            let group = own.parse().expect("number");
            assert_eq!((there.mode() & 0o777, passes(&there, group)), (mode, !made), "what is there stays as it is");
            assert!(!passes(&there, group + 1));
        }
        assert!(make_room(&dir.path().join("c"), "no-such-group").is_err());
        assert!(bind(&dir.path().join("c/socket"), Some("no-such-group")).is_err());
        assert!(!dir.path().join("c").exists(), "nothing is made for nobody");
    }
}
