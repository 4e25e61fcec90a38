//! `[dnssec]`

use std::time::Duration;

use super::Context;
use crate::config::document::Path;
use crate::config::loaded::{Dnssec, Upstream};
use crate::config::spec::Dnssec as Spec;
use crate::lists::host_name;
use crate::regular;
use crate::validate::{Anchors, Limits};

/// Most octets of a file of trust anchors.
const MAX_OCTETS: u64 = 1 << 20;

impl Context<'_, '_> {
    /// Trust anchors are read where answers are validated; what else is written is checked in any case.
    pub(super) fn dnssec(&mut self, upstream: &Upstream) -> Dnssec {
        let section = Path::of("dnssec");
        let written = self.spec.dnssec.clone();
        let negative = self.negative_anchors(&section.key("negative_trust_anchor"));
        let limits = Limits {
            failures: self.within(&section, "max_failures", written.max_failures, 1, 64),
            iterations: self.within(&section, "max_nsec3_iterations", written.max_nsec3_iterations, 0, 500),
            hashes: self.within(&section, "max_nsec3_hashes", written.max_nsec3_hashes, 8, 1024),
            lookups: self.within(&section, "max_lookups", written.max_lookups, 4, 128),
            time: Duration::from_millis(self.within(&section, "timeout_ms", written.timeout_ms, 100, 10_000)),
        };
        if let Some(file) = written.trust_anchors.as_deref().filter(|_| !written.validate && self.environment.checking)
            && let Err(error) = regular::read(&self.beside(file), MAX_OCTETS)
        {
            let problem = format!(
                "{} cannot be read: {error}; nothing needs it while validate is off",
                self.beside(file).display()
            );
            self.problems.warn(
                &section.key("trust_anchors"),
                problem,
                "put it there before you set dnssec.validate = true",
            );
        }
        let anchors = match written.trust_anchors.as_deref().filter(|_| written.validate) {
            Some(file) => self.trust_anchors(&section.key("trust_anchors"), file),
            None => Anchors::default(),
        };
        let apart = upstream.zones.iter().map(|own| own.zone.clone());
        let anchors = anchors.without(negative).apart(apart);
        let Spec { validate, allow_cd, follow_rollover, .. } = written;
        Dnssec { validate, allow_cd, anchors, follow_rollover, limits }
    }

    fn trust_anchors(&mut self, path: &Path, file: &str) -> Anchors {
        let file = self.beside(file);
        let octets = match regular::read(&file, MAX_OCTETS) {
            Ok(octets) => octets,
            Err(error) => {
                let problem = format!("{} cannot be read: {error}", file.display());
                self.problems.error(path, problem, "name a file of DS or DNSKEY records, or leave it out");
                return Anchors::default();
            }
        };
        self.digest_part("trust anchors", &octets);
        let anchors = Anchors::read(&String::from_utf8_lossy(&octets));
        anchors.unwrap_or_else(|error| {
            let problem = format!("{}: {error}", file.display());
            let remedy = "write the keys to trust, one a line, for example `. IN DS 20326 8 2 E06D...`; algorithms 8, \
                          10, 13, 14 and 15 and digests 1, 2 and 4 are known";
            self.problems.error(path, problem, remedy);
            Anchors::default()
        })
    }

    fn negative_anchors(&mut self, section: &Path) -> Vec<staunch_scoring::NameBuf> {
        let mut zones = Vec::new();
        for (i, written) in self.spec.dnssec.negative_trust_anchor.iter().enumerate() {
            let path = section.at(i);
            self.owned(&path, &written.owner, &written.reason);
            self.reviewed(&path, written.review_by.as_deref());
            let zone = match host_name(&written.zone) {
                Ok(zone) if zone.as_ref().is_root() => self.problems.fail(
                    &path.key("zone"),
                    "the root is every zone there is",
                    "name the zone whose signatures are broken, or set dnssec.validate = false",
                ),
                Ok(zone) => Some(zone),
                Err(error) => self.problems.fail(&path.key("zone"), error.to_string(), error.remedy()),
            };
            zones.extend(zone);
        }
        zones
    }
}
