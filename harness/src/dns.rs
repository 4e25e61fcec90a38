//! A reader of DNS messages that has nothing in common with the ones it is a check of: slow, plain, and without limits of
//! its own but those that keep it from running for ever.

use std::net::IpAddr;

/// One record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// 1 answer, 2 authority, 3 additional.
    pub section: u8,
    /// Wire octets, in lower case; empty where an additional record's cannot be followed.
    pub owner: Vec<u8>,
    /// Type.
    pub rtype: u16,
    /// Class.
    pub class: u16,
    /// Seconds; a value with the highest bit set is 0 (RFC 2181 section 8).
    pub ttl: u32,
    /// Data with names expanded, letters as they are; `None` where it has not the shape of its type.
    pub data: Option<Vec<u8>>,
}

/// A message.
#[derive(Debug, Clone)]
pub struct Message {
    /// The second pair of octets.
    pub flags: u16,
    /// Wire octets of the first question, in lower case.
    pub qname: Vec<u8>,
    /// Its type.
    pub qtype: u16,
    /// Its class.
    pub qclass: u16,
    /// All records, in order.
    pub records: Vec<Record>,
    /// Octets behind the last record.
    pub rest: usize,
}

/// Reads a message with one question; `None` where something does not fit.
pub fn read(octets: &[u8]) -> Option<Message> {
    let word = |at: usize| Some(u16::from_be_bytes(octets.get(at..at + 2)?.try_into().ok()?));
    if word(4)? != 1 {
        return None;
    }
    let (qname, mut at) = name(octets, 12)?;
    let (qtype, qclass) = (word(at)?, word(at + 2)?);
    at += 4;
    let mut records = Vec::new();
    for section in 1..=3 {
        for _ in 0..word(4 + 2 * usize::from(section))? {
            // Whose additional records are is nobody's business, so a pointer there may lead anywhere.
            let (owner, fixed) = match name(octets, at) {
                Some(read) => read,
                None if section == 3 => (Vec::new(), skip(octets, at)?),
                None => return None,
            };
            let (rtype, class) = (word(fixed)?, word(fixed + 2)?);
            let ttl = u32::from(word(fixed + 4)?) << 16 | u32::from(word(fixed + 6)?);
            let (from, to) = (fixed + 10, fixed + 10 + usize::from(word(fixed + 8)?));
            octets.get(from..to)?;
            let ttl = if ttl >> 31 == 0 { ttl } else { 0 };
            let data = data(octets, rtype, from, to);
            records.push(Record { section, owner: owner.to_ascii_lowercase(), rtype, class, ttl, data });
            at = to;
        }
    }
    Some(Message {
        flags: word(2)?,
        qname: qname.to_ascii_lowercase(),
        qtype,
        qclass,
        records,
        rest: octets.len() - at,
    })
}

impl Message {
    /// Records of a section.
    pub fn of(&self, section: u8) -> impl Iterator<Item = &Record> {
        self.records.iter().filter(move |record| record.section == section)
    }
}

/// The name at `at`, as spelled, and where the next field begins.
pub fn name(octets: &[u8], at: usize) -> Option<(Vec<u8>, usize)> {
    let (mut wire, mut pos, mut after) = (Vec::new(), at, None);
    for _ in 0..1000 {
        match *octets.get(pos)? {
            0 => {
                wire.push(0);
                return (wire.len() <= 255).then(|| (wire, after.unwrap_or(pos + 1)));
            }
            length @ 1..=63 => {
                wire.extend(octets.get(pos..pos + 1 + usize::from(length))?);
                pos += 1 + usize::from(length);
            }
            high @ 0xc0.. => {
                let low = *octets.get(pos + 1)?;
                after.get_or_insert(pos + 2);
                pos = usize::from(high & 0x3f) << 8 | usize::from(low);
            }
            _ => return None,
        }
    }
    None
}

/// Where the next field begins, no pointer followed.
fn skip(octets: &[u8], mut at: usize) -> Option<usize> {
    loop {
        match *octets.get(at)? {
            0 => return Some(at + 1),
            length @ 1..=63 => at += 1 + usize::from(length),
            0xc0.. => return octets.get(at + 1).map(|_| at + 2),
            _ => return None,
        }
    }
}

/// Data with the names of RFC 1035's types, and of those that senders compress, expanded.
fn data(octets: &[u8], rtype: u16, from: usize, to: usize) -> Option<Vec<u8>> {
    // Octets before the names, how many names, and whether something may follow.
    let (before, names, open) = match rtype {
        2..=5 | 7..=9 | 12 | 39 => (0, 1, false),
        6 => (0, 2, true),
        14 | 17 => (0, 2, false),
        15 | 18 | 21 | 36 => (2, 1, false),
        24 | 46 => (18, 1, true),
        26 => (2, 2, false),
        30 | 47 => (0, 1, true),
        33 => (6, 1, false),
        _ => return Some(octets.get(from..to)?.to_vec()),
    };
    let mut at = from + before;
    if at > to {
        return None;
    }
    let mut data = octets.get(from..at)?.to_vec();
    for _ in 0..names {
        let (wire, next) = name(octets, at)?;
        data.extend(wire);
        at = next;
    }
    if at > to || at < to && !open {
        return None;
    }
    data.extend(octets.get(at..to)?);
    Some(data)
}

/// Addresses in data: of A and AAAA, and hints of SVCB and HTTPS (RFC 9460 section 7.3).
pub fn addresses(record: &Record) -> Vec<IpAddr> {
    let data = record.data.as_deref().unwrap_or_default();
    match rtype_of(record) {
        1 => <[u8; 4]>::try_from(data).map(IpAddr::from).into_iter().collect(),
        28 => <[u8; 16]>::try_from(data).map(IpAddr::from).into_iter().collect(),
        64 | 65 => {
            let params = params(data).unwrap_or_default();
            let hints = |key: u16| params.iter().filter(move |(found, _)| *found == key).map(|(_, value)| *value);
            let v4 = hints(4).flat_map(|value| value.chunks_exact(4)).filter_map(|c| <[u8; 4]>::try_from(c).ok());
            let v6 = hints(6).flat_map(|value| value.chunks_exact(16)).filter_map(|c| <[u8; 16]>::try_from(c).ok());
            v4.map(IpAddr::from).chain(v6.map(IpAddr::from)).collect()
        }
        _ => Vec::new(),
    }
}

fn rtype_of(record: &Record) -> u16 {
    if record.class == 1 { record.rtype } else { 0 }
}

/// Priority and target of an SVCB or HTTPS record, wire octets.
pub fn service(data: &[u8]) -> Option<(&[u8], Vec<u8>)> {
    Some((data.get(..2)?, name(data.get(2..)?, 0)?.0))
}

/// Parameters of an SVCB or HTTPS record.
pub fn params(data: &[u8]) -> Option<Vec<(u16, &[u8])>> {
    let (_, at) = name(data.get(2..)?, 0)?;
    let (mut rest, mut found) = (data.get(2 + at..)?, Vec::new());
    while let Some((head, more)) = rest.split_first_chunk::<4>() {
        let length = usize::from(u16::from_be_bytes([head[2], head[3]]));
        found.push((u16::from_be_bytes([head[0], head[1]]), more.get(..length)?));
        rest = more.get(length..)?;
    }
    rest.is_empty().then_some(found)
}

/// Whether `name` is `zone` or below it, both wire octets in lower case.
pub fn is_at_or_below(name: &[u8], zone: &[u8]) -> bool {
    let mut rest = name;
    loop {
        if rest == zone {
            return true;
        }
        match rest.split_first() {
            Some((length @ 1.., below)) => rest = below.get(usize::from(*length)..).unwrap_or_default(),
            _ => return false,
        }
    }
}
