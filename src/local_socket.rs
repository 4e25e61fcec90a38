//! Unix sockets that we listen on: made with mode 0660, one that nobody listens on is replaced.

use std::io;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;

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
        && group.is_some()
    {
        std::os::unix::fs::chown(parent, None, group)?;
        std::fs::set_permissions(parent, std::fs::Permissions::from_mode(0o710))?;
    }
    if let Ok(existing) = std::fs::symlink_metadata(path) {
        if !existing.file_type().is_socket() {
            return Err(io::Error::other(format!("{} exists and is not a socket", path.display())));
        }
        if UnixStream::connect(path).is_ok() {
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
    use std::os::unix::fs::MetadataExt;

    use super::*;

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
        assert!(bind(&dir.path().join("c/socket"), Some("no-such-group")).is_err());
        assert!(!dir.path().join("c").exists(), "nothing is made for nobody");
    }
}
