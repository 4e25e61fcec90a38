//! Octets that a table lies in: our own, or those of a file.

use std::fs::File;
use std::io;
use std::ops::Deref;
use std::sync::Arc;

use memmap2::Mmap;

/// See the module.
#[derive(Debug, Clone)]
pub(super) enum Octets {
    /// In memory.
    Owned(Vec<u8>),
    /// Of a file that is mapped.
    Mapped(Arc<Mmap>),
}

impl Octets {
    /// Maps a file.
    ///
    /// Where somebody else could change or shorten the file, its octets must be read instead: [`crate::lists::image`]
    /// decides that.
    ///
    /// # Errors
    /// Where the system does not map it.
    pub(super) fn map(file: &File) -> io::Result<Self> {
        // SAFETY: the caller has seen that the file is a regular one of our own, which nobody else may write, in a
        // directory of our own. We never change a file once it has its name; a new one takes its place by renaming. So
        // what is mapped neither changes nor is cut off.
        let map = unsafe { Mmap::map(file)? };
        Ok(Self::Mapped(Arc::new(map)))
    }
}

impl Deref for Octets {
    type Target = [u8];

    #[inline]
    fn deref(&self) -> &[u8] {
        match self {
            Self::Owned(octets) => octets,
            Self::Mapped(map) => map,
        }
    }
}
