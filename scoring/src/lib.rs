//! Facts about a DNS query in, an explained score and a ledger charge out.
//!
//! This package knows no clock, no socket, no file and no policy: `now` is handed in, lists and rules arrive as facts,
//! and the caller decides what a reading means. [`Scorer::assess`] reads and changes nothing, [`Scorer::commit`]
//! writes down what was done; `explain` and the live path therefore run the same code.
#![forbid(unsafe_code)]

pub mod assess;
pub mod bits;
pub mod group;
pub mod ledger;
pub mod model;
pub mod name;
pub mod scorer;
pub mod signals;
pub mod snapshot;
pub mod state;
pub mod suffix;

pub use assess::{Assessment, Band, Budgets, Facts, Listing, Outcome, Params};
pub use bits::Bits;
pub use group::{GroupFacts, GroupSnapshot, GroupState};
pub use ledger::{Charge, LedgerScope, LedgerView, TICK_MS};
pub use name::{NameBuf, NameRef, QName};
pub use scorer::Scorer;
pub use signals::{Family, Reading, Signal};
pub use snapshot::StateSnapshot;
pub use state::{Answered, SessionState};
pub use suffix::Split;
