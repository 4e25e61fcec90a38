//! The lockdown: rules of an operator's own, that stand whether or not the service runs.
//!
//! From the interfaces behind which sandboxes live, questions are led to us, every other way to ask is refused, and
//! nothing is forwarded whose flow does not carry the service's conntrack mark ([`crate::enforce::mark`]). The service's
//! own table, which gives that mark, stands before ours and may come and go: without it nothing passes.
//!
//! [`plan`] checks what was asked for ([`settings`]), [`script`] writes it for the `nft` tool ([`inet`], [`bridge`], [`nft`]) and
//! [`words`] says it; [`flows`] judges flows older than the rules, [`standing`] what stands. All of these are pure. [`act`]
//! and [`tool`] change the kernel, in the calling thread's network namespace and in no table but ours.

mod act;
mod bridge;
mod closed;
mod flows;
mod inet;
mod name;
mod nft;
mod plan;
pub mod resolvers;
mod script;
mod settings;
mod standing;
#[cfg(test)]
mod tests;
mod tool;
mod words;

use std::path::PathBuf;

pub(crate) use closed::{OTHER_WAYS, TEREDO};

pub use act::{Applied, apply, hints, remove, standing};
pub use name::{InterfaceName, Mac, NameError};
pub use plan::{Lead, Plan, PlanError, Port, Sandbox, check_table};
pub use script::{Script, script};
pub use settings::{Bind, Bridge, DEFAULT_PORT, DEFAULT_TABLE, Mode, Resolver, Settings, beside, resolvers_of};
pub use standing::{SEAL, Standing, State, TableState, judge};
pub use words::{does, leaves_open};

/// Why a lockdown could not be applied, removed or looked at.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The settings are no plan.
    #[error(transparent)]
    Plan(PlanError),
    /// Not allowed.
    #[error("the packet filter may not be touched: run as root, or with CAP_NET_ADMIN in this network namespace")]
    Privilege,
    /// No tool.
    #[error(
        "the `nft` tool is neither in PATH nor in /usr/local/sbin, /usr/sbin, /sbin or /usr/bin: install the package nftables"
    )]
    NoTool,
    /// The tool does not run.
    #[error("{}: {source}", .tool.display())]
    Start {
        /// Its path.
        tool: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The tool or the kernel refused; nothing was changed.
    #[error(
        "nft refused the script, so nothing of it took effect (this kernel or this nft may lack a part of it):\n{said}"
    )]
    Refused {
        /// Its words.
        said: String,
    },
    /// Somebody else's table.
    #[error(
        "table {family} {table} was not made by `staunch lockdown apply` and is left alone: name another with --table, or \
         remove it with `nft delete table {family} {table}`"
    )]
    Foreign {
        /// `inet` or `bridge`.
        family: &'static str,
        /// Its name.
        table: String,
    },
    /// The kernel does not say what stands.
    #[error("what stands cannot be read: {0}")]
    Read(#[source] crate::enforce::Error),
    /// The rules stand, their seal does not.
    #[error("the rules stand, but are not as they were applied ({0}): apply again")]
    Unsealed(String),
    /// The rules stand, older flows go on.
    #[error("the rules stand, but flows older than they could not be ended: {0}; apply again")]
    Flows(#[source] crate::enforce::Error),
}
