//! The index on disk, in sled.
//!
//! sled's own background flush is off: it would promise nothing that the explicit flush does not, and its buffer is
//! lost with the process either way. Damaged files can make it panic, so whoever opens it does so behind
//! `catch_unwind` (see [`super::thread`]).

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use super::{IndexError, Op, StateStore, Tree, Visit};

/// See the module.
pub struct SledStore {
    db: sled::Db,
    trees: HashMap<Tree, sled::Tree>,
}

impl SledStore {
    /// Opens or creates the directory. `cache` is in octets; real memory use can be several times that.
    pub fn open(path: &Path, cache: u64) -> Result<Self, IndexError> {
        let db = sled::Config::new().path(path).cache_capacity(cache).flush_every_ms(None).open()?;
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
    fn apply(&mut self, batch: Vec<Op>) -> Result<(), IndexError> {
        let mut batches: HashMap<Tree, sled::Batch> = HashMap::new();
        for op in batch {
            match op {
                Op::Put(tree, key, value) => batches.entry(tree).or_default().insert(key, value),
                Op::Delete(tree, key) => batches.entry(tree).or_default().remove(key),
            }
        }
        for (tree, batch) in batches {
            self.tree(tree).apply_batch(batch)?;
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
