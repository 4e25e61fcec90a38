//! Policy: turns facts into one verdict. The only place that can build a [`Permit`].

mod permit;

pub use permit::Permit;
