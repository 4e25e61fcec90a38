//! The words of the command line.

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Parser, Subcommand, ValueEnum};
use staunch_scoring::NameBuf;

use crate::admin::LONGEST_GRANT;
use crate::capacity::Assumptions;
use crate::model::{CaseId, Phase, Qtype, SessionId, SessionType};
use crate::pipeline::MOST_EXTENDED;

/// A DNS resolver that stops AI agents from leaking data through DNS.
#[derive(Debug, Parser)]
#[command(name = "staunch", version, about, propagate_version = true)]
pub struct Args {
    /// Admin socket of the daemon [default: $STAUNCH_SOCKET, else the one that is there of admin.sock in the default state
    /// directory and /run/staunch/admin.sock].
    #[arg(long, global = true, value_name = "PATH")]
    pub socket: Option<PathBuf>,
    /// Print JSON with a `schema` field instead of words.
    #[arg(long, global = true)]
    pub json: bool,
    /// What to do.
    #[command(subcommand)]
    pub verb: Verb,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Verb {
    /// Run the resolver in the foreground. It logs to standard error what STAUNCH_LOG asks for.
    ///
    /// STAUNCH_LOG is a level (off, error, warn, info, debug, trace; `info` without it), or a list of levels for modules such
    /// as `info,staunch::forward=debug`. `enforcer` takes it too.
    Serve {
        /// Configuration file (TOML). Without one: 127.0.0.1:5300, upstreams from resolv.conf, monitor mode.
        #[arg(long, value_name = "FILE")]
        config: Option<PathBuf>,
        /// Where state is kept; overrides the file.
        #[arg(long, value_name = "DIR")]
        state_dir: Option<PathBuf>,
    },
    /// Run the enforcer in the foreground: it alone changes the packet filter, by the orders of a resolver without privilege.
    /// `--socket` goes before the file's enforce.enforcer_socket.
    Enforcer {
        /// The resolver's configuration file; of it only [enforce] and [policy] are used.
        #[arg(long, value_name = "FILE")]
        config: PathBuf,
    },
    /// Check a configuration without running it: file, line, field, remedy. Exit 3 if it does not load.
    Check {
        /// The file.
        #[arg(value_name = "FILE")]
        file: PathBuf,
        /// Treat warnings as errors.
        #[arg(long)]
        strict: bool,
    },
    /// What a policy permits at worst: bits that one session can tell the outside, by part, rule and type.
    Capacity {
        /// Configuration file; the built-in policy without one.
        #[arg(long, value_name = "FILE")]
        policy: Option<PathBuf>,
        /// How long a forwarded name and type is answered from the cache, seconds; 0 for not at all. Without it, the
        /// file's answer.floor_seconds.
        #[arg(long, value_name = "SECONDS", value_parser = not_negative)]
        floor_seconds: Option<f64>,
        /// How far a query's arrival strays from its sending as its reader sees it, milliseconds: an assumption.
        #[arg(long, value_name = "MS", default_value_t = Assumptions::default().jitter_ms, value_parser = positive)]
        jitter_ms: f64,
    },
    /// Sessions: who asks, and what has become of them.
    Session {
        /// What to do.
        #[command(subcommand)]
        verb: SessionVerb,
    },
    /// Allow a name for a while, on the record. Once more for the same name and session it is the same grant, with the later
    /// end. `staunch grant` lists and withdraws.
    Allow {
        /// `=x` exactly x, `x` x and below, `*.x` below x only.
        name: String,
        /// How long: 90s, 15m, 2h; at most 7d.
        #[arg(long = "for", value_name = "TIME", value_parser = grant_time)]
        time: Duration,
        /// Why.
        #[arg(long)]
        reason: String,
        /// Who answers for it.
        #[arg(long)]
        owner: String,
        /// For this session only.
        #[arg(long, value_parser = session_id)]
        session: Option<SessionId>,
        /// What is opened of its addresses, instead of the profile's ports: tcp/22,tcp/443 or any.
        #[arg(long, value_name = "PORTS", value_delimiter = ',')]
        ports: Vec<String>,
    },
    /// Temporary allowances in force, and how to take one back.
    Grant {
        /// What to do.
        #[command(subcommand)]
        verb: super::grants::GrantVerb,
    },
    /// Lists: what is in force, what is fetched, what waits for your word.
    Lists {
        /// What to do.
        #[command(subcommand)]
        verb: super::lists::ListsVerb,
    },
    /// Watch decisions as they are made.
    Observe {
        /// Stay and print what comes.
        #[arg(long, short)]
        follow: bool,
        /// Begin with the newest N that match (of the last 1,024 events).
        #[arg(long, default_value_t = 10, value_name = "N")]
        last: usize,
        /// Only this session.
        #[arg(long, value_parser = session_id)]
        session: Option<SessionId>,
        /// Only what was refused, or in monitor mode would have been.
        #[arg(long)]
        refused: bool,
    },
    /// What would become of a name and why, by the code that judges live queries. Sends nothing.
    Explain {
        /// The name.
        name: String,
        /// Record type.
        #[arg(long = "type", default_value = "A", value_parser = qtype, value_name = "TYPE")]
        qtype: Qtype,
        /// As which session; with --config a new session of --as-type.
        #[arg(long, value_parser = session_id, required_unless_present = "config")]
        session: Option<SessionId>,
        /// Judge by this file, without a daemon, for a session that has asked nothing yet.
        #[arg(long, value_name = "FILE", conflicts_with = "session")]
        config: Option<PathBuf>,
        /// Session type with --config.
        #[arg(long, default_value = "interactive", value_parser = session_type, requires = "config")]
        as_type: SessionType,
        /// Exit 10 if it is refused, 11 if the session is quarantined: now, in which monitor mode refuses nothing, or with
        /// `--exit-code=enforced` in enforce mode.
        #[arg(long, value_name = "BY", num_args = 0..=1, require_equals = true, default_missing_value = "now")]
        exit_code: Option<ExitBy>,
    },
    /// Replay labelled logs through the code that judges live queries: what is stopped and when, what leaves before,
    /// what is refused by mistake. Sends nothing.
    Evaluate(super::evaluate::Words),
    /// What a case id stands for.
    Why {
        /// The id from a refusal or an alert.
        #[arg(value_parser = case_id)]
        case: CaseId,
    },
    /// Thresholds learned in monitor mode.
    Learn {
        /// What to do.
        #[command(subcommand)]
        verb: LearnVerb,
    },
    /// Rules for hosts with sandboxes: questions are led to us, every other way out is refused. They stand without the
    /// service too.
    Lockdown {
        /// What to do.
        #[command(subcommand)]
        verb: super::lockdown::LockdownVerb,
    },
    /// Try, from within a sandbox, every other way out. Exit 12 if one is open, 13 if of one it cannot be told.
    Doctor(super::doctor::Words),
    /// State of the service.
    Status,
    /// Whether the service is ready and answers: exit 0 if so, 1 if not, 4 if it is not reachable. For containers and
    /// probes.
    Healthcheck(super::healthcheck::Words),
    /// Read the configuration again; the old one stays if it does not load.
    Reload,
}

/// By what an exit code says whether a name is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum ExitBy {
    /// What becomes of it now.
    Now,
    /// What enforce mode would do.
    Enforced,
}

/// What to do with what was learned.
#[derive(Debug, Subcommand)]
pub enum LearnVerb {
    /// Samples, quantiles, the thresholds in force and those that a reload would put in force.
    Show,
    /// Forget all of it. Thresholds in force stay until the next reload.
    Reset {
        /// Why.
        #[arg(long)]
        reason: String,
        /// Who [default: $USER, else `operator`].
        #[arg(long)]
        by: Option<String>,
    },
}

/// What to do with sessions.
#[derive(Debug, Subcommand)]
pub enum SessionVerb {
    /// Make a session known, or update what is said of it.
    Announce {
        /// Its name: 1 to 64 of A-Z a-z 0-9 . _ : -
        #[arg(value_parser = session_id)]
        id: SessionId,
        /// Source address; repeat for more.
        #[arg(long, required = true, value_name = "ADDRESS")]
        address: Vec<IpAddr>,
        /// interactive, batch or scheduled.
        #[arg(long = "type", value_parser = session_type, value_name = "TYPE")]
        kind: SessionType,
        /// fetch, build or run.
        #[arg(long, value_parser = phase)]
        phase: Option<Phase>,
        /// Who answers for it.
        #[arg(long)]
        owner: Option<String>,
        /// A suffix of the sandbox's search list; repeat for more. Whole names under it (expansions) are answered locally.
        #[arg(long, value_parser = name)]
        search: Vec<NameBuf>,
    },
    /// A session's run is over: forget it, its pins and its ledger.
    End {
        /// Which.
        #[arg(value_parser = session_id)]
        id: SessionId,
    },
    /// All sessions.
    List,
    /// One session in full.
    Show {
        /// Which.
        #[arg(value_parser = session_id)]
        id: SessionId,
        /// Exit 11 if it is quarantined.
        #[arg(long)]
        exit_code: bool,
    },
    /// Close a session: every query refused, every pin removed, every flow ended.
    Quarantine {
        /// Which.
        #[arg(value_parser = session_id)]
        id: SessionId,
        /// Why.
        #[arg(long)]
        reason: String,
        /// Who [default: $USER, else `operator`].
        #[arg(long)]
        by: Option<String>,
    },
    /// Open a session again. What it has spent stays spent.
    Release {
        /// Which.
        #[arg(value_parser = session_id)]
        id: SessionId,
        /// Who.
        #[arg(long)]
        by: String,
        /// Why.
        #[arg(long)]
        reason: String,
        /// Bits that the session may tell the outside beyond its limits; without it a session whose ledger is spent is
        /// closed again by its next new name. It goes on record, 8388607 in all at most.
        #[arg(long, default_value_t = 0, value_name = "BITS",
              value_parser = clap::value_parser!(u32).range(..=i64::from(MOST_EXTENDED)))]
        extend: u32,
    },
}

/// A number of assumptions: above zero and finite.
fn positive(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(number) if (1e-3..=1e6).contains(&number) => Ok(number),
        _ => Err("use a number from 0.001 to 1000000".into()),
    }
}

fn not_negative(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(number) if (0.0..=1e6).contains(&number) => Ok(number),
        _ => Err("use a number from 0 to 1000000".into()),
    }
}

fn session_id(text: &str) -> Result<SessionId, String> {
    SessionId::new(text)
}

fn case_id(text: &str) -> Result<CaseId, String> {
    CaseId::from_text(text).ok_or_else(|| "a case id is `c` and twelve letters or digits".into())
}

fn qtype(text: &str) -> Result<Qtype, String> {
    Qtype::from_text(text).ok_or_else(|| format!("unknown record type `{text}`; a mnemonic or TYPEn"))
}

fn name(text: &str) -> Result<NameBuf, String> {
    NameBuf::from_text(text).map_err(|error| error.to_string())
}

pub(super) fn session_type(text: &str) -> Result<SessionType, String> {
    match text {
        "interactive" => Ok(SessionType::Interactive),
        "batch" => Ok(SessionType::Batch),
        "scheduled" => Ok(SessionType::Scheduled),
        _ => Err("use interactive, batch or scheduled".into()),
    }
}

fn phase(text: &str) -> Result<Phase, String> {
    match text {
        "fetch" => Ok(Phase::Fetch),
        "build" => Ok(Phase::Build),
        "run" => Ok(Phase::Run),
        _ => Err("use fetch, build or run".into()),
    }
}

/// How long an allowance may last.
fn grant_time(text: &str) -> Result<Duration, String> {
    match seconds(text)? {
        seconds @ 1..=LONGEST_GRANT => Ok(Duration::from_secs(seconds)),
        _ => Err("an allowance lasts from 1s to 7d; write a rule for more".into()),
    }
}

/// A time above zero.
pub(super) fn duration(text: &str) -> Result<Duration, String> {
    match seconds(text)? {
        0 => Err("use 1s or more".into()),
        seconds => Ok(Duration::from_secs(seconds)),
    }
}

/// `90s`, `15m`, `2h`, `1h30m`, `3d`.
fn seconds(text: &str) -> Result<u64, String> {
    let mut total = 0u64;
    let mut number = None::<u64>;
    for c in text.chars() {
        if let Some(digit) = c.to_digit(10) {
            let next = number.unwrap_or(0).checked_mul(10).and_then(|n| n.checked_add(u64::from(digit)));
            number = Some(next.ok_or("too long")?);
            continue;
        }
        let unit = match c {
            's' => 1,
            'm' => 60,
            'h' => 3600,
            'd' => 86400,
            _ => return Err("use a number and s, m, h or d, such as 15m".into()),
        };
        let part = number.take().ok_or("a unit needs a number before it, such as 15m")?;
        total = part.checked_mul(unit).and_then(|p| total.checked_add(p)).ok_or("too long")?;
    }
    if number.is_some() || text.is_empty() {
        return Err("use a number and s, m, h or d, such as 15m".into());
    }
    Ok(total)
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_words_are_consistent() {
        Args::command().debug_assert();
    }

    #[test]
    fn assumptions_are_numbers_above_zero() {
        assert_eq!(positive("2.5"), Ok(2.5));
        for bad in ["0", "-1", "NaN", "inf", "1e7", ""] {
            assert!(positive(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn durations_need_units() {
        assert_eq!(duration("15m"), Ok(Duration::from_secs(900)));
        assert_eq!(duration("1h30m"), Ok(Duration::from_secs(5400)));
        for bad in ["", "15", "m", "0s", "1x", "99999999999999999999d", "1m5"] {
            assert!(duration(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_time_out_of_range_is_told_the_range_and_not_the_form() {
        assert_eq!(grant_time("7d"), Ok(Duration::from_secs(LONGEST_GRANT)));
        for bad in ["0s", "0h0m", "8d", "7d1s"] {
            assert_eq!(grant_time(bad), Err("an allowance lasts from 1s to 7d; write a rule for more".into()), "{bad}");
        }
        assert_eq!(duration("0s"), Err("use 1s or more".into()));
        assert!(grant_time("15").is_err_and(|error| error.contains("such as 15m")));
    }
}
