//! Lists on disk and from elsewhere: compiled tables, copies of what is fetched, and the fetching itself.
//!
//! Beside the walk: [`crate::lists`] reads and compiles, this stage keeps and fetches, [`crate::config`] asks for what is
//! kept, the daemon puts it in force. Nothing here is ever waited for by a query.

mod client;
mod copies;
mod files;
mod gate;
mod tables;
mod told;
mod worker;

use std::path::{Path, PathBuf};
use std::time::Duration;

pub use copies::{Copies, Kept, Stamp};
pub(crate) use files::{read_small, write_whole};
pub use tables::Tables;
pub use told::{Listener, OrderError, Outcome, Standing, Told, Version};
pub use worker::Feeds;

use crate::lists::{Day, Format, Room};

/// Where lists are fetched from.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Config {
    /// The state directory.
    pub state_dir: PathBuf,
    /// Each list that has a URL.
    pub sources: Vec<Source>,
    /// What lists that are not fetched take of the table that denies.
    pub own: Room,
}

/// A list that is fetched.
#[derive(Debug, Clone, PartialEq)]
pub struct Source {
    /// Its id.
    pub id: String,
    /// `https`, or `http` to an address.
    pub url: String,
    /// How it is written, where that is said.
    pub format: Option<Format>,
    /// Day of registration for lines that have none.
    pub day: Option<Day>,
    /// How often its server is asked.
    pub refresh: Duration,
    /// For one fetch, from look-up to the last octet.
    pub timeout: Duration,
    /// Largest size, octets.
    pub max_octets: u64,
    /// Held where it has more than this many times the entries of the last good copy.
    pub max_growth: f64,
    /// Held where it has less than this share of them.
    pub min_share: f64,
    /// Whether its names are denied, by the one table that all such lists share.
    pub denies: bool,
    /// Why the copy at hand is not the one in force.
    pub problem: Option<String>,
}

/// Removes what earlier runs left half written below the state directory. To be called at the start of the service.
pub(crate) fn sweep(state_dir: &Path) {
    let lists = directory(state_dir);
    files::sweep(state_dir);
    files::sweep(&lists);
    for entry in std::fs::read_dir(lists).into_iter().flatten().flatten() {
        if entry.file_name().to_str().is_some_and(|name| name.starts_with("feed-")) {
            files::sweep(&entry.path());
        }
    }
}

/// Where all of it lies.
pub fn directory(state_dir: &Path) -> PathBuf {
    state_dir.join("lists")
}

/// A URL as it may be told: what stands behind `?` or `#` may be a secret.
pub fn shown_url(url: &str) -> &str {
    url.split(['?', '#']).next().unwrap_or_default()
}
