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

use std::path::{Path, PathBuf};

use crate::admin::client;

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
    /// The daemon is not reachable, or has gone away from who follows its events.
    Unreachable = 4,
    /// The verdict is a refusal (`explain --exit-code`).
    Denied = 10,
    /// The session is quarantined (`explain --exit-code`, `session show --exit-code`).
    Quarantined = 11,
    /// The doctor found an open way out.
    Open = 12,
    /// The doctor could not tell of every way whether it is closed.
    Inconclusive = 13,
    /// Done, but the packet filter does not hold it yet.
    Behind = 14,
}

/// Runs a verb.
pub fn run(args: Args) -> Exit {
    verbs::run(args)
}

/// Where the shipped units and example have the admin socket.
const SHIPPED_SOCKET: &str = "/run/staunch/admin.sock";

/// The admin socket when no option names one: `STAUNCH_SOCKET`, else the one that is there.
pub fn default_socket() -> PathBuf {
    match std::env::var_os("STAUNCH_SOCKET").filter(|path| !path.is_empty()) {
        Some(path) => path.into(),
        None => there(&usual()),
    }
}

/// What to say where nobody is reached: how another socket is named, and which are tried when none is.
fn other_sockets() -> String {
    let [ours, shipped] = usual();
    let (ours, shipped) = (ours.display(), shipped.display());
    format!("`--socket` or STAUNCH_SOCKET names another socket; without them {ours} and {shipped} are tried")
}

/// Where it may be when none is named: beside the state of whoever asks, which is nearer than the machine's.
fn usual() -> [PathBuf; 2] {
    [crate::config::default_state_dir().join("admin.sock"), SHIPPED_SOCKET.into()]
}

/// The first that somebody listens on, else the first that is there, else the first. One that was left behind by a daemon
/// that was killed must not hide the other.
fn there(paths: &[PathBuf]) -> PathBuf {
    let is_heard = |path: &&PathBuf| client::is_heard(path);
    let is_there = |path: &&PathBuf| Path::new(path).symlink_metadata().is_ok();
    let mut existing = paths.iter().filter(is_there);
    let found = match (existing.next(), existing.next()) {
        // Nothing to choose between.
        (Some(only), None) => Some(only),
        (Some(first), Some(_)) => paths.iter().find(is_heard).or(Some(first)),
        (None, _) => paths.first(),
    };
    found.cloned().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixListener;

    #[test]
    fn the_socket_that_is_there_is_found() {
        let dir = tempfile::tempdir().expect("directory");
        let paths = [dir.path().join("state.sock"), dir.path().join("run.sock")];
        assert_eq!(there(&paths), paths[0], "where the first would be");
        let _run = UnixListener::bind(&paths[1]).expect("bound");
        assert_eq!(there(&paths), paths[1]);
        // Left behind: nobody listens on it any more.
        drop(UnixListener::bind(&paths[0]).expect("bound"));
        assert_eq!(there(&paths), paths[1]);
        std::fs::remove_file(&paths[0]).expect("removed");
        let _state = UnixListener::bind(&paths[0]).expect("bound");
        assert_eq!(there(&paths), paths[0]);
    }
}
