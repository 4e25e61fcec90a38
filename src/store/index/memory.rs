//! An index that lives as long as the process: for tests, and for when the disk will not hold one.

use std::collections::BTreeMap;

use super::{IndexError, Op, StateStore, Tree, Visit};

/// See the module.
#[derive(Debug, Default)]
pub struct MemoryStore {
    trees: BTreeMap<Tree, BTreeMap<Vec<u8>, Vec<u8>>>,
}

impl MemoryStore {
    /// An empty one.
    pub fn new() -> Self {
        Self::default()
    }
}

impl StateStore for MemoryStore {
    fn apply(&mut self, batch: Vec<Op>) -> Result<(), IndexError> {
        for op in batch {
            match op {
                Op::Put(tree, key, value) => self.trees.entry(tree).or_default().insert(key, value),
                Op::Delete(tree, key) => self.trees.entry(tree).or_default().remove(&key),
            };
        }
        Ok(())
    }

    fn get(&self, tree: Tree, key: &[u8]) -> Result<Option<Vec<u8>>, IndexError> {
        Ok(self.trees.get(&tree).and_then(|tree| tree.get(key)).cloned())
    }

    fn scan(&self, tree: Tree, prefix: &[u8], visit: &mut Visit<'_>) -> Result<(), IndexError> {
        let Some(tree) = self.trees.get(&tree) else { return Ok(()) };
        for (key, value) in tree.range(prefix.to_vec()..).take_while(|(key, _)| key.starts_with(prefix)) {
            if visit(key, value).is_break() {
                break;
            }
        }
        Ok(())
    }

    fn flush(&mut self) -> Result<(), IndexError> {
        Ok(())
    }

    fn size_on_disk(&self) -> u64 {
        0
    }
}
