//! What a session has done so far, in bounded memory.

/// One session's score and ledger state.
#[derive(Debug, Clone)]
pub struct SessionState {}

/// [`SessionState`] in the form the store keeps: versioned, every field defaulted.
#[derive(Debug, Clone, Default, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct StateSnapshot {}
