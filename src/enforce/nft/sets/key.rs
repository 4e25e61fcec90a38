//! Keys of elements: addresses, ports and marks, each padded as the kernel pads them.

use std::net::IpAddr;

use super::{Field, Set, address};
use crate::ports::{Port, Protocol};

/// A key as the kernel has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(in crate::enforce::nft) struct Key {
    octets: [u8; 40],
    length: u8,
}

impl Key {
    pub(super) const EMPTY: Self = Self { octets: [0; 40], length: 0 };

    fn with(mut self, octets: &[u8]) -> Self {
        let at = usize::from(self.length);
        let end = at + octets.len().next_multiple_of(4);
        // Two addresses, a protocol and a port fit; more are never put together.
        if let Some(place) = self.octets.get_mut(at..at + octets.len())
            && end <= 40
        {
            place.copy_from_slice(octets);
            self.length = end as u8;
        }
        self
    }

    pub(super) fn with_address(self, address: IpAddr) -> Self {
        match address {
            IpAddr::V4(v4) => self.with(&v4.octets()),
            IpAddr::V6(v6) => self.with(&v6.octets()),
        }
    }

    pub(super) fn with_port(self, port: Port) -> Self {
        self.with(&[port.protocol.number()]).with(&port.number.to_be_bytes())
    }

    pub(super) fn with_mark(self, mark: u32) -> Self {
        self.with(&mark.to_ne_bytes())
    }

    pub(super) fn as_slice(&self) -> &[u8] {
        self.octets.get(..usize::from(self.length)).unwrap_or(&[])
    }

    /// A key that was read; nothing where it is longer than any of ours.
    pub(super) fn from_slice(octets: &[u8]) -> Option<Self> {
        let mut key = Self::EMPTY;
        key.octets.get_mut(..octets.len())?.copy_from_slice(octets);
        key.length = octets.len() as u8;
        Some(key)
    }

    /// The parts of a key of `set`: addresses in their order, the port, the mark.
    pub(in crate::enforce::nft) fn parts(&self, set: Set) -> Option<Parts> {
        let mut parts = Parts::default();
        let (mut rest, mut protocol) = (self.as_slice(), None);
        if rest.len() != set.key_length() {
            return None;
        }
        for field in set.kind.fields() {
            let length = set.field_length(*field);
            let (octets, behind) = rest.split_at_checked(length.next_multiple_of(4))?;
            let octets = octets.get(..length)?;
            rest = behind;
            match field {
                Field::Address if parts.first.is_none() => parts.first = Some(address(octets)?),
                Field::Address => parts.second = Some(address(octets)?),
                Field::Protocol => protocol = Protocol::from_number(*octets.first()?),
                Field::Port => {
                    let number = u16::from_be_bytes(octets.try_into().ok()?);
                    parts.port = Some(Port { protocol: protocol?, number });
                }
                Field::Mark => parts.mark = Some(u32::from_ne_bytes(octets.try_into().ok()?)),
            }
        }
        Some(parts)
    }
}

/// What a key is made of.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(in crate::enforce::nft) struct Parts {
    /// The session, or a range's first destination.
    pub first: Option<IpAddr>,
    /// The destination.
    pub second: Option<IpAddr>,
    /// Protocol and port.
    pub port: Option<Port>,
    /// A generation or class.
    pub mark: Option<u32>,
}
