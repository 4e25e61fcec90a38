//! Netlink messages: a writer with nested attributes, a reader that trusts no length.
//!
//! Pure. All multi-byte values of nf_tables are big-endian, the headers are in host order.

/// `NLA_F_NESTED`.
const NESTED: u16 = 0x8000;
/// Mask that takes `NLA_F_NESTED` and `NLA_F_NET_BYTEORDER` off an attribute's type.
const TYPE_MASK: u16 = 0x3fff;
/// Length of `nlmsghdr`.
pub(super) const HEADER: usize = 16;
/// Length of `nfgenmsg`.
pub(super) const NFGEN: usize = 4;

/// Appends messages to one buffer.
#[derive(Debug, Default)]
pub(in crate::enforce) struct Writer {
    bytes: Vec<u8>,
}

/// Most octets kept of a buffer that is written again.
const SPARE_MAX: usize = 1 << 20;

impl Writer {
    /// An empty one in the place of one that is not needed any more.
    pub(super) fn again(self) -> Self {
        let mut bytes = self.bytes;
        bytes.clear();
        bytes.shrink_to(SPARE_MAX);
        Self { bytes }
    }

    /// The bytes so far.
    pub(in crate::enforce) fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// One message: `nlmsghdr`, `nfgenmsg`, then what `body` writes.
    pub(super) fn message(
        &mut self,
        kind: u16,
        flags: u16,
        seq: u32,
        family: u8,
        resource: u16,
        body: impl FnOnce(&mut Self),
    ) {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(&[0; 4]);
        self.bytes.extend_from_slice(&kind.to_ne_bytes());
        self.bytes.extend_from_slice(&flags.to_ne_bytes());
        self.bytes.extend_from_slice(&seq.to_ne_bytes());
        self.bytes.extend_from_slice(&[0; 4]);
        self.bytes.extend_from_slice(&[family, 0]);
        self.bytes.extend_from_slice(&resource.to_be_bytes());
        body(self);
        let length = (self.bytes.len() - start) as u32;
        self.bytes[start..start + 4].copy_from_slice(&length.to_ne_bytes());
    }

    /// Sets flags of the message that starts at `start`.
    pub(super) fn add_flags(&mut self, start: usize, flags: u16) {
        if let Some(field) = self.bytes.get_mut(start + 6..start + 8) {
            let old = u16::from_ne_bytes([field[0], field[1]]);
            field.copy_from_slice(&(old | flags).to_ne_bytes());
        }
    }

    /// One attribute with a plain value.
    pub(in crate::enforce) fn attr(&mut self, kind: u16, value: &[u8]) {
        debug_assert!(value.len() + 4 <= usize::from(u16::MAX));
        self.bytes.extend_from_slice(&((value.len() + 4) as u16).to_ne_bytes());
        self.bytes.extend_from_slice(&kind.to_ne_bytes());
        self.bytes.extend_from_slice(value);
        self.pad();
    }

    /// A zero-terminated string.
    pub(in crate::enforce) fn text(&mut self, kind: u16, value: &str) {
        self.bytes.extend_from_slice(&((value.len() + 5) as u16).to_ne_bytes());
        self.bytes.extend_from_slice(&kind.to_ne_bytes());
        self.bytes.extend_from_slice(value.as_bytes());
        self.bytes.push(0);
        self.pad();
    }

    /// A big-endian 32-bit value.
    pub(in crate::enforce) fn be32(&mut self, kind: u16, value: u32) {
        self.attr(kind, &value.to_be_bytes());
    }

    /// A big-endian 64-bit value.
    pub(in crate::enforce) fn be64(&mut self, kind: u16, value: u64) {
        self.attr(kind, &value.to_be_bytes());
    }

    /// An attribute that holds attributes. Its length field has 16 bits: callers keep what goes inside below 64 KiB.
    pub(in crate::enforce) fn nest(&mut self, kind: u16, body: impl FnOnce(&mut Self)) {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(&[0; 2]);
        self.bytes.extend_from_slice(&(kind | NESTED).to_ne_bytes());
        body(self);
        let length = self.bytes.len() - start;
        debug_assert!(length <= usize::from(u16::MAX));
        self.bytes[start..start + 2].copy_from_slice(&(length as u16).to_ne_bytes());
    }

    fn pad(&mut self) {
        let to = self.bytes.len().next_multiple_of(4);
        self.bytes.resize(to, 0);
    }
}

/// One received message.
#[derive(Debug, Clone, Copy)]
pub(super) struct Received<'a> {
    /// `nlmsg_type`.
    pub kind: u16,
    /// `nlmsg_flags`.
    pub flags: u16,
    /// `nlmsg_seq`.
    pub seq: u32,
    /// `nlmsg_pid`: the port of the socket that asked for it.
    pub port: u32,
    /// Behind the header.
    pub payload: &'a [u8],
}

/// Walks the messages of one datagram; ends at the first that does not fit.
pub(super) struct Messages<'a>(pub &'a [u8]);

impl<'a> Iterator for Messages<'a> {
    type Item = Received<'a>;

    fn next(&mut self) -> Option<Self::Item> {
        let length = u32_at(self.0, 0)? as usize;
        if length < HEADER {
            return None;
        }
        let payload = self.0.get(HEADER..length)?;
        let message = Received {
            kind: u16_at(self.0, 4)?,
            flags: u16_at(self.0, 6)?,
            seq: u32_at(self.0, 8)?,
            port: u32_at(self.0, 12)?,
            payload,
        };
        self.0 = self.0.get(length.next_multiple_of(4)..).unwrap_or(&[]);
        Some(message)
    }
}

/// Walks attributes as (type without flag bits, value); ends at the first that does not fit.
#[derive(Debug, Clone, Copy)]
pub(in crate::enforce) struct Attributes<'a>(pub(in crate::enforce) &'a [u8]);

impl<'a> Attributes<'a> {
    /// The value of the first attribute of this type.
    pub(in crate::enforce) fn find(mut self, kind: u16) -> Option<&'a [u8]> {
        Iterator::find(&mut self, |(k, _)| *k == kind).map(|(_, value)| value)
    }

    /// The attributes nested in the first attribute of this type.
    pub(in crate::enforce) fn inside(self, kind: u16) -> Option<Self> {
        self.find(kind).map(Attributes)
    }

    /// A big-endian 32-bit value.
    pub(in crate::enforce) fn be32(self, kind: u16) -> Option<u32> {
        Some(u32::from_be_bytes(self.find(kind)?.try_into().ok()?))
    }

    /// A big-endian 64-bit value.
    pub(in crate::enforce) fn be64(self, kind: u16) -> Option<u64> {
        Some(u64::from_be_bytes(self.find(kind)?.try_into().ok()?))
    }
}

impl<'a> Iterator for Attributes<'a> {
    type Item = (u16, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let length = usize::from(u16_at(self.0, 0)?);
        if length < 4 {
            return None;
        }
        let value = self.0.get(4..length)?;
        let kind = u16_at(self.0, 2)? & TYPE_MASK;
        self.0 = self.0.get(length.next_multiple_of(4)..).unwrap_or(&[]);
        Some((kind, value))
    }
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_ne_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

/// What an `NLMSG_ERROR` message says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Verdict {
    /// 0 for an acknowledgement, else a positive errno.
    pub errno: i32,
    /// The kernel's own words, where it has some (`NLMSGERR_ATTR_MSG`).
    pub words: String,
}

/// Reads an `NLMSG_ERROR` message with its extended acknowledgement.
pub(super) fn verdict(message: &Received<'_>) -> Option<Verdict> {
    const CAPPED: u16 = 0x100;
    const HAS_TLVS: u16 = 0x200;
    const ATTR_MSG: u16 = 1;
    let errno = (u32_at(message.payload, 0)? as i32).checked_neg()?;
    let mut words = String::new();
    if message.flags & HAS_TLVS != 0 {
        let echoed = if message.flags & CAPPED != 0 { HEADER } else { u32_at(message.payload, 4)? as usize };
        let tlvs = message.payload.get((4 + echoed).next_multiple_of(4)..).unwrap_or(&[]);
        if let Some(text) = Attributes(tlvs).find(ATTR_MSG) {
            words = String::from_utf8_lossy(text).trim_end_matches('\0').to_owned();
        }
    }
    Some(Verdict { errno, words })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_is_written_is_read_back() {
        let mut writer = Writer::default();
        writer.message(0x0a0c, 5, 77, 1, 10, |w| {
            w.text(1, "staunch");
            w.nest(3, |w| {
                w.be32(1, 7);
                w.be64(2, 60_000);
                w.attr(9, &[1, 2, 3]);
            });
        });
        writer.add_flags(0, 0x100);
        let messages: Vec<_> = Messages(writer.as_bytes()).collect();
        assert_eq!(messages.len(), 1);
        let message = messages[0];
        assert_eq!((message.kind, message.flags, message.seq), (0x0a0c, 0x105, 77));
        assert_eq!(message.payload[..NFGEN], [1, 0, 0, 10]);
        let attributes = Attributes(&message.payload[NFGEN..]);
        assert_eq!(attributes.find(1), Some(&b"staunch\0"[..]));
        let inner = attributes.inside(3).expect("nested");
        assert_eq!((inner.be32(1), inner.be64(2), inner.find(9)), (Some(7), Some(60_000), Some(&[1, 2, 3][..])));
        assert_eq!(inner.be64(1), None, "a 32-bit value is not a 64-bit one");
    }

    #[test]
    fn an_extended_acknowledgement_gives_its_words() {
        let mut payload = (-(libc::ENFILE)).to_ne_bytes().to_vec();
        payload.extend_from_slice(&[0; HEADER]);
        let mut tlv = Writer::default();
        tlv.text(1, "set is full");
        payload.extend_from_slice(tlv.as_bytes());
        let message = Received { kind: 2, flags: 0x300, seq: 1, port: 0, payload: &payload };
        assert_eq!(verdict(&message), Some(Verdict { errno: libc::ENFILE, words: "set is full".into() }));
    }

    proptest! {
        #[test]
        fn no_bytes_make_the_reader_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200), flags in any::<u16>()) {
            for message in Messages(&bytes) {
                let _ = verdict(&Received { flags, ..message });
                for (_, value) in Attributes(message.payload) {
                    let _ = Attributes(value).count();
                }
            }
            let _ = Attributes(&bytes).inside(1).and_then(|a| a.be64(2));
        }
    }
}
