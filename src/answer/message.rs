//! A bounded walk over a response: where its records are, and their owners in canonical form.
//!
//! Total on any octets. A compression pointer may only point backwards, so no name can loop.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use staunch_scoring::NameRef;

use super::VetError;
use super::rdata::canonical;
use super::vet::YXDOMAIN;
use crate::model::Qtype;

/// Most records of the answer and authority section that are looked at: as many addresses as 64 KiB hold.
const MAX_READ: usize = 4096;
/// Most compression pointers in one name (RFC 9267 section 2 asks for a limit; 64 is Unbound's order of magnitude).
const MAX_POINTERS: usize = 64;
/// Length of the header (RFC 1035 section 4.1.1).
pub(crate) const HEADER: usize = 12;

/// A name as spelled in the message, expanded.
#[derive(Clone, Copy)]
pub(crate) struct Spelled {
    wire: [u8; 255],
    len: u8,
}

impl Spelled {
    /// Its wire octets, root label included.
    pub(crate) fn as_wire(&self) -> &[u8] {
        self.wire.get(..usize::from(self.len)).unwrap_or_default()
    }

    /// The same in canonical form.
    pub(crate) fn folded(mut self) -> Self {
        // What stands behind the name is zero.
        self.wire.make_ascii_lowercase();
        self
    }

    /// Borrowed as a canonical name. Only for a folded one.
    pub(crate) fn as_name(&self) -> Option<NameRef<'_>> {
        NameRef::from_wire(self.as_wire()).ok()
    }

    /// Copies whole wire octets that are known to be a name.
    pub(crate) fn of(name: NameRef<'_>) -> Self {
        let mut wire = [0; 255];
        for (to, from) in wire.iter_mut().zip(name.as_wire()) {
            *to = *from;
        }
        Self { wire, len: name.wire_len() as u8 }
    }
}

/// Reads the name at `at`, following pointers; returns it and where the next field starts.
pub(crate) fn read_name(octets: &[u8], at: usize) -> Result<(Spelled, usize), VetError> {
    let mut name = Spelled { wire: [0; 255], len: 0 };
    let mut len = 0;
    let mut pos = at;
    let mut segment = at; // a pointer must lead before the start of what it ends
    let mut after = None;
    let mut pointers = 0;
    loop {
        let first = usize::from(*octets.get(pos).ok_or(VetError::Malformed)?);
        match first {
            0 => {
                *name.wire.get_mut(len).ok_or(VetError::Malformed)? = 0;
                name.len = (len + 1) as u8;
                return Ok((name, after.unwrap_or(pos + 1)));
            }
            1..=63 => {
                let from = octets.get(pos..=pos + first).ok_or(VetError::Malformed)?;
                name.wire.get_mut(len..=len + first).ok_or(VetError::Malformed)?.copy_from_slice(from);
                len += first + 1;
                pos += first + 1;
            }
            0xc0.. => {
                let low = usize::from(*octets.get(pos + 1).ok_or(VetError::Malformed)?);
                after.get_or_insert(pos + 2);
                let target = (first & 0x3f) << 8 | low;
                pointers += 1;
                if target >= segment || pointers > MAX_POINTERS {
                    return Err(VetError::Malformed);
                }
                segment = target;
                pos = target;
            }
            _ => return Err(VetError::Malformed),
        }
    }
}

/// Where the name at `at` ends in place, pointers not followed.
pub(crate) fn skip_name(octets: &[u8], mut at: usize) -> Result<usize, VetError> {
    loop {
        match usize::from(*octets.get(at).ok_or(VetError::Malformed)?) {
            0 => return Ok(at + 1),
            len @ 1..=63 => at += len + 1,
            0xc0.. => return if at + 2 <= octets.len() { Ok(at + 2) } else { Err(VetError::Malformed) },
            _ => return Err(VetError::Malformed),
        }
    }
}

fn be16(octets: &[u8], at: usize) -> Result<u16, VetError> {
    let pair = octets.get(at..).and_then(|rest| rest.first_chunk()).ok_or(VetError::Malformed)?;
    Ok(u16::from_be_bytes(*pair))
}

fn be32(octets: &[u8], at: usize) -> Result<u32, VetError> {
    Ok(u32::from(be16(octets, at)?) << 16 | u32::from(be16(octets, at + 2)?))
}

/// One record: owner in the message's name arena, data as a range of the message.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Record {
    owner: (u32, u8),
    pub(crate) rtype: u16,
    pub(crate) class: u16,
    /// Seconds; a value with the highest bit set reads as 0 (RFC 2181 section 8).
    pub(crate) ttl: u32,
    /// First octet of the data.
    pub(crate) from: usize,
    /// Behind the last octet of the data.
    pub(crate) to: usize,
}

/// What records that are one have in common: whether they stand in the answer section, owner, type, class, data.
type Same<'r> = (bool, &'r [u8], u16, u16, Vec<u8>);

/// A response, walked.
pub(crate) struct Message<'m> {
    pub(crate) octets: &'m [u8],
    /// Extended response code (RFC 6891 section 6.1.3).
    pub(crate) rcode: u16,
    pub(crate) truncated: bool,
    pub(crate) recursion_available: bool,
    pub(crate) authentic_data: bool,
    pub(crate) qtype: u16,
    pub(crate) qclass: u16,
    records: Vec<Record>,
    answers: usize,
    /// Canonical owners, the question's name first.
    names: Vec<u8>,
    /// The question's name in the arena.
    question: (u32, u8),
}

impl<'m> Message<'m> {
    /// Walks the whole of `octets`; what follows the last record is ignored. What comes twice in a section is one.
    pub(crate) fn read(octets: &'m [u8]) -> Result<Self, VetError> {
        let mut message = Self::walk(octets)?;
        if message.records.len() > 1 {
            message.merge();
        }
        Ok(message)
    }

    /// The same with every record that came.
    fn walk(octets: &'m [u8]) -> Result<Self, VetError> {
        if octets.len() > usize::from(u16::MAX) {
            return Err(VetError::TooLarge);
        }
        let flags = be16(octets, 2)?;
        let (questions, answers, authorities, additionals) =
            (be16(octets, 4)?, be16(octets, 6)?, be16(octets, 8)?, be16(octets, 10)?);
        if flags & 0x8000 == 0 || flags >> 11 & 0xf != 0 || questions != 1 {
            return Err(VetError::WrongQuestion);
        }
        let (qname, question_end) = read_name(octets, HEADER)?;
        let mut message = Self {
            octets,
            rcode: flags & 0xf,
            truncated: flags & 0x0200 != 0,
            recursion_available: flags & 0x0080 != 0,
            authentic_data: flags & 0x0020 != 0,
            qtype: be16(octets, question_end)?,
            qclass: be16(octets, question_end + 2)?,
            records: Vec::new(),
            answers: usize::from(answers),
            names: Vec::with_capacity(256),
            question: (0, qname.as_wire().len() as u8),
        };
        let kept = usize::from(answers) + usize::from(authorities);
        if kept > MAX_READ {
            return Err(VetError::TooLarge);
        }
        message.names.extend_from_slice(qname.folded().as_wire());
        // A count is only a claim: memory follows what the octets can hold (11 is the shortest record).
        message.records.reserve_exact(kept.min(octets.len() / 11));
        let mut at = question_end + 4;
        let mut last_pointer = (0xc000 | HEADER as u16, (0, message.names.len() as u8));
        for _ in 0..kept {
            at = message.read_record(at, &mut last_pointer)?;
        }
        for _ in 0..additionals {
            at = message.skip_additional(at)?;
        }
        Ok(message)
    }

    /// Makes one record of those of a section that differ in nothing but their TTL, of which the least counts (RFC 2181
    /// sections 5 and 5.2, RFC 4034 section 6.3). BIND repeats in a denial what proves several things at once.
    fn merge(&mut self) {
        let mut seen: HashMap<Same<'_>, usize> = HashMap::new();
        let mut kept: Vec<Record> = Vec::with_capacity(self.records.len());
        let mut answers = 0;
        for (i, record) in self.records.iter().enumerate() {
            let is_answer = i < self.answers;
            // What has not the shape of its type is left to whoever reads it.
            if let Some(data) = canonical(self, record) {
                match seen.entry((is_answer, self.owner(record), record.rtype, record.class, data)) {
                    Entry::Vacant(place) => {
                        place.insert(kept.len());
                    }
                    Entry::Occupied(first) => {
                        if let Some(first) = kept.get_mut(*first.get()) {
                            first.ttl = first.ttl.min(record.ttl);
                        }
                        continue;
                    }
                }
            }
            answers += usize::from(is_answer);
            kept.push(*record);
        }
        drop(seen);
        self.answers = answers;
        self.records = kept;
    }

    /// Reads the record at `at`. Runs of records under one owner spell it as the same pointer: that one is not expanded
    /// again.
    fn read_record(&mut self, at: usize, last: &mut (u16, (u32, u8))) -> Result<usize, VetError> {
        let pointer = be16(self.octets, at)?;
        let (owner, at) = if pointer == last.0 {
            (last.1, at + 2)
        } else {
            let (name, next) = read_name(self.octets, at)?;
            let slot = (self.names.len() as u32, name.as_wire().len() as u8);
            self.names.extend_from_slice(name.folded().as_wire());
            if pointer >= 0xc000 {
                *last = (pointer, slot);
            }
            (slot, next)
        };
        let ttl = be32(self.octets, at + 4)?;
        let from = at + 10;
        let to = from + usize::from(be16(self.octets, at + 8)?);
        if to > self.octets.len() {
            return Err(VetError::Malformed);
        }
        self.records.push(Record {
            owner,
            rtype: be16(self.octets, at)?,
            class: be16(self.octets, at + 2)?,
            ttl: if ttl & 0x8000_0000 == 0 { ttl } else { 0 },
            from,
            to,
        });
        Ok(to)
    }

    fn skip_additional(&mut self, at: usize) -> Result<usize, VetError> {
        let at = skip_name(self.octets, at)?;
        let to = at + 10 + usize::from(be16(self.octets, at + 8)?);
        if to > self.octets.len() {
            return Err(VetError::Malformed);
        }
        if be16(self.octets, at)? == 41 {
            let high = self.octets.get(at + 4).copied().ok_or(VetError::Malformed)?;
            self.rcode |= u16::from(high) << 4;
        }
        Ok(to)
    }

    /// Whether whoever sent it does not ask for others, and names those who are to be asked.
    pub(crate) fn is_referral(&self) -> bool {
        !self.recursion_available && self.authorities().iter().any(|record| record.rtype == Qtype::NS.0)
    }

    /// The answer section.
    pub(crate) fn answers(&self) -> &[Record] {
        self.records.get(..self.answers).unwrap_or_default()
    }

    /// The authority section.
    pub(crate) fn authorities(&self) -> &[Record] {
        self.records.get(self.answers..).unwrap_or_default()
    }

    /// Canonical owner of `record`, wire octets.
    pub(crate) fn owner(&self, record: &Record) -> &[u8] {
        self.name(record.owner)
    }

    /// Canonical name of the question, wire octets.
    pub(crate) fn qname(&self) -> &[u8] {
        self.name(self.question)
    }

    fn name(&self, (from, len): (u32, u8)) -> &[u8] {
        let from = from as usize;
        self.names.get(from..from + usize::from(len)).unwrap_or(&[0])
    }

    /// Reads the message as if `name` had been asked: it becomes the question, and the owner of every record that the
    /// question's name owned. Record data stays as it is.
    pub(crate) fn ask_as(&mut self, name: NameRef<'_>) {
        let owned = |message: &Self, record: &Record| message.owner(record) == message.qname();
        let theirs: Vec<bool> = self.records.iter().map(|record| owned(self, record)).collect();
        // An arena of whole messages stays far below what the offset can hold.
        self.question = (self.names.len() as u32, name.wire_len() as u8);
        self.names.extend_from_slice(name.as_wire());
        for (record, theirs) in self.records.iter_mut().zip(theirs) {
            if theirs {
                record.owner = self.question;
            }
        }
    }

    /// Data of `record`.
    pub(crate) fn rdata(&self, record: &Record) -> &'m [u8] {
        self.octets.get(record.from..record.to).unwrap_or_default()
    }
}

/// What can be told of a response without its question.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// Not one whole response whose every record can be located.
    Mangled,
    /// The OPT record adds to the header's response code (RFC 6891 section 6.1.3): this is no answer.
    Extended,
    /// It names other servers instead of asking them, which is none from a resolver.
    Referral,
    /// YXDOMAIN with the DNAME that makes too long a name, which is an answer (RFC 6672 section 2.2).
    Redirected,
    /// Any other.
    Whole,
}

/// Tells what `octets` are.
pub fn form_of(octets: &[u8]) -> Form {
    let Ok(message) = Message::walk(octets) else { return Form::Mangled };
    let has = |rtype: Qtype| message.authorities().iter().any(|record| record.rtype == rtype.0);
    if message.rcode > 0xf {
        Form::Extended
    } else if message.rcode == 0 && message.answers == 0 && message.is_referral() && !has(Qtype::SOA) {
        Form::Referral
    } else if message.rcode == YXDOMAIN && message.answers().iter().any(|record| record.rtype == Qtype::DNAME.0) {
        Form::Redirected
    } else {
        Form::Whole
    }
}
