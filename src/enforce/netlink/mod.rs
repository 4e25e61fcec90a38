//! Netfilter netlink, by hand: messages, one socket, acknowledgements.
//!
//! Below [`super::nft`]. Knows the wire format and the socket, and nothing of tables, pins or sessions. Written by hand
//! because a pin must cost microseconds (a forked tool takes milliseconds) and because the existing bindings either
//! cannot set an element's expiration or come under a licence this product cannot take.

mod listener;
mod message;
mod socket;

pub(super) use listener::{Heard, Listener};
pub(super) use message::{Attributes, Writer};
pub(super) use socket::{Batch, Netlink, NetlinkError, Refusal};

/// The reply to a dump changed while it was read; it must be read again (`NLM_F_DUMP_INTR`).
pub(super) const DUMP_TRIES: usize = 5;
