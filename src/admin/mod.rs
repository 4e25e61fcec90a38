//! The admin socket: a unix socket, mode 0660, one JSON request a connection, one JSON object a line back.
//!
//! [`protocol`] holds the words, [`serve`] answers them (and [`observe`] whoever looks on) on the daemon's side, [`client`] speaks them for the command
//! line. Only what an operator or a runtime may do is here; nothing of it can be reached from a sandbox's network.

pub mod client;
mod grants;
mod lists;
mod observe;
pub mod protocol;
mod receipt;
mod serve;
mod why;

pub(crate) use grants::LONGEST_GRANT;
pub use serve::{Admin, adopt, bind, serve};
