//! The command line: `serve`, and verbs that ask a running daemon.
//!
//! Every verb takes `--json` and prints one object (or one object a line); without it the same facts in words.
//! Exit codes are in [`Exit`].

mod args;
mod capacity;
mod doctor;
mod evaluate;
mod grants;
mod healthcheck;
mod human;
mod lists;
mod lockdown;
mod verbs;

use std::path::PathBuf;

pub use args::{Args, Verb};

/// Exit codes, the same for every verb.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    /// Done, or the verdict is an answer.
    Ok = 0,
    /// The operation failed.
    Failed = 1,
    /// The words of the command are off (clap uses the same).
    Usage = 2,
    /// The configuration does not load.
    Invalid = 3,
    /// The daemon is not reachable.
    Unreachable = 4,
    /// The verdict is a refusal (`explain --exit-code`).
    Denied = 10,
    /// The session is quarantined (`explain --exit-code`, `session show --exit-code`).
    Quarantined = 11,
    /// The doctor found an open way out.
    Open = 12,
    /// The doctor could not tell of every way whether it is closed.
    Inconclusive = 13,
}

/// Runs a verb.
pub fn run(args: Args) -> Exit {
    verbs::run(args)
}

/// The admin socket when none is named: `STAUNCH_SOCKET`, else beside the state.
pub fn default_socket() -> PathBuf {
    match std::env::var_os("STAUNCH_SOCKET") {
        Some(path) => path.into(),
        None => crate::config::default_state_dir().join("admin.sock"),
    }
}
