//! Messages of transfers: requests written, records of answers read. Total on any octets.

use staunch_scoring::{NameRef, QName};

use crate::answer::read_name;

/// Octets in a message header.
pub(super) const HEADER: usize = 12;
pub(super) const TYPE_SOA: u16 = 6;
pub(super) const TYPE_TSIG: u16 = 250;
pub(super) const TYPE_IXFR: u16 = 251;
pub(super) const TYPE_AXFR: u16 = 252;
const CLASS_IN: u16 = 1;
pub(super) const CLASS_ANY: u16 = 255;

/// A record as read: its names expanded and folded.
#[derive(Debug, Clone)]
pub(super) struct Read {
    pub(super) owner: QName,
    pub(super) rtype: u16,
    pub(super) ttl: u32,
    pub(super) rdata: Vec<u8>,
}

/// Where a message's TSIG record is.
pub(super) struct Tsig<'m> {
    pub(super) owner: QName,
    pub(super) at: usize,
    pub(super) data: &'m [u8],
}

/// Fields of a header that matter.
#[derive(Debug, Clone, Copy)]
pub(super) struct Header {
    pub(super) id: u16,
    pub(super) is_response: bool,
    pub(super) opcode: u8,
    pub(super) truncated: bool,
    pub(super) rcode: u8,
    counts: [u16; 4],
}

impl Header {
    pub(super) fn read(message: &[u8]) -> Option<Self> {
        let header = message.first_chunk::<HEADER>()?;
        let [i0, i1, high, low, q0, q1, a0, a1, n0, n1, r0, r1] = *header;
        Some(Self {
            id: u16::from_be_bytes([i0, i1]),
            is_response: high & 0x80 != 0,
            opcode: high >> 3 & 0xf,
            truncated: high & 2 != 0,
            rcode: low & 0xf,
            counts: [[q0, q1], [a0, a1], [n0, n1], [r0, r1]].map(u16::from_be_bytes),
        })
    }
}

fn word(octets: &[u8], at: usize) -> Option<u16> {
    octets.get(at..)?.first_chunk().map(|pair| u16::from_be_bytes(*pair))
}

fn name(octets: &[u8], at: usize) -> Option<(QName, usize)> {
    let (spelled, after) = read_name(octets, at).ok()?;
    QName::read(spelled.as_wire()).ok().map(|(name, _)| (name, after))
}

/// The one question of a message: its name, type, and where it ends.
pub(super) fn question(message: &[u8]) -> Option<(QName, u16, usize)> {
    let header = Header::read(message)?;
    if header.counts[0] != 1 {
        return None;
    }
    let (name, at) = name(message, HEADER)?;
    (word(message, at + 2)? == CLASS_IN).then_some((name, word(message, at)?, at + 4))
}

/// One record in its place.
struct Place {
    at: usize,
    owner: QName,
    rtype: u16,
    class: u16,
    ttl: u32,
    from: usize,
    end: usize,
}

fn place(message: &[u8], at: usize) -> Option<Place> {
    let (owner, fields) = name(message, at)?;
    let ttl = u32::from(word(message, fields + 4)?) << 16 | u32::from(word(message, fields + 6)?);
    let (from, length) = (fields + 10, usize::from(word(message, fields + 8)?));
    let end = from + length;
    (end <= message.len()).then_some(Place {
        at,
        owner,
        rtype: word(message, fields)?,
        class: word(message, fields + 2)?,
        ttl,
        from,
        end,
    })
}

fn after_questions(message: &[u8], header: &Header) -> Option<usize> {
    let mut at = HEADER;
    for _ in 0..header.counts[0] {
        at = name(message, at)?.1 + 4;
    }
    (at <= message.len()).then_some(at)
}

/// The TSIG record, which is the last one of a message that has one. The outer `None`: no whole message, or a TSIG elsewhere.
pub(super) fn tsig_of(message: &[u8]) -> Option<Option<Tsig<'_>>> {
    let header = Header::read(message)?;
    let mut at = after_questions(message, &header)?;
    let total: usize = header.counts[1..].iter().map(|n| usize::from(*n)).sum();
    let mut found = None;
    for i in 0..total {
        let record = place(message, at)?;
        at = record.end;
        if record.rtype == TYPE_TSIG {
            // Class and TTL are not what is read, but what is signed (RFC 8945 section 4.2).
            if i + 1 != total || header.counts[3] == 0 || record.class != CLASS_ANY || record.ttl != 0 {
                return None;
            }
            let data = message.get(record.from..record.end)?;
            found = Some(Tsig { owner: record.owner, at: record.at, data });
        }
    }
    (at == message.len()).then_some(found)
}

/// Hands each record of the answer section to `take`. `None`: the message is not whole, or has records of another class.
pub(super) fn answers<E>(message: &[u8], mut take: impl FnMut(Read) -> Result<(), E>) -> Option<Result<(), E>> {
    let header = Header::read(message)?;
    let mut at = after_questions(message, &header)?;
    for _ in 0..header.counts[1] {
        let record = place(message, at)?;
        at = record.end;
        if record.class != CLASS_IN {
            return None;
        }
        let rdata = expanded(message, &record)?;
        if let Err(error) = take(Read { owner: record.owner, rtype: record.rtype, ttl: record.ttl, rdata }) {
            return Some(Err(error));
        }
    }
    Some(Ok(()))
}

/// The data with its names expanded, where they may be compressed (RFC 3597 section 4).
fn expanded(message: &[u8], record: &Place) -> Option<Vec<u8>> {
    let (fixed, names) = match record.rtype {
        2..=5 | 7..=9 | 12 | 39 => (0, 1),
        6 | 14 | 17 => (0, 2),
        15 | 18 | 21 | 36 => (2, 1),
        33 => (6, 1),
        _ => (0, 0),
    };
    let mut at = record.from + fixed;
    let mut data = message.get(record.from..at).filter(|_| at <= record.end)?.to_vec();
    for _ in 0..names {
        let (name, after) = name(message, at)?;
        data.extend_from_slice(name.as_ref().as_wire());
        at = after;
    }
    data.extend_from_slice(message.get(at..record.end)?);
    Some(data)
}

/// A request for the whole zone, or for what has changed since the SOA whose data this is (RFC 1995 section 3).
pub(super) fn request(id: u16, zone: NameRef<'_>, since: Option<&[u8]>) -> Vec<u8> {
    let mut message = Vec::with_capacity(64);
    let (rtype, authorities) = if since.is_some() { (TYPE_IXFR, 1) } else { (TYPE_AXFR, 0) };
    for field in [id, 0, 1, 0, authorities, 0] {
        message.extend_from_slice(&field.to_be_bytes());
    }
    message.extend_from_slice(zone.as_wire());
    message.extend_from_slice(&rtype.to_be_bytes());
    message.extend_from_slice(&CLASS_IN.to_be_bytes());
    if let Some(soa) = since {
        message.extend_from_slice(&[0xc0, HEADER as u8]);
        message.extend_from_slice(&TYPE_SOA.to_be_bytes());
        message.extend_from_slice(&CLASS_IN.to_be_bytes());
        message.extend_from_slice(&[0; 4]);
        message.extend_from_slice(&(soa.len() as u16).to_be_bytes());
        message.extend_from_slice(soa);
    }
    message
}
