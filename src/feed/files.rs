//! Small files of our own: written aside and renamed, so that nobody meets half of one.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, fchown};
use std::path::Path;

use crate::private_dir;

/// Makes a directory that is ours alone, with those above it.
pub(super) fn private_directory(path: &Path) -> io::Result<()> {
    if let Some(above) = path.parent() {
        private_dir::make(above)?;
    }
    match DirBuilder::new().mode(0o700).create(path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists && path.is_dir() => Ok(()),
        Ok(()) => given_on(&File::open(path)?, path),
        Err(error) => Err(error),
    }
}

/// What the superuser makes belongs to whom the directory above belongs to: the service must be able to read what was
/// built for it.
fn given_on(made: &File, path: &Path) -> io::Result<()> {
    // SAFETY: no argument, no failure.
    if unsafe { libc::geteuid() } != 0 {
        return Ok(());
    }
    let Some(above) = path.parent() else { return Ok(()) };
    let above = std::fs::metadata(above)?;
    fchown(made, Some(above.uid()), Some(above.gid()))
}

/// What stands between a file's name and the number of the process that writes it anew.
const NEW: &str = ".new-";

/// A new file beside `path`, to be renamed to it while it is open: for as long it is locked, so that [`sweep`] leaves it.
pub(super) fn aside(path: &Path) -> io::Result<(File, std::path::PathBuf)> {
    let mut name = path.as_os_str().to_owned();
    name.push(format!("{NEW}{}", std::process::id()));
    let name = std::path::PathBuf::from(name);
    loop {
        // What a process that died has left.
        let _ = std::fs::remove_file(&name);
        let file = OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(&name)?;
        given_on(&file, &name)?;
        // Where there are no locks, nothing is swept either.
        let _ = file.lock();
        // It may have been swept before it was locked.
        if file.metadata()?.nlink() > 0 {
            return Ok((file, name));
        }
    }
}

/// Removes what processes that died have left half written in a directory.
pub(super) fn sweep(directory: &Path) {
    let Ok(entries) = std::fs::read_dir(directory) else { return };
    for entry in entries.flatten() {
        let (name, path) = (entry.file_name(), entry.path());
        let writer = name.to_str().and_then(|name| name.rsplit_once(NEW)).map(|(_, writer)| writer);
        let is_half = writer.is_some_and(|writer| !writer.is_empty() && writer.bytes().all(|b| b.is_ascii_digit()));
        if is_half
            && entry.file_type().is_ok_and(|kind| kind.is_file())
            && let Ok(file) = File::open(&path)
            && file.try_lock().is_ok()
            && std::fs::remove_file(&path).is_ok()
        {
            tracing::info!(path = %path.display(), "what an earlier run left half written was removed");
        }
    }
}

/// Writes a file whole or not at all, and durably.
pub(crate) fn write_whole(path: &Path, octets: &[u8]) -> io::Result<()> {
    let (mut file, new) = aside(path)?;
    let written = file.write_all(octets).and_then(|()| file.sync_data());
    let renamed = written.and_then(|()| std::fs::rename(&new, path));
    if renamed.is_err() {
        let _ = std::fs::remove_file(&new);
    }
    renamed
}

/// Reads a file of at most `most` octets.
pub(crate) fn read_small(path: &Path, most: u64) -> io::Result<Vec<u8>> {
    let mut octets = Vec::new();
    File::open(path)?.take(most + 1).read_to_end(&mut octets)?;
    if octets.len() as u64 > most { Err(io::Error::other("too large")) } else { Ok(octets) }
}

/// Whether nobody but us and the superuser can change a file in a directory: then what is mapped of it stays.
pub(super) fn is_private(file: &File, directory: &Path) -> bool {
    // SAFETY: no argument, no failure.
    let own = unsafe { libc::geteuid() };
    let private = |metadata: io::Result<std::fs::Metadata>| {
        metadata.is_ok_and(|m| (m.uid() == own || m.uid() == 0) && m.mode() & 0o022 == 0)
    };
    private(file.metadata()) && private(std::fs::metadata(directory))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_process_that_died_left_goes_and_what_is_being_written_stays() {
        let dir = tempfile::tempdir().expect("directory");
        let left = |name: &str| std::fs::write(dir.path().join(name), "half").expect("written");
        left("draft.new-1");
        left("deny-00.table.new-4294967295");
        // Names of others.
        left("deny-00.table");
        left("a.new-");
        left("a.new-b");
        let (file, written) = aside(&dir.path().join("draft")).expect("a file");
        sweep(dir.path());
        let mut names: Vec<_> =
            std::fs::read_dir(dir.path()).expect("listed").flatten().map(|e| e.file_name()).collect();
        names.sort();
        let writing = written.file_name().expect("a name").to_owned();
        let mut expected = vec!["a.new-".into(), "a.new-b".into(), "deny-00.table".into(), writing];
        expected.sort();
        assert_eq!(names, expected);
        drop(file);
        sweep(dir.path());
        assert!(!written.exists());
        sweep(&dir.path().join("none"));
    }
}
