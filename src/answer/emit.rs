//! Writes a [`WireAnswer`](super::WireAnswer) body: records with compressed owners behind a question of known length.

use super::VetError;
use super::message::HEADER;

/// Longest message that a stream carries (RFC 1035 section 4.2.2), less room for an OPT record with a cookie and the code of a
/// reason, which take 45 octets.
const MAX_MESSAGE: usize = 65_535 - 64;
/// Most name suffixes remembered for compression; bounds the work on a hostile answer.
const MAX_SEEN: usize = 96;
/// Highest offset a compression pointer can hold.
const MAX_POINTER: usize = 0x3fff;

/// A name suffix that stands in the message.
struct Seen {
    /// Offset in the message.
    offset: u16,
    /// Start of its expanded wire octets in the arena.
    from: u32,
    len: u8,
    /// The octets there may differ in letter case: the question is echoed as the client spelled it, and an owner may
    /// end in a pointer to another spelling.
    loose: bool,
}

/// The body under construction.
pub(super) struct Writer {
    out: Vec<u8>,
    base: usize,
    seen: Vec<Seen>,
    arena: Vec<u8>,
    ttl_at: Vec<u16>,
}

impl Writer {
    /// A body that follows a header and a question for the canonical name `qname`.
    pub(super) fn behind(qname: &[u8]) -> Self {
        let mut writer = Self {
            out: Vec::with_capacity(128),
            base: HEADER + qname.len() + 4,
            seen: Vec::with_capacity(8),
            arena: Vec::with_capacity(128),
            ttl_at: Vec::with_capacity(4),
        };
        writer.remember(qname, HEADER, usize::MAX, true);
        writer
    }

    /// Notes the suffixes of `wire`, which stands at `offset`, that begin before `fresh` octets.
    fn remember(&mut self, wire: &[u8], offset: usize, fresh: usize, loose: bool) {
        let start = self.arena.len();
        self.arena.extend_from_slice(wire);
        let mut at = 0;
        while let Some(&len) = wire.get(at) {
            if len == 0 || at >= fresh || offset + at > MAX_POINTER || self.seen.len() >= MAX_SEEN {
                return;
            }
            self.seen.push(Seen {
                offset: (offset + at) as u16,
                from: (start + at) as u32,
                len: (wire.len() - at) as u8,
                loose,
            });
            at += 1 + usize::from(len);
        }
    }

    /// A place that spells `suffix`: octet by octet if `exact`, else in any letter case.
    fn find(&self, suffix: &[u8], exact: bool) -> Option<&Seen> {
        self.seen.iter().find(|seen| {
            if usize::from(seen.len) != suffix.len() || (exact && seen.loose) {
                return false;
            }
            let from = seen.from as usize;
            let there = self.arena.get(from..from + suffix.len()).unwrap_or_default();
            // Length octets are below any letter, so folding cannot touch them.
            if exact { there == suffix } else { there.eq_ignore_ascii_case(suffix) }
        })
    }

    /// Writes a name, compressed against what stands before it.
    fn name(&mut self, wire: &[u8], exact: bool) {
        let offset = self.base + self.out.len();
        let mut at = 0;
        while let Some(&len) = wire.get(at) {
            if len == 0 {
                break;
            }
            let Some((front, suffix)) = wire.split_at_checked(at) else { break };
            if let Some(seen) = self.find(suffix, exact) {
                let from = seen.from as usize;
                let same = self.arena.get(from..from + suffix.len()) == Some(suffix);
                let (pointer, loose) = (0xc000 | seen.offset, seen.loose || !same);
                self.out.extend_from_slice(front);
                self.out.extend_from_slice(&pointer.to_be_bytes());
                if at > 0 {
                    self.remember(wire, offset, at, loose);
                }
                return;
            }
            at += 1 + usize::from(len);
        }
        self.out.extend_from_slice(wire);
        self.remember(wire, offset, usize::MAX, false);
    }

    /// Begins a record of class IN; returns the place of its data length for [`Writer::end`].
    pub(super) fn begin(&mut self, owner: &[u8], rtype: u16, ttl: u32) -> usize {
        self.name(owner, false);
        self.out.extend_from_slice(&rtype.to_be_bytes());
        self.out.extend_from_slice(&1u16.to_be_bytes());
        self.ttl_at.push(self.out.len().min(usize::from(u16::MAX)) as u16);
        self.out.extend_from_slice(&ttl.to_be_bytes());
        self.out.extend_from_slice(&[0, 0]);
        self.out.len() - 2
    }

    /// Ends the record begun at `length_at`; returns how many octets its data took.
    pub(super) fn end(&mut self, length_at: usize) -> Result<usize, VetError> {
        if self.base + self.out.len() > MAX_MESSAGE {
            return Err(VetError::TooLarge);
        }
        let len = self.out.len().saturating_sub(length_at + 2);
        if let Some(field) = self.out.get_mut(length_at..length_at + 2) {
            field.copy_from_slice(&(len as u16).to_be_bytes());
        }
        Ok(len)
    }

    /// Takes back everything since `mark`.
    pub(super) fn undo(&mut self, mark: &Mark) {
        self.out.truncate(mark.out);
        self.seen.truncate(mark.seen);
        self.arena.truncate(mark.arena);
        self.ttl_at.truncate(mark.ttls);
    }

    /// Where the body stands now.
    pub(super) fn mark(&self) -> Mark {
        Mark { out: self.out.len(), seen: self.seen.len(), arena: self.arena.len(), ttls: self.ttl_at.len() }
    }

    /// Appends octets of record data.
    pub(super) fn octets(&mut self, octets: &[u8]) {
        self.out.extend_from_slice(octets);
    }

    /// Appends a name of record data in its own spelling, compressed only where RFC 1035 types allow it.
    pub(super) fn data_name(&mut self, wire: &[u8], compress: bool) {
        if compress {
            self.name(wire, true);
        } else {
            let offset = self.base + self.out.len();
            self.out.extend_from_slice(wire);
            self.remember(wire, offset, usize::MAX, false);
        }
    }

    /// Body and places of the TTL fields.
    pub(super) fn finish(self) -> (Box<[u8]>, Box<[u16]>) {
        (self.out.into_boxed_slice(), self.ttl_at.into_boxed_slice())
    }
}

/// A state of a [`Writer`] to come back to.
pub(super) struct Mark {
    out: usize,
    seen: usize,
    arena: usize,
    ttls: usize,
}
