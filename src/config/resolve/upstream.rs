//! Whom we ask, and how.

use std::collections::HashSet;
use std::net::{IpAddr, Ipv6Addr, SocketAddr, SocketAddrV6};
use std::time::Duration;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use staunch_scoring::NameBuf;

use super::Context;
use crate::config::document::Path;
use crate::config::loaded::{Endpoint, ForwardZone, Server, Upstream, is_loopback};
use crate::config::spec;
use crate::enforce::{interface_number, is_link_local};
use crate::forward::Way;
use crate::forward::tls::{Pin, Tls, TlsError};
use crate::lists::host_name;
use crate::model::Mode;
use crate::{regular, roots};

/// Servers taken from a resolv.conf at most; stubs use three.
const MAX_SYSTEM_SERVERS: usize = 8;
/// Zones with servers of their own at most. Each question for an upstream looks through them one by one.
const MAX_FORWARD_ZONES: usize = 256;
/// What to do about a file of roots that is none.
pub(super) const NO_ROOTS: &str = "name a PEM file with the certificates that the server's must be issued by";

impl Context<'_, '_> {
    pub(super) fn upstream(&mut self, listen: &[SocketAddr]) -> Upstream {
        let section = Path::of("upstream");
        let upstream = self.spec.upstream.clone();
        let mut servers = self.servers(&section, &upstream.servers, listen);
        let zones = self.forward_zones(listen);
        self.can_look_up(&section, &servers);
        let mut bootstrap = Vec::new();
        for (i, text) in upstream.bootstrap.iter().enumerate() {
            let path = section.key("bootstrap").at(i);
            match self.endpoint(&path, text, 53) {
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
        let wrong = |field: &str| self.problems.is_wrong(&section.key(field));
        if total_timeout_ms < try_timeout_ms && !wrong("try_timeout_ms") && !wrong("total_timeout_ms") {
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
    fn servers(&mut self, section: &Path, written: &[spec::UpstreamServer], listen: &[SocketAddr]) -> Vec<Server> {
        let mut servers = Vec::new();
        let mut seen = HashSet::new();
        for (i, text) in written.iter().enumerate() {
            let path = section.key("servers").at(i);
            let Some(server) = self.server(&path, text) else { continue };
            if let Endpoint::Address(address) = server.endpoint {
                if listen.iter().any(|own| is_same(*own, address)) {
                    self.problems.error(&path, format!("{address} is our own address"), "name the resolver behind us");
                    continue;
                }
                if address.ip().is_unspecified() || address.ip().is_multicast() || address.port() == 0 {
                    self.problems.error(&path, format!("{address} cannot be asked"), "name a resolver's address");
                    continue;
                }
                if is_link_local(address.ip()) && matches!(address, SocketAddr::V6(v6) if v6.scope_id() == 0) {
                    let problem = format!("{} is known on one link alone", address.ip());
                    let remedy = format!("write the interface behind it: [{}%eth0]:{}", address.ip(), address.port());
                    self.problems.error(&path, problem, remedy);
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

    /// `ADDRESS`, `udp://ADDRESS`, `tcp://ADDRESS`, `tls://ADDRESS#NAME`, `tls://NAME`, and what is said beside it.
    fn server(&mut self, path: &Path, written: &spec::UpstreamServer) -> Option<Server> {
        let (scheme, rest) = written.server.split_once("://").unwrap_or(("udp", &written.server));
        if !["udp", "tcp", "tls"].contains(&scheme) {
            let problem = format!("`{}` is no way to ask a server", scheme.escape_debug());
            return self.problems.fail(path, problem, "write an address, or udp://, tcp:// or tls:// before it");
        }
        let is_tls = scheme == "tls";
        let (place, name) = match rest.split_once('#') {
            Some((place, name)) => (place, Some(name)),
            None => (rest, None),
        };
        let stray = [("pins", !written.pins.is_empty()), ("ca_file", written.ca_file.is_some())];
        for (field, _) in stray.iter().filter(|(_, written)| *written && !is_tls) {
            self.problems.error(&path.key(field), format!("{field} without TLS"), "write tls:// before the address");
        }
        if name.is_some() && !is_tls {
            return self.problems.fail(path, "a name of a certificate without TLS", "write tls:// before the address");
        }
        if scheme != "udp" && written.mix_case == Some(false) {
            let problem = "letter case is drawn for datagrams only";
            self.problems.error(&path.key("mix_case"), problem, "remove mix_case");
        }
        let endpoint = self.endpoint(path, place, if is_tls { 853 } else { 53 })?;
        let way = match scheme {
            "tcp" => Way::Tcp,
            "tls" => {
                let name = match (name, &endpoint) {
                    (Some(name), _) => name.to_owned(),
                    (None, Endpoint::Name { host, .. }) => host.to_string().trim_end_matches('.').to_owned(),
                    (None, Endpoint::Address(address)) => {
                        let problem = "nobody says whose certificate it must have";
                        let ip = address.ip();
                        let ip = if ip.is_ipv6() { format!("[{ip}]") } else { ip.to_string() };
                        let remedy = format!("write the name in it behind the address: tls://{ip}#dns.example");
                        return self.problems.fail(path, problem, remedy);
                    }
                };
                Way::Tls(self.tls(path, &name, written)?)
            }
            _ => Way::Udp { mix_case: written.mix_case.unwrap_or(true) },
        };
        Some(Server { endpoint, way })
    }

    /// Whom a server must be shown to be: its name in a certificate, and what is written beside it.
    pub(super) fn tls(&mut self, path: &Path, name: &str, written: &spec::UpstreamServer) -> Option<Tls> {
        let mut pins = Vec::new();
        for (i, text) in written.pins.iter().enumerate() {
            let pin = BASE64_STANDARD.decode(text).ok().and_then(|octets| Pin::try_from(octets).ok());
            match pin {
                Some(pin) => pins.push(pin),
                None => self.problems.error(
                    &path.key("pins").at(i),
                    format!("`{}` is no SHA-256 in Base64", text.escape_debug()),
                    "write the 44 characters of the digest of the server's public key (SubjectPublicKeyInfo, DER)",
                ),
            }
        }
        let mut roots = None;
        if let Some(file) = &written.ca_file {
            let octets = self.ca_file(&path.key("ca_file"), file)?;
            self.digest_part(&format!("roots of {name}"), &octets);
            roots = Some(octets);
        }
        match Tls::new(name, pins, roots.as_deref()) {
            Ok(tls) => Some(tls),
            Err(error @ TlsError::Name(_)) => {
                self.problems.fail(path, error.to_string(), "write the name in the server's certificate behind `#`")
            }
            Err(error) => self.problems.fail(&path.key("ca_file"), error.to_string(), NO_ROOTS),
        }
    }

    /// What a file of roots holds.
    pub(super) fn ca_file(&mut self, field: &Path, file: &str) -> Option<Vec<u8>> {
        match regular::read(&self.beside(file), roots::MAX_FILE) {
            Ok(octets) => Some(octets),
            Err(error) => {
                let problem = format!("`{}` cannot be read: {error}", file.escape_debug());
                let remedy = "paths are relative to the file that names them; check name and permissions";
                self.problems.fail(field, problem, remedy)
            }
        }
    }

    /// Servers by name need somebody who looks them up.
    fn can_look_up(&mut self, section: &Path, servers: &[Server]) {
        let named = servers.iter().any(|server| matches!(server.endpoint, Endpoint::Name { .. }));
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
                Ok(zone) => {
                    self.tell_hidden(&path, &zone);
                    Some(zone)
                }
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

    /// Tells of a zone all of whose names are answered here: its servers would never hear of one.
    fn tell_hidden(&mut self, path: &Path, zone: &NameBuf) {
        let mut own = self.spec.zone.iter().filter_map(|own| host_name(&own.name).ok());
        let Some(own) = own.find(|own| zone.as_ref().is_at_or_below(own.as_ref())) else { return };
        self.problems.warn(
            &path.key("zone"),
            format!("`{zone}` is of your zone `{own}`, which answers for all its names: nobody is asked for them"),
            "remove one of them, or write your zone for names beside these",
        );
    }

    fn system_servers(&mut self, listen: &[SocketAddr]) -> Vec<Server> {
        let text = self.environment.resolv_conf.clone().unwrap_or_default();
        let mut servers = Vec::new();
        for line in text.lines() {
            let mut words = line.split_ascii_whitespace();
            if words.next() != Some("nameserver") {
                continue;
            }
            let Some(word) = words.next() else { continue };
            let plain = word.parse::<IpAddr>().ok().map(|address| SocketAddr::new(address, 53));
            let Some(address) = plain.or_else(|| scoped(word, 53)?.ok().map(SocketAddr::V6)) else {
                self.assumptions.push(format!(
                    "`{}` in the system's resolv.conf is passed over: it is no address, or of no interface that there is.",
                    line.trim().escape_debug()
                ));
                continue;
            };
            let server = Server { endpoint: Endpoint::Address(address), way: Way::Udp { mix_case: true } };
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
            let names: Vec<_> = servers.iter().map(Server::to_string).collect();
            self.digest_part("system upstreams", names.join(" ").as_bytes());
            self.assumptions
                .push(format!("Upstreams, taken once from the system's resolv.conf: {}.", names.join(", ")));
        }
        servers
    }

    /// A place; `port` where it names none.
    fn endpoint(&mut self, path: &Path, text: &str, port: u16) -> Option<Endpoint> {
        if let Ok(address) = text.parse::<SocketAddr>() {
            return Some(Endpoint::Address(address));
        }
        let bare = text.strip_prefix('[').and_then(|t| t.strip_suffix(']')).unwrap_or(text);
        if let Ok(address) = bare.parse::<IpAddr>() {
            return Some(Endpoint::Address(SocketAddr::new(address, port)));
        }
        match scoped(text, port) {
            Some(Ok(address)) => return Some(Endpoint::Address(address.into())),
            Some(Err(interface)) => {
                return self.problems.fail(
                    path,
                    format!("no interface `{}` is here", interface.escape_debug()),
                    "write the name of the interface behind which the server is, as `ip link` shows it",
                );
            }
            None => {}
        }
        let (host, written) = match text.rsplit_once(':') {
            Some((host, port)) => (host, port.parse::<u16>().ok().filter(|port| *port != 0)),
            None => (text, Some(port)),
        };
        match (host_name(host), written) {
            (Ok(host), Some(port)) if !host.as_ref().is_root() => Some(Endpoint::Name { host, port }),
            _ => self.problems.fail(
                path,
                format!("`{}` is not a server", text.escape_debug()),
                format!("write an address or a host name, with `:port` where it is not {port}"),
            ),
        }
    }
}

/// An address with its interface by name or number (RFC 4007 section 11): `fe80::1%eth0`, `[fe80::1%eth0]`,
/// `[fe80::1%eth0]:53`. An error is an interface that is not there.
fn scoped(text: &str, port: u16) -> Option<Result<SocketAddrV6, &str>> {
    let (inside, behind) = match text.strip_prefix('[') {
        Some(rest) => rest.split_once(']')?,
        None => (text, ""),
    };
    let port = match behind.strip_prefix(':') {
        Some(written) => written.parse().ok()?,
        None if behind.is_empty() => port,
        None => return None,
    };
    let (address, interface) = inside.split_once('%')?;
    let address: Ipv6Addr = address.parse().ok()?;
    // Only there an interface says anything.
    if !address.is_unicast_link_local() {
        return None;
    }
    let number = interface.parse().ok().filter(|number| *number != 0).or_else(|| interface_number(interface));
    Some(number.map(|number| SocketAddrV6::new(address, port, 0, number)).ok_or(interface))
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
    use super::*;
    use crate::config::{Environment, defaults_in};

    #[test]
    fn an_address_of_one_link_carries_its_interface() {
        let lo = interface_number("lo").expect("every namespace has one");
        let of = |port| Some(Ok(SocketAddrV6::new("fe80::1".parse().expect("an address"), port, 0, lo)));
        let by_number = format!("[fe80::1%{lo}]:5353");
        for (text, expected) in [
            ("fe80::1%lo", of(53)),
            ("[fe80::1%lo]", of(53)),
            ("[fe80::1%lo]:5353", of(5353)),
            (&by_number, of(5353)),
            ("fe80::1%nowhere", Some(Err("nowhere"))),
            ("[fe80::1%lo]5353", None),
            ("[fe80::1%lo]:x", None),
            ("fe80::1", None),
            ("192.0.2.1%lo", None),
            ("dns.example", None),
        ] {
            assert_eq!(scoped(text, 53), expected, "{text}");
        }
    }

    #[test]
    fn the_systems_servers_of_one_link_are_taken_and_what_is_passed_over_is_told() {
        let mut environment = Environment::system();
        environment.resolv_conf = Some("nameserver fe80::1%lo\nnameserver fe80::2%nowhere\n".into());
        let loaded = defaults_in(&environment);
        let lo = interface_number("lo").expect("every namespace has one");
        let taken: Vec<String> = loaded.upstream.servers.iter().map(Server::to_string).collect();
        assert_eq!(taken.len(), 1, "{taken:?}");
        assert!(taken[0].contains(&format!("[fe80::1%{lo}]")), "{taken:?}");
        let told = loaded.assumptions().join("\n");
        assert!(told.contains("`nameserver fe80::2%nowhere` in the system's resolv.conf is passed over"), "{told}");
    }

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
