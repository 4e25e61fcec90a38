//! The conntrack mark: the service's word on a flow.
//!
//! A flow that the service permits carries a mark that is not 0. Whoever stands behind it in the packet's way (the lockdown's
//! table) lets nothing pass without one. The marks of a host's sandbox flows belong to the service whole: no other rule may use
//! them.

/// Flows of monitored sessions.
pub const MONITORED: u32 = 1;

/// The least generation of a guarded session; a flow's mark is the generation in which it was last permitted. Marks in
/// between are not used.
pub const FIRST_GENERATION: u32 = 16;
