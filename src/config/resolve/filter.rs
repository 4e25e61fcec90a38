//! Answers, and the look of refusals.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use super::Context;
use crate::answer::is_all_public;
use crate::config::document::Path;
use crate::config::loaded::{AllowRange, Answer, LoopbackZone, Sinkhole, SinkholeAction};
use crate::config::spec::{self, SinkholeKind};
use crate::event::RuleRef;
use crate::lists::{RuleForm, host_name, public_suffix};
use crate::nat64::{MAX_PREFIXES, Nat64};
use crate::partition::{self, SharedBy};
use crate::pipeline::Repeats;
use crate::range::IpRange;

/// Longest contact, octets: it travels in every refusal.
const MAX_CONTACT: usize = 128;

impl Context<'_, '_> {
    fn repeats(&mut self, section: &Path, answer: &spec::Answer) -> Repeats {
        let mut seconds = |field: &str, value: u32, min: u32, max: u32| {
            Duration::from_secs(u64::from(self.within(section, field, value, min, max)))
        };
        let floor = seconds("floor_seconds", answer.floor_seconds, 0, 3600);
        // RFC 9520 section 3.2: at least a second, at most five minutes.
        let failure = seconds("failure_seconds", answer.failure_seconds, 1, 300);
        // RFC 8767 section 5: one to three days.
        let hold_stale = seconds("hold_stale_seconds", answer.hold_stale_seconds, 0, 259_200);
        let serve_stale = seconds("serve_stale_seconds", answer.serve_stale_seconds, 0, 259_200);
        let jitter = self.within(section, "jitter_ms", answer.jitter_ms, 0, 2000);
        if answer.cache_entries == 0 && !floor.is_zero() {
            self.problems.warn(
                &section.key("cache_entries"),
                "without a cache every repeat of a question leaves, and nothing answers those that are held",
                "keep some answers, or set answer.floor_seconds = 0 to say that this is meant",
            );
        }
        let jitter = Duration::from_millis(u64::from(jitter));
        Repeats {
            floor,
            failure,
            hold_stale,
            jitter,
            refresh: answer.refresh_held,
            serve_stale,
            prefetch: answer.prefetch,
        }
    }

    fn sharing(&mut self, section: &Path, answer: &spec::Answer) -> partition::Rules {
        let rules = partition::Rules { shared_by: answer.cache_shared_by, private: answer.private_timing };
        if rules.private && (answer.floor_seconds == 0 || answer.cache_entries == 0) {
            self.problems.error(
                &section.key("private_timing"),
                "an answer of a session's own must serve it for a time, or every question waits",
                "set answer.floor_seconds and answer.cache_entries above 0, or private_timing = false",
            );
        }
        if rules.private && rules.shared_by != SharedBy::Session && self.spec.dnssec.validate {
            self.problems.warn(
                &section.key("private_timing"),
                "keys of a zone, once looked up, serve all who share answers: another name of it comes sooner where one of \
                 them has asked in it",
                "set answer.cache_shared_by = \"session\" where that must not show",
            );
        }
        if answer.prefetch && rules.shared_by != SharedBy::All {
            self.problems.error(
                &section.key("prefetch"),
                "a name is popular when two owners ask it, and here none of them sees the other's answers",
                "set prefetch = false, or cache_shared_by = \"all\"",
            );
        }
        rules
    }

    pub(super) fn answer(&mut self) -> Answer {
        let section = Path::of("answer");
        let answer = self.spec.answer.clone();
        Answer {
            strip_ech: answer.strip_ech,
            strip_hints: answer.strip_hints,
            cache_entries: self.within(&section, "cache_entries", answer.cache_entries, 0, 1 << 24),
            max_ttl: Duration::from_secs(u64::from(self.within(
                &section,
                "max_ttl_seconds",
                answer.max_ttl_seconds,
                1,
                86_400,
            ))),
            repeats: self.repeats(&section, &answer),
            sharing: self.sharing(&section, &answer),
            nat64: self.nat64_prefixes(&section.key("nat64_prefixes")),
            allow_ranges: self.allow_ranges(&section.key("allow_range")),
            show_loopback: self.show_loopback(&section.key("show_loopback")),
        }
    }

    pub(super) fn sinkhole(&mut self) -> Sinkhole {
        let section = Path::of("sinkhole");
        let sinkhole = self.spec.sinkhole.clone();
        let ipv4 = self.sink_address::<Ipv4Addr>(&section.key("ipv4"), sinkhole.ipv4.as_deref(), "192.0.2.80");
        let ipv6 = self.sink_address::<Ipv6Addr>(&section.key("ipv6"), sinkhole.ipv6.as_deref(), "2001:db8::80");
        let action = match sinkhole.kind {
            SinkholeKind::Nxdomain => {
                for (field, given) in [("ipv4", sinkhole.ipv4.is_some()), ("ipv6", sinkhole.ipv6.is_some())] {
                    if given {
                        self.problems.error(
                            &section.key(field),
                            "an address, but refused names get NXDOMAIN",
                            "set sinkhole.kind = \"address\", or remove it",
                        );
                    }
                }
                SinkholeAction::Nxdomain
            }
            SinkholeKind::Address => {
                if sinkhole.ipv4.is_none() && sinkhole.ipv6.is_none() {
                    self.problems.error(
                        &section.key("kind"),
                        "no address to answer with",
                        "set sinkhole.ipv4 or sinkhole.ipv6, or kind = \"nxdomain\"",
                    );
                }
                SinkholeAction::Address { ipv4, ipv6 }
            }
        };
        if let Some(contact) = &sinkhole.contact
            && (contact.is_empty() || contact.len() > MAX_CONTACT || contact.chars().any(char::is_control))
        {
            self.problems.error(
                &section.key("contact"),
                "the contact does not fit into a refusal's text",
                format!("use 1 to {MAX_CONTACT} octets without control characters"),
            );
        }
        let ttl = self.within(&section, "negative_ttl_seconds", sinkhole.negative_ttl_seconds, 1, 60);
        Sinkhole { action, negative_ttl: Duration::from_secs(u64::from(ttl)), contact: sinkhole.contact }
    }

    fn sink_address<A>(&mut self, path: &Path, text: Option<&str>, example: &str) -> Option<A>
    where
        A: std::str::FromStr + Copy + Into<std::net::IpAddr>,
    {
        let text = text?;
        let Ok(address) = text.parse::<A>() else {
            let problem = format!("`{}` is not an address of this family", text.escape_debug());
            return self.problems.fail(path, problem, format!("write for example `{example}`"));
        };
        let ip: std::net::IpAddr = address.into();
        if ip.is_loopback() || ip.is_unspecified() || ip.is_multicast() {
            // A stub that gets 0.0.0.0 or loopback connects to services of its own sandbox.
            return self.problems.fail(
                path,
                format!("{ip} would lead sandboxes to themselves"),
                "name the address of a listener that explains the refusal, or use kind = \"nxdomain\"",
            );
        }
        Some(address)
    }

    fn allow_ranges(&mut self, section: &Path) -> Vec<AllowRange> {
        let mut ranges = Vec::new();
        for (i, written) in self.spec.answer.allow_range.iter().enumerate() {
            let path = section.at(i);
            self.owned(&path, &written.owner, &written.reason);
            self.reviewed(&path, written.review_by.as_deref());
            let form = match RuleForm::parse(&written.name) {
                Ok(form) => Some(form),
                Err(error) => self.problems.fail(&path.key("name"), error.to_string(), error.remedy()),
            };
            if written.ranges.is_empty() {
                self.problems.error(
                    &path.key("ranges"),
                    "no range",
                    "name the addresses, for example [\"10.20.0.0/16\"]",
                );
            }
            let read = self.ranges_of(&path.key("ranges"), &written.ranges);
            self.warn_of_public(&path.key("ranges"), &written.ranges);
            let reference = self.reference("answer.allow_range", &path);
            ranges.extend(form.map(|form| AllowRange { form, ranges: read, owner: written.owner.clone(), reference }));
        }
        ranges
    }

    /// Public addresses are shown without anybody's leave, but this host's own. Those that we listen on are known to be; an IPv6
    /// range may lie behind the network's own NAT64.
    fn warn_of_public(&mut self, path: &Path, written: &[String]) {
        let own: Vec<_> = self.spec.server.listen.iter().filter_map(|text| text.parse::<SocketAddr>().ok()).collect();
        let translated = !self.spec.answer.nat64_prefixes.is_empty();
        for (i, text) in written.iter().enumerate() {
            let Ok(range) = IpRange::parse(text) else { continue };
            let has_own = own.iter().any(|listen| range.contains(listen.ip()));
            if is_all_public(&range) && !has_own && !(translated && range.first().is_ipv6()) {
                self.problems.warn(
                    &path.at(i),
                    format!("`{range}` is public: its addresses are shown without this, but for this host's own"),
                    "remove it, or write the private range that is meant",
                );
            }
        }
    }

    /// Ranges in CIDR form, none of them all there is.
    pub(super) fn ranges_of(&mut self, path: &Path, written: &[String]) -> Vec<IpRange> {
        let mut read = Vec::new();
        for (i, text) in written.iter().enumerate() {
            match IpRange::parse(text) {
                Ok(range) if range.prefix() == 0 => self.problems.error(
                    &path.at(i),
                    format!("`{range}` is every address there is"),
                    "name the ranges that are meant",
                ),
                Ok(range) => read.push(range),
                Err(error) => self.problems.error(&path.at(i), error.to_string(), error.remedy()),
            }
        }
        read
    }

    fn nat64_prefixes(&mut self, section: &Path) -> Vec<Nat64> {
        let mut prefixes = Vec::new();
        let written = self.spec.answer.nat64_prefixes.clone();
        if written.len() > MAX_PREFIXES {
            self.problems.error(
                section,
                format!("{} prefixes", written.len()),
                format!("name at most {MAX_PREFIXES}: those of the network that sandboxes are in"),
            );
        }
        for (i, text) in written.iter().take(MAX_PREFIXES).enumerate() {
            match Nat64::parse(text) {
                Ok(prefix) => prefixes.push(prefix),
                Err(error) => self.problems.error(&section.at(i), error.to_string(), error.remedy()),
            }
        }
        prefixes
    }

    fn show_loopback(&mut self, section: &Path) -> Vec<LoopbackZone> {
        let mut zones = Vec::new();
        for (i, written) in self.spec.answer.show_loopback.iter().enumerate() {
            let path = section.at(i);
            self.owned(&path, &written.owner, &written.reason);
            self.reviewed(&path, written.review_by.as_deref());
            let zone = match host_name(&written.zone) {
                Ok(zone) if zone.as_ref().is_root() || public_suffix(zone.as_ref()).is_some() => self.problems.fail(
                    &path.key("zone"),
                    format!("`{zone}` has names of many owners below it"),
                    "name the block list's own zone, for example `dnsbl.example`",
                ),
                Ok(zone) => Some(zone),
                Err(error) => self.problems.fail(&path.key("zone"), error.to_string(), error.remedy()),
            };
            let reference = self.reference("answer.show_loopback", &path);
            zones.extend(zone.map(|zone| LoopbackZone { zone, owner: written.owner.clone(), reference }));
        }
        zones
    }

    pub(super) fn reviewed(&mut self, path: &Path, review_by: Option<&str>) {
        let path = path.key("review_by");
        if review_by.is_none() {
            self.problems.error(
                &path,
                "an exception without a day of review",
                "add review_by = \"YYYY-MM-DD\", the day on which somebody looks at it again",
            );
        }
        self.review(&path, review_by);
    }

    pub(super) fn reference(&self, id: &str, path: &Path) -> RuleRef {
        RuleRef { id: id.into(), file: self.problems.file().into(), line: self.problems.line(path) }
    }
}
