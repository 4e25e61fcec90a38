//! The records of a transferred zone, kept so that changes can be applied and the zone written down: one flat array, about 45
//! octets for a rule of a usual feed beside the rules themselves.

use std::io::Write;

use hashbrown::HashMap;
use staunch_scoring::{NameRef, QName};

use super::message::{Read, TYPE_SOA};
use crate::lists::HashKey;
use crate::model::Qtype;
use crate::rpz::{self, Builder, Errors, RecordOf, Rules};

/// Line of the first record in a written zone: a comment and the SOA stand before it.
const FIRST_LINE: u32 = 3;

/// Most records beside the SOA, so that the written zone can be read again.
const MAX_RECORDS: usize = rpz::MAX_RECORDS as usize - 1;

/// All records of a zone but its SOA, in the order in which they came.
#[derive(Clone, Default)]
pub(super) struct Records {
    /// For each: length of the owner, owner, type, data; then the TTL.
    octets: Vec<u8>,
    /// Where each ends.
    ends: Vec<u32>,
}

/// Why changes cannot be applied.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum Misfit {
    /// They begin at another serial.
    #[error("the changes begin at serial {0}")]
    Serial(u32),
    /// What they take away is not there.
    #[error("the changes take away what is not there")]
    Missing,
    /// The zone is larger than may be.
    #[error("the zone is larger than `max_transfer_octets`, or has more than {MAX_RECORDS} records")]
    TooLarge,
}

impl Records {
    pub(super) fn octets(&self) -> usize {
        self.octets.len() + 4 * self.ends.len()
    }

    pub(super) fn push(
        &mut self,
        owner: NameRef<'_>,
        rtype: u16,
        ttl: u32,
        rdata: &[u8],
        most: u64,
    ) -> Result<(), Misfit> {
        self.octets.push(owner.wire_len() as u8);
        self.octets.extend_from_slice(owner.as_wire());
        self.octets.extend_from_slice(&rtype.to_be_bytes());
        self.octets.extend_from_slice(rdata);
        self.octets.extend_from_slice(&ttl.to_be_bytes());
        self.end(most, MAX_RECORDS)
    }

    /// Ends a record, where there is room for it.
    fn end(&mut self, most: u64, most_records: usize) -> Result<(), Misfit> {
        let end = u32::try_from(self.octets.len()).map_err(|_| Misfit::TooLarge)?;
        self.ends.push(end);
        let is_large = self.octets.len() as u64 > most || self.ends.len() > most_records;
        if is_large { Err(Misfit::TooLarge) } else { Ok(()) }
    }

    pub(super) fn push_read(&mut self, record: &Read, most: u64) -> Result<(), Misfit> {
        self.push(record.owner.as_ref(), record.rtype, record.ttl, &record.rdata, most)
    }

    /// Each record's octets but its TTL: what tells it from others (RFC 2181 section 5).
    fn keys(&self) -> impl Iterator<Item = &[u8]> {
        self.all().map(|octets| octets.get(..octets.len().saturating_sub(4)).unwrap_or_default())
    }

    fn all(&self) -> impl Iterator<Item = &[u8]> {
        let starts = std::iter::once(0).chain(self.ends.iter().copied());
        starts.zip(&self.ends).map(|(from, to)| self.octets.get(from as usize..*to as usize).unwrap_or_default())
    }

    /// The records, read again.
    fn iter(&self) -> impl Iterator<Item = (QName, u16, u32, &[u8])> {
        self.all().filter_map(|octets| {
            let (len, rest) = octets.split_first()?;
            let (owner, rest) = rest.split_at_checked(usize::from(*len))?;
            let (rtype, rest) = rest.split_first_chunk::<2>()?;
            let (rdata, ttl) = rest.split_last_chunk::<4>()?;
            let (owner, _) = QName::read(owner).ok()?;
            Some((owner, u16::from_be_bytes(*rtype), u32::from_be_bytes(*ttl), rdata))
        })
    }

    /// What steps make of them, each of what goes and what comes, in one pass whatever their number. Everything that goes must
    /// be there by then; what comes stands behind all else, and once.
    pub(super) fn changed<'r>(
        &'r self,
        steps: impl Iterator<Item = (&'r Self, &'r Self)> + Clone,
        most: u64,
    ) -> Result<Self, Misfit> {
        self.changed_within(steps, most, MAX_RECORDS)
    }

    fn changed_within<'r>(
        &'r self,
        steps: impl Iterator<Item = (&'r Self, &'r Self)> + Clone,
        most: u64,
        most_records: usize,
    ) -> Result<Self, Misfit> {
        let mut touched: HashMap<&[u8], Fate, foldhash::quality::RandomState> = HashMap::default();
        for key in steps.clone().flat_map(|(gone, new)| gone.keys().chain(new.keys())) {
            touched.insert(key, Fate::Gone(None));
        }
        for key in self.keys() {
            if let Some(fate) = touched.get_mut(key) {
                *fate = Fate::There;
            }
        }
        let mut added: Vec<Option<&[u8]>> = Vec::new();
        for (step, (gone, new)) in steps.enumerate() {
            for key in gone.keys() {
                let fate = touched.get_mut(key).ok_or(Misfit::Missing)?;
                match *fate {
                    Fate::There => {}
                    Fate::Added(at) => added.get_mut(at).map_or((), |octets| *octets = None),
                    // Said twice.
                    Fate::Gone(Some(at)) if at == step => continue,
                    Fate::Gone(_) => return Err(Misfit::Missing),
                }
                *fate = Fate::Gone(Some(step));
            }
            for (octets, key) in new.all().zip(new.keys()) {
                if let Some(Fate::Added(at)) = touched.insert(key, Fate::Added(added.len()))
                    && let Some(before) = added.get_mut(at)
                {
                    *before = None;
                }
                added.push(Some(octets));
            }
        }
        let stays = |key: &[u8]| matches!(touched.get(key), None | Some(Fate::There));
        let kept = self.all().zip(self.keys()).filter(|(_, key)| stays(key)).map(|(octets, _)| octets);
        let mut next =
            Self { octets: Vec::with_capacity(self.octets.len()), ends: Vec::with_capacity(self.ends.len()) };
        for octets in kept.chain(added.iter().copied().flatten()) {
            next.octets.extend_from_slice(octets);
            next.end(most, most_records)?;
        }
        Ok(next)
    }
}

/// What has become of a record that a step tells of.
#[derive(Clone, Copy)]
enum Fate {
    /// It is where it was.
    There,
    /// It is not there: since which step, or from the start.
    Gone(Option<usize>),
    /// It was added, as which of those.
    Added(usize),
}

/// A zone as transferred.
#[derive(Clone)]
pub(super) struct Copy {
    /// Data of the SOA.
    pub(super) soa: Vec<u8>,
    pub(super) soa_ttl: u32,
    pub(super) records: Records,
}

impl Copy {
    /// Makes rules of it; `file` is where it is, or will be, written.
    pub(super) fn rules(&self, origin: NameRef<'_>, file: &str, key: &HashKey, lenient: bool) -> Result<Rules, Errors> {
        let mut builder = Builder::new(origin, *key, lenient);
        let mut errors = Errors::default();
        let soa =
            RecordOf { owner: origin, rtype: TYPE_SOA, ttl: self.soa_ttl, rdata: &self.soa, line: FIRST_LINE - 1 };
        let all = self.records.iter().zip(FIRST_LINE..);
        builder.add(&soa).map_err(Errors::from)?;
        for ((owner, rtype, ttl, rdata), line) in all {
            if let Err(problem) = builder.add(&RecordOf { owner: owner.as_ref(), rtype, ttl, rdata, line }) {
                errors.push(problem);
            }
        }
        if !errors.is_empty() {
            return Err(errors);
        }
        builder.finish(file).map_err(Errors::from)
    }

    /// Writes it as a zone file, one record a line.
    pub(super) fn write(&self, origin: NameRef<'_>, to: &mut impl Write) -> std::io::Result<()> {
        writeln!(to, "; the last good copy of {origin}, written by staunch: changes to this file are lost")?;
        line(to, origin, self.soa_ttl, TYPE_SOA, &self.soa)?;
        for (owner, rtype, ttl, rdata) in self.records.iter() {
            line(to, owner.as_ref(), ttl, rtype, rdata)?;
        }
        Ok(())
    }

    /// Reads what [`Copy::write`] has written.
    pub(super) fn read(octets: &[u8], origin: NameRef<'_>, most: u64) -> Result<Self, String> {
        let mut copy = Self { soa: Vec::new(), soa_ttl: 0, records: Records::default() };
        let mut outcome = Ok(());
        rpz::records(octets, origin, |record| {
            if record.rtype == TYPE_SOA && record.owner == origin {
                (copy.soa, copy.soa_ttl) = (record.rdata.to_vec(), record.ttl);
            } else if let Err(error) = copy.records.push(record.owner, record.rtype, record.ttl, record.rdata, most) {
                outcome = Err(error.to_string());
            }
        })
        .map_err(|errors| errors.to_string())?;
        outcome?;
        if copy.soa.is_empty() { Err("there is no SOA".into()) } else { Ok(copy) }
    }
}

fn line(to: &mut impl Write, owner: NameRef<'_>, ttl: u32, rtype: u16, rdata: &[u8]) -> std::io::Result<()> {
    let dot = if owner.is_root() { "" } else { "." };
    write!(to, "{owner}{dot} {ttl} IN ")?;
    if rtype == Qtype::CNAME.0
        && let Ok(target) = NameRef::from_wire(rdata)
    {
        let dot = if target.is_root() { "" } else { "." };
        return writeln!(to, "CNAME {target}{dot}");
    }
    write!(to, "TYPE{rtype} \\# {} ", rdata.len())?;
    for octet in rdata {
        write!(to, "{octet:02x}")?;
    }
    writeln!(to)
}

#[cfg(test)]
mod tests {
    use staunch_scoring::NameBuf;

    use super::*;

    fn records(names: &[&str]) -> Records {
        let mut records = Records::default();
        for name in names {
            let owner = NameBuf::from_text(&format!("{name}.rpz.test")).expect("a name");
            records.push(owner.as_ref(), Qtype::CNAME.0, 60, &[0], u64::MAX).expect("room");
        }
        records
    }

    #[test]
    fn changes_make_no_more_records_than_a_whole_zone_may_have() {
        let have = records(&["a", "b"]);
        let made = |gone: &[&str], new: &[&str], most| {
            let (gone, new) = (records(gone), records(new));
            have.changed_within([(&gone, &new)].into_iter(), u64::MAX, most).map(|all| all.ends.len())
        };
        assert_eq!(made(&[], &["c"], 3), Ok(3));
        assert_eq!(made(&[], &["c"], 2), Err(Misfit::TooLarge));
        assert_eq!(made(&["a"], &["c"], 2), Ok(2), "what goes makes room");
    }

    #[test]
    fn what_is_left_out_of_a_zone_is_left_out_of_its_copy_on_disk_too() {
        let zone = NameBuf::from_text("rpz.test").expect("a name");
        let mut soa = b"\x02ns\0\x01h\0".to_vec();
        for number in [7u32, 3600, 600, 86_400, 60] {
            soa.extend(number.to_be_bytes());
        }
        let mut copy =
            Copy { soa, soa_ttl: 60, records: records(&["bad", "24.5.2.0.192.rpz-ip", "032.1.2.0.192.rpz-ip"]) };
        let outside = NameBuf::from_text("outside.example").expect("a name");
        copy.records.push(outside.as_ref(), Qtype::CNAME.0, 60, &[0], u64::MAX).expect("room");
        let made = |copy: &Copy, lenient| {
            let rules = copy.rules(zone.as_ref(), "file", rpz::process_key(), lenient);
            rules.map(|rules| (rules.len(), rules.left_out())).map_err(|errors| errors.first.len())
        };
        let mut written = Vec::new();
        copy.write(zone.as_ref(), &mut written).expect("written");
        let again = Copy::read(&written, zone.as_ref(), u64::MAX).expect("a copy");
        for copy in [copy, again] {
            assert_eq!((made(&copy, true), made(&copy, false)), (Ok((1, 3)), Err(3)));
        }
    }
}
