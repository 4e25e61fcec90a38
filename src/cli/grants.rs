//! `staunch grant`: the temporary allowances that `staunch allow` gave.

use std::fmt::Write as _;
use std::path::Path;

use clap::Subcommand;
use serde_json::Value;

use super::Exit;
use super::human::text;
use super::verbs::{ask, who};
use crate::admin::protocol::Request;
use crate::telemetry::rfc3339;

/// What to do.
#[derive(Debug, Subcommand)]
pub enum GrantVerb {
    /// All that are in force: id, name, for whom, until when, who answers for it and why.
    List,
    /// Take one back before its end; what it has opened is closed. On the record.
    Withdraw {
        /// Its id, as `grant list` and `allow` name it.
        id: String,
        /// Why.
        #[arg(long)]
        reason: String,
        /// Who [default: $USER, else `operator`].
        #[arg(long)]
        by: Option<String>,
    },
}

/// Runs the verb.
pub fn run(verb: GrantVerb, socket: &Path, json: bool) -> Exit {
    match verb {
        GrantVerb::List => ask(socket, &Request::Grants, json, all),
        GrantVerb::Withdraw { id, reason, by } => {
            let request = Request::Withdraw { grant: id, by: who(by), reason };
            ask(socket, &request, json, |v| {
                let grant = &v["withdrawn"];
                format!("{} is not allowed by grant {} any more", text(&grant["name"]), text(&grant["id"]))
            })
        }
    }
}

fn all(v: &Value) -> String {
    let lines: Vec<_> = v["grants"].as_array().into_iter().flatten().map(line).collect();
    if lines.is_empty() { "no grants".into() } else { lines.join("\n") }
}

fn line(grant: &Value) -> String {
    let mut out = format!("{:<10} {:<32} {}", text(&grant["id"]), text(&grant["name"]), terms(grant));
    if grant["ports"].is_array() {
        let _ = write!(out, "  ports {}", text(&grant["ports"]));
    }
    out
}

/// For whom a grant holds, until when, and on whose word.
pub fn terms(grant: &Value) -> String {
    let until = rfc3339(grant["until"].as_u64().unwrap_or(0));
    let (whom, owner, reason) = (whom(grant), text(&grant["owner"]), text(&grant["reason"]));
    format!("{whom}  until {until}  by {owner}: {reason}")
}

fn whom(grant: &Value) -> String {
    match &grant["session"] {
        Value::Null => "every session".to_owned(),
        session => format!("session {}", text(session)),
    }
}

/// What `allow` has done.
pub fn allowed(v: &Value) -> String {
    let grant = &v["grant"];
    let until = |grant: &Value| rfc3339(grant["until"].as_u64().unwrap_or(0));
    let (name, id) = (text(&grant["name"]), text(&grant["id"]));
    let mut out = format!("{name} allowed for {} until {} (grant {id})", whom(grant), until(grant));
    if v["before"].is_object() {
        let before = &v["before"];
        let (owner, reason) = (text(&before["owner"]), text(&before["reason"]));
        let _ = write!(out, "\nin place of what it was: until {} by {owner}: {reason}", until(before));
    }
    out
}
