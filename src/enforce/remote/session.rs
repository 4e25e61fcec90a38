//! What the enforcer answers to one resolver.
//!
//! Knows no socket: a request in, an answer out. What the types allow and no backend may be asked is refused here.

use std::collections::{HashMap, VecDeque};
use std::net::IpAddr;
use std::sync::Arc;

use parking_lot::Mutex;

use crate::enforce::wire::{self, Fault, HealthReply, Held, ORDERS_MAX, Reply, Request, Told, VERSION};
use crate::enforce::{
    Backend, Command, Config, Error, Health, Observed, SESSION_LEASES_MAX, SESSIONS_MAX, Used, VOLUMES_A_LEASE,
};

/// Most flows and volumes of one look, and ranges: what the observer tells at once stays below.
const OBSERVED_MAX: usize = 1 << 17;

/// The latest look of the observer, until somebody asks.
#[derive(Debug, Clone, Default)]
pub struct Mailbox(Arc<Mutex<Seen>>);

#[derive(Debug, Default)]
struct Seen {
    look: Option<Observed>,
    /// By session and destination, so that what nobody fetches does not grow.
    volumes: HashMap<(IpAddr, IpAddr), Used>,
}

impl Mailbox {
    /// Puts a look in the place of the one before; what has changed since stays.
    pub fn put(&self, mut observed: Observed) {
        let mut seen = self.0.lock();
        for used in std::mem::take(&mut observed.volumes) {
            let key = (used.session, used.destination);
            if seen.volumes.len() < OBSERVED_MAX || seen.volumes.contains_key(&key) {
                seen.volumes.insert(key, used);
            }
        }
        if let Some(before) = seen.look.take() {
            observed.ranges.extend(before.ranges);
            observed.ranges.sort_unstable();
            observed.ranges.dedup();
            observed.ranges.truncate(OBSERVED_MAX);
        }
        seen.look = Some(observed);
    }

    fn take(&self) -> Option<Observed> {
        let mut seen = self.0.lock();
        let mut look = seen.look.take()?;
        look.volumes = std::mem::take(&mut seen.volumes).into_values().collect();
        Some(look)
    }
}

/// What is known of the resolver that is connected.
pub struct Session {
    table: String,
    settings: String,
    capacity: usize,
    mailbox: Mailbox,
    welcomed: bool,
    /// Parts of what is to be held, until all are there.
    held: Vec<Held>,
    /// Leases and volumes in them.
    parts: usize,
    telling: VecDeque<Told>,
}

/// An answer, and whether anything may follow it.
pub struct Answer {
    /// It.
    pub reply: Reply,
    /// Nothing more is answered.
    pub last: bool,
}

impl Session {
    /// For a resolver that has just connected.
    pub fn new(config: &Config, mailbox: Mailbox) -> Self {
        Self {
            table: config.table.clone(),
            settings: super::settings_digest(config),
            capacity: config.capacity as usize,
            mailbox,
            welcomed: false,
            held: Vec::new(),
            parts: 0,
            telling: VecDeque::new(),
        }
    }

    /// Whether it has shown that it belongs here.
    pub fn is_welcomed(&self) -> bool {
        self.welcomed
    }

    /// Answers. `look` gives how the packet filter stands, by a look that is new enough, and whether it was put back since this
    /// was last asked.
    pub fn answer(
        &mut self,
        request: Request,
        backend: &mut dyn Backend,
        look: &mut dyn FnMut(&mut dyn Backend) -> Result<Health, Error>,
    ) -> Answer {
        let reply = match request {
            Request::Hello { version, product, table, settings } => {
                return match self.welcome(version, &product, &table, &settings) {
                    Ok(()) => Answer { reply: welcome(), last: false },
                    Err(why) => Answer { reply: Reply::Refused { why }, last: true },
                };
            }
            _ if !self.welcomed => {
                return Answer { reply: Reply::Refused { why: "`hello` comes first".into() }, last: true };
            }
            Request::Apply { commands } => Reply::Results { results: apply(commands, backend) },
            Request::Hold { held, more } => done(self.hold(held, more, backend)),
            Request::Ranges { ranges } => match ranges.iter().try_for_each(wire::check_range) {
                Ok(()) => done(backend.ranges(&ranges)),
                Err(fault) => Reply::Done { fault: Some(fault) },
            },
            Request::Health => {
                let health = look(backend);
                if self.telling.is_empty() {
                    self.telling = self.mailbox.take().map(wire::parts).unwrap_or_default();
                }
                Reply::Health(HealthReply {
                    restored: matches!(health, Ok(Health::Restored)),
                    fault: health.err().as_ref().map(Fault::from),
                    counts: Some(backend.counts()),
                    told: self.telling.pop_front(),
                })
            }
            Request::Snapshot { after } => {
                let (held, more) = backend.held(after);
                Reply::Held { held, more }
            }
            Request::View { session } => Reply::View { generation: backend.view(session).generation },
            Request::Images { table, apart } => match backend.images(&table, &apart) {
                Ok(images) => Reply::Images { images, fault: None },
                Err(error) => Reply::Images { images: Default::default(), fault: Some(Fault::from(&error)) },
            },
        };
        Answer { reply, last: false }
    }

    fn welcome(&mut self, version: u32, product: &str, table: &str, settings: &str) -> Result<(), String> {
        let own = env!("CARGO_PKG_VERSION");
        if version != VERSION {
            return Err(format!(
                "protocol {version} of release {} is not spoken; this is release {own} with protocol {VERSION}",
                product.escape_debug()
            ));
        }
        if table != self.table {
            return Err(format!("the table here is `{}`, not `{}`", self.table, table.escape_debug()));
        }
        if settings != self.settings {
            return Err(
                "interfaces, capacity or who is guarded are not the same here; give both the same file and restart \
                 the enforcer"
                    .into(),
            );
        }
        self.welcomed = true;
        Ok(())
    }

    /// Keeps parts until all are there, and never more than could be held.
    fn hold(&mut self, held: Vec<Held>, more: bool, backend: &mut dyn Backend) -> Result<(), Error> {
        self.parts += held.iter().map(|held| held.leases.len() + held.volumes.len()).sum::<usize>();
        self.held.extend(held);
        let bound = 2 * self.capacity.saturating_mul(1 + VOLUMES_A_LEASE as usize) + SESSION_LEASES_MAX;
        let over = match (self.held.len() > SESSIONS_MAX, self.parts > bound) {
            (true, _) => Some(SESSIONS_MAX),
            (false, true) => Some(self.capacity),
            (false, false) => None,
        };
        if let Some(limit) = over {
            (self.held, self.parts) = (Vec::new(), 0);
            return Err(Error::Full { limit });
        }
        if more {
            return Ok(());
        }
        self.parts = 0;
        let held = std::mem::take(&mut self.held);
        held.iter().try_for_each(wire::check_held).map_err(Error::from)?;
        backend.hold(held)
    }
}

fn welcome() -> Reply {
    Reply::Welcome { version: VERSION, product: env!("CARGO_PKG_VERSION").into() }
}

fn done(result: Result<(), Error>) -> Reply {
    Reply::Done { fault: result.err().as_ref().map(Fault::from) }
}

/// Orders that can be, in their order; the others are refused each for itself.
fn apply(commands: Vec<Command>, backend: &mut dyn Backend) -> Vec<Option<Fault>> {
    if commands.len() > ORDERS_MAX {
        let fault = Fault::invalid(format!("{} orders, at most {ORDERS_MAX}", commands.len()));
        return commands.iter().map(|_| Some(fault.clone())).collect();
    }
    let checked: Vec<Option<Fault>> = commands.iter().map(|command| wire::check(command).err()).collect();
    let good: Vec<Command> =
        commands.into_iter().zip(&checked).filter(|(_, fault)| fault.is_none()).map(|(command, _)| command).collect();
    let mut results = backend.apply(&good).into_iter();
    let mut result = |fault: Option<Fault>| match fault {
        Some(fault) => Some(fault),
        None => results.next().unwrap_or(Err(Error::Stopped)).err().as_ref().map(Fault::from),
    };
    checked.into_iter().map(&mut result).collect()
}
