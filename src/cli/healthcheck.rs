//! `staunch healthcheck`: one look at a running service, for images without a shell and for probes.
//!
//! Asks the admin socket whether the service is ready, and each listening address for the node's token
//! ([`crate::local::token`]), which is answered before anything is known of who asks: no session, event or ledger hears of it,
//! and another server that holds the address does not pass for us.

use std::net::{SocketAddr, UdpSocket};
use std::path::Path;
use std::time::{Duration, Instant};

use clap::Args;
use serde_json::{Value, json};

use super::verbs::{fail, refused, say};
use super::{Exit, default_socket};
use crate::admin::client::{self, Error};
use crate::admin::protocol::Request;
use crate::probe;

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
            let exit = refused(&error, json);
            return if matches!(error, Error::Unreachable { .. }) { exit } else { Exit::Failed };
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

/// Asks for the token of a fresh nonce and waits for it.
fn ask(address: SocketAddr, patience: Duration) -> std::io::Result<()> {
    let local: SocketAddr = if address.is_ipv4() { ([0; 4], 0).into() } else { ([0u16; 8], 0).into() };
    let socket = UdpSocket::bind(local)?;
    // Only what comes from there is received then, and a port that nobody holds is told at once.
    socket.connect(address)?;
    let query = probe::question(&probe::nonce()?);
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
        let reply = reply.get(..length).unwrap_or_default();
        if probe::text_of(reply, &query).is_some() {
            return Ok(());
        }
        if probe::answers(reply, &query) {
            return Err(std::io::Error::other("who answers there is not Staunch"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a server makes of a question.
    type Answer = fn(&[u8]) -> Vec<u8>;

    /// A server that makes each of these replies to what it is asked; gives what the health check says of it.
    fn ask_who_says(replies: Vec<Answer>) -> std::io::Result<()> {
        let server = UdpSocket::bind("127.0.0.1:0").expect("a socket");
        let address = server.local_addr().expect("an address");
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let mut query = [0; 512];
                let (length, from) = server.recv_from(&mut query).expect("a question");
                for reply in replies {
                    server.send_to(&reply(&query[..length]), from).expect("sent");
                }
            });
            ask(address, Duration::from_secs(10))
        })
    }

    fn said(query: &[u8]) -> Vec<u8> {
        let crate::wire::Parsed::Query(parsed) = crate::wire::parse(query) else { panic!("not a query: {query:?}") };
        let mut reply = Vec::new();
        crate::reply::text(&mut reply, &parsed, "staunch=1");
        reply
    }

    #[test]
    fn only_the_token_counts_and_another_servers_answer_is_told() {
        let refused = |query: &[u8]| {
            let mut reply = query.to_vec();
            (reply[2], reply[3]) = (reply[2] | 0x80, 5);
            reply
        };
        let another = |query: &[u8]| {
            let mut reply = said(query);
            reply[0] ^= 1;
            reply
        };
        assert!(ask_who_says(vec![said]).is_ok());
        assert!(
            ask_who_says(vec![|query| query.to_vec(), another, |_| Vec::new(), said]).is_ok(),
            "others are passed by"
        );
        let error = ask_who_says(vec![refused]).expect_err("another server");
        assert!(error.to_string().contains("not Staunch"), "{error}");
    }

    #[test]
    fn ready_is_what_says_no_reason() {
        assert_eq!(unready(&json!({ "unready": null })), None);
        assert_eq!(unready(&json!({ "unready": "no packet filter" })), Some("no packet filter"));
        assert!(unready(&json!({ "unready": 7 })).is_some());
    }
}
