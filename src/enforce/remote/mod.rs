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

// Octets from outside are read here: nothing may panic on them.
#![cfg_attr(
    not(test),
    warn(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic,
        clippy::unreachable,
        clippy::indexing_slicing,
        clippy::string_slice
    )
)]

mod client;
mod frame;
mod peer;
mod privilege;
mod service;
mod session;

use sha2::{Digest, Sha256};

pub(super) use client::RemoteLink;
pub use frame::{FrameError, Incoming, encode};
pub use peer::{Peers, user_id};
pub use service::{Settings, run};
pub use session::{Answer, Mailbox, Session};

use super::Config;

/// Where the enforcer listens unless configured otherwise.
pub const DEFAULT_SOCKET: &str = "/run/staunch-enforcer/enforcer.sock";

/// What both sides must have alike, in one text: the table is built by the one from settings that the other relies on.
pub fn settings_digest(config: &Config) -> String {
    let Config { table, interfaces, guard_unknown, capacity, .. } = config;
    let text = format!("{table:?} {interfaces:?} {guard_unknown} {capacity}");
    Sha256::digest(text.as_bytes()).iter().take(16).map(|octet| format!("{octet:02x}")).collect()
}

/// The enforcer's side without a socket, for tests of the other one.
#[cfg(test)]
pub(super) mod testing {
    use super::session::{Mailbox, Session};
    use crate::enforce::wire::{Reply, Request, VERSION};
    use crate::enforce::{Backend, BackendKind, Config, Observed};

    pub(in crate::enforce) struct Side {
        pub(in crate::enforce) backend: Box<dyn Backend>,
        session: Session,
        config: Config,
        mailbox: Mailbox,
    }

    impl Side {
        pub(in crate::enforce) fn new(backend: Box<dyn Backend>, capacity: u32) -> Self {
            let config = Config {
                backend: BackendKind::DryRun,
                table: "test".into(),
                interfaces: Vec::new(),
                guard_unknown: false,
                deadline: std::time::Duration::from_secs(1),
                queue: 16,
                capacity,
                own_table: true,
                journal: None,
                outside: Default::default(),
            };
            let mailbox = Mailbox::default();
            Self { backend, session: Session::new(&config, mailbox.clone()), config, mailbox }
        }

        /// Somebody new, who says what is right to say.
        pub(in crate::enforce) fn connect(&mut self) {
            self.session = Session::new(&self.config, self.mailbox.clone());
            let settings = super::settings_digest(&self.config);
            let hello = Request::Hello { version: VERSION, product: "test".into(), table: "test".into(), settings };
            assert!(matches!(self.answer(hello), Reply::Welcome { .. }));
        }

        pub(in crate::enforce) fn answer(&mut self, request: Request) -> Reply {
            self.session.answer(request, &mut *self.backend, &mut |backend| backend.healthy()).reply
        }

        pub(in crate::enforce) fn see(&self, observed: Observed) {
            self.mailbox.put(observed);
        }
    }
}
