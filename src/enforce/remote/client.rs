//! The resolver's side: one request, one answer, over a unix socket.

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use super::frame::{self, Incoming};
use crate::enforce::mirror::Link;
use crate::enforce::wire::{Reply, Request};
use crate::enforce::{BackendKind, Config, Error};

/// For an ordinary answer. A pin that waits for it has given up long before; this is when the enforcer counts as hung.
const PATIENCE: Duration = Duration::from_millis(250);
/// For the welcome: the enforcer may be at work for the resolver before.
const WELCOME: Duration = Duration::from_secs(1);
/// The enforcer may be started in the same moment.
const START: Duration = Duration::from_secs(10);

/// The socket to the enforcer.
pub(in crate::enforce) struct RemoteLink {
    socket: PathBuf,
    table: String,
    settings: String,
    open: Option<Open>,
}

struct Open {
    stream: UnixStream,
    incoming: Incoming,
    patience: Duration,
}

impl RemoteLink {
    /// To the enforcer on `socket`, which must have the same settings.
    pub(in crate::enforce) fn new(socket: PathBuf, config: &Config) -> Self {
        Self { socket, table: config.table.clone(), settings: super::settings_digest(config), open: None }
    }
}

impl Link for RemoteLink {
    fn kind(&self) -> BackendKind {
        BackendKind::Nft
    }

    fn start_patience(&self) -> Duration {
        START
    }

    fn patience(&self) -> Duration {
        PATIENCE
    }

    fn ask_every(&self) -> Duration {
        Duration::ZERO
    }

    fn remembers(&self) -> bool {
        true
    }

    fn open(&mut self) -> Result<(), Error> {
        let stream = UnixStream::connect(&self.socket).map_err(|error| self.broken(&error))?;
        self.open = Some(Open { stream, incoming: Incoming::default(), patience: Duration::ZERO });
        self.greet(self.table.clone(), self.settings.clone(), WELCOME)
    }

    fn gone(&mut self) -> Option<Error> {
        // It is asked every time.
        None
    }

    fn exchange(&mut self, request: &Request, patience: Duration) -> Result<Reply, Error> {
        // Closed unless it ends well.
        let Some(mut open) = self.open.take() else { return Err(self.broken(&"not connected")) };
        match open.exchange(request, patience) {
            Ok(reply) => {
                self.open = Some(open);
                Ok(reply)
            }
            Err(error) => Err(self.broken(&error)),
        }
    }

    fn close(&mut self) {
        self.open = None;
    }

    fn broken(&self, why: &dyn std::fmt::Display) -> Error {
        Error::Unhealthy(format!("the enforcer on {}: {why}", self.socket.display()))
    }
}

impl Open {
    fn exchange(&mut self, request: &Request, patience: Duration) -> io::Result<Reply> {
        let end = Instant::now() + patience;
        if self.patience != patience {
            self.stream.set_read_timeout(Some(patience))?;
            self.stream.set_write_timeout(Some(patience))?;
            self.patience = patience;
        }
        let octets = frame::encode(request).map_err(io::Error::other)?;
        self.stream.write_all(&octets).map_err(said)?;
        let mut buffer = [0; 16 * 1024];
        loop {
            if let Some(reply) = self.incoming.take().map_err(io::Error::other)? {
                return Ok(reply);
            }
            match self.stream.read(&mut buffer) {
                Ok(0) => return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "it has closed the connection")),
                Ok(count) => self.incoming.push(buffer.get(..count).unwrap_or_default()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(said(error)),
            }
            if Instant::now() >= end {
                return Err(said(io::ErrorKind::WouldBlock.into()));
            }
        }
    }
}

/// What a unix socket calls a resource that is temporarily unavailable.
fn said(error: io::Error) -> io::Error {
    match error.kind() {
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => {
            io::Error::new(io::ErrorKind::TimedOut, "no answer in time")
        }
        _ => error,
    }
}
