//! Response policy zones: their files read, their primaries and keys checked.

use std::collections::HashSet;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use staunch_scoring::{NameBuf, NameRef};

use super::Context;
use crate::config::document::Path;
use crate::config::problem::{ConfigError, Warning};
use crate::config::spec::{self, OnExpire, RpzEde, RpzPassthru, RpzPolicy, Unsupported};
use crate::lists::host_name;
use crate::model::Ede;
use crate::regular;
use crate::rpz::{self, Override, Rules, Settings};
use crate::transfer::{Algorithm, Primaries, Primary, Source, TsigKey, ZoneConfig};

/// Largest zone file, octets.
const MAX_ZONE_OCTETS: u64 = 1 << 30;
/// Most primaries of one zone.
const MAX_PRIMARIES: usize = 8;

impl Context<'_, '_> {
    /// The zones that are in force, in their order.
    pub(super) fn rpz(&mut self) -> Vec<ZoneConfig> {
        let (mut seen, mut zones) = (HashSet::new(), Vec::new());
        let spec = self.spec;
        if spec.rpz.len() > rpz::MAX_ZONES {
            let problem = format!("more than {} zones", rpz::MAX_ZONES);
            self.problems.error(&Path::of("rpz"), problem, "put feeds together, or leave some out");
            return zones;
        }
        for (i, written) in spec.rpz.iter().enumerate() {
            let path = Path::of("rpz").at(i);
            let Some(name) = self.rpz_name(&path, &written.name) else { continue };
            if !seen.insert(name.clone()) {
                self.problems.error(&path.key("name"), format!("a second zone `{name}`"), "remove one of them");
                continue;
            }
            let settings = self.rpz_settings(&path, written, name.as_ref());
            let source = match (&written.file, written.primaries.is_empty()) {
                (Some(file), true) => self.rpz_file(&path, written, name.as_ref(), file),
                (None, false) => self.rpz_primaries(&path, written),
                (Some(_), false) => self.problems.fail(
                    &path.key("primaries"),
                    "a zone from a file and from primaries",
                    "keep `file` or `primaries`",
                ),
                (None, true) => self.problems.fail(
                    &path,
                    "a zone from nowhere",
                    "name a `file`, or `primaries` that it is transferred from",
                ),
            };
            if let (Some(settings), Some(source), true) = (settings, source, written.enabled) {
                zones.push(ZoneConfig { name, settings, source });
            }
        }
        zones
    }

    /// Where NOTIFY messages are taken.
    pub(super) fn notify_listen(&mut self, zones: &[ZoneConfig]) -> Vec<SocketAddr> {
        let path = Path::of("server").key("notify_listen");
        let written = self.spec.server.notify_listen.clone();
        if !written.is_empty() && zones.iter().all(|zone| matches!(zone.source, Source::File(_))) {
            self.problems.warn(&path, "no zone is transferred, so nobody has to be heard", "remove it");
        }
        let all = written.iter().enumerate();
        all.filter_map(|(i, text)| self.socket_address(&path.at(i), text, "192.0.2.1:5353")).collect()
    }

    fn rpz_name(&mut self, path: &Path, text: &str) -> Option<NameBuf> {
        let path = path.key("name");
        match host_name(text.strip_suffix('.').unwrap_or(text)) {
            Ok(name) if !name.as_ref().is_root() => Some(name),
            Ok(_) => self.problems.fail(&path, "the root is no policy zone", "name the zone"),
            Err(error) => self.problems.fail(&path, error.to_string(), error.remedy()),
        }
    }

    fn rpz_settings(&mut self, path: &Path, written: &spec::Rpz, name: NameRef<'_>) -> Option<Settings> {
        let target = path.key("cname");
        let policy = match (written.policy, &written.cname) {
            (RpzPolicy::Cname, Some(text)) => {
                let bare = text.strip_prefix("*.").unwrap_or(text);
                match host_name(bare.strip_suffix('.').unwrap_or(bare)) {
                    Ok(name) if !name.as_ref().is_root() => NameBuf::from_text(text).ok().map(Override::Cname),
                    Ok(_) => self.problems.fail(&target, "the root is no host", "name a host, or *.x"),
                    Err(error) => self.problems.fail(&target, error.to_string(), error.remedy()),
                }
            }
            (RpzPolicy::Cname, None) => {
                self.problems.fail(&target, "no name to lead to", "name a host, for example \"garden.example.net\"")
            }
            (_, Some(_)) => self.problems.fail(
                &target,
                "a name to lead to that is never used",
                "set policy = \"cname\", or remove it",
            ),
            (RpzPolicy::Given, None) => Some(Override::Given),
            (RpzPolicy::Disabled, None) => Some(Override::Disabled),
            (RpzPolicy::Nxdomain, None) => Some(Override::Nxdomain),
            (RpzPolicy::Nodata, None) => Some(Override::Nodata),
            (RpzPolicy::Passthru, None) => Some(Override::Passthru),
            (RpzPolicy::Drop, None) => Some(Override::Drop),
            (RpzPolicy::TcpOnly, None) => Some(Override::TcpOnly),
        };
        let trusted = written.passthru == RpzPassthru::Trust;
        if trusted {
            // It opens something, so somebody answers for it.
            self.owned(path, &written.owner, &written.reason);
        }
        self.review(&path.key("review_by"), written.review_by.as_deref());
        Some(Settings {
            id: name.to_string().into(),
            policy: policy?,
            log: written.log,
            trusted,
            max_ttl: self.within(path, "max_ttl_seconds", written.max_ttl_seconds, 0, 86_400),
            ede: match written.ede {
                RpzEde::Blocked => Ede::Blocked,
                RpzEde::Filtered => Ede::Filtered,
            },
        })
    }

    fn rpz_file(&mut self, path: &Path, written: &spec::Rpz, name: NameRef<'_>, file: &str) -> Option<Source> {
        let only_for_primaries = [
            ("tsig", written.tsig.is_some()),
            ("required", written.required),
            ("on_expire", written.on_expire != OnExpire::Keep),
        ];
        for (field, there) in only_for_primaries {
            if there {
                self.problems.error(&path.key(field), "only zones that are transferred have it", "remove it");
            }
        }
        let octets = match regular::read(&self.beside(file), MAX_ZONE_OCTETS) {
            Ok(octets) => octets,
            Err(error) => {
                return self.problems.fail(
                    &path.key("file"),
                    format!("`{}` cannot be read: {error}", file.escape_debug()),
                    "paths are relative to the file that names them; check name and permissions",
                );
            }
        };
        self.digest_part(&format!("rpz {}", written.name), &octets);
        let lenient = written.unsupported == Unsupported::Ignore;
        let elsewhere = |line, problem, remedy: &str| ConfigError {
            file: file.to_owned(),
            line,
            field: String::new(),
            problem,
            remedy: remedy.into(),
        };
        match rpz::parse(&octets, name, file, rpz::process_key(), lenient) {
            Ok(rules) => {
                self.tell_left_out(file, &rules);
                Some(Source::File(Arc::new(rules)))
            }
            Err(errors) => {
                for problem in errors.first {
                    self.problems.error_elsewhere(elsewhere(problem.line, problem.what, problem.remedy));
                }
                if errors.more > 0 {
                    let problem = format!("{} more mistakes in the zone", errors.more);
                    self.problems.error_elsewhere(elsewhere(0, problem, "correct those that are told first"));
                }
                None
            }
        }
    }

    fn tell_left_out(&mut self, file: &str, rules: &Rules) {
        if rules.left_out() > 0 {
            self.problems.warn_elsewhere(Warning {
                file: file.to_owned(),
                line: 0,
                field: String::new(),
                problem: format!(
                    "{} records that have no meaning here, or triggers that are not well-formed",
                    rules.left_out()
                ),
                remedy: "set unsupported = \"refuse\" to see which".into(),
            });
        }
    }

    fn rpz_primaries(&mut self, path: &Path, written: &spec::Rpz) -> Option<Source> {
        let field = path.key("primaries");
        if written.primaries.len() > MAX_PRIMARIES {
            self.problems.error(&field, format!("more than {MAX_PRIMARIES} primaries"), "name fewer");
        }
        let mut servers = Vec::new();
        for (i, primary) in written.primaries.iter().enumerate() {
            servers.extend(self.primary(&field.at(i), primary));
        }
        let tsig = match &written.tsig {
            None => {
                // Over TLS it is the certificate that says who it is.
                if servers.iter().any(|primary| primary.tls.is_none()) {
                    self.problems.warn(
                        path,
                        "zone transfers without a key: who can answer in the primary's place writes policy here",
                        "set tsig = { name, algorithm = \"hmac-sha256\", secret_file }, or write tls://ADDRESS#NAME",
                    );
                }
                None
            }
            Some(tsig) => Some(self.tsig(&path.key("tsig"), tsig)?),
        };
        Some(Source::Primaries(Primaries {
            servers,
            tsig,
            required: written.required,
            keep_expired: written.on_expire == OnExpire::Keep,
            lenient: written.unsupported == Unsupported::Ignore,
            max_octets: self.within(path, "max_transfer_octets", written.max_transfer_octets, 4096, 2 << 30),
        }))
    }

    /// `ADDRESS`, `tcp://ADDRESS`, `tls://ADDRESS#NAME`, and what is said beside it.
    fn primary(&mut self, path: &Path, written: &spec::UpstreamServer) -> Option<Primary> {
        let (scheme, rest) = written.server.split_once("://").unwrap_or(("tcp", &written.server));
        let is_tls = scheme == "tls";
        if !is_tls && scheme != "tcp" {
            let problem = format!("`{}` is no way to transfer a zone", scheme.escape_debug());
            return self.problems.fail(path, problem, "write an address, or tls:// before it and #NAME behind it");
        }
        if written.mix_case.is_some() {
            self.problems.error(&path.key("mix_case"), "letter case is drawn for datagrams only", "remove mix_case");
        }
        for (key, there) in [("pins", !written.pins.is_empty()), ("ca_file", written.ca_file.is_some())] {
            if there && !is_tls {
                let problem = format!("{key} without TLS");
                self.problems.error(&path.key(key), problem, "write tls:// before the address");
            }
        }
        let (place, name) = match rest.split_once('#') {
            Some((place, name)) => (place, Some(name)),
            None => (rest, None),
        };
        let port = if is_tls { 853 } else { 53 };
        let bare = place.strip_prefix('[').and_then(|t| t.strip_suffix(']')).unwrap_or(place);
        let address = place.parse().ok().or_else(|| bare.parse::<IpAddr>().ok().map(|ip| SocketAddr::new(ip, port)));
        let Some(address) = address else {
            return self.problems.fail(
                path,
                format!("`{}` is not the address of a server", place.escape_debug()),
                format!("write an address, with `:port` where it is not {port}; names are not looked up here"),
            );
        };
        let tls = match (is_tls, name) {
            (false, None) => None,
            (false, Some(_)) => {
                return self.problems.fail(
                    path,
                    "a name of a certificate without TLS",
                    "write tls:// before the address",
                );
            }
            (true, None) => {
                let remedy = "write the name in it behind the address: tls://192.0.2.53#primary.example";
                return self.problems.fail(path, "nobody says whose certificate it must have", remedy);
            }
            (true, Some(name)) => match self.tls(path, name, written)?.for_transfers() {
                Ok(tls) => Some(tls),
                Err(error) => {
                    return self.problems.fail(
                        path,
                        error.to_string(),
                        "write the address without tls://, and a tsig key",
                    );
                }
            },
        };
        Some(Primary { address, tls })
    }

    fn tsig(&mut self, path: &Path, written: &spec::Tsig) -> Option<TsigKey> {
        let name = match host_name(written.name.strip_suffix('.').unwrap_or(&written.name)) {
            Ok(name) => Some(name),
            Err(error) => self.problems.fail(&path.key("name"), error.to_string(), error.remedy()),
        };
        let algorithm = Algorithm::from_text(&written.algorithm).or_else(|| {
            let problem = format!("`{}` is no algorithm that is used here", written.algorithm.escape_debug());
            self.problems.fail(&path.key("algorithm"), problem, "use hmac-sha256 or hmac-sha512")
        });
        let field = path.key("secret_file");
        let secret = self.secret(&field, &written.secret_file)?;
        let octets = match BASE64_STANDARD.decode(secret.expose()) {
            Ok(octets) if !octets.is_empty() => octets,
            _ => {
                return self.problems.fail(
                    &field,
                    "the secret is not Base64",
                    "put the `secret` of the primary's key into the file, without quotes, on one line",
                );
            }
        };
        Some(TsigKey::new(name?, algorithm?, octets))
    }
}
