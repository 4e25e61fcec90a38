//! Configured files: regular ones, of a length that is bounded.

use std::fs::File;
use std::io::{Error, Read as _, Result};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

/// Reads a regular file of at most `most` octets.
///
/// # Errors
/// Whatever opening and reading meets; one that is larger, or no regular file.
pub fn read(path: &Path, most: u64) -> Result<Vec<u8>> {
    let file = open(path, most)?;
    let mut octets = Vec::with_capacity(file.metadata()?.len().min(most) as usize);
    // It may grow while it is read.
    file.take(most + 1).read_to_end(&mut octets)?;
    if octets.len() as u64 > most { Err(too_large(most)) } else { Ok(octets) }
}

/// Opens a regular file of at most `most` octets.
///
/// # Errors
/// As [`read`].
pub fn open(path: &Path, most: u64) -> Result<File> {
    // A pipe is opened only when somebody writes to it, unless it is not waited for.
    let file = File::options().read(true).custom_flags(libc::O_NONBLOCK).open(path)?;
    let metadata = file.metadata()?;
    // A device or pipe could give octets for ever, or none and block.
    if !metadata.is_file() {
        return Err(Error::other("not a regular file"));
    }
    if metadata.len() > most { Err(too_large(most)) } else { Ok(file) }
}

fn too_large(most: u64) -> Error {
    Error::other(format!("larger than {most} octets"))
}
