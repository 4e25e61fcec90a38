//! Local data: the records that a rule answers with, and where its alias leads.

use staunch_scoring::{NameRef, QName};

use super::{Action, Hit, Override, rdata};
use crate::model::Qtype;

/// A record, its data in wire form without compressed names.
#[derive(Debug, Clone, Copy)]
pub struct RecordOf<'r> {
    /// Owner, absolute.
    pub owner: NameRef<'r>,
    /// Type.
    pub rtype: u16,
    /// TTL, seconds.
    pub ttl: u32,
    /// Data.
    pub rdata: &'r [u8],
    /// Line, from 1; 0 where it came by a transfer.
    pub line: u32,
}

/// A record of a rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Kept<'r> {
    pub(super) rtype: u16,
    pub(super) ttl: u32,
    pub(super) rdata: &'r [u8],
}

/// Where a name is led.
// It is taken apart where it is made; a box for the name would be an allocation for nothing.
#[allow(clippy::large_enum_variant)]
#[derive(Debug, Clone, Copy)]
pub enum Target {
    /// Nowhere: the rule has records of its own.
    None,
    /// To this name, the alias being good for so many seconds.
    Name(QName, u32),
    /// To a name that would be longer than a name may be.
    TooLong,
}

/// Walks over type, TTL, length and data, again and again.
pub(super) fn records_in(octets: &[u8]) -> impl Iterator<Item = Kept<'_>> {
    let mut rest = octets;
    std::iter::from_fn(move || {
        let (head, behind) = rest.split_first_chunk::<8>()?;
        let rtype = u16::from_be_bytes([head[0], head[1]]);
        let ttl = u32::from_be_bytes([head[2], head[3], head[4], head[5]]);
        let len = usize::from(u16::from_be_bytes([head[6], head[7]]));
        let rdata = behind.get(..len)?;
        rest = behind.get(len..)?;
        Some(Kept { rtype, ttl, rdata })
    })
}

impl Hit<'_> {
    fn records(&self) -> impl Iterator<Item = Kept<'_>> {
        let rules = &self.zone.rules;
        let rule = rules.rules.get(self.rule as usize).filter(|rule| rule.action() == Action::Local);
        let data =
            rule.and_then(|rule| rules.data.get((rule.packed & super::DATA_MASK) as usize..)).unwrap_or_default();
        let (count, octets) = data.split_first_chunk::<2>().unwrap_or((&[0, 0], &[]));
        records_in(octets).take(u16::from_be_bytes(*count).into())
    }

    /// Where the rule leads `name`, if it is an alias: the target as it is, or with the name in the place of an asterisk.
    pub fn target(&self, name: NameRef<'_>) -> Target {
        let (max, of_zone) = (self.zone.settings.max_ttl, &self.zone.settings.policy);
        if self.action != Action::Local {
            return Target::None;
        }
        let (target, ttl) = match of_zone {
            Override::Cname(target) => (QName::copy_of(target.as_ref()), max),
            _ => {
                let Some(alias) = self.records().next().filter(|r| r.rtype == Qtype::CNAME.0) else {
                    return Target::None;
                };
                // It was checked when the zone was built.
                let Ok((target, _)) = QName::read(alias.rdata) else { return Target::None };
                (target, alias.ttl.min(max))
            }
        };
        let Some(below) = target.as_ref().labels().next().filter(|label| *label == b"*") else {
            return Target::Name(target, ttl);
        };
        let mut wire = [0; 255];
        let (front, garden) = (name.as_wire(), target.as_ref().as_wire().get(1 + below.len()..).unwrap_or(&[0]));
        let front = front.get(..front.len() - 1).unwrap_or_default();
        let Some(room) = wire.get_mut(..front.len() + garden.len()) else { return Target::TooLong };
        let (left, right) = room.split_at_mut(front.len());
        left.copy_from_slice(front);
        right.copy_from_slice(garden);
        QName::read(room).map_or(Target::TooLong, |(name, _)| Target::Name(name, ttl))
    }

    /// A response that gives the rule's records of this type to `name`, as an upstream would have written it, and how many
    /// records it has. Where the rule has none of them it is empty. An alias leads where [`Self::target`] says.
    pub fn response(&self, name: NameRef<'_>, qtype: Qtype) -> (Vec<u8>, u16) {
        let mut octets = vec![0, 0, 0x81, 0x80, 0, 1, 0, 0, 0, 0, 0, 0];
        octets.extend_from_slice(name.as_wire());
        octets.extend_from_slice(&qtype.0.to_be_bytes());
        octets.extend_from_slice(&1u16.to_be_bytes());
        let mut count = 0u16;
        let target = if qtype == Qtype::CNAME { self.target(name) } else { Target::None };
        let alias = match &target {
            Target::Name(target, ttl) => Some(Kept { rtype: qtype.0, ttl: *ttl, rdata: target.as_ref().as_wire() }),
            Target::None | Target::TooLong => None,
        };
        let own = self.records().filter(|r| r.rtype == qtype.0 && qtype != Qtype::CNAME);
        for record in own.chain(alias) {
            // Owners point to the question.
            octets.extend_from_slice(&[0xc0, 12]);
            octets.extend_from_slice(&record.rtype.to_be_bytes());
            octets.extend_from_slice(&1u16.to_be_bytes());
            octets.extend_from_slice(&record.ttl.min(self.zone.settings.max_ttl).to_be_bytes());
            octets.extend_from_slice(&(record.rdata.len() as u16).to_be_bytes());
            octets.extend_from_slice(record.rdata);
            count += 1;
        }
        if let Some(field) = octets.get_mut(6..8) {
            field.copy_from_slice(&count.to_be_bytes());
        }
        (octets, count)
    }
}

impl super::Rules {
    /// Whether data of this form can be kept; for tests and fuzzing of what comes over the wire.
    pub fn takes(rtype: u16, octets: &[u8]) -> bool {
        rdata::is_whole(rtype, octets)
    }
}
