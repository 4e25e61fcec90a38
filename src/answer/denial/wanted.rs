//! How many records may be the proof of each thing that is not there, and which of more.

use super::hashed::{Hashed, MAX_HASHES};
use super::{Absent, HASH, Nsec, Nsec3, Spelled, What, wildcard};

/// NSEC3 records of a denial: closest encloser, next closer name, wildcard (RFC 5155 section 7.2.2).
const DENIED: usize = 3;
/// NSEC3 records that tell that a wildcard may answer: next closer name (RFC 5155 section 7.2.6).
const EXPANDED: usize = 1;
/// NSEC3 records that tell that a zone has no keys: its delegation's, or the closest encloser's and the one that may leave it out
/// (RFC 5155 sections 7.2.4 and 7.2.7).
const UNSIGNED: usize = 2;

/// What is not there, and which records can be the proof of it.
pub(super) struct Wanted<'a> {
    pub(super) absent: &'a Absent,
    /// The wildcard that would have answered for it.
    pub(super) wildcard: Option<Spelled>,
    /// NSEC3 records that it has room for.
    room: usize,
    /// Hashes of the only NSEC3 records that are shown for it.
    only: Option<Vec<[u8; HASH]>>,
    /// A record is shown that can be part of the proof.
    pub(super) has_some: bool,
}

impl<'a> Wanted<'a> {
    pub(super) fn of(absent: &'a Absent, nsecs: &[Nsec<'_>]) -> Self {
        let room = match absent.what {
            What::Denied => DENIED,
            What::Expanded(_) => EXPANDED,
            What::Keys => UNSIGNED,
        };
        Self { absent, wildcard: wildcard(absent, nsecs), room, only: None, has_some: false }
    }

    /// Gives one of its places to `nsec3`, if there is one.
    pub(super) fn takes(&mut self, nsec3: &Nsec3<'_>) -> bool {
        let takes = self.may_take(nsec3) && self.room > 0;
        self.room -= usize::from(takes);
        takes
    }

    /// Whether `nsec3` can be part of the proof.
    pub(super) fn may_take(&self, nsec3: &Nsec3<'_>) -> bool {
        let is_of_zone = self.absent.zone.as_wire() == nsec3.zone.as_wire();
        is_of_zone && self.only.as_ref().is_none_or(|only| only.contains(&nsec3.owner))
    }

    /// Whether `nsec3`, which was not taken, may have been part of the proof: there was no room, and hashes did not tell.
    pub(super) fn may_lack(&self, nsec3: &Nsec3<'_>) -> bool {
        self.only.is_none() && self.may_take(nsec3)
    }
}

/// Settles which NSEC3 records are shown for `wanted`, where more of a zone came than have room. Where hashes do not tell, the
/// first that came are.
pub(super) fn choose(wanted: &mut [Wanted<'_>], nsec3s: &[Nsec3<'_>]) {
    let zones: Vec<Spelled> = wanted.iter().map(|wanted| wanted.absent.zone).collect();
    let mut left = MAX_HASHES;
    for (i, zone) in zones.iter().enumerate() {
        let zone = zone.as_wire();
        if zones.iter().take(i).any(|before| before.as_wire() == zone) {
            continue;
        }
        let mut of_zone: Vec<&mut Wanted<'_>> =
            wanted.iter_mut().filter(|wanted| wanted.absent.zone.as_wire() == zone).collect();
        let room: usize = of_zone.iter().map(|wanted| wanted.room).sum();
        let came = nsec3s.iter().filter(|nsec3| nsec3.zone.as_wire() == zone).count();
        if came <= room {
            continue;
        }
        let Some(mut hashed) = Hashed::of(nsec3s, zone, &mut left) else { continue };
        for wanted in &mut of_zone {
            wanted.only = hashed.proving(wanted.absent);
        }
    }
}
