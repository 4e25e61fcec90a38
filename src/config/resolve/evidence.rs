//! Local zones, the event log, and receivers of alerts.

use std::collections::HashSet;
use std::net::{IpAddr, SocketAddr};
use std::path::Path as FilePath;
use std::time::Duration;

use super::Context;
use super::upstream::NO_ROOTS;
use crate::config::document::Path;
use crate::config::loaded::{AlertSink, AlertSinkKind, Events, Secret, SyslogTarget};
use crate::config::problem::ConfigError;
use crate::config::spec::{self, AlertKind};
use crate::lists::host_name;
use crate::regular;
use crate::roots::Roots;
use crate::zones::Zones;

/// Largest zone file, octets: local zones are small.
const MAX_ZONE_OCTETS: u64 = 64 << 20;

/// Largest key of a signature, octets.
const MAX_SECRET_OCTETS: u64 = 4096;

/// Where systemd shows a unit its credentials (systemd.exec(5)), while it runs and to its user alone.
const CREDENTIALS: &str = "/run/credentials";

/// Whether it is about who asks, and when, and not about the file.
fn is_out_of_reach(error: &std::io::Error) -> bool {
    matches!(error.kind(), std::io::ErrorKind::NotFound | std::io::ErrorKind::PermissionDenied)
}

impl Context<'_, '_> {
    /// Local zones, read: what is wrong in one is told by its own lines.
    pub(super) fn zones(&mut self) -> Zones {
        let mut seen = HashSet::new();
        let mut zones = Zones::default();
        for (i, written) in self.spec.zone.iter().enumerate() {
            let path = Path::of("zone").at(i);
            let name = match host_name(&written.name) {
                Ok(name) if name.as_ref().is_root() => {
                    self.problems.fail(&path.key("name"), "the root is not a local zone", "name the zone's apex")
                }
                Ok(name) if !seen.insert(name.clone()) => {
                    self.problems.fail(&path.key("name"), format!("a second zone `{name}`"), "remove one of them")
                }
                Ok(name) => Some(name),
                Err(error) => self.problems.fail(&path.key("name"), error.to_string(), error.remedy()),
            };
            if written.file.is_empty() {
                self.problems.error(&path.key("file"), "file is missing", "name the zone file");
                continue;
            }
            let file = self.beside(&written.file);
            match regular::read(&file, MAX_ZONE_OCTETS) {
                Ok(octets) => {
                    self.digest_part(&format!("zone {}", written.name), &octets);
                    let Some(name) = name else { continue };
                    if let Err(error) = zones.add(&name, &file) {
                        self.problems.error_elsewhere(ConfigError {
                            file: written.file.clone(),
                            line: error.line(),
                            field: String::new(),
                            problem: error.problem(),
                            remedy: error.remedy().into(),
                        });
                    }
                }
                Err(error) => self.problems.error(
                    &path.key("file"),
                    format!("`{}` cannot be read: {error}", written.file.escape_debug()),
                    "paths are relative to the file that names them; check name and permissions",
                ),
            }
        }
        zones
    }

    pub(super) fn events(&mut self, state_dir: &FilePath) -> Events {
        let section = Path::of("events");
        let events = self.spec.events.clone();
        let file = match events.file.as_str() {
            "off" => None,
            "" => self.problems.fail(&section.key("file"), "the path is empty", "name a file, or \"off\""),
            path => Some(state_dir.join(path)),
        };
        Events {
            file,
            queue: self.within(&section, "queue", events.queue, 1, 1 << 20),
            rotate_bytes: self.within(&section, "rotate_bytes", events.rotate_bytes, 65_536, 1 << 40),
            keep: self.within(&section, "keep", events.keep, 0, 1000),
        }
    }

    pub(super) fn alerts(&mut self, state_dir: &FilePath) -> Vec<AlertSink> {
        let mut seen = HashSet::new();
        let mut sinks = Vec::new();
        for (i, written) in self.spec.alert.iter().enumerate() {
            let path = Path::of("alert").at(i);
            self.word(&path.key("name"), &written.name, "name");
            if !written.name.is_empty() && !seen.insert(written.name.as_str()) {
                let problem = format!("a second receiver `{}`", written.name.escape_debug());
                self.problems.error(
                    &path.key("name"),
                    problem,
                    "give each its own name: deliveries are booked under it",
                );
            }
            let Some(kind) = written.kind else {
                self.problems.error(&path.key("kind"), "kind is missing", "use \"webhook\", \"syslog\" or \"file\"");
                continue;
            };
            self.foreign_fields(&path, kind, written);
            let kind = match kind {
                AlertKind::Webhook => self.webhook(&path, written),
                AlertKind::Syslog => self.syslog(&path.key("address"), written.address.as_deref()),
                AlertKind::File => match written.path.as_deref() {
                    Some(file) if !file.is_empty() => Some(AlertSinkKind::File { path: state_dir.join(file) }),
                    _ => self.problems.fail(
                        &path.key("path"),
                        "path is missing",
                        "name the file, relative to the state directory",
                    ),
                },
            };
            sinks.extend(kind.map(|kind| AlertSink { name: written.name.clone(), kind }));
        }
        sinks
    }

    fn foreign_fields(&mut self, path: &Path, kind: AlertKind, written: &spec::Alert) {
        for (field, given, owner, word) in [
            ("url", written.url.is_some(), AlertKind::Webhook, "webhook"),
            ("secret_file", written.secret_file.is_some(), AlertKind::Webhook, "webhook"),
            ("ca_file", written.ca_file.is_some(), AlertKind::Webhook, "webhook"),
            ("timeout_ms", written.timeout_ms.is_some(), AlertKind::Webhook, "webhook"),
            ("address", written.address.is_some(), AlertKind::Syslog, "syslog"),
            ("path", written.path.is_some(), AlertKind::File, "file"),
        ] {
            if given && kind != owner {
                self.problems.error(
                    &path.key(field),
                    format!("only a {word} has it"),
                    format!("set kind = \"{word}\", or remove it"),
                );
            }
        }
    }

    fn webhook(&mut self, path: &Path, written: &spec::Alert) -> Option<AlertSinkKind> {
        let timeout = self.within(path, "timeout_ms", written.timeout_ms.unwrap_or(5000), 100, 60_000);
        let secret = written.secret_file.as_deref().and_then(|file| self.secret(&path.key("secret_file"), file));
        let roots = written.ca_file.as_deref().and_then(|file| self.roots(&path.key("ca_file"), file));
        let (path, ca_file) = (path.key("url"), path.key("ca_file"));
        let Some(url) = written.url.as_deref() else {
            return self.problems.fail(
                &path,
                "url is missing",
                "write where alerts are sent, for example \"https://soc.example/alerts\"",
            );
        };
        let parsed = url.parse::<ureq::http::Uri>().ok();
        let scheme = parsed.as_ref().and_then(|uri| uri.scheme_str()).unwrap_or_default();
        let host = parsed.as_ref().and_then(|uri| uri.host()).unwrap_or_default();
        if parsed.as_ref().and_then(|uri| uri.authority()).is_some_and(|to| to.as_str().contains('@')) {
            // Not quoted: it may be a password.
            let remedy = "leave them out; secret_file signs what is sent";
            return self.problems.fail(&path, "the URL has a user name or password in it", remedy);
        }
        if !matches!(scheme, "http" | "https") || host.is_empty() {
            let problem = format!("`{}` is not an http or https URL", url.escape_debug());
            return self.problems.fail(&path, problem, "write http://HOST/PATH or https://HOST/PATH");
        }
        if scheme == "http" && written.ca_file.is_some() {
            self.problems.error(&ca_file, "ca_file without TLS", "write https in the URL, or remove it");
        }
        // An address is one that somebody has looked up and means; a name leads wherever it is pointed to.
        let is_address = host.trim_matches(['[', ']']).parse::<IpAddr>().is_ok();
        if scheme == "http" && !is_address && host != "localhost" {
            self.problems.warn(
                &path,
                "alerts go there in the clear, names that were asked for among them",
                "write https, or the receiver's address",
            );
        }
        Some(AlertSinkKind::Webhook { url: url.into(), secret, roots, timeout: Duration::from_millis(timeout) })
    }

    /// Certificates that a receiver's must be issued by.
    fn roots(&mut self, field: &Path, file: &str) -> Option<Roots> {
        match Roots::read(&self.ca_file(field, file)?) {
            Ok(roots) => Some(roots),
            Err(error) => self.problems.fail(field, error.to_string(), NO_ROOTS),
        }
    }

    pub(super) fn secret(&mut self, path: &Path, written: &str) -> Option<Secret> {
        let file = self.beside(written);
        let octets = match regular::read(&file, MAX_SECRET_OCTETS) {
            Ok(octets) => octets.trim_ascii_end().to_vec(),
            Err(error) if self.environment.checking && file.starts_with(CREDENTIALS) && is_out_of_reach(&error) => {
                self.problems.warn(
                    path,
                    format!("`{}` cannot be read here: {error}", written.escape_debug()),
                    "a unit's credentials are there for the unit alone, which reads them at its start: see that it has \
                     LoadCredential= for this one",
                );
                // In Base64, as some keys are, and long enough: what is looked at is never used.
                return Some(Secret(vec![b'A'; 32]));
            }
            Err(error) => {
                return self.problems.fail(
                    path,
                    format!("`{}` cannot be read: {error}", written.escape_debug()),
                    "paths are relative to the file that names them; the service's user must be able to read it",
                );
            }
        };
        if octets.is_empty() {
            return self.problems.fail(path, "the key is empty", "put at least 16 random characters into it");
        }
        if octets.len() < 16 {
            self.problems.warn(path, "the key is shorter than 16 octets", "put at least 16 random characters into it");
        }
        use std::os::unix::fs::PermissionsExt;
        if std::fs::metadata(&file).is_ok_and(|m| m.permissions().mode() & 0o007 != 0) {
            self.problems.warn(path, "everybody on this machine can use the key", "chmod o-rwx it");
        }
        Some(Secret(octets))
    }

    fn syslog(&mut self, path: &Path, address: Option<&str>) -> Option<AlertSinkKind> {
        const REMEDY: &str = "write udp://ADDRESS:514, tcp://ADDRESS:601 or unix:///dev/log";
        let Some(address) = address else {
            return self.problems.fail(path, "address is missing", REMEDY);
        };
        let shown = || format!("`{}` is not a syslog receiver", address.escape_debug());
        let target = match address.split_once("://") {
            Some(("unix", file)) if file.starts_with('/') && file.len() < 108 => Some(SyslogTarget::Unix(file.into())),
            Some((scheme @ ("udp" | "tcp"), host)) => match host.parse::<SocketAddr>() {
                Ok(target) if scheme == "udp" => Some(SyslogTarget::Udp(target)),
                Ok(target) => Some(SyslogTarget::Tcp(target)),
                Err(_) => None,
            },
            _ => None,
        };
        match target {
            Some(target) => Some(AlertSinkKind::Syslog { target }),
            None => self.problems.fail(path, shown(), format!("{REMEDY}; alerts must not wait for a look-up")),
        }
    }
}
