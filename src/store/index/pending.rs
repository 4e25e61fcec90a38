//! Changes that wait for the next batch: of several to one key only the last is kept.

use foldhash::quality::RandomState;
use hashbrown::HashMap;

use super::{Op, Tree};

/// Most octets held; what comes when there are as many has them applied early.
const MOST_OCTETS: usize = 8 << 20;
/// Most keys held.
const MOST_KEYS: usize = 16_384;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Pending {
    /// By tree and key: the value, or nothing where the key is to go.
    changes: HashMap<(Tree, Vec<u8>), Option<Vec<u8>>, RandomState>,
    octets: usize,
}

impl Pending {
    /// Takes changes in their order.
    pub(super) fn take(&mut self, ops: Vec<Op>) {
        for op in ops {
            let (tree, key, value) = match op {
                Op::Put(tree, key, value) => (tree, key, Some(value)),
                Op::Delete(tree, key) => (tree, key, None),
            };
            self.octets += key.len() + value.as_ref().map_or(0, Vec::len);
            self.changes.insert((tree, key), value);
        }
    }

    /// Whether they are to be applied before their time. What was replaced counts until then.
    pub(super) fn is_full(&self) -> bool {
        self.octets >= MOST_OCTETS || self.changes.len() >= MOST_KEYS
    }

    /// Everything held, no key twice; nothing is held from here on.
    pub(super) fn drain(&mut self) -> Vec<Op> {
        self.octets = 0;
        let changes = self.changes.drain().map(|((tree, key), value)| match value {
            Some(value) => Op::Put(tree, key, value),
            None => Op::Delete(tree, key),
        });
        changes.collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put(key: u8, value: &[u8]) -> Op {
        Op::Put(Tree::Session, vec![key], value.to_vec())
    }

    #[test]
    fn the_last_change_of_a_key_is_the_one() {
        let mut pending = Pending::default();
        let delete = |key: u8| Op::Delete(Tree::Session, vec![key]);
        pending.take(vec![put(1, b"a"), put(2, b"b"), delete(2), put(3, b"c")]);
        pending.take(vec![put(1, b"d"), delete(3), put(3, b"e"), Op::Put(Tree::Grant, vec![1], b"f".to_vec())]);
        let mut ops = pending.drain();
        ops.sort_by_key(|op| format!("{op:?}"));
        let mut expected = vec![put(1, b"d"), delete(2), put(3, b"e"), Op::Put(Tree::Grant, vec![1], b"f".to_vec())];
        expected.sort_by_key(|op| format!("{op:?}"));
        assert_eq!(ops, expected);
        assert!(pending.drain().is_empty());
    }

    #[test]
    fn it_is_full_by_keys_and_by_octets() {
        let mut pending = Pending::default();
        pending.take(vec![put(1, &vec![0; MOST_OCTETS / 2])]);
        assert!(!pending.is_full());
        pending.take(vec![put(1, &vec![0; MOST_OCTETS / 2])]);
        assert!(pending.is_full(), "whoever changes one key without end is bounded too");
        pending.drain();
        assert!(!pending.is_full());
        pending.take((0..MOST_KEYS).map(|n| Op::Delete(Tree::Session, n.to_be_bytes().to_vec())).collect());
        assert!(pending.is_full());
    }
}
