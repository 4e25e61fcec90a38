//! The index: a key-value store beside the journal, for what is looked up by key and for what may lose its newest
//! seconds. Everything that matters is in the journal; an index that cannot be read is put aside and built anew.
//!
//! [`StateStore`] is all the rest of the store knows of it; [`MemoryStore`] and [`SledStore`] pass the same tests.

pub(super) mod entry;
mod memory;
mod pending;
pub(super) mod seen;
pub(super) mod sights;
mod sled;
pub(super) mod thread;

use std::ops::ControlFlow;
use std::sync::Arc;

pub use memory::MemoryStore;
pub use sled::SledStore;

/// Version of the values, in front of each.
pub(super) const VALUE_VERSION: u8 = 1;

/// A named table of the index.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Tree {
    /// Schema version, journal sequence applied, creation time, hash key.
    Meta,
    /// Announcements by session id.
    Session,
    /// Quarantines by session id.
    Quarantine,
    /// Grants by id.
    Grant,
    /// Copy of the ledger by session id, whole; up to a minute behind the journal's.
    Ledger,
    /// Newest spending by group.
    Group,
    /// Newest spending and names by group, written less often.
    GroupNames,
    /// First-seen times by keyed hash of the registrable domain, many in one value.
    FirstSeen,
    /// What was learned of each kind of session, by profile.
    Learned,
    /// First-seen times by keyed hash of group and registrable domain, many in one value.
    GroupSeen,
    /// What a registry said, by registrable domain in wire form.
    Registered,
}

impl Tree {
    /// Every tree.
    pub const ALL: [Self; 11] = [
        Self::Meta,
        Self::Session,
        Self::Quarantine,
        Self::Grant,
        Self::Ledger,
        Self::Group,
        Self::GroupNames,
        Self::FirstSeen,
        Self::Learned,
        Self::GroupSeen,
        Self::Registered,
    ];

    /// Name on disk.
    pub fn name(self) -> &'static str {
        match self {
            Self::Meta => "meta",
            Self::Session => "session",
            Self::Quarantine => "quarantine",
            Self::Grant => "grant",
            Self::Ledger => "ledger",
            Self::Group => "group",
            Self::GroupNames => "group_names",
            Self::FirstSeen => "first_seen",
            Self::Learned => "learned",
            Self::GroupSeen => "group_seen",
            Self::Registered => "registered",
        }
    }
}

/// One change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Op {
    /// Sets a key.
    Put(Tree, Vec<u8>, Vec<u8>),
    /// Removes a key, if it is there.
    Delete(Tree, Vec<u8>),
}

impl Op {
    /// Which key it changes.
    fn place(&self) -> (Tree, &[u8]) {
        match self {
            Self::Put(tree, key, _) | Self::Delete(tree, key) => (*tree, key),
        }
    }
}

/// The index failed.
#[derive(Debug, Clone, thiserror::Error)]
pub enum IndexError {
    /// It reports an I/O error.
    #[error("index: {0}")]
    Io(Arc<std::io::Error>),
    /// Its files do not make sense.
    #[error("index damaged: {0}")]
    Damaged(String),
    /// Its code panicked, which is what damaged files can make it do.
    #[error("index panicked: {0}")]
    Panicked(String),
    /// A later version wrote it.
    #[error("index has schema {found}, this version knows {known}")]
    Newer {
        /// Its schema.
        found: u32,
        /// Ours.
        known: u32,
    },
}

impl IndexError {
    /// Whether the disk, or what the system allows us, is all it complains of: that says nothing of what the files hold.
    pub(super) fn is_of_the_disk(&self) -> bool {
        const CODES: [i32; 10] = [
            libc::ENOSPC,
            libc::EDQUOT,
            libc::EACCES,
            libc::EPERM,
            libc::EROFS,
            libc::EMFILE,
            libc::ENFILE,
            libc::EIO,
            libc::ENOMEM,
            libc::EAGAIN,
        ];
        matches!(self, Self::Io(error) if error.raw_os_error().is_some_and(|code| CODES.contains(&code)))
    }
}

/// Called with each key and value of a scan; `Break` ends it.
pub type Visit<'a> = dyn FnMut(&[u8], &[u8]) -> ControlFlow<()> + 'a;

/// Trees of octet keys and values. Keys compare as octets, so numbers in them are written big-endian.
pub trait StateStore: Send {
    /// Applies the changes, those of one key in order. Durable after the next [`flush`](Self::flush); a crash before may
    /// leave some of them.
    fn apply(&mut self, batch: Vec<Op>) -> Result<(), IndexError>;

    /// The value of a key.
    fn get(&self, tree: Tree, key: &[u8]) -> Result<Option<Vec<u8>>, IndexError>;

    /// Visits every key that begins with `prefix`, ascending.
    fn scan(&self, tree: Tree, prefix: &[u8], visit: &mut Visit<'_>) -> Result<(), IndexError>;

    /// Makes everything applied durable.
    fn flush(&mut self) -> Result<(), IndexError>;

    /// Octets on disk; 0 where there is none.
    fn size_on_disk(&self) -> u64;
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(store: &dyn StateStore, tree: Tree, prefix: &[u8]) -> Vec<Vec<u8>> {
        let mut keys = Vec::new();
        store
            .scan(tree, prefix, &mut |key, _| {
                keys.push(key.to_vec());
                ControlFlow::Continue(())
            })
            .unwrap();
        keys
    }

    /// The suite that every implementation passes; `reopen` closes and opens it again.
    fn suite(mut store: Box<dyn StateStore>, reopen: impl Fn(Box<dyn StateStore>) -> Box<dyn StateStore>) {
        let put = |tree, key: &[u8], value: &[u8]| Op::Put(tree, key.to_vec(), value.to_vec());
        for n in [300u64, 2, 70_000, 1] {
            store.apply(vec![put(Tree::FirstSeen, &n.to_be_bytes(), b"x")]).unwrap();
        }
        let order: Vec<u64> = keys(&*store, Tree::FirstSeen, b"")
            .iter()
            .map(|k| u64::from_be_bytes(k.as_slice().try_into().unwrap()))
            .collect();
        assert_eq!(order, [1, 2, 300, 70_000], "big-endian keys come in numeric order");

        let batch = vec![
            put(Tree::Session, b"a1", b"1"),
            put(Tree::Session, b"a2", b"2"),
            put(Tree::Session, b"b1", b"3"),
            put(Tree::Grant, b"a1", b"4"),
            put(Tree::Session, b"a2", b"5"),
            Op::Delete(Tree::Session, b"b1".to_vec()),
            Op::Delete(Tree::Session, b"never there".to_vec()),
        ];
        store.apply(batch).unwrap();
        assert_eq!(store.get(Tree::Session, b"a2").unwrap().as_deref(), Some(&b"5"[..]), "later changes win");
        assert_eq!(store.get(Tree::Session, b"b1").unwrap(), None);
        assert_eq!(store.get(Tree::Grant, b"a1").unwrap().as_deref(), Some(&b"4"[..]), "trees are apart");
        assert_eq!(keys(&*store, Tree::Session, b"a"), [b"a1", b"a2"]);
        assert!(keys(&*store, Tree::Session, b"b").is_empty());
        let mut visits = 0;
        store
            .scan(Tree::Session, b"", &mut |_, _| {
                visits += 1;
                ControlFlow::Break(())
            })
            .unwrap();
        assert_eq!(visits, 1, "a scan ends when told");

        store.flush().unwrap();
        let store = reopen(store);
        assert_eq!(keys(&*store, Tree::Session, b""), [b"a1", b"a2"], "what was flushed is there again");
    }

    #[test]
    fn memory_passes() {
        suite(Box::new(MemoryStore::new()), |store| store);
    }

    #[test]
    fn sled_passes() {
        let dir = tempfile::tempdir().unwrap();
        let open = || Box::new(SledStore::open(&dir.path().join("index"), 1 << 20).unwrap()) as Box<dyn StateStore>;
        suite(open(), |store| {
            drop(store);
            open()
        });
    }
}
