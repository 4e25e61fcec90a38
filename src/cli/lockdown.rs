//! `staunch lockdown`: words into a plan, what was done into words.

use std::path::{Path, PathBuf};

use serde_json::json;

use super::Exit;
use super::verbs::{config_errors, fail, say};
use crate::config::{self, ConfigError};
use crate::enforce;
use crate::lockdown::{
    self, Bind, Bridge, DEFAULT_TABLE, Error, InterfaceName, Mode, Plan, PlanError, Resolver, Settings, Standing,
    resolvers,
};
use crate::range::IpRange;

/// Largest list of resolvers, octets.
const LIST_OCTETS: u64 = 8 << 20;

/// What to do with a lockdown.
#[derive(Debug, clap::Subcommand)]
pub enum LockdownVerb {
    /// Print the rules as a script for `nft -f`, with what they do in words above. Changes nothing.
    Plan(Words),
    /// Make the rules stand in this network namespace, in one transaction, and end flows they no longer permit. Nothing
    /// changes where they stand already.
    Apply(Words),
    /// Remove them. No other table is touched.
    Remove {
        /// nftables table [default: the configuration's [enforce] table with `_lockdown`, else staunch_lockdown].
        #[arg(long, value_name = "NAME")]
        table: Option<String>,
        /// Take the name from the service's configuration.
        #[arg(long, value_name = "FILE")]
        config: Option<PathBuf>,
    },
    /// Whether they stand unchanged, and with options whether they are what `plan` would print. Exit 1 if not.
    Status(Words),
}

/// The words of a plan.
#[derive(Debug, Default, clap::Args)]
pub struct Words {
    /// Interfaces behind which sandboxes live; a `*` at the end stands for any rest.
    #[arg(long, value_delimiter = ',', value_name = "NAME,...")]
    interfaces: Vec<InterfaceName>,
    /// A bridge, and its ports behind which sandboxes live; repeat for more bridges. A `*` at the end of a port stands for any
    /// rest, on every bridge of this host.
    #[arg(long, value_name = "BRIDGE=PORT,...")]
    bridge: Vec<Bridge>,
    /// Source addresses that an interface or port may use, and nobody else; of a port also its hardware address. Repeat
    /// for more. Without it, a source must be routed back out of the interface it came from.
    #[arg(long, value_name = "INTERFACE=ADDRESS,...")]
    bind: Vec<Bind>,
    /// Where questions are led: a port of this host's address on the interface [default: 53], or an address with a port;
    /// repeat for more addresses.
    #[arg(long, value_name = "PORT|ADDRESS:PORT")]
    resolver: Vec<Resolver>,
    /// enforce: nothing is forwarded without the service's word. monitor: questions are led to us and other ways to ask
    /// refused, all else passes.
    #[arg(long, default_value = "enforce", value_parser = mode, value_name = "MODE")]
    mode: Mode,
    /// Further addresses of resolvers to refuse, in the form of blocklists/resolver-addresses.txt; repeat for more.
    #[arg(long, value_name = "FILE")]
    doh: Vec<PathBuf>,
    /// Let sandboxes ask this host for an address by DHCP.
    #[arg(long)]
    dhcp: bool,
    /// nftables table [default: the configuration's [enforce] table with `_lockdown`, else staunch_lockdown].
    #[arg(long, value_name = "NAME")]
    table: Option<String>,
    /// Take interfaces, listening addresses, session addresses and the table's name from the service's configuration;
    /// what is also given here goes before it.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

/// Why there is no plan.
enum Failure {
    Config(Vec<ConfigError>),
    List(String),
    Plan(PlanError),
}

impl Failure {
    fn tell(self, json: bool) -> Exit {
        match self {
            Self::Config(errors) => config_errors(&errors, json),
            Self::List(error) => {
                fail(&error, json);
                Exit::Invalid
            }
            Self::Plan(error) => {
                fail(&error.to_string(), json);
                Exit::Usage
            }
        }
    }
}

impl From<PlanError> for Failure {
    fn from(error: PlanError) -> Self {
        Self::Plan(error)
    }
}

/// Runs the verb.
pub fn run(verb: LockdownVerb, json: bool) -> Exit {
    let done = match verb {
        LockdownVerb::Plan(words) => words.plan().map(|plan| print_plan(&plan, json)),
        LockdownVerb::Apply(words) => words.plan().map(|plan| apply(&plan, json)),
        LockdownVerb::Remove { table, config } => {
            Words { table, config, ..Words::default() }.table().map(|table| remove(&table, json))
        }
        LockdownVerb::Status(words) if words.say_nothing() => words.table().map(|table| status(&table, None, json)),
        LockdownVerb::Status(words) => words.plan().map(|plan| status(plan.table(), Some(&plan), json)),
    };
    done.unwrap_or_else(|failure| failure.tell(json))
}

impl Words {
    /// Whether nothing is said but where to look.
    fn say_nothing(&self) -> bool {
        let Self { interfaces, bridge, bind, resolver, doh, dhcp, config, .. } = self;
        interfaces.is_empty()
            && bridge.is_empty()
            && bind.is_empty()
            && resolver.is_empty()
            && doh.is_empty()
            && !dhcp
            && config.is_none()
    }

    fn table(&self) -> Result<String, Failure> {
        let name = match (&self.table, &self.config) {
            (Some(table), _) => table.clone(),
            (None, Some(file)) => config::load_lockdown(file).map_err(Failure::Config)?.table,
            (None, None) => DEFAULT_TABLE.to_owned(),
        };
        lockdown::check_table(&name)?;
        Ok(name)
    }

    fn plan(self) -> Result<Plan, Failure> {
        let mut refused = resolvers::read("the shipped list of resolvers", resolvers::SHIPPED)
            .map_err(|error| Failure::List(error.to_string()))?;
        for file in &self.doh {
            refused.extend(list(file).map_err(Failure::List)?);
        }
        let mut settings = Settings {
            table: DEFAULT_TABLE.to_owned(),
            service_table: enforce::DEFAULT_TABLE.to_owned(),
            mode: self.mode,
            interfaces: self.interfaces,
            bridges: self.bridge,
            binds: self.bind,
            resolvers: self.resolver,
            refused,
            sources: Vec::new(),
            dhcp: self.dhcp,
        };
        if let Some(file) = &self.config {
            let basis = config::load_lockdown(file).map_err(Failure::Config)?;
            settings.table = basis.table;
            settings.service_table = basis.service_table;
            if settings.interfaces.is_empty() && settings.bridges.is_empty() {
                let names = basis.interfaces.iter().map(|name| name.parse());
                settings.interfaces = names.collect::<Result<_, _>>().map_err(PlanError::Name)?;
            }
            if settings.resolvers.is_empty() {
                settings.resolvers = lockdown::resolvers_of(&basis.listen)?;
            }
            settings.sources = basis.sources;
        }
        settings.table = self.table.unwrap_or(settings.table);
        Ok(Plan::new(settings)?)
    }
}

fn list(file: &Path) -> Result<Vec<IpRange>, String> {
    use std::io::Read;
    let name = file.display().to_string();
    let mut text = String::new();
    let read = std::fs::File::open(file).and_then(|file| file.take(LIST_OCTETS + 1).read_to_string(&mut text));
    match read {
        Ok(octets) if octets as u64 > LIST_OCTETS => Err(format!("{name}: larger than {} MiB", LIST_OCTETS >> 20)),
        Ok(_) => resolvers::read(&name, &text).map_err(|error| error.to_string()),
        Err(error) => Err(format!("{name}: {error}; check the path and its permissions")),
    }
}

fn print_plan(plan: &Plan, json: bool) -> Exit {
    let script = lockdown::script(plan);
    if json {
        let value = json!({
            "schema": 1, "table": plan.table(), "mode": plan.mode().as_str(), "digest": script.digest,
            "does": lockdown::does(plan), "leaves_open": lockdown::leaves_open(plan), "script": script.text,
        });
        say(&value.to_string());
    } else {
        say(script.text.trim_end());
    }
    Exit::Ok
}

fn apply(plan: &Plan, json: bool) -> Exit {
    let hints = lockdown::hints(plan);
    if !json {
        lockdown::does(plan).iter().chain(&lockdown::leaves_open(plan)).for_each(|sentence| say(sentence));
        hints.iter().for_each(|hint| say(&format!("Note: {hint}.")));
    }
    match lockdown::apply(plan) {
        Ok(done) if json => {
            let value = json!({
                "schema": 1, "changed": done.changed, "flows_ended": done.ended, "does": lockdown::does(plan),
                "leaves_open": lockdown::leaves_open(plan), "hints": hints, "standing": done.standing,
            });
            say(&value.to_string());
            Exit::Ok
        }
        Ok(done) => {
            say(if done.changed { "Applied." } else { "It stands already: nothing changed." });
            match done.ended {
                0 => say("No older flow had to end."),
                1 => say("1 flow that is no longer permitted was ended."),
                many => say(&format!("{many} flows that are no longer permitted were ended.")),
            }
            Exit::Ok
        }
        Err(error) => failed(&error, json),
    }
}

fn remove(table: &str, json: bool) -> Exit {
    match lockdown::remove(table) {
        Ok(families) => {
            let removed: Vec<_> = families.iter().map(|family| format!("{} {table}", family.as_str())).collect();
            if json {
                say(&json!({ "schema": 1, "removed": removed }).to_string());
            } else if removed.is_empty() {
                say(&format!("There is no table {table}: nothing changed."));
            } else {
                say(&format!("Removed: table {}.", removed.join(", table ")));
            }
            Exit::Ok
        }
        Err(error) => failed(&error, json),
    }
}

fn status(table: &str, plan: Option<&Plan>, json: bool) -> Exit {
    match lockdown::standing(table, plan) {
        Ok(standing) => {
            if json {
                let hints = plan.map(lockdown::hints).unwrap_or_default();
                let value = json!({
                    "schema": 1, "table": table, "standing": standing, "interfaces": rows(&standing, plan), "hints": hints,
                });
                say(&value.to_string());
            } else {
                say(&human(table, &standing, plan));
            }
            if standing.stands { Exit::Ok } else { Exit::Failed }
        }
        Err(error) => failed(&error, json),
    }
}

fn failed(error: &Error, json: bool) -> Exit {
    match error {
        Error::Plan(_) => {
            fail(&error.to_string(), json);
            Exit::Usage
        }
        _ => fail(&error.to_string(), json),
    }
}

/// One row for each interface and port that is covered or should be: name, kind, sources, whether it is covered.
fn rows(standing: &Standing, plan: Option<&Plan>) -> Vec<serde_json::Value> {
    let row = |name: &str, kind: &str, sources: String, covered: bool| json!({ "name": name, "kind": kind, "sources": sources, "covered": covered });
    let Some(plan) = plan else {
        let interfaces = standing.interfaces.iter().map(|name| row(name, "interface", "as applied".into(), true));
        return interfaces
            .chain(standing.ports.iter().map(|name| row(name, "port", "as applied".into(), true)))
            .collect();
    };
    let enforce = plan.mode() == Mode::Enforce;
    let sources = |bound: &[std::net::IpAddr], open: &str| match (enforce, bound) {
        (false, _) => "not looked at".to_owned(),
        (true, []) => open.to_owned(),
        (true, bound) => bound.iter().map(ToString::to_string).collect::<Vec<_>>().join(", "),
    };
    let interfaces = plan.sandboxes().iter().map(|sandbox| {
        let name = sandbox.name.as_str();
        let kind = if sandbox.bridge { "bridge" } else { "interface" };
        let covered = standing.covers(name);
        row(name, kind, sources(&sandbox.bound, "routed back out of it"), covered)
    });
    let ports = plan.ports().iter().map(|port| {
        let name = port.name.as_str();
        let covered = !enforce || standing.ports.iter().any(|there| there == name);
        row(name, "port", sources(&port.bound, "of no other port"), covered)
    });
    interfaces.chain(ports).collect()
}

fn human(table: &str, standing: &Standing, plan: Option<&Plan>) -> String {
    let mut lines = vec![match (standing.stands, plan) {
        (true, Some(_)) => format!("{table} stands as planned ({})", standing.mode.as_deref().unwrap_or("?")),
        (true, None) => format!("{table} stands as it was applied ({})", standing.mode.as_deref().unwrap_or("?")),
        (false, _) => format!("{table} does not stand"),
    }];
    for there in &standing.tables {
        let state = serde_json::to_value(&there.state).map(|state| super::human::text(&state)).unwrap_or_default();
        lines.push(format!("  {:<8} {:<9} {:>4} rules", there.family, state, there.rules));
    }
    for row in rows(standing, plan) {
        let text = |field: &str| super::human::text(&row[field]);
        let covered = if row["covered"] == true { "covered" } else { "open" };
        lines.push(format!("  {:<16} {:<10} {:<8} sources: {}", text("name"), text("kind"), covered, text("sources")));
    }
    lines.extend(standing.problems.iter().map(|problem| format!("  {problem}")));
    lines.join("\n")
}

fn mode(text: &str) -> Result<Mode, String> {
    match text {
        "enforce" => Ok(Mode::Enforce),
        "monitor" => Ok(Mode::Monitor),
        _ => Err("use enforce or monitor".into()),
    }
}
