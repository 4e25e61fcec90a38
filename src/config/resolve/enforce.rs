//! The packet filter: what is opened of an answer's addresses, for how long, and which addresses need no name.

use std::collections::HashSet;
use std::net::Ipv6Addr;
use std::path::Path as FilePath;
use std::time::Duration;

use super::Context;
use crate::config::document::Path;
use crate::config::loaded::{Events, Pins};
use crate::enforce::{self, BackendKind};
use crate::lines;
use crate::lists::WrittenRange;
use crate::lockdown;
use crate::metadata;
use crate::model::Mode;
use crate::pin::SESSION_PINS_MAX;
use crate::policy::UnknownSource;
use crate::ports::{Ports, PortsError};
use crate::range::IpRange;
use crate::readiness::{Lockdown, Need};

/// Orders that may wait for the owner of the packet filter. Each query in the slow path waits for at most one.
const ENFORCE_QUEUE: usize = 4096;

/// Ranges that no session is ever let into by its address alone, metadata services aside: this host, neighbours on the link,
/// groups.
const NEVER: [&str; 6] = ["127.0.0.0/8", "169.254.0.0/16", "224.0.0.0/3", "::1", "fe80::/10", "ff00::/8"];

impl Context<'_, '_> {
    /// All but where the lease journal is.
    pub(super) fn enforce(&mut self, mode: Mode, unknown: UnknownSource) -> enforce::Config {
        let section = Path::of("enforce");
        let enforce = self.spec.enforce.clone();
        let backend_path = section.key("backend");
        let backend = match (enforce.backend, mode) {
            (Some(BackendKind::Off), Mode::Enforce | Mode::Canary) => {
                self.problems.error(
                    &backend_path,
                    "nothing would be enforced in a mode that enforces",
                    "use \"nft\" (or \"dry-run\" to try), or set policy.mode = \"monitor\"",
                );
                BackendKind::Off
            }
            (Some(backend), _) => backend,
            (None, Mode::Monitor) => {
                self.assumptions.push("The packet filter is not touched (dry-run): pins are only recorded.".into());
                BackendKind::DryRun
            }
            (None, Mode::Enforce | Mode::Canary) => {
                self.problems.error(
                    &backend_path,
                    "no backend is named in a mode that enforces",
                    "set enforce.backend = \"nft\", or \"dry-run\" to try",
                );
                BackendKind::DryRun
            }
        };
        if backend == BackendKind::DryRun && mode != Mode::Monitor && enforce.backend.is_some() {
            self.problems.warn(
                &backend_path,
                "names are refused, but addresses are not: dry-run only records pins",
                "use \"nft\" where sandboxes must not reach what they did not resolve",
            );
        }
        if backend == BackendKind::Hook && mode != Mode::Monitor {
            self.problems.warn(
                &backend_path,
                "what is refused is in the hook's hands: nothing here sees whether it holds",
                "use \"nft\" where the kernel is to hold it",
            );
        }
        if backend == BackendKind::Nft && enforce.interfaces.is_empty() {
            self.problems.warn(
                &section.key("interfaces"),
                "no interface: forwarded packets of sandboxes do not need a pin",
                "name the interfaces that sandboxes are attached to",
            );
        }
        if !enforce::is_table(&enforce.table) {
            let problem = format!("`{}` is not a table name", enforce.table.escape_debug());
            self.problems.error(&section.key("table"), problem, "use a letter, then up to 63 letters, digits and `_`");
        }
        for (i, interface) in enforce.interfaces.iter().enumerate() {
            let path = section.key("interfaces").at(i);
            if !enforce::is_interface(interface) {
                let problem = format!("`{}` is not an interface name", interface.escape_debug());
                self.problems.error(
                    &path,
                    problem,
                    "use 1 to 15 visible characters without / : \" \\, a `*` only at the end",
                );
            } else if enforce.interfaces[..i].contains(interface) {
                self.problems.error(&path, format!("`{interface}` stands here twice"), "remove one of them");
            }
        }
        enforce::Config {
            backend,
            table: enforce.table,
            guard_unknown: !enforce.interfaces.is_empty() && unknown == UnknownSource::Refuse,
            interfaces: enforce.interfaces,
            deadline: Duration::from_millis(self.within(&section, "deadline_ms", enforce.deadline_ms, 1, 5000)),
            queue: ENFORCE_QUEUE,
            capacity: self.within(&section, "capacity", enforce.capacity, 1, 1 << 24),
            own_table: enforce.own_table,
            journal: None,
            outside: self.outside(backend),
        }
    }

    /// Where leases are written down; `events` says how large the file grows.
    pub(super) fn lease_journal(&mut self, state_dir: &FilePath, events: &Events) -> Option<lines::Config> {
        match self.spec.enforce.lease_journal.as_str() {
            "off" => None,
            "" => {
                let path = Path::of("enforce").key("lease_journal");
                self.problems.fail(&path, "the path is empty", "name a file, or \"off\"")
            }
            path => {
                let (rotate_bytes, keep) = (events.rotate_bytes, events.keep);
                Some(lines::Config { file: state_dir.join(path), rotate_bytes, keep })
            }
        }
    }

    /// What is wanted of the lockdown. A deployment that has enforced without it goes on, with a warning.
    pub(super) fn lockdown(&mut self, enforce: &enforce::Config, mode: Mode) -> Lockdown {
        let section = Path::of("enforce");
        let (need, table) = (self.spec.enforce.lockdown, self.spec.enforce.lockdown_table.clone());
        let holds = enforce.backend == BackendKind::Nft && !enforce.interfaces.is_empty();
        if need == Some(Need::Require) && !holds && mode != Mode::Monitor {
            self.problems.error(
                &section.key("lockdown"),
                "there is nothing that a lockdown could be looked for on",
                "set enforce.backend = \"nft\" and name interfaces, or set enforce.lockdown = \"off\"",
            );
        }
        let need = need.unwrap_or(match mode {
            _ if !holds => Need::Off,
            Mode::Enforce => Need::Require,
            Mode::Monitor | Mode::Canary => Need::Warn,
        });
        let written = table.is_some();
        let table = table.unwrap_or_else(|| lockdown::beside(&enforce.table));
        let path = section.key("lockdown_table");
        // A table of the service that is none has been told of.
        let looked_for = written || (need != Need::Off && lockdown::check_table(&enforce.table).is_ok());
        match lockdown::check_table(&table) {
            _ if !looked_for => {}
            Err(_) => {
                let problem = format!("`{}` is not a table name", table.escape_debug());
                self.problems.error(&path, problem, "use a letter, then up to 63 letters, digits and `_`");
            }
            Ok(()) if table == enforce.table => {
                self.problems.error(&path, format!("`{table}` is the service's own table"), "name another");
            }
            Ok(()) => {}
        }
        Lockdown { need, table, interfaces: enforce.interfaces.clone() }
    }

    pub(super) fn pins(&mut self) -> Pins {
        let section = Path::of("enforce");
        let enforce = &self.spec.enforce;
        let (min, max, grace) = (enforce.min_pin_seconds, enforce.max_pin_seconds, enforce.pin_grace_seconds);
        let max = self.within(&section, "max_pin_seconds", max, 1, 86_400);
        let min = self.within(&section, "min_pin_seconds", min, 1, 86_400);
        let grace = self.within(&section, "pin_grace_seconds", grace, 0, 3600);
        let wrong = |field: &str| self.problems.is_wrong(&section.key(field));
        if ["min_pin_seconds", "max_pin_seconds", "pin_grace_seconds"].into_iter().any(wrong) {
            // What is judged below would be stand-ins.
        } else if min > max {
            self.problems.error(
                &section.key("min_pin_seconds"),
                format!("{min} is more than enforce.max_pin_seconds ({max})"),
                "make it no more than the longest pin",
            );
        } else if grace >= min {
            self.problems.error(
                &section.key("pin_grace_seconds"),
                format!("{grace} leaves nothing of the shortest pin ({min})"),
                "make it less than enforce.min_pin_seconds: a time to live is shown for the rest",
            );
        }
        Pins {
            min: Duration::from_secs(min),
            max: Duration::from_secs(max),
            grace: Duration::from_secs(grace),
            per_name: self.within(&section, "pins_per_name", enforce.pins_per_name, 1, SESSION_PINS_MAX),
        }
    }

    /// Ports as written: `tcp/443`, or `any` alone. `None` where nothing is written, or nothing that is right.
    pub(super) fn ports(&mut self, path: &Path, written: &[String]) -> Option<Ports> {
        match Ports::read(written) {
            Ok(ports) => Some(ports),
            Err(PortsError::None) => None,
            Err(error) => {
                let path = if let PortsError::NotAPort { at, .. } = error { path.at(at) } else { path.clone() };
                self.problems.fail(&path, error.to_string(), error.remedy())
            }
        }
    }

    /// Ranges of addresses that sessions may reach without having resolved a name.
    pub(super) fn written_ranges(&mut self) -> Vec<WrittenRange> {
        let mut ids = HashSet::new();
        let mut all = Vec::new();
        // In the packet filter, each family.
        let mut elements = [0; 2];
        for (i, written) in self.spec.range.iter().enumerate() {
            let path = Path::of("range").at(i);
            self.word(&path.key("id"), &written.id, "id");
            if !written.id.is_empty() && !ids.insert(written.id.as_str()) {
                let problem = format!("a second range `{}`", written.id.escape_debug());
                self.problems.error(&path.key("id"), problem, "give each its own id: records name it");
            }
            self.owned(&path, &written.owner, &written.reason);
            self.reviewed(&path, written.review_by.as_deref());
            let expires = self.expiry(&path.key("expires"), written.expires.as_deref());
            let scopes = self.scopes(&path.key("profiles"), &written.profiles);
            if written.ranges.is_empty() {
                self.problems.error(&path.key("ranges"), "no range", "name it, for example [\"192.0.2.0/24\"]");
            }
            if written.ports.is_empty() {
                self.problems.error(
                    &path.key("ports"),
                    "no port",
                    "name what is needed there, for example [\"tcp/22\"]",
                );
            }
            let ports = self.ports(&path.key("ports"), &written.ports);
            let ranges = self.ranges_of(&path.key("ranges"), &written.ranges);
            for (j, text) in written.ranges.iter().enumerate() {
                let Ok(range) = IpRange::parse(text) else { continue };
                let all = NEVER.iter().chain(&metadata::V4).chain(&metadata::V6);
                // A range that is wider than IPv4 in IPv6's form has addresses of both families in it.
                let mapped = IpRange::of(Ipv6Addr::new(0, 0, 0, 0, 0, 0xffff, 0, 0).into(), 96);
                let mut never = all.filter_map(|text| IpRange::parse(text).ok()).chain([mapped]);
                // Every address there is has been told of.
                if let Some(never) = never.find(|never| range.prefix() > 0 && never.overlaps(&range)) {
                    self.problems.error(
                        &path.key("ranges").at(j),
                        format!("`{range}` reaches into {never}, which is never opened"),
                        "name ranges that sandboxes are routed to",
                    );
                }
            }
            let Some(ports) = ports else { continue };
            let before = elements;
            // What has ended is not opened, and takes no room.
            for range in ranges.iter().filter(|_| expires > self.environment.wall) {
                let more = enforce::range_elements(scopes.bits().into(), &ports);
                elements[usize::from(range.first().is_ipv6())] += more;
            }
            let is_full = |elements: [usize; 2]| elements.into_iter().max() > Some(enforce::RANGES_MAX);
            if is_full(elements) && !is_full(before) {
                self.problems.error(
                    &path.key("ranges"),
                    format!(
                        "more than fit into the packet filter, which takes {} elements of ranges: one for each range, each of \
                         its ports (two at least), and each phase of each of its profiles (16 without `profiles`)",
                        enforce::RANGES_MAX
                    ),
                    "name the profiles that need them, or write fewer and wider ranges",
                );
            }
            all.push(WrittenRange {
                reference: self.reference(&written.id, &path.key("id")),
                ranges,
                ports,
                scopes,
                owner: written.owner.clone(),
                reason: written.reason.clone(),
                expires,
            });
        }
        all
    }
}
