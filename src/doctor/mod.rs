//! The doctor: tries, from within a sandbox, every other way out, and says of each whether it is closed.
//!
//! A probe that is broken looks like a way that is closed, so every probe has a control, and one whose control fails is
//! inconclusive, never closed. From the host ([`run::from_namespace`]) the control is the wire: [`watch`] sees each probe
//! arrive from the sandbox, and sees whether it leaves by another interface, whatever was heard of it. From within
//! ([`run::inside`]) only what is heard counts, and less can be told.
//!
//! [`ways`] is the list of what is tried, [`packet`] writes octets, [`sight`] reads what was seen, [`judge`] decides,
//! [`report`] says it: all of these are pure. [`send`], [`watch`], [`bait`], [`space`] and [`canary`] do I/O, [`run`] joins them.
//! [`receipt`] is the signed form of a report. It changes nothing on the host: no rule, no address, no session.

pub mod bait;
pub mod canary;
pub mod judge;
pub mod packet;
mod pins;
mod place;
pub mod receipt;
pub mod report;
pub mod run;
pub mod send;
pub mod sight;
pub mod space;
pub mod watch;
pub mod ways;

pub use report::{Outcome, Report, Row};
pub use run::{Error, Settings};
