//! Sessions known from the start, and the profiles of all sessions.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;

use staunch_scoring::{Bits, Budgets, Params};

use super::Context;
use crate::config::document::Path;
use crate::config::spec;
use crate::lists::{Scope, host_name};
use crate::model::{Announcement, Phase, Qtype, SessionId, SessionType};
use crate::policy::{Profile, Profiles, Volume};
use crate::words;

/// Most types of one profile: the choice of one is priced by their number.
const MAX_QTYPES: usize = 64;

/// Largest budget, bits; half of what a ledger can hold.
const MAX_BITS: f64 = 8_388_607.0;

const KINDS: [SessionType; 4] =
    [SessionType::Interactive, SessionType::Batch, SessionType::Scheduled, SessionType::Unannounced];
const PHASES: [Phase; 3] = [Phase::Fetch, Phase::Build, Phase::Run];

/// Reads `batch` or `batch.build`.
pub(super) fn profile_name(text: &str) -> Option<(SessionType, Option<Phase>)> {
    let (kind, phase) = match text.split_once('.') {
        Some((kind, phase)) => (kind, Some(phase)),
        None => (text, None),
    };
    let kind = KINDS.into_iter().find(|k| k.as_str() == kind)?;
    match phase {
        None => Some((kind, None)),
        Some(phase) => PHASES.into_iter().find(|p| p.as_str() == phase).map(|phase| (kind, Some(phase))),
    }
}

/// What to write where a profile's name is wrong.
pub(super) const PROFILE_REMEDY: &str = "use interactive, batch, scheduled or unannounced, or one of them with a phase: batch.fetch, batch.build, batch.run";

/// What to write as the type of a session that is announced.
const ANNOUNCED_REMEDY: &str = "use interactive, batch or scheduled";

impl Context<'_, '_> {
    pub(super) fn profiles(&mut self) -> Profiles {
        let section = Path::of("profile");
        let mut written = BTreeMap::new();
        for (name, profile) in &self.spec.profile {
            match profile_name(name) {
                Some((kind, phase)) => drop(written.insert(Scope::of(kind, phase).index(), profile)),
                None => self.problems.error(
                    &section.key(name),
                    format!("no session has the profile `{}`", name.escape_debug()),
                    PROFILE_REMEDY,
                ),
            }
        }
        Profiles::build(|kind, phase, base| {
            let spec = written.get(&Scope::of(kind, phase).index())?;
            let name = match phase {
                None => kind.as_str().to_owned(),
                Some(phase) => format!("{}.{}", kind.as_str(), phase.as_str()),
            };
            Some(self.profile(&name, spec, base))
        })
    }

    /// What `spec` says over what `base` has.
    fn profile(&mut self, name: &str, spec: &spec::Profile, base: &Profile) -> Profile {
        let path = Path::of("profile").key(name);
        let qtypes = match &spec.qtypes {
            Some(written) => {
                let qtypes = self.qtypes(&path.key("qtypes"), written);
                if written.is_empty() {
                    self.problems.error(
                        &path.key("qtypes"),
                        "no type is answered",
                        "name at least one, or leave it out",
                    );
                }
                qtypes
            }
            None => base.qtypes.clone(),
        };
        Profile {
            name: name.into(),
            unlisted: spec.unlisted.unwrap_or(base.unlisted),
            qtypes,
            budgets: self.budgets(&path.key("budgets"), &spec.budgets, &base.budgets),
            params: self.params(&path.key("params"), &spec.params, &base.params),
            pack_session: self
                .within_if(&path, "pack_session_bits", spec.pack_session_bits, 0.0, MAX_BITS)
                .map_or(base.pack_session, Bits::ceil_from),
            ports: match &spec.ports {
                Some(written) if written.is_empty() => self.problems.fail(
                    &path.key("ports"),
                    "no port: nothing that is answered could be reached",
                    "name some, or leave it out",
                ),
                Some(written) => self.ports(&path.key("ports"), written),
                None => None,
            }
            .unwrap_or_else(|| base.ports.clone()),
            volume: self.volume(&path.key("volume"), &spec.volume, base.volume),
        }
    }

    fn volume(&mut self, path: &Path, written: &spec::Volume, base: Volume) -> Volume {
        let octets = |value: Option<u64>, base: Option<u64>| value.map_or(base, |value| Some(value).filter(|v| *v > 0));
        let volume = Volume { warn: octets(written.warn_bytes, base.warn), cut: octets(written.cut_bytes, base.cut) };
        if let Volume { warn: Some(warn), cut: Some(cut) } = volume
            && warn > cut
        {
            self.problems.error(
                &path.key("warn_bytes"),
                format!("warn_bytes ({warn}) is more than cut_bytes ({cut}), which would stop it first"),
                "make it no more than cut_bytes, or 0 to be without it; what is not written has its default",
            );
        }
        volume
    }

    /// Reads types; ascending, each once.
    pub(super) fn qtypes(&mut self, path: &Path, written: &[String]) -> Vec<Qtype> {
        let mut qtypes = Vec::new();
        for (i, text) in written.iter().enumerate() {
            match Qtype::from_text(text) {
                None => self.problems.error(
                    &path.at(i),
                    format!("unknown record type `{}`", text.escape_debug()),
                    "use a mnemonic such as A, AAAA, HTTPS, SRV, TXT, or TYPEn",
                ),
                Some(qtype) if is_never_answered(qtype) => self.problems.error(
                    &path.at(i),
                    format!("{qtype} is never forwarded"),
                    "remove it: meta types, NULL and KEY serve tunnels, not sandboxes",
                ),
                Some(qtype) => qtypes.push(qtype),
            }
        }
        qtypes.sort_unstable();
        qtypes.dedup();
        if qtypes.len() > MAX_QTYPES {
            self.problems.error(path, format!("{} types", qtypes.len()), format!("name at most {MAX_QTYPES}"));
            qtypes.truncate(MAX_QTYPES);
        }
        qtypes
    }

    fn budgets(&mut self, path: &Path, written: &spec::Budgets, base: &Budgets) -> Budgets {
        let mut bits = |field: &str, value: Option<f64>, base: Bits| {
            self.within_if(path, field, value, 1.0, MAX_BITS).map_or(base, Bits::ceil_from)
        };
        let budgets = Budgets {
            tenant_soft: bits("tenant_soft", written.tenant_soft, base.tenant_soft),
            tenant: bits("tenant", written.tenant, base.tenant),
            icann: bits("icann", written.icann, base.icann),
            session: bits("session", written.session, base.session),
            group: bits("group", written.group, base.group),
            echo: bits("echo", written.echo, base.echo),
            echo_hour: bits("echo_hour", written.echo_hour, base.echo_hour),
        };
        let steps = [
            ("tenant_soft", budgets.tenant_soft, "tenant", budgets.tenant),
            ("tenant", budgets.tenant, "icann", budgets.icann),
            ("icann", budgets.icann, "session", budgets.session),
        ];
        for (narrow, less, wide, more) in steps {
            if less > more && ![narrow, wide].iter().any(|field| self.problems.is_wrong(&path.key(field))) {
                self.problems.error(
                    &path.key(narrow),
                    format!("{narrow} ({less}) is more than {wide} ({more}), which would stop it first"),
                    "order them tenant_soft <= tenant <= icann <= session; what is not written has its default",
                );
            }
        }
        budgets
    }

    fn params(&mut self, path: &Path, written: &spec::Params, base: &Params) -> Params {
        let mut nats = |field: &str, value: Option<f64>, base: f32| {
            self.within_if(path, field, value, 0.1, 12.0).map_or(base, |value| value as f32)
        };
        let (watch, sinkhole) =
            (nats("watch", written.watch, base.watch), nats("sinkhole", written.sinkhole, base.sinkhole));
        if watch > sinkhole && !["watch", "sinkhole"].iter().any(|field| self.problems.is_wrong(&path.key(field))) {
            self.problems.error(
                &path.key("watch"),
                format!("watch ({watch}) is more than sinkhole ({sinkhole})"),
                "a session is watched before it is sinkholed: make it no more than sinkhole",
            );
        }
        let quarantine_tenants = written.quarantine_tenants.unwrap_or(base.quarantine_tenants);
        Params {
            watch,
            sinkhole,
            quarantine_tenants: self.within(path, "quarantine_tenants", quarantine_tenants, 1, u8::MAX),
            without: base.without,
        }
    }

    pub(super) fn max_sessions(&mut self) -> usize {
        let most = self.within(&Path::of("limits"), "sessions", self.spec.limits.sessions, 1, 1 << 24);
        if self.spec.session.len() > most {
            self.problems.error(
                &Path::of("limits").key("sessions"),
                format!("{} sessions are written and {most} fit", self.spec.session.len()),
                "raise limits.sessions",
            );
        }
        most
    }

    pub(super) fn sessions(&mut self) -> Vec<Announcement> {
        let section = Path::of("session");
        let mut ids: HashMap<String, usize> = HashMap::new();
        let mut owners: HashMap<IpAddr, String> = HashMap::new();
        let mut sessions = Vec::new();
        for (i, written) in self.spec.session.iter().enumerate() {
            let path = section.at(i);
            let id = match SessionId::new(&written.id) {
                Ok(id) if id.is_reserved() => self.problems.fail(
                    &path.key("id"),
                    format!("`{id}` is what sources are called that nobody announced"),
                    "name the session otherwise: its address stands in addresses",
                ),
                Ok(id) => Some(id),
                Err(_) if written.id.is_empty() => self.problems.fail(
                    &path.key("id"),
                    "id is missing",
                    "name the session: 1 to 64 of A-Z a-z 0-9 . _ : -",
                ),
                Err(_) => self.problems.fail(
                    &path.key("id"),
                    format!("`{}` is not a session id", written.id.escape_debug()),
                    "use 1 to 64 of A-Z a-z 0-9 . _ : -",
                ),
            };
            if let Some(id) = &id
                && let Some(first) = ids.insert(written.id.clone(), i)
            {
                let line = self.problems.line(&section.at(first));
                let problem = format!("a second session `{id}`; the first is in line {line}");
                self.problems.error(&path.key("id"), problem, "give each session its own id");
            }
            let addresses = self.session_addresses(&path.key("addresses"), written, &mut owners);
            let kind = match written.kind {
                Some(SessionType::Unannounced) => self.problems.fail(
                    &path.key("type"),
                    "a session that is written here is announced",
                    ANNOUNCED_REMEDY,
                ),
                Some(kind) => Some(kind),
                None => {
                    self.problems.improve(&path.key("type"), |_| ANNOUNCED_REMEDY.into());
                    self.problems.fail(&path.key("type"), "type is missing", ANNOUNCED_REMEDY)
                }
            };
            let mut search = Vec::new();
            for (j, text) in written.search.iter().enumerate() {
                match host_name(text) {
                    Ok(name) => search.push(name),
                    Err(error) => self.problems.error(&path.key("search").at(j), error.to_string(), error.remedy()),
                }
            }
            if let Some(problem) = written.owner.as_deref().and_then(words::problem) {
                self.problems.error(&path.key("owner"), problem, "name who answers for the session");
            }
            if let (Some(id), Some(kind)) = (id, kind) {
                let (phase, owner) = (written.phase, written.owner.clone());
                sessions.push(Announcement { id, addresses, kind, phase, owner, search });
            }
        }
        sessions
    }

    fn session_addresses(
        &mut self,
        path: &Path,
        written: &spec::Session,
        owners: &mut HashMap<IpAddr, String>,
    ) -> Vec<IpAddr> {
        if written.addresses.is_empty() {
            self.problems.error(path, "no address", "name the address that its queries come from");
        }
        let mut addresses = Vec::new();
        for (j, text) in written.addresses.iter().enumerate() {
            let path = path.at(j);
            let Ok(address) = text.parse::<IpAddr>() else {
                let problem = format!("`{}` is not an address", text.escape_debug());
                self.problems.error(&path, problem, "write one address, without port or prefix length");
                continue;
            };
            let address = address.to_canonical();
            if words::no_source(address).is_some() {
                self.problems.error(&path, format!("{address} is nobody's address"), "write the sandbox's own address");
            } else if let Some(other) = owners.insert(address, written.id.clone()) {
                let whose =
                    if other == written.id { "this session already".into() } else { format!("session `{other}`") };
                let problem = format!("{address} belongs to {whose}");
                self.problems.error(&path, problem, "give each session addresses of its own: they tell sessions apart");
            } else {
                addresses.push(address);
            }
        }
        addresses
    }
}

/// Types of queries alone (RFC 6895 section 3.1), OPT, and types that nothing but tunnels uses.
fn is_never_answered(qtype: Qtype) -> bool {
    matches!(qtype, Qtype::OPT | Qtype::NULL | Qtype::KEY | Qtype(0) | Qtype(128..=255))
}
