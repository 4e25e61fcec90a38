//! Which NSEC3 records are a proof, where more of them came than a proof takes: only their hashes say.
//!
//! That happens where one message tells of several things, and whoever sent it has put in more than the answer takes. Without the
//! records that belong a client takes all for forged.

use hickory_proto::dnssec::DigestType;
use hickory_proto::dnssec::crypto::Digest;
use staunch_scoring::NameRef;

use super::{Absent, HASH, Nsec3, What, wildcard_below};

/// Most hashes computed for one answer: a denial three labels deep takes five, each wildcard on the way to it one.
pub(super) const MAX_HASHES: usize = 16;
/// Iterations above which none is computed (RFC 9276 section 3.2; the limit of unbound): who validates takes such a zone for
/// an unsigned one.
const MAX_ITERATIONS: u16 = 150;

/// The NSEC3 hash of `name` (RFC 5155 section 5).
pub(crate) fn hash(salt: &[u8], iterations: u16, name: NameRef<'_>) -> Option<[u8; HASH]> {
    let digest = Digest::iterated(salt, name.as_wire(), DigestType::SHA1, iterations).ok()?;
    digest.as_ref().try_into().ok()
}

/// NSEC3 records of one zone, and how many hashes may yet be computed.
pub(super) struct Hashed<'a, 'm> {
    all: Vec<&'a Nsec3<'m>>,
    salt: &'m [u8],
    iterations: u16,
    left: &'a mut usize,
}

impl<'a, 'm> Hashed<'a, 'm> {
    /// Those of `all` that are of `zone`; `left` hashes may yet be computed for the answer. `None` where there are none, or hashing
    /// them takes too much.
    pub(super) fn of(all: &'a [Nsec3<'m>], zone: &[u8], left: &'a mut usize) -> Option<Self> {
        let own = || all.iter().filter(|nsec3| nsec3.zone.as_wire() == zone);
        let (salt, iterations) = own().next().map(|first| (first.salt, first.iterations))?;
        // RFC 5155 section 8.2: all of one answer have the same parameters.
        let alike = own().filter(|nsec3| nsec3.salt == salt && nsec3.iterations == iterations).collect();
        (iterations <= MAX_ITERATIONS).then_some(Self { all: alike, salt, iterations, left })
    }

    /// Owners of the records that prove that `absent` is not there, as far as there are such; `None` where that takes too
    /// many hashes.
    pub(super) fn proving(&mut self, absent: &Absent) -> Option<Vec<[u8; HASH]>> {
        let (name, zone) = (absent.name.as_name()?, absent.zone.as_name()?);
        if let What::Expanded(labels) = absent.what {
            let next = name.strip_left(name.label_count().saturating_sub(labels + 1));
            return self.find(next, false, true).map(|covering| covering.into_iter().collect());
        }
        if let Some(own) = self.find(name, true, false)? {
            return Some(vec![own]);
        }
        let mut next = name;
        for encloser in name.ancestors().skip(1).take_while(|ancestor| ancestor.is_at_or_below(zone)) {
            if let Some(own) = self.find(encloser, true, false)? {
                let mut proof = vec![own];
                proof.extend(self.find(next, false, true)?);
                if absent.what == What::Keys {
                    return Some(proof);
                }
                if let Some(wildcard) = wildcard_below(encloser).as_ref().and_then(|wildcard| wildcard.as_name()) {
                    proof.extend(self.find(wildcard, true, true)?);
                }
                return Some(proof);
            }
            next = encloser;
        }
        Some(Vec::new())
    }

    /// Owner of the record that matches `name`, or covers it, if there is one; `None` where no hash is left.
    fn find(&mut self, name: NameRef<'_>, matching: bool, covering: bool) -> Option<Option<[u8; HASH]>> {
        *self.left = self.left.checked_sub(1)?;
        let hash = hash(self.salt, self.iterations, name)?;
        let fits = |nsec3: &&&Nsec3<'_>| matching && nsec3.owner == hash || covering && nsec3.covers(&hash);
        Some(self.all.iter().find(fits).map(|nsec3| nsec3.owner))
    }
}
