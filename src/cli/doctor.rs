//! `staunch doctor`: words into settings, a report into words, a receipt into a file.

use std::io::{IsTerminal, Read};
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::json;

use super::Exit;
use super::args::duration;
use super::verbs::{fail, say};
use crate::admin::client;
use crate::admin::protocol::Request;
use crate::doctor::receipt::Receipt;
use crate::doctor::{self, Outcome, Report, Settings, canary};
use crate::identity::{PublicKey, jws};
use crate::lockdown::DEFAULT_PORT;

/// For the daemon's signature.
const PATIENCE: Duration = Duration::from_secs(15);

/// The words of the doctor.
#[derive(Debug, clap::Args)]
#[command(group = clap::ArgGroup::new("what").required(true).args(["from_namespace", "inside", "listen", "verify"]))]
pub struct Words {
    /// Try every way out of this network namespace: a name that `ip netns` knows, a path, or a process id in it. As root, in
    /// the namespace through which the sandbox's packets pass.
    #[arg(long, value_name = "NS")]
    from_namespace: Option<String>,
    /// Try every way out of where this runs. Needs no privilege, and can tell less: nobody watches the wire.
    #[arg(long)]
    inside: bool,
    /// Be a canary: answer probes at these addresses, outside, until ended.
    #[arg(long, value_name = "ADDRESS", value_delimiter = ',')]
    listen: Vec<IpAddr>,
    /// Check a receipt, a file or `-`, against --key.
    #[arg(long, value_name = "RECEIPT", requires = "key")]
    verify: Option<PathBuf>,
    /// A node's public key: the file node.pub of its state directory, or the 43 characters that `staunch status` shows.
    #[arg(long, value_name = "KEY")]
    key: Option<String>,
    /// Where the resolver answers [default: port 53 of the sandbox's gateways, then what its resolv.conf names]; repeat.
    #[arg(long, value_name = "ADDRESS[:PORT]", value_parser = resolver)]
    resolver: Vec<SocketAddr>,
    /// A host outside on which `staunch doctor --listen` answers; one of each family.
    #[arg(long, value_name = "ADDRESS")]
    canary: Vec<IpAddr>,
    /// An address of another sandbox, beside those of announced sessions; repeat.
    #[arg(long, value_name = "ADDRESS")]
    neighbour: Vec<IpAddr>,
    /// A name that the sandbox may resolve, for ways around its pin; --port is open with it.
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    /// A port that is opened with --name.
    #[arg(long, default_value_t = 443, value_name = "PORT", requires = "name")]
    port: u16,
    /// Wait so long for the end of a pin, at most.
    #[arg(long, default_value = "15s", value_name = "TIME", value_parser = duration)]
    stale: Duration,
    /// How long one probe waits for a word, milliseconds.
    #[arg(long, default_value_t = 700, value_name = "MS", value_parser = clap::value_parser!(u64).range(50..=10_000))]
    wait_ms: u64,
    /// With --inside: the lockdown is at most so many routers away, so that a refusal from within them is its own.
    #[arg(long, default_value_t = 2, value_name = "N", value_parser = clap::value_parser!(u32).range(2..=64))]
    hops: u32,
    /// Write the receipt that the daemon signs to this file.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["listen", "verify"])]
    receipt: Option<PathBuf>,
    /// Exit 13 too where something was not tried.
    #[arg(long)]
    strict: bool,
}

/// Runs the verb. `socket`: the daemon's, `named` if somebody said so.
pub fn run(words: Words, socket: &Path, named: bool, json: bool) -> Exit {
    if !words.listen.is_empty() {
        return match canary::serve(&words.listen, say) {
            Ok(()) => Exit::Ok,
            Err(error) => fail(&error.to_string(), json),
        };
    }
    if let Some(file) = &words.verify {
        return verify(file, words.key.as_deref().unwrap_or_default(), json);
    }
    // From within a sandbox the daemon's socket is no business of anybody's, unless it is named.
    let admin = (named || (!words.inside && socket.exists())).then(|| socket.to_owned());
    let settings = Settings {
        resolvers: words.resolver.clone(),
        canaries: words.canary.clone(),
        neighbours: words.neighbour.clone(),
        name: words.name.clone().map(|name| (name, words.port)),
        stale: words.stale,
        patience: Duration::from_millis(words.wait_ms),
        hops: words.hops,
        admin,
    };
    // Only for somebody who looks on: minutes without a word look like a hang.
    if !json && std::io::stderr().is_terminal() {
        eprintln!("staunch: trying every way out there is; this takes a minute or two");
    }
    let report = match &words.from_namespace {
        Some(name) => doctor::run::from_namespace(name, &settings),
        None => doctor::run::inside(&settings),
    };
    let report = match report {
        Ok(report) => report,
        Err(error) => return fail(&error.to_string(), json),
    };
    let signed = settings.admin.as_ref().map(|socket| sign(socket, &report));
    let (receipt, unsigned) = match signed {
        Some(Ok(receipt)) => (Some(receipt), None),
        Some(Err(error)) => (None, Some(error.to_string())),
        None => (None, Some("no daemon was asked".to_owned())),
    };
    tell(&report, receipt.as_deref(), unsigned.as_deref(), json);
    if let Some(file) = &words.receipt {
        let written = receipt.ok_or_else(|| unsigned.unwrap_or_default()).and_then(|receipt| {
            std::fs::write(file, receipt + "\n").map_err(|error| format!("{}: {error}", file.display()))
        });
        if let Err(error) = written {
            eprintln!("staunch: there is no receipt: {error}");
            // What was found goes before: an open way is told by the exit code in any case.
            return exit(&report, words.strict).unwrap_or(Exit::Failed);
        }
    }
    exit(&report, words.strict).unwrap_or(Exit::Ok)
}

fn exit(report: &Report, strict: bool) -> Option<Exit> {
    if report.count(Outcome::Open) > 0 {
        return Some(Exit::Open);
    }
    let untold = report.count(Outcome::Inconclusive) + if strict { report.count(Outcome::NotTried) } else { 0 };
    (untold > 0).then_some(Exit::Inconclusive)
}

fn sign(socket: &Path, report: &Report) -> Result<String, client::Error> {
    let value = client::ask(socket, &Request::Receipt { report: Box::new(report.clone()) }, PATIENCE)?;
    Ok(value["receipt"].as_str().unwrap_or_default().to_owned())
}

fn tell(report: &Report, receipt: Option<&str>, unsigned: Option<&str>, json: bool) {
    if json {
        let count = |outcome| report.count(outcome);
        let value = json!({
            "schema": 1,
            "open": count(Outcome::Open),
            "inconclusive": count(Outcome::Inconclusive),
            "closed": count(Outcome::Closed),
            "absent": count(Outcome::Absent),
            "not_tried": count(Outcome::NotTried),
            "report": report,
            "receipt": receipt,
            "unsigned_because": unsigned,
        });
        say(&value.to_string());
        return;
    }
    say(&report.table());
    if let Some(why) = unsigned {
        say(&format!("No receipt: {why}."));
    }
}

fn verify(file: &Path, key: &str, json: bool) -> Exit {
    let Some(key) = read_key(key) else {
        fail("--key is neither a file with a public key in PEM nor 43 characters of base64url", json);
        return Exit::Usage;
    };
    let text = match read(file) {
        Ok(text) => text,
        Err(error) => return fail(&format!("{}: {error}", file.display()), json),
    };
    match Receipt::verify(&text, &key) {
        Ok(receipt) if json => {
            say(&json!({ "schema": 1, "valid": true, "receipt": receipt }).to_string());
            Exit::Ok
        }
        Ok(receipt) => {
            say(&receipt.report.table());
            say(&format!(
                "Signed by node {} at {}: {} mode, configuration {}, {}",
                receipt.node,
                receipt.time,
                receipt.mode,
                receipt.policy,
                if receipt.readiness.ready { "ready" } else { "not ready" }
            ));
            Exit::Ok
        }
        Err(error) => fail(&error.to_string(), json),
    }
}

fn read_key(text: &str) -> Option<PublicKey> {
    PublicKey::read(text).or_else(|| PublicKey::read(&read(Path::new(text)).ok()?))
}

/// A file, or standard input for `-`; no receipt or key is longer.
fn read(file: &Path) -> std::io::Result<String> {
    let mut text = String::new();
    let limit = jws::MAX as u64 + 2;
    match file.as_os_str() == "-" {
        true => std::io::stdin().take(limit).read_to_string(&mut text)?,
        false => std::fs::File::open(file)?.take(limit).read_to_string(&mut text)?,
    };
    Ok(text)
}

fn resolver(text: &str) -> Result<SocketAddr, String> {
    let bare = || text.parse::<IpAddr>().map(|ip| SocketAddr::new(ip, DEFAULT_PORT));
    text.parse()
        .or_else(|_| bare())
        .map_err(|_| "write an address, or one with its port: 10.77.1.1, [fd77::1]:53".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resolvers_are_addresses_with_or_without_a_port() {
        assert_eq!(resolver("10.77.1.1"), Ok(([10, 77, 1, 1], 53).into()));
        assert_eq!(resolver("[fd77::1]:5300").map(|at| at.port()), Ok(5300));
        assert_eq!(resolver("fd77::1").map(|at| at.port()), Ok(53));
        assert!(resolver("a.example").is_err());
    }
}
