//! Record data: copied as it is, with compressed names expanded; SVCB parameters taken out where rules say so.

use std::net::IpAddr;

use staunch_scoring::NameRef;

use super::emit::Writer;
use super::message::{Message, Record, Spelled, read_name};

const NSEC: u16 = 47;

/// The data does not have the shape of its type.
#[derive(Debug)]
pub(super) struct Bad;

/// One field of record data.
#[derive(Clone, Copy)]
enum Field {
    /// So many octets.
    Fixed(usize),
    /// A character string (RFC 1035 section 3.3).
    Text,
    /// Character strings to the end, at least one.
    Texts,
    /// A domain name that was and may be compressed.
    Name,
    /// A domain name that must not be compressed by us, but that senders have compressed (RFC 3597 section 4).
    PlainName,
    /// What is left.
    Rest,
}

/// Types of fixed shape, and those whose data holds names a sender may have compressed. All others are opaque (RFC
/// 3597).
fn layout(rtype: u16) -> &'static [Field] {
    use Field::{Fixed, Name, PlainName, Rest, Text, Texts};
    match rtype {
        1 => &[Fixed(4)],
        28 => &[Fixed(16)],
        2 | 3 | 4 | 5 | 7 | 8 | 9 | 12 => &[Name],
        6 => &[Name, Name, Fixed(20)],
        13 => &[Text, Text],
        14 => &[Name, Name],
        15 => &[Fixed(2), Name],
        16 => &[Texts],
        17 => &[PlainName, PlainName],
        18 | 21 | 36 => &[Fixed(2), PlainName],
        24 | 46 => &[Fixed(18), PlainName, Rest],
        26 => &[Fixed(2), PlainName, PlainName],
        30 | 47 => &[PlainName, Rest],
        33 => &[Fixed(6), PlainName],
        35 => &[Fixed(4), Text, Text, Text, PlainName],
        39 => &[PlainName],
        _ => &[Rest],
    }
}

/// A part of record data, as [`walk`] meets it.
enum Part<'p> {
    /// Octets that are no name.
    Octets(&'p [u8]),
    /// A name as spelled, expanded, and whether we may compress it.
    Name(&'p Spelled, bool),
}

/// Appends the data of `record`.
pub(super) fn copy(message: &Message<'_>, record: &Record, to: &mut Writer) -> Result<(), Bad> {
    walk(message, record, |part| match part {
        Part::Octets(octets) => to.octets(octets),
        Part::Name(name, compress) => to.data_name(name.as_wire(), compress),
    })
}

/// Data of `record` in canonical form (RFC 4034 section 6.2): names expanded and in lower case, but for the one in NSEC
/// (RFC 6840 section 5.1). `None` where the data has not the shape of its type.
pub(crate) fn canonical(message: &Message<'_>, record: &Record) -> Option<Vec<u8>> {
    let mut data = Vec::with_capacity(record.to - record.from + 32);
    let walked = walk(message, record, |part| match part {
        Part::Octets(octets) => data.extend_from_slice(octets),
        Part::Name(name, _) if record.rtype == NSEC => data.extend_from_slice(name.as_wire()),
        Part::Name(name, _) => data.extend_from_slice(name.folded().as_wire()),
    });
    walked.ok().map(|()| data)
}

/// Hands out the parts of `record`'s data in their order.
fn walk(message: &Message<'_>, record: &Record, mut each: impl FnMut(Part<'_>)) -> Result<(), Bad> {
    let octets = message.octets;
    let mut at = record.from;
    for field in layout(record.rtype) {
        let next = match field {
            Field::Fixed(len) => at + len,
            Field::Rest => record.to,
            Field::Text => at + 1 + usize::from(*octets.get(at).ok_or(Bad)?),
            Field::Texts => {
                let mut next = at;
                while next < record.to || next == at {
                    next += 1 + usize::from(*octets.get(next).ok_or(Bad)?);
                }
                next
            }
            Field::Name | Field::PlainName => {
                let (name, next) = read_name(octets, at).map_err(|_| Bad)?;
                if next > record.to {
                    return Err(Bad);
                }
                each(Part::Name(&name, matches!(field, Field::Name)));
                at = next;
                continue;
            }
        };
        if next > record.to {
            return Err(Bad);
        }
        each(Part::Octets(octets.get(at..next).ok_or(Bad)?));
        at = next;
    }
    if at == record.to { Ok(()) } else { Err(Bad) }
}

/// The one name that is all of `record`'s data (CNAME, DNAME), as spelled.
pub(super) fn target(message: &Message<'_>, record: &Record) -> Result<Spelled, Bad> {
    let (name, next) = read_name(message.octets, record.from).map_err(|_| Bad)?;
    if next == record.to { Ok(name) } else { Err(Bad) }
}

/// The address of an A or AAAA record.
pub(super) fn address(rtype: u16, data: &[u8]) -> Option<IpAddr> {
    match rtype {
        1 => <[u8; 4]>::try_from(data).ok().map(IpAddr::from),
        28 => <[u8; 16]>::try_from(data).ok().map(IpAddr::from),
        _ => None,
    }
}

/// What a signature says of itself (RFC 4034 section 3.1).
pub(super) struct Signature {
    /// Type of the records it covers.
    pub(super) covered: u16,
    /// Labels of their owner as it was signed: without the root, without the asterisk of a wildcard.
    pub(super) labels: u8,
    /// The zone that signed, as spelled.
    pub(super) signer: Spelled,
}

impl Signature {
    /// `None` where the data has not the shape of one.
    pub(super) fn read(message: &Message<'_>, record: &Record) -> Option<Self> {
        let [high, low, _, labels, ..] = message.rdata(record) else { return None };
        let (signer, next) = read_name(message.octets, record.from + 18).ok()?;
        let signed = next < record.to;
        signed.then_some(Self { covered: u16::from_be_bytes([*high, *low]), labels: *labels, signer })
    }

    /// Whether what stands under `owner` was signed as a wildcard's (RFC 4035 section 5.3.4).
    pub(super) fn is_of_wildcard(&self, owner: NameRef<'_>) -> bool {
        let asterisk = usize::from(owner.labels().next() == Some(b"*"));
        usize::from(self.labels) < owner.label_count() - asterisk
    }
}

const MANDATORY: u16 = 0;
const IPV4HINT: u16 = 4;
const ECH: u16 = 5;
const IPV6HINT: u16 = 6;

/// An SVCB or HTTPS record (RFC 9460 section 2.2).
pub(super) struct Svcb<'m> {
    priority: u16,
    target: Spelled,
    params: Vec<(u16, &'m [u8])>,
    /// Parameters of an alias were left out.
    cleared: bool,
}

impl<'m> Svcb<'m> {
    /// Most parameters of one record; the registry holds about ten.
    const MAX_PARAMS: usize = 64;

    pub(super) fn read(message: &Message<'m>, record: &Record) -> Result<Self, Bad> {
        let data = message.rdata(record);
        let (priority, rest) = data.split_first_chunk().ok_or(Bad)?;
        let priority = u16::from_be_bytes(*priority);
        // The target must not be compressed: read within the data alone, where a pointer leads nowhere.
        let (target, mut at) = read_name(rest, 0).map_err(|_| Bad)?;
        at += 2;
        let mut params: Vec<(u16, &'m [u8])> = Vec::new();
        while at < data.len() {
            let head = data.get(at..).and_then(|rest| rest.first_chunk::<4>()).ok_or(Bad)?;
            let key = u16::from_be_bytes([head[0], head[1]]);
            let len = usize::from(u16::from_be_bytes([head[2], head[3]]));
            let value = data.get(at + 4..at + 4 + len).ok_or(Bad)?;
            if params.last().is_some_and(|(last, _)| *last >= key) || params.len() >= Self::MAX_PARAMS {
                return Err(Bad);
            }
            params.push((key, value));
            at += 4 + len;
        }
        // Parameters of an alias mean nothing (RFC 9460 section 2.4.2), and could carry what is taken out elsewhere.
        let cleared = priority == 0 && !params.is_empty();
        if cleared {
            params.clear();
        }
        Ok(Self { priority, target, params, cleared })
    }

    /// Where it points, canonical; the root means the owner itself.
    pub(super) fn target(&self) -> Spelled {
        self.target.folded()
    }

    /// Every address hint.
    pub(super) fn hints(&self) -> impl Iterator<Item = IpAddr> + '_ {
        self.params.iter().flat_map(|(key, value)| {
            let (rtype, width) = match *key {
                IPV4HINT => (1, 4),
                IPV6HINT => (28, 16),
                _ => (0, usize::MAX),
            };
            value.chunks(width.min(value.len().max(1))).filter_map(move |chunk| address(rtype, chunk))
        })
    }

    /// The data, without `ech` if `strip_ech`, with those hints alone that `keep` wants, and whether it differs from what was
    /// read.
    pub(super) fn with(&self, strip_ech: bool, mut keep: impl FnMut(IpAddr) -> bool) -> (Vec<u8>, bool) {
        let mut edited = self.cleared;
        let mut gone: Vec<u16> = Vec::new();
        let mut kept: Vec<(u16, Vec<u8>)> = Vec::with_capacity(self.params.len());
        for (key, value) in &self.params {
            let width = match *key {
                ECH if strip_ech => {
                    gone.push(ECH);
                    continue;
                }
                IPV4HINT => 4,
                IPV6HINT => 16,
                _ => {
                    kept.push((*key, value.to_vec()));
                    continue;
                }
            };
            let rtype = if *key == IPV4HINT { 1 } else { 28 };
            let left: Vec<u8> =
                value.chunks(width).filter(|c| address(rtype, c).is_some_and(&mut keep)).flatten().copied().collect();
            edited |= left.len() != value.len();
            if left.is_empty() {
                gone.push(*key);
            } else {
                kept.push((*key, left));
            }
        }
        edited |= !gone.is_empty();
        // A key that is gone must not stay mandatory, or clients would ignore the whole record.
        if let Some((_, listed)) = kept.iter_mut().find(|(key, _)| *key == MANDATORY) {
            let (keys, _) = listed.as_chunks();
            let left: Vec<u8> =
                keys.iter().filter(|key| !gone.contains(&u16::from_be_bytes(**key))).flatten().copied().collect();
            edited |= left.len() != listed.len();
            *listed = left;
        }
        kept.retain(|(key, value)| *key != MANDATORY || !value.is_empty());
        let mut data = self.priority.to_be_bytes().to_vec();
        data.extend_from_slice(self.target.as_wire());
        for (key, value) in &kept {
            data.extend_from_slice(&key.to_be_bytes());
            data.extend_from_slice(&(value.len() as u16).to_be_bytes());
            data.extend_from_slice(value);
        }
        (data, edited)
    }
}
