//! How the other side of a mirror is reached.

use std::time::Duration;

use crate::enforce::wire::{Reply, Request, VERSION};
use crate::enforce::{BackendKind, Error};

/// How the other side is reached.
pub(in crate::enforce) trait Link: Send {
    /// What the service tells of itself.
    fn kind(&self) -> BackendKind;

    /// How long may be tried at start until the other side is there.
    fn start_patience(&self) -> Duration;

    /// Most time for an ordinary answer.
    fn patience(&self) -> Duration;

    /// How often the other side is asked whether all stands. Whether it is there at all is looked at every time.
    fn ask_every(&self) -> Duration;

    /// Whether the other side goes on where an earlier run left, and can tell of it.
    fn remembers(&self) -> bool;

    /// Reaches the other side and is welcomed.
    fn open(&mut self) -> Result<(), Error>;

    /// Whether it can be seen to be gone, without asking.
    fn gone(&mut self) -> Option<Error>;

    /// Asks and waits for the answer, at most `patience`. On an error the link is closed, since what comes next on it could
    /// belong to anything.
    fn exchange(&mut self, request: &Request, patience: Duration) -> Result<Reply, Error>;

    /// Leaves.
    fn close(&mut self);

    /// Says who asks and waits to be welcomed; what both sides must have alike is in `table` and `settings`.
    fn greet(&mut self, table: String, settings: String, patience: Duration) -> Result<(), Error> {
        let product = env!("CARGO_PKG_VERSION").into();
        let why = match self.exchange(&Request::Hello { version: VERSION, product, table, settings }, patience)? {
            Reply::Welcome { version: VERSION, .. } => return Ok(()),
            Reply::Refused { why } => why,
            _ => format!("it does not speak version {VERSION} of the protocol"),
        };
        self.close();
        Err(self.broken(&why))
    }

    /// What is said where the other side is not there, or not as it should be.
    fn broken(&self, why: &dyn std::fmt::Display) -> Error;
}
