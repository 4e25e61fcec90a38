//! Split privilege: the resolver, which reads what the network sends, needs no capability; the enforcer, which has
//! `CAP_NET_ADMIN`, reads nothing but orders from the resolver.
//!
//! [`frame`] is how documents of [`super::wire`] stand on the unix socket, [`client`] the resolver's side (a
//! [`super::mirror::Link`]), [`session`] what the enforcer answers, [`service`] its process, [`peer`] who may talk to it,
//! and [`privilege`] what it gives away.
//!
//! A resolver that was taken over can do what orders can: open and close leases of the configured table, guard, quarantine
//! and release addresses, set ranges, within the limits of [`super`], and read tables. It cannot name another table,
//! change or remove the table's rules, load anything, or read or write a file. One resolver is served at a time. When it is gone or silent, nothing is
//! opened: leases end by the kernel's timeouts, guards and quarantines stay.

mod client;
mod frame;
mod peer;
mod privilege;
mod service;
mod session;

use sha2::{Digest, Sha256};

pub(super) use client::RemoteLink;
pub use peer::{Peers, user_id};
pub use service::{Settings, run};

use super::Config;

/// Where the enforcer listens unless configured otherwise.
pub const DEFAULT_SOCKET: &str = "/run/staunch-enforcer/enforcer.sock";

/// What both sides must have alike, in one text: the table is built by the one from settings that the other relies on.
fn settings_digest(config: &Config) -> String {
    let Config { table, interfaces, guard_unknown, capacity, .. } = config;
    let text = format!("{table:?} {interfaces:?} {guard_unknown} {capacity}");
    Sha256::digest(text.as_bytes()).iter().take(16).map(|octet| format!("{octet:02x}")).collect()
}
