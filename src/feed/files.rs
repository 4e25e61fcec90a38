//! Small files of our own: written aside and renamed, so that nobody meets half of one.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, fchown};
use std::path::Path;

/// Makes a directory that is ours alone, with those above it.
pub(super) fn private_directory(path: &Path) -> io::Result<()> {
    if let Some(above) = path.parent() {
        std::fs::create_dir_all(above)?;
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

/// A new file beside `path`, to be renamed to it.
pub(super) fn aside(path: &Path) -> io::Result<(File, std::path::PathBuf)> {
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".new-{}", std::process::id()));
    let name = std::path::PathBuf::from(name);
    // What a process that died has left.
    let _ = std::fs::remove_file(&name);
    let file = OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(&name)?;
    given_on(&file, &name)?;
    Ok((file, name))
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
