//! What the conntrack mark of a forwarded flow says, in one place.
//!
//! The service's table gives every flow that it permits a mark; the lockdown's table refuses every packet of a sandbox
//! whose flow has none. The two stand in different tables and may be built by different processes of different
//! releases, so these numbers are a contract between them and never change their meaning.
//!
//! The whole mark is ours on flows of sandboxes: another rule manager that sets conntrack marks on them (policy routing
//! by `ct mark`, for one) would permit them by accident.

/// Nobody has permitted the flow: every conntrack entry starts so.
pub const UNMARKED: u32 = 0;
/// The flow of a monitored session, which needs no pin.
pub const MONITORED: u32 = 1;
/// The lowest generation of a guarded session. Its flows carry the generation in which they were permitted, from here
/// to the largest 32-bit number; what lies between [`MONITORED`] and here is kept free.
pub const FIRST_GENERATION: u32 = 16;

const _: () = assert!(UNMARKED < MONITORED && MONITORED < FIRST_GENERATION);
