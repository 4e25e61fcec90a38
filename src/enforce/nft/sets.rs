//! The sets of the table and their elements as attributes.
//!
//! Pure: writes into a [`Writer`], reads [`Attributes`].

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::super::netlink::{Attributes, Writer};

pub(super) const MSG_NEWSETELEM: u16 = 12;
pub(super) const MSG_GETSETELEM: u16 = 13;
pub(super) const MSG_DELSETELEM: u16 = 14;

const ELEM_LIST_TABLE: u16 = 1;
const ELEM_LIST_SET: u16 = 2;
const ELEM_LIST_ELEMENTS: u16 = 3;
const LIST_ELEM: u16 = 1;
const ELEM_KEY: u16 = 1;
const ELEM_TIMEOUT: u16 = 4;
const ELEM_EXPIRATION: u16 = 5;
const DATA_VALUE: u16 = 1;

/// Sets of one family come in this order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Kind {
    /// Session . destination, with a timeout.
    Pins,
    /// Sessions whose forwarded packets need a pin.
    Guarded,
    /// Sessions whose forwarded packets pass.
    Monitored,
    /// Sessions for which nothing passes.
    Quarantined,
}

impl Kind {
    /// Every kind.
    pub(super) const ALL: [Self; 4] = [Self::Pins, Self::Guarded, Self::Monitored, Self::Quarantined];
}

/// One set of the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Set {
    /// What its elements mean.
    pub kind: Kind,
    /// IPv6, else IPv4.
    pub v6: bool,
}

impl Set {
    /// The set of this kind for addresses of the family of `session`.
    pub(super) fn of(kind: Kind, session: IpAddr) -> Self {
        Self { kind, v6: session.is_ipv6() }
    }

    /// Every set.
    pub(super) fn all() -> impl Iterator<Item = Self> {
        Kind::ALL.into_iter().flat_map(|kind| [Self { kind, v6: false }, Self { kind, v6: true }])
    }

    /// Its name in the table.
    pub(super) fn name(self) -> &'static str {
        match (self.kind, self.v6) {
            (Kind::Pins, false) => "pins4",
            (Kind::Pins, true) => "pins6",
            (Kind::Guarded, false) => "guarded4",
            (Kind::Guarded, true) => "guarded6",
            (Kind::Monitored, false) => "monitored4",
            (Kind::Monitored, true) => "monitored6",
            (Kind::Quarantined, false) => "quarantined4",
            (Kind::Quarantined, true) => "quarantined6",
        }
    }

    /// Octets of one address.
    pub(super) fn address_length(self) -> usize {
        if self.v6 { 16 } else { 4 }
    }

    /// Octets of a key.
    pub(super) fn key_length(self) -> usize {
        if self.kind == Kind::Pins { 2 * self.address_length() } else { self.address_length() }
    }
}

/// A change to one element. `destination` is there for pins only.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Element {
    /// Source address of the sandbox.
    pub session: IpAddr,
    /// Destination, for [`Kind::Pins`].
    pub destination: Option<IpAddr>,
    /// Milliseconds, for a pin that is added.
    pub lifetime: Option<u64>,
}

impl Element {
    /// A session in a set without lifetimes.
    pub(super) fn session(session: IpAddr) -> Self {
        Self { session, destination: None, lifetime: None }
    }

    /// A pin to be deleted.
    pub(super) fn pin(session: IpAddr, destination: IpAddr) -> Self {
        Self { session, destination: Some(destination), lifetime: None }
    }

    /// A pin to be added.
    pub(super) fn lease(session: IpAddr, destination: IpAddr, lifetime: u64) -> Self {
        Self { session, destination: Some(destination), lifetime: Some(lifetime) }
    }

    fn write(&self, writer: &mut Writer) {
        let mut key = [0; 32];
        let mut length = put(&mut key, 0, self.session);
        if let Some(destination) = self.destination {
            length = put(&mut key, length, destination);
        }
        writer.nest(LIST_ELEM, |w| {
            w.nest(ELEM_KEY, |w| w.attr(DATA_VALUE, key.get(..length).unwrap_or(&[])));
            if let Some(lifetime) = self.lifetime {
                // Both, always: without the expiration, adding an element again with the timeout it has does nothing
                // on new kernels, and with it the lifetime starts again on all that can change an element at all.
                w.be64(ELEM_TIMEOUT, lifetime);
                w.be64(ELEM_EXPIRATION, lifetime);
            }
        });
    }
}

fn put(key: &mut [u8; 32], at: usize, address: IpAddr) -> usize {
    match address {
        IpAddr::V4(v4) => copy(key, at, &v4.octets()),
        IpAddr::V6(v6) => copy(key, at, &v6.octets()),
    }
}

fn copy(key: &mut [u8; 32], at: usize, octets: &[u8]) -> usize {
    let end = at + octets.len();
    // Two addresses fit; more are never written.
    if let Some(place) = key.get_mut(at..end) {
        place.copy_from_slice(octets);
    }
    end
}

/// The attributes of a message about elements of one set. At most 400 elements: the list's length has 16 bits.
pub(super) fn write_elements<'a>(
    writer: &mut Writer,
    table: &str,
    set: &str,
    elements: impl IntoIterator<Item = &'a Element>,
) {
    write_name(writer, table, set);
    writer.nest(ELEM_LIST_ELEMENTS, |w| {
        for element in elements {
            element.write(w);
        }
    });
}

/// The attributes that ask for all elements of one set.
pub(super) fn write_name(writer: &mut Writer, table: &str, set: &str) {
    writer.text(ELEM_LIST_TABLE, table);
    writer.text(ELEM_LIST_SET, set);
}

/// Elements of one dumped message: key, and what is left of the lifetime in milliseconds for those that have one.
pub(super) fn read_elements(attributes: &[u8], mut each: impl FnMut(&[u8], Option<u64>)) {
    let Some(list) = Attributes(attributes).inside(ELEM_LIST_ELEMENTS) else { return };
    for (_, element) in list {
        let element = Attributes(element);
        if let Some(key) = element.inside(ELEM_KEY).and_then(|key| key.find(DATA_VALUE)) {
            each(key, element.be64(ELEM_EXPIRATION));
        }
    }
}

/// An address of 4 or 16 octets.
pub(super) fn address(octets: &[u8]) -> Option<IpAddr> {
    if let Ok(v4) = <[u8; 4]>::try_from(octets) {
        return Some(Ipv4Addr::from(v4).into());
    }
    <[u8; 16]>::try_from(octets).ok().map(|v6| Ipv6Addr::from(v6).into())
}

/// A key of `set` as session and, for pins, destination.
pub(super) fn key(set: Set, octets: &[u8]) -> Option<(IpAddr, Option<IpAddr>)> {
    if octets.len() != set.key_length() {
        return None;
    }
    let (session, destination) = octets.split_at_checked(set.address_length())?;
    let destination = if set.kind == Kind::Pins { Some(address(destination)?) } else { None };
    Some((address(session)?, destination))
}
