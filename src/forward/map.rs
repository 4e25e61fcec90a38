//! Which upstreams a name is asked of: the zone with the most labels that holds it, else the default ones. What vouches for
//! a zone (DS at its apex) is its parent's, and is asked for there.
//!
//! A zone's upstreams are the only ones for it. When they fail, nobody else is asked: its names are not for others' ears,
//! and others would say that they do not exist.

use staunch_scoring::{NameBuf, NameRef};

use super::Upstream;
use crate::model::Qtype;

/// A zone with upstreams of its own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ZoneServers {
    /// The zone and all below it.
    pub zone: NameBuf,
    /// Its upstreams, in order of preference.
    pub upstreams: Vec<Upstream>,
}

/// Zones with something for each, the deepest first.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Deepest<T>(Vec<(NameBuf, T)>);

impl<T> Deepest<T> {
    fn new(zones: impl IntoIterator<Item = (NameBuf, T)>) -> Self {
        let mut zones: Vec<_> = zones.into_iter().collect();
        zones.sort_by_key(|(zone, _)| std::cmp::Reverse(zone.as_ref().label_count()));
        Self(zones)
    }

    /// The zone that holds `name`, if any, and what stands for it.
    fn of(&self, name: NameRef<'_>) -> Option<(NameRef<'_>, &T)> {
        self.0.iter().map(|(zone, own)| (zone.as_ref(), own)).find(|(zone, _)| name.is_at_or_below(*zone))
    }
}

/// Zones that have upstreams of their own.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Zones(Deepest<()>);

impl Zones {
    /// Of these zones.
    pub fn new(zones: impl IntoIterator<Item = NameBuf>) -> Self {
        Self(Deepest::new(zones.into_iter().map(|zone| (zone, ()))))
    }

    /// The zone that holds `name`, if any.
    pub fn of(&self, name: NameRef<'_>) -> Option<NameRef<'_>> {
        self.0.of(name).map(|(zone, ())| zone)
    }

    /// Whether one of the zones is strictly below `name`.
    pub fn any_below(&self, name: NameRef<'_>) -> bool {
        self.0.0.iter().any(|(zone, ())| zone.as_ref().is_below(name))
    }

    /// Whether both names are asked of the same upstreams.
    pub fn are_together(&self, one: NameRef<'_>, other: NameRef<'_>) -> bool {
        self.of(one) == self.of(other)
    }
}

/// Upstreams by name. Generic over what stands for a group of them.
#[derive(Debug)]
pub(super) struct Map<T> {
    zones: Deepest<T>,
    default: T,
}

impl<T> Map<T> {
    pub(super) fn new(default: T, zones: impl IntoIterator<Item = (NameBuf, T)>) -> Self {
        Self { zones: Deepest::new(zones), default }
    }

    /// Whether `name` is of a zone with upstreams of its own.
    pub(super) fn is_apart(&self, name: NameRef<'_>) -> bool {
        self.zones.of(name).is_some()
    }

    /// What a question belongs to: its name, but that of type DS for the apex of a zone its parent, which is where those
    /// records are (RFC 4035 section 3.1.4.1).
    pub(super) fn of_question(&self, name: NameRef<'_>, qtype: Qtype) -> &T {
        match self.zones.of(name) {
            Some((zone, _)) if qtype == Qtype::DS && zone == name => self.of(name.parent().unwrap_or(NameRef::ROOT)),
            _ => self.of(name),
        }
    }

    /// What `name` belongs to.
    pub(super) fn of(&self, name: NameRef<'_>) -> &T {
        self.zones.of(name).map_or(&self.default, |(_, own)| own)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> NameBuf {
        NameBuf::from_text(text).expect("a name")
    }

    #[test]
    fn the_longest_suffix_of_whole_labels_decides() {
        let zones = ["example.com", "corp.example.com", "10.in-addr.arpa"];
        let map = Map::new("default", zones.map(|zone| (name(zone), zone)));
        let known = Zones::new(zones.map(name));
        for (asked, expected) in [
            ("corp.example.com", "corp.example.com"),
            ("a.b.corp.example.com", "corp.example.com"),
            ("A.B.Corp.Example.COM", "corp.example.com"),
            ("notcorp.example.com", "example.com"),
            ("example.com", "example.com"),
            ("badexample.com", "default"),
            ("com", "default"),
            ("4.3.2.10.in-addr.arpa", "10.in-addr.arpa"),
            ("110.in-addr.arpa", "default"),
            ("corp.example.com.evil.example", "default"),
        ] {
            assert_eq!(*map.of(name(asked).as_ref()), expected, "{asked}");
            let zone = known.of(name(asked).as_ref()).map_or("default".into(), |zone| zone.to_string());
            assert_eq!(zone.trim_end_matches('.'), expected, "{asked}");
        }
        for (asked, expected) in [
            ("corp.example.com", "example.com"),
            ("x.corp.example.com", "corp.example.com"),
            ("example.com", "default"),
            ("10.in-addr.arpa", "default"),
            ("com", "default"),
        ] {
            assert_eq!(*map.of_question(name(asked).as_ref(), Qtype::DS), expected, "DS of {asked}");
            assert_eq!(map.of_question(name(asked).as_ref(), Qtype::DNSKEY), map.of(name(asked).as_ref()), "{asked}");
        }
        assert_eq!(*map.of_question(NameRef::ROOT, Qtype::DS), "default");
        assert_eq!(*map.of(NameRef::ROOT), "default");
        let below = |text| known.any_below(name(text).as_ref());
        assert!(below("com") && below("example.com") && below("in-addr.arpa") && known.any_below(NameRef::ROOT));
        assert!(!below("corp.example.com") && !below("ample.com") && !below("org"));
        let (corp, below, other) = (name("corp.example.com"), name("x.corp.example.com"), name("x.example.com"));
        assert!(known.are_together(corp.as_ref(), below.as_ref()));
        assert!(!known.are_together(corp.as_ref(), other.as_ref()));
    }
}
