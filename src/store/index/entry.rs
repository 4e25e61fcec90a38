//! Facts of the journal as the index keeps them.

use serde::{Deserialize, Serialize};

use super::{IndexError, Op, Tree, VALUE_VERSION};
use crate::model::SessionId;
use crate::store::Record;

/// A fact as the index keeps it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(in crate::store) struct Entry {
    /// Journal sequence when it was noted.
    pub(in crate::store) seq: u64,
    /// RFC 3339.
    pub(in crate::store) time: String,
    pub(in crate::store) record: Record,
}

impl Entry {
    /// Tree and key under which a record is kept, if it is.
    pub(in crate::store) fn place(record: &Record) -> Option<(Tree, Vec<u8>)> {
        Some(match record {
            Record::Announce { announcement, .. } => (Tree::Session, key(&announcement.id)),
            Record::Quarantine { session, .. } => (Tree::Quarantine, key(session)),
            Record::Ledger { session, .. } => (Tree::Ledger, key(session)),
            Record::Grant { grant } => (Tree::Grant, grant.id.as_bytes().to_vec()),
            Record::Group { group, state, .. } => {
                let tree = if state.has_names() { Tree::GroupNames } else { Tree::Group };
                (tree, group.as_bytes().to_vec())
            }
            _ => return None,
        })
    }

    /// What a line of the journal changes in the index. Ledgers are copied there now and then (see [`Entry::put`]).
    pub(in crate::store) fn ops(seq: u64, time: &str, record: &Record) -> Vec<Op> {
        match record {
            Record::Release { session, .. } => vec![Op::Delete(Tree::Quarantine, key(session))],
            Record::End { session } => [Tree::Session, Tree::Quarantine, Tree::Ledger]
                .into_iter()
                .map(|tree| Op::Delete(tree, key(session)))
                .collect(),
            Record::Ledger { .. } => Vec::new(),
            _ => Self { seq, time: time.to_owned(), record: record.clone() }.put().into_iter().collect(),
        }
    }

    /// The change that keeps it.
    pub(in crate::store) fn put(&self) -> Option<Op> {
        let (tree, key) = Self::place(&self.record)?;
        let mut value = vec![VALUE_VERSION];
        serde_json::to_writer(&mut value, self).ok()?;
        Some(Op::Put(tree, key, value))
    }

    /// What a value says.
    pub(super) fn read(value: &[u8]) -> Result<Self, IndexError> {
        match value.split_first() {
            Some((&VALUE_VERSION, json)) => {
                serde_json::from_slice(json).map_err(|error| IndexError::Damaged(error.to_string()))
            }
            Some((version, _)) => Err(IndexError::Newer { found: u32::from(*version), known: VALUE_VERSION.into() }),
            None => Err(IndexError::Damaged("empty value".into())),
        }
    }
}

fn key(session: &SessionId) -> Vec<u8> {
    session.as_str().as_bytes().to_vec()
}
