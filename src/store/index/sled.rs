//! The index on disk, in sled.
//!
//! sled's own background flush is off: it would promise nothing that the explicit flush does not, and its buffer is
//! lost with the process either way. Damaged files can make it panic, so whoever opens it does so behind
//! `catch_unwind` (see [`super::thread`]). Sizes of segments and cache and sled's two modes were tried with thousands of
//! changes a second, the index's worst: none makes a difference, so they are sled's own.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::{IndexError, Op, StateStore, Tree, Visit};

/// How long an index that was closed in this process may still hold its lock: sled's threads let go of it a moment after the
/// last handle. Of other processes the state directory's own lock keeps us away.
const LET_GO: Duration = Duration::from_secs(5);
const LOOK_AGAIN: Duration = Duration::from_millis(10);

/// Whether it is sled's lock that is in the way; it has no kind of its own.
fn is_locked(error: &sled::Error) -> bool {
    matches!(error, sled::Error::Io(error) if error.to_string().starts_with("could not acquire lock"))
}

/// See the module.
pub struct SledStore {
    db: sled::Db,
    trees: HashMap<Tree, sled::Tree>,
}

impl SledStore {
    /// Opens or creates the directory. `cache` is in octets; real memory use can be several times that.
    pub fn open(path: &Path, cache: u64) -> Result<Self, IndexError> {
        let config = sled::Config::new().path(path).cache_capacity(cache).flush_every_ms(None);
        let begun = Instant::now();
        let db = loop {
            match config.open() {
                Err(error) if is_locked(&error) && begun.elapsed() < LET_GO => std::thread::sleep(LOOK_AGAIN),
                result => break result?,
            }
        };
        let trees = Tree::ALL
            .into_iter()
            .map(|tree| Ok((tree, db.open_tree(tree.name())?)))
            .collect::<Result<_, sled::Error>>()?;
        Ok(Self { db, trees })
    }

    fn tree(&self, tree: Tree) -> &sled::Tree {
        self.trees.get(&tree).expect("open() opened every tree of Tree::ALL")
    }
}

impl StateStore for SledStore {
    /// One change after another, by tree and key, so that neighbours meet the same page. No batches: they are atomic, which
    /// nobody here needs, and each makes sled write out and replace its buffer twice.
    fn apply(&mut self, mut batch: Vec<Op>) -> Result<(), IndexError> {
        // Stable: changes of one key stay in order.
        batch.sort_by(|a, b| a.place().cmp(&b.place()));
        for op in batch {
            match op {
                Op::Put(tree, key, value) => drop(self.tree(tree).insert(key, value)?),
                Op::Delete(tree, key) => drop(self.tree(tree).remove(key)?),
            }
        }
        Ok(())
    }

    fn get(&self, tree: Tree, key: &[u8]) -> Result<Option<Vec<u8>>, IndexError> {
        Ok(self.tree(tree).get(key)?.map(|value| value.to_vec()))
    }

    fn scan(&self, tree: Tree, prefix: &[u8], visit: &mut Visit<'_>) -> Result<(), IndexError> {
        for entry in self.tree(tree).scan_prefix(prefix) {
            let (key, value) = entry?;
            if visit(&key, &value).is_break() {
                break;
            }
        }
        Ok(())
    }

    fn flush(&mut self) -> Result<(), IndexError> {
        self.db.flush()?;
        Ok(())
    }

    fn size_on_disk(&self) -> u64 {
        self.db.size_on_disk().unwrap_or(0)
    }
}

impl From<sled::Error> for IndexError {
    fn from(error: sled::Error) -> Self {
        match error {
            sled::Error::Io(error) => Self::Io(Arc::new(error)),
            other => Self::Damaged(other.to_string()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lock_that_is_about_to_go_is_waited_for() {
        let dir = tempfile::tempdir().expect("directory");
        let path = dir.path().join("index");
        let first = SledStore::open(&path, 1 << 20).expect("opens");
        let closer = std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(200));
            drop(first);
        });
        let second = SledStore::open(&path, 1 << 20).map(drop);
        assert!(second.is_ok(), "{:?}", second.err());
        closer.join().expect("closes");
    }
}
