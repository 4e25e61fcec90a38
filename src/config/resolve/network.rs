//! Addresses: where we serve and where operators reach us.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use super::Context;
use crate::config::document::Path;
use crate::config::loaded::{Admin, Policy, is_loopback};
use crate::listen;
use crate::local_socket::{number_in, passes};
use crate::model::Mode;
use crate::policy::UnknownSource;

/// Share of sessions that a canary enforces where nobody names one. Chosen without a source.
const CANARY_PERCENT: u8 = 10;

/// The IPv4 address and port that `address` stands for, where it is an IPv4-mapped one (RFC 4291 section 2.5.5.2).
fn mapped(address: SocketAddr) -> Option<SocketAddr> {
    let IpAddr::V6(ip) = address.ip() else { return None };
    Some(SocketAddr::new(ip.to_ipv4_mapped()?.into(), address.port()))
}

impl Context<'_, '_> {
    pub(super) fn state_dir(&mut self) -> PathBuf {
        if let Some(directory) = &self.environment.state_dir {
            return directory.clone();
        }
        match self.spec.server.state_dir.as_deref() {
            Some("") => {
                self.problems.error(&Path::of("server").key("state_dir"), "the path is empty", "name a directory");
                PathBuf::new()
            }
            Some(path) => self.beside(path),
            None => {
                let directory = self.environment.state_home.join("staunch");
                self.assumptions.push(format!("State is kept in {}.", directory.display()));
                directory
            }
        }
    }

    pub(super) fn admin(&mut self, state_dir: &std::path::Path) -> Admin {
        let server = &self.spec.server;
        let socket = match server.admin_socket.as_deref() {
            Some(path) if !path.is_empty() => self.beside(path),
            _ => state_dir.join("admin.sock"),
        };
        // The kernel's limit for the path of a unix socket (unix(7)), its NUL included.
        if socket.as_os_str().len() >= 108 {
            if self.problems.file().is_empty() {
                self.assumptions
                    .push(format!("{} is too long for a socket: operators cannot reach us.", socket.display()));
            } else {
                self.problems.error(
                    &Path::of("server").key("admin_socket"),
                    "the path is longer than 107 octets",
                    "use a shorter one, for example /run/staunch/admin.sock",
                );
            }
        }
        if let Some(group) = &server.admin_group
            && (group.is_empty() || group.contains([':', '/', '\0']))
        {
            let problem = format!("`{}` is not a group", group.escape_debug());
            self.problems.error(
                &Path::of("server").key("admin_group"),
                problem,
                "name a group of this machine, or leave it out",
            );
        } else if let Some(group) = &server.admin_group
            && self.environment.checking
            && number_in("/etc/group", group).is_none()
        {
            self.problems.warn(
                &Path::of("server").key("admin_group"),
                format!("this machine has no group `{}`: the service would not start here", group.escape_debug()),
                "make it where the service runs, or name another",
            );
        }
        if let Some(group) = &server.admin_group
            && let (Some(directory), Some(number)) = (socket.parent(), number_in("/etc/group", group))
            && std::fs::metadata(directory).is_ok_and(|found| !passes(&found, number))
        {
            self.problems.warn(
                &Path::of("server").key("admin_group"),
                format!("group `{group}` may not pass through {}, where the socket is to be", directory.display()),
                format!(
                    "`chgrp {group}` and `chmod g+x` it, or give the socket a directory of its own: \
                     server.admin_socket = \"/run/staunch/admin.sock\""
                ),
            );
        }
        Admin { socket, group: server.admin_group.clone() }
    }

    pub(super) fn metrics(&mut self) -> Option<SocketAddr> {
        let path = Path::of("server").key("metrics");
        let text = self.spec.server.metrics.clone();
        if text == "off" {
            return None;
        }
        let address = self.socket_address(&path, &text, "127.0.0.1:9153")?;
        if !is_loopback(address.ip()) {
            return self.problems.fail(
                &path,
                format!("{address} can be reached from outside"),
                "use a loopback address such as 127.0.0.1:9153, or \"off\"",
            );
        }
        Some(address)
    }

    pub(super) fn listen(&mut self) -> listen::Config {
        let section = Path::of("server");
        let path = section.key("listen");
        let mut addresses = Vec::new();
        if self.spec.server.listen.is_empty() {
            self.problems.error(&path, "no address to serve", "name one, for example [\"127.0.0.1:53\"]");
        }
        for (i, text) in self.spec.server.listen.iter().enumerate() {
            let Some(address) = self.socket_address(&path.at(i), text, "127.0.0.1:53") else { continue };
            if address.ip().is_multicast() {
                self.problems.error(
                    &path.at(i),
                    format!("{address} is a multicast address"),
                    "name an address of this machine",
                );
            } else if let Some(mapped) = mapped(address) {
                self.problems.error(
                    &path.at(i),
                    format!(
                        "{address} is an IPv4 address written as IPv6, which a socket for IPv6 alone does not take"
                    ),
                    format!("write {mapped}"),
                );
            } else if address.port() != 0 && addresses.contains(&address) {
                self.problems.error(&path.at(i), format!("{address} stands here twice"), "remove one of them");
            } else {
                addresses.push(address);
            }
        }
        let limits = self.spec.limits.clone();
        let section_limits = Path::of("limits");
        let mut capacity = |field: &str, value: usize, max: usize| self.within(&section_limits, field, value, 1, max);
        let (queue, in_flight) =
            (capacity("queue", limits.queue, 1 << 20), capacity("in_flight", limits.in_flight, 1 << 20));
        let tcp_connections = capacity("tcp_connections", limits.tcp_connections, 1 << 20);
        let tcp_per_source = capacity("tcp_per_source", limits.tcp_per_source, 1 << 20);
        listen::Config {
            addresses,
            workers: self.within(&section, "workers", self.spec.server.workers, 0, 256) as usize,
            queue,
            in_flight,
            tcp_connections,
            tcp_per_source: tcp_per_source.min(tcp_connections),
            tcp_idle: Duration::from_secs(self.within(
                &section_limits,
                "tcp_idle_seconds",
                limits.tcp_idle_seconds,
                1,
                3600,
            )),
        }
    }

    pub(super) fn policy(&mut self, written: bool) -> Policy {
        let section = Path::of("policy");
        let policy = &self.spec.policy;
        let canary = policy.mode == Mode::Canary || self.spec.rule.iter().any(|rule| rule.mode == Some(Mode::Canary));
        let canary_percent = match policy.canary_percent {
            Some(_) if !canary => {
                self.problems.error(
                    &section.key("canary_percent"),
                    "a share without a canary",
                    "set policy.mode = \"canary\", or remove it",
                );
                0
            }
            Some(_) => self.within_if(&section, "canary_percent", policy.canary_percent, 1, 99).unwrap_or(0),
            None if canary => {
                self.within_if(&section, "canary_percent", None::<u8>, 1, 99);
                self.problems.warn(
                    &section.key("canary_percent"),
                    format!("no share is named: {CANARY_PERCENT} per cent of the sessions are enforced"),
                    format!("write canary_percent = {CANARY_PERCENT} under [policy], or another share from 1 to 99"),
                );
                CANARY_PERCENT
            }
            None => 0,
        };
        if !written {
            self.assumptions.push(
                "Monitor mode: every query is answered, and what enforce mode would have done is recorded.".into(),
            );
        }
        let unknown_source = policy.unknown_source.unwrap_or(match policy.mode {
            Mode::Enforce => UnknownSource::Refuse,
            // A canary enforces a share of known sessions and must not cut off the rest.
            Mode::Monitor | Mode::Canary => UnknownSource::Profile,
        });
        Policy { mode: policy.mode, canary_percent, unknown_source }
    }

    pub(super) fn socket_address(&mut self, path: &Path, text: &str, example: &str) -> Option<SocketAddr> {
        if let Ok(address) = text.parse() {
            return Some(address);
        }
        let shown = text.escape_debug();
        if let Ok(address) = text.trim_matches(['[', ']']).parse::<IpAddr>() {
            let port = example.rsplit(':').next().unwrap_or("53");
            let remedy = match address {
                IpAddr::V4(v4) => format!("write `{v4}:{port}`"),
                IpAddr::V6(v6) => format!("write `[{v6}]:{port}`"),
            };
            return self.problems.fail(path, format!("`{shown}` has no port"), remedy);
        }
        let problem = format!("`{shown}` is not an address with a port");
        self.problems.fail(path, problem, format!("write for example `{example}`; names are not looked up here"))
    }
}
