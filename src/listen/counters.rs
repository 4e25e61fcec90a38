//! What the listeners count, for metrics. Totals since start; only ever read, never decided upon.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        /// Totals since the start of a listener, over all addresses.
        #[derive(Debug, Default)]
        pub struct Counters {
            $($(#[$doc])* pub $name: AtomicU64,)*
        }

        /// Counts of one batch or message, kept without sharing until [`Tally::flush`].
        #[derive(Debug, Default)]
        pub(super) struct Tally {
            $(pub(super) $name: u64,)*
        }

        impl Tally {
            /// Adds the counts to the shared totals and starts at zero.
            pub(super) fn flush(&mut self, counters: &Counters) {
                $(if self.$name != 0 {
                    counters.$name.fetch_add(std::mem::take(&mut self.$name), Relaxed);
                })*
            }
        }
    };
}

counters! {
    /// Messages received, both transports.
    packets,
    /// Replies handed to the kernel or to a connection.
    replies,
    /// Messages that got no reply: too short, responses, no usable source address.
    drops,
    /// Of the replies, those with response code FORMERR, NOTIMP or REFUSED.
    rejects,
    /// Datagrams dropped unread because their source sent more than the others while more came than could be judged.
    shed,
    /// Times that the kernel began to drop a part of what a source sends, because it sent far more than was judged.
    barred,
    /// Messages handed to the slow path.
    deferred,
    /// Messages that found the slow path's queue full and were answered SERVFAIL.
    queue_full,
    /// Replies that could not be sent: the kernel refused them or the connection was gone.
    send_failures,
    /// Receive or accept calls that failed for another reason than a time limit.
    socket_errors,
    /// Connections accepted.
    tcp_accepted,
    /// Connections closed at once because a limit was reached and none was idle.
    tcp_refused,
    /// Idle connections closed to make room for a new one.
    tcp_evicted,
    /// Connections closed because they were slow or silent, or broke the framing.
    tcp_expired,
    /// Connections closed because replies waited for them in a length that nobody reads.
    tcp_unread,
    /// Panics caught; each was answered SERVFAIL.
    panics,
}

impl Counters {
    /// Adds one.
    pub(super) fn bump(counter: &AtomicU64) {
        counter.fetch_add(1, Relaxed);
    }
}
