//! Netfilter netlink, by hand: messages, one socket, acknowledgements.
//!
//! Below [`super::nft`]. Knows the wire format and the socket, and nothing of tables, pins or sessions. Written by hand
//! because a pin must cost microseconds (a forked tool takes milliseconds) and because the existing bindings either
//! cannot set an element's expiration or come under a licence this product cannot take.

mod listener;
mod message;
mod route;
mod socket;

use std::time::Duration;

pub(super) use listener::{Heard, Listener};
pub(super) use message::{Attributes, Writer};
pub(super) use route::{Routes, Way};
pub(super) use socket::{Batch, Netlink, NetlinkError, Refusal};

/// Longest wait for the kernel. Its commit lock may be held by another rule manager for some milliseconds (8 ms was
/// measured); two orders above that.
const TIMEOUT: Duration = Duration::from_secs(1);

/// The reply to a dump changed while it was read; it must be read again (`NLM_F_DUMP_INTR`).
pub(super) const DUMP_TRIES: usize = 5;
