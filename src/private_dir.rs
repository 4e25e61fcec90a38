//! Directories of our own: what we make nobody else may look into, whatever the umask is.

use std::fs::DirBuilder;
use std::io::{self, ErrorKind};
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;

/// Makes a directory that is ours alone, with those above it where they are missing; whether it had to be made. One that is
/// there stays as it is: its mode is somebody's decision.
///
/// # Errors
/// As the system says.
pub(crate) fn make(path: &Path) -> io::Result<bool> {
    if let Some(above) = path.parent() {
        std::fs::create_dir_all(above)?;
    }
    match DirBuilder::new().mode(0o700).create(path) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == ErrorKind::AlreadyExists && path.is_dir() => Ok(false),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn what_we_make_is_ours_alone_and_what_is_there_stays() {
        let dir = tempfile::tempdir().expect("directory");
        let mode = |path: &Path| path.metadata().expect("there").permissions().mode() & 0o777;
        let path = dir.path().join("a/b");
        assert!(make(&path).expect("made"));
        assert_eq!(mode(&path), 0o700);
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o750)).expect("set");
        assert!(!make(&path).expect("there"));
        assert_eq!(mode(&path), 0o750);
        std::fs::write(dir.path().join("file"), "").expect("written");
        assert!(make(&dir.path().join("file")).is_err());
    }
}
