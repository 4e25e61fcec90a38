//! `staunch healthcheck`: one look at a running service, for images without a shell and for probes.
//!
//! Asks the admin socket whether the service is ready, and each listening address a question that is answered on the spot:
//! one of class CH, which is refused before it is anybody's, so that no session, event or ledger hears of it.

use std::net::{SocketAddr, UdpSocket};
use std::path::Path;
use std::time::{Duration, Instant};

use clap::Args;
use serde_json::{Value, json};

use super::verbs::{fail, say};
use super::{Exit, default_socket};
use crate::admin::client::{self, Error};
use crate::admin::protocol::Request;

/// Words of the verb.
#[derive(Debug, Args)]
pub struct Words {
    /// Ask this listening address too, over UDP; repeat for more.
    #[arg(long, value_name = "ADDRESS:PORT")]
    address: Vec<SocketAddr>,
    /// Whether the service runs and answers, ready or not: for a probe that restarts what fails it.
    #[arg(long)]
    live: bool,
    /// How long an answer may take.
    #[arg(long, value_name = "SECONDS", default_value_t = 2, value_parser = clap::value_parser!(u64).range(1..=60))]
    timeout: u64,
}

/// Runs the verb.
pub fn run(words: &Words, socket: Option<&Path>, json: bool) -> Exit {
    let patience = Duration::from_secs(words.timeout);
    let socket = socket.map_or_else(default_socket, Path::to_owned);
    let status = match client::ask(&socket, &Request::Status, patience) {
        Ok(status) => status,
        Err(error) => {
            fail(&error.to_string(), json);
            return if matches!(error, Error::Unreachable { .. }) { Exit::Unreachable } else { Exit::Failed };
        }
    };
    if let Some(why) = unready(&status).filter(|_| !words.live) {
        return fail(&format!("not ready: {why}"), json);
    }
    for address in &words.address {
        if let Err(error) = ask(*address, patience) {
            return fail(&format!("{address} does not answer: {error}"), json);
        }
    }
    if json {
        say(&json!({ "schema": 1, "healthy": true }).to_string());
    } else {
        say("healthy");
    }
    Exit::Ok
}

/// Why the service is not ready; nothing where it is.
fn unready(status: &Value) -> Option<&str> {
    match &status["unready"] {
        Value::Null => None,
        why => Some(why.as_str().unwrap_or("it does not say why")),
    }
}

/// Asks for `. CH TXT` and waits for any reply to it.
fn ask(address: SocketAddr, patience: Duration) -> std::io::Result<()> {
    let local: SocketAddr = if address.is_ipv4() { ([0; 4], 0).into() } else { ([0u16; 8], 0).into() };
    let socket = UdpSocket::bind(local)?;
    // Only what comes from there is received then, and a port that nobody holds is told at once.
    socket.connect(address)?;
    let id = u16::to_be_bytes(socket.local_addr()?.port() ^ std::process::id() as u16);
    let query = question(id);
    socket.send(&query)?;
    let end = Instant::now() + patience;
    let mut reply = [0; 512];
    loop {
        let left = end.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(std::io::ErrorKind::TimedOut.into());
        }
        socket.set_read_timeout(Some(left))?;
        let length = match socket.recv(&mut reply) {
            Ok(length) => length,
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => continue,
            Err(error) => return Err(error),
        };
        if answers(&reply[..length], id) {
            return Ok(());
        }
    }
}

/// RFC 1035 section 4.1: recursion desired, one question, `.` TXT in class CH (3).
fn question(id: [u8; 2]) -> [u8; 17] {
    [id[0], id[1], 1, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 16, 0, 3]
}

/// Whether this is a reply to the question of this id, whatever it says.
fn answers(reply: &[u8], id: [u8; 2]) -> bool {
    matches!(reply, [a, b, flags, _, _, _, _, _, _, _, _, _, ..] if [*a, *b] == id && flags & 0x80 != 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::{self, Parsed};

    #[test]
    fn the_question_is_refused_before_it_is_anybodys() {
        let query = question([7, 9]);
        match wire::parse(&query) {
            Parsed::Reject(reject) => assert_eq!((reject.id, reject.rcode), (0x0709, 5), "REFUSED, RFC 1035"),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn only_a_reply_to_this_question_counts() {
        let mut reply = question([7, 9]);
        assert!(!answers(&reply, [7, 9]), "a question is no reply");
        reply[2] |= 0x80;
        assert!(answers(&reply, [7, 9]));
        assert!(!answers(&reply, [7, 8]));
        assert!(!answers(&reply[..11], [7, 9]), "no whole header");
        assert!(!answers(&[], [7, 9]));
    }

    #[test]
    fn ready_is_what_says_no_reason() {
        assert_eq!(unready(&json!({ "unready": null })), None);
        assert_eq!(unready(&json!({ "unready": "no packet filter" })), Some("no packet filter"));
        assert!(unready(&json!({ "unready": 7 })).is_some());
    }
}
