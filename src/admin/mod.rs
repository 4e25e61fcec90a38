//! The admin socket: a unix socket, mode 0660, one JSON request a connection, one JSON object a line back.
//!
//! [`protocol`] holds the words, [`serve`] answers them on the daemon's side, [`client`] speaks them for the command
//! line. Only what an operator or a runtime may do is here; nothing of it can be reached from a sandbox's network.

pub mod client;
mod lists;
pub mod protocol;
mod receipt;
mod serve;

pub(crate) use serve::LONGEST_GRANT;
pub use serve::{Admin, adopt, bind, serve};
