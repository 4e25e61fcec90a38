//! Addresses: where we serve, whom we ask, where operators reach us.

use std::collections::HashSet;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use staunch_scoring::NameBuf;

use super::Context;
use crate::config::document::Path;
use crate::config::loaded::{Admin, Endpoint, ForwardZone, Policy, Upstream, is_loopback};
use crate::listen;
use crate::lists::host_name;
use crate::model::Mode;
use crate::policy::UnknownSource;

/// Servers taken from a resolv.conf at most; stubs use three.
const MAX_SYSTEM_SERVERS: usize = 8;
/// Zones with servers of their own at most. Each question for an upstream looks through them one by one.
const MAX_FORWARD_ZONES: usize = 256;

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
            Some(percent) => self.within(&section, "canary_percent", percent, 1, 99),
            None if canary => 10,
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

    pub(super) fn upstream(&mut self, listen: &[SocketAddr]) -> Upstream {
        let section = Path::of("upstream");
        let upstream = self.spec.upstream.clone();
        let mut servers = self.servers(&section, &upstream.servers, listen);
        let zones = self.forward_zones(listen);
        self.can_look_up(&section, &servers);
        let mut bootstrap = Vec::new();
        for (i, text) in upstream.bootstrap.iter().enumerate() {
            let path = section.key("bootstrap").at(i);
            match self.endpoint(&path, text) {
                Some(Endpoint::Address(address)) => bootstrap.push(address),
                Some(Endpoint::Name { .. }) => self.problems.error(
                    &path,
                    format!("`{}` is a name", text.escape_debug()),
                    "name an address: this server is what names are looked up with",
                ),
                None => {}
            }
        }
        if upstream.servers.is_empty() {
            if self.problems.file().is_empty() || self.spec.policy.mode == Mode::Monitor {
                servers = self.system_servers(listen);
            } else {
                self.problems.error(
                    &section.key("servers"),
                    "no upstream is named, and the system's resolv.conf is taken in monitor mode only",
                    "name the resolvers to ask, for example servers = [\"192.0.2.53\"]",
                );
            }
        }
        let try_timeout_ms = self.within(&section, "try_timeout_ms", upstream.try_timeout_ms, 10, 10_000);
        let total_timeout_ms = self.within(&section, "total_timeout_ms", upstream.total_timeout_ms, 10, 30_000);
        if total_timeout_ms < try_timeout_ms {
            self.problems.error(
                &section.key("total_timeout_ms"),
                format!("{total_timeout_ms} is less than upstream.try_timeout_ms ({try_timeout_ms})"),
                "make it at least as long as one try",
            );
        }
        Upstream {
            servers,
            bootstrap,
            zones,
            try_timeout: Duration::from_millis(try_timeout_ms),
            total_timeout: Duration::from_millis(total_timeout_ms),
            udp_payload: self.within(&section, "udp_payload", upstream.udp_payload, 512, 4096),
        }
    }

    /// Servers as written at `section`.
    fn servers(&mut self, section: &Path, written: &[String], listen: &[SocketAddr]) -> Vec<Endpoint> {
        let mut servers = Vec::new();
        let mut seen = HashSet::new();
        for (i, text) in written.iter().enumerate() {
            let path = section.key("servers").at(i);
            let Some(server) = self.endpoint(&path, text) else { continue };
            if let Endpoint::Address(address) = server {
                if listen.iter().any(|own| is_same(*own, address)) {
                    self.problems.error(&path, format!("{address} is our own address"), "name the resolver behind us");
                    continue;
                }
                if address.ip().is_unspecified() || address.ip().is_multicast() || address.port() == 0 {
                    self.problems.error(&path, format!("{address} cannot be asked"), "name a resolver's address");
                    continue;
                }
            }
            if seen.insert(server.to_string()) {
                servers.push(server);
            } else {
                self.problems.warn(&path, format!("{server} stands here twice"), "remove one of them");
            }
        }
        servers
    }

    /// Servers by name need somebody who looks them up.
    fn can_look_up(&mut self, section: &Path, servers: &[Endpoint]) {
        let named = servers.iter().any(|server| matches!(server, Endpoint::Name { .. }));
        if named && self.spec.upstream.bootstrap.is_empty() {
            self.problems.error(
                &section.key("servers"),
                "a server is named by name, and nobody could look it up",
                "write its address, or set upstream.bootstrap to an address that can be asked",
            );
        }
    }

    fn forward_zones(&mut self, listen: &[SocketAddr]) -> Vec<ForwardZone> {
        let written = self.spec.forward.clone();
        if let Some(path) = (written.len() > MAX_FORWARD_ZONES).then(|| Path::of("forward").at(MAX_FORWARD_ZONES)) {
            let problem = format!("more than {MAX_FORWARD_ZONES} zones with servers of their own");
            self.problems.error(&path, problem, "have one resolver behind us tell them apart");
        }
        let mut zones: Vec<ForwardZone> = Vec::new();
        for (i, forward) in written.into_iter().take(MAX_FORWARD_ZONES).enumerate() {
            let path = Path::of("forward").at(i);
            let zone = match host_name(&forward.zone) {
                Ok(zone) if zone.as_ref().is_root() => self.problems.fail(
                    &path.key("zone"),
                    "the root is no zone of its own",
                    "name the servers for all other names under [upstream]",
                ),
                Ok(zone) if is_never_asked(&zone) => self.problems.fail(
                    &path.key("zone"),
                    format!("`{zone}` is never asked of anybody"),
                    "leave it out; names below localhost, invalid and onion are answered here (RFC 6761, RFC 7686)",
                ),
                Ok(zone) if zones.iter().any(|other| other.zone == zone) => {
                    self.problems.fail(&path.key("zone"), format!("a second zone `{zone}`"), "remove one of them")
                }
                Ok(zone) => Some(zone),
                Err(error) => self.problems.fail(&path.key("zone"), error.to_string(), error.remedy()),
            };
            let servers = self.servers(&path, &forward.servers, listen);
            self.can_look_up(&path, &servers);
            if forward.servers.is_empty() {
                self.problems.error(
                    &path.key("servers"),
                    "no server: nobody else is ever asked for this zone",
                    "name the resolvers to ask, for example servers = [\"192.0.2.53\"]",
                );
            }
            self.owned(&path, &forward.owner, &forward.reason);
            self.reviewed(&path, forward.review_by.as_deref());
            zones.extend(zone.map(|zone| ForwardZone { zone, servers, owner: forward.owner }));
        }
        zones
    }

    fn system_servers(&mut self, listen: &[SocketAddr]) -> Vec<Endpoint> {
        let text = self.environment.resolv_conf.clone().unwrap_or_default();
        let mut servers = Vec::new();
        for line in text.lines() {
            let mut words = line.split_ascii_whitespace();
            if words.next() != Some("nameserver") {
                continue;
            }
            // Link-local servers carry a zone, which only means something on one interface: passed over.
            let Some(Ok(address)) = words.next().map(str::parse::<IpAddr>) else { continue };
            let address = SocketAddr::new(address, 53);
            let server = Endpoint::Address(address);
            let own = listen.iter().any(|own| is_same(*own, address));
            if !own && servers.len() < MAX_SYSTEM_SERVERS && !servers.contains(&server) {
                servers.push(server);
            }
        }
        if servers.is_empty() {
            if self.problems.file().is_empty() {
                self.assumptions.push(
                    "No upstream: the system's resolv.conf names none that can be asked. The resolver does not start \
                     without one; name one in a configuration file under [upstream] servers."
                        .into(),
                );
            } else {
                self.problems.error(
                    &Path::of("upstream").key("servers"),
                    "no upstream, and the system's resolv.conf names none",
                    "name the resolvers to ask, for example servers = [\"192.0.2.53\"]",
                );
            }
        } else {
            let names: Vec<_> = servers.iter().map(Endpoint::to_string).collect();
            self.digest_part("system upstreams", names.join(" ").as_bytes());
            self.assumptions
                .push(format!("Upstreams, taken once from the system's resolv.conf: {}.", names.join(", ")));
        }
        servers
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

    fn endpoint(&mut self, path: &Path, text: &str) -> Option<Endpoint> {
        if let Ok(address) = text.parse::<SocketAddr>() {
            return Some(Endpoint::Address(address));
        }
        let bare = text.strip_prefix('[').and_then(|t| t.strip_suffix(']')).unwrap_or(text);
        if let Ok(address) = bare.parse::<IpAddr>() {
            return Some(Endpoint::Address(SocketAddr::new(address, 53)));
        }
        let (host, port) = match text.rsplit_once(':') {
            Some((host, port)) => (host, port.parse::<u16>().ok().filter(|port| *port != 0)),
            None => (text, Some(53)),
        };
        match (host_name(host), port) {
            (Ok(host), Some(port)) if !host.as_ref().is_root() => Some(Endpoint::Name { host, port }),
            _ => self.problems.fail(
                path,
                format!("`{}` is not a server", text.escape_debug()),
                "write an address or a host name, with `:port` where it is not 53",
            ),
        }
    }
}

/// Names for which no server may be asked (RFC 6761 sections 6.3 and 6.4, RFC 7686).
fn is_never_asked(zone: &NameBuf) -> bool {
    let last = zone.as_ref().labels().last();
    last.is_some_and(|last| [b"localhost".as_slice(), b"invalid", b"onion"].contains(&last))
}

/// Whether asking `server` would ask ourselves.
fn is_same(own: SocketAddr, server: SocketAddr) -> bool {
    own.port() == server.port() && (own.ip() == server.ip() || (own.ip().is_unspecified() && is_loopback(server.ip())))
}

#[cfg(test)]
mod tests {
    use crate::config::{Environment, defaults_in};

    #[test]
    fn without_an_upstream_it_is_said_that_nothing_starts() {
        let mut environment = Environment::system();
        environment.resolv_conf = Some("search example.org\n".into());
        let loaded = defaults_in(&environment);
        assert!(loaded.upstream.servers.is_empty());
        let told = loaded.assumptions().join("\n");
        assert!(told.contains("does not start") && told.contains("[upstream] servers"), "{told}");
        assert!(!told.contains("are answered"), "{told}");
    }
}
