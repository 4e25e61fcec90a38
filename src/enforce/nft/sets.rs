//! The sets of the table and their elements as attributes.
//!
//! Pure: writes into a [`Writer`], reads [`Attributes`].

mod key;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::super::netlink::{Attributes, Writer};
use super::super::state::{Target, Volume};
use crate::enforce::Class;
use crate::ports::{Opening, Port};

pub(super) use key::Key;

pub(super) const MSG_NEWSETELEM: u16 = 12;
pub(super) const MSG_GETSETELEM: u16 = 13;
pub(super) const MSG_DELSETELEM: u16 = 14;

const ELEM_LIST_TABLE: u16 = 1;
const ELEM_LIST_SET: u16 = 2;
const ELEM_LIST_ELEMENTS: u16 = 3;
const LIST_ELEM: u16 = 1;
const ELEM_KEY: u16 = 1;
const ELEM_DATA: u16 = 2;
const ELEM_TIMEOUT: u16 = 4;
const ELEM_EXPIRATION: u16 = 5;
const ELEM_EXPRESSION: u16 = 7;
const ELEM_KEY_END: u16 = 10;
const DATA_VALUE: u16 = 1;
const DATA_VERDICT: u16 = 2;
const VERDICT_CODE: u16 = 1;
const VERDICT_CHAIN: u16 = 2;
const JUMP: i32 = -3;
const EXPRESSION_NAME: u16 = 1;
const EXPRESSION_DATA: u16 = 2;
const QUOTA_BYTES: u16 = 1;
const QUOTA_FLAGS: u16 = 2;
const QUOTA_CONSUMED: u16 = 4;
/// "over": the expression holds once the quota is used up.
const QUOTA_OVER: u32 = 1;
const COUNTER_PACKETS: u16 = 2;

/// What stands for no limit: the most that the kernel takes.
const UNLIMITED: u64 = i64::MAX as u64;

/// Sets of one family come in this order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Kind {
    /// Session . destination . protocol . port, with a timeout.
    Pins,
    /// Session . destination, with a timeout: the ports of a web page.
    Web,
    /// Session . destination, with a timeout: every TCP and UDP port.
    Open,
    /// Session . destination, with a quota of what may go out.
    Volumes,
    /// Session . destination, with a quota that never ends: what has gone out. Packets make its elements.
    Counts,
    /// Sessions whose forwarded packets need a pin.
    Guarded,
    /// Sessions whose forwarded packets pass.
    Monitored,
    /// Sessions for which nothing passes.
    Quarantined,
    /// Session to the mark of flows that are permitted now.
    Generations,
    /// Session . mark: flows that are established may go on.
    Current,
    /// Session to the chain of the class whose written ranges are open to it.
    Classes,
    /// Destinations . protocol . ports of one class, as intervals, with a counter of the flows opened.
    Ranges,
}

/// One part of a set's key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Field {
    /// 4 or 16 octets, by the set's family.
    Address,
    /// One octet, padded to four.
    Protocol,
    /// Two octets in network order, padded to four.
    Port,
    /// Four octets in host order.
    Mark,
}

impl Kind {
    /// Every kind of which there is one set a family; [`Self::Ranges`] has one for each class besides.
    const FIXED: [Self; 11] = [
        Self::Pins,
        Self::Web,
        Self::Open,
        Self::Volumes,
        Self::Counts,
        Self::Guarded,
        Self::Monitored,
        Self::Quarantined,
        Self::Generations,
        Self::Current,
        Self::Classes,
    ];

    /// What its keys are made of.
    pub(super) fn fields(self) -> &'static [Field] {
        use Field::{Address, Mark, Port, Protocol};
        match self {
            Self::Pins => &[Address, Address, Protocol, Port],
            Self::Web | Self::Open | Self::Volumes | Self::Counts => &[Address, Address],
            Self::Guarded | Self::Monitored | Self::Quarantined | Self::Generations | Self::Classes => &[Address],
            Self::Current => &[Address, Mark],
            Self::Ranges => &[Address, Protocol, Port],
        }
    }

    /// Whether its elements are as many as answers and not as sessions, and end by themselves or are read back.
    pub(super) fn is_large(self) -> bool {
        self.has_timeout() || self.counts()
    }

    /// Whether its elements have a quota each.
    pub(super) fn counts(self) -> bool {
        matches!(self, Self::Volumes | Self::Counts)
    }

    /// Whether its elements end by themselves.
    pub(super) fn has_timeout(self) -> bool {
        matches!(self, Self::Pins | Self::Web | Self::Open)
    }

    /// What a lease in a set of this kind opens, whose key has this port.
    pub(super) fn opening(self, port: Option<Port>) -> Option<Opening> {
        match self {
            Self::Pins => port.map(Opening::One),
            Self::Web => Some(Opening::Web),
            Self::Open => Some(Opening::Any),
            _ => None,
        }
    }

    /// Whether its keys lead somewhere: to a mark, or to a chain.
    pub(super) fn is_map(self) -> bool {
        matches!(self, Self::Generations | Self::Classes)
    }
}

/// One set of the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Set {
    /// What its elements mean.
    pub kind: Kind,
    /// IPv6, else IPv4.
    pub v6: bool,
    /// Of [`Kind::Ranges`]; 0 for all others.
    class: u8,
}

/// Names of the chains of classes, by their numbers.
pub(super) const CLASSES: [&str; 17] = [
    "", "class1", "class2", "class3", "class4", "class5", "class6", "class7", "class8", "class9", "class10", "class11",
    "class12", "class13", "class14", "class15", "class16",
];

impl Set {
    /// The set of this kind for addresses of one family.
    pub(super) const fn family(kind: Kind, v6: bool) -> Self {
        Self { kind, v6, class: 0 }
    }

    /// The set of this kind for addresses of the family of `session`.
    pub(super) fn of(kind: Kind, session: IpAddr) -> Self {
        Self::family(kind, session.is_ipv6())
    }

    /// The written ranges of a class.
    pub(super) const fn ranges(class: Class, v6: bool) -> Self {
        Self { kind: Kind::Ranges, v6, class: class.0 }
    }

    /// The class of a set of written ranges.
    pub(super) fn class(self) -> Class {
        Class(self.class)
    }

    /// Every set but those of written ranges.
    pub(super) fn fixed() -> impl Iterator<Item = Self> {
        Kind::FIXED.into_iter().flat_map(|kind| [Self::family(kind, false), Self::family(kind, true)])
    }

    /// Its name in the table.
    pub(super) fn name(self) -> &'static str {
        const RANGES: [[&str; 2]; 17] = [
            ["", ""],
            ["ranges4_1", "ranges6_1"],
            ["ranges4_2", "ranges6_2"],
            ["ranges4_3", "ranges6_3"],
            ["ranges4_4", "ranges6_4"],
            ["ranges4_5", "ranges6_5"],
            ["ranges4_6", "ranges6_6"],
            ["ranges4_7", "ranges6_7"],
            ["ranges4_8", "ranges6_8"],
            ["ranges4_9", "ranges6_9"],
            ["ranges4_10", "ranges6_10"],
            ["ranges4_11", "ranges6_11"],
            ["ranges4_12", "ranges6_12"],
            ["ranges4_13", "ranges6_13"],
            ["ranges4_14", "ranges6_14"],
            ["ranges4_15", "ranges6_15"],
            ["ranges4_16", "ranges6_16"],
        ];
        const NAMES: [[&str; 2]; 11] = [
            ["pins4", "pins6"],
            ["web4", "web6"],
            ["open4", "open6"],
            ["volumes4", "volumes6"],
            ["counts4", "counts6"],
            ["guarded4", "guarded6"],
            ["monitored4", "monitored6"],
            ["quarantined4", "quarantined6"],
            ["generations4", "generations6"],
            ["current4", "current6"],
            ["classes4", "classes6"],
        ];
        let family = usize::from(self.v6);
        match self.kind {
            Kind::Ranges => RANGES.get(usize::from(self.class)).map_or("", |names| names[family]),
            kind => NAMES[kind as usize][family],
        }
    }

    /// Octets of one part of a key, without padding.
    pub(super) fn field_length(self, field: Field) -> usize {
        match field {
            Field::Address => {
                if self.v6 {
                    16
                } else {
                    4
                }
            }
            Field::Protocol => 1,
            Field::Port => 2,
            Field::Mark => 4,
        }
    }

    /// Octets of a key, with padding.
    pub(super) fn key_length(self) -> usize {
        self.kind.fields().iter().map(|field| self.field_length(*field).next_multiple_of(4)).sum()
    }
}

/// One element as it is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Element {
    /// Its key.
    pub key: Key,
    /// The end of the interval, in a set of such.
    end: Option<Key>,
    /// Where a map leads: a mark, or the number of a class.
    pub mark: Option<u32>,
    /// Milliseconds, for a lease that is added.
    pub lifetime: Option<u64>,
    /// Of [`Kind::Volumes`] and [`Kind::Counts`].
    pub volume: Option<Volume>,
}

impl Element {
    fn of(key: Key) -> Self {
        Self { key, end: None, mark: None, lifetime: None, volume: None }
    }

    /// A session in a set of sessions.
    pub(super) fn session(session: IpAddr) -> Self {
        Self::of(Key::EMPTY.with_address(session))
    }

    /// A session that leads to a mark, or to the chain of a class.
    pub(super) fn leads(session: IpAddr, mark: u32) -> Self {
        Self { mark: Some(mark), ..Self::session(session) }
    }

    /// A session with a mark of its flows.
    pub(super) fn marked(session: IpAddr, mark: u32) -> Self {
        Self::of(Key::EMPTY.with_address(session).with_mark(mark))
    }

    /// A session and a destination.
    pub(super) fn pair(session: IpAddr, destination: IpAddr) -> Self {
        Self::of(Key::EMPTY.with_address(session).with_address(destination))
    }

    /// What a lease opens, in the set that [`lease_kind`] names.
    pub(super) fn lease(session: IpAddr, target: Target) -> Self {
        let Self { key, .. } = Self::pair(session, target.address);
        Self::of(match target.open {
            Opening::One(port) => key.with_port(port),
            Opening::Web | Opening::Any => key,
        })
    }

    /// A volume.
    pub(super) fn volume(session: IpAddr, destination: IpAddr, volume: Volume) -> Self {
        Self { volume: Some(volume), ..Self::pair(session, destination) }
    }

    /// A written range, of one protocol.
    pub(super) fn range((first, last): (IpAddr, IpAddr), (from, to): (Port, Port)) -> Self {
        let key = |address, port| Key::EMPTY.with_address(address).with_port(port);
        Self { end: Some(key(last, to)), ..Self::of(key(first, from)) }
    }

    /// An element with a key that was read, to be deleted.
    pub(super) fn keyed(key: Key) -> Self {
        Self::of(key)
    }

    /// The same for `lifetime` milliseconds from now.
    #[must_use]
    pub(super) fn lasting(self, lifetime: u64) -> Self {
        Self { lifetime: Some(lifetime), ..self }
    }

    fn write(&self, set: Set, writer: &mut Writer) {
        writer.nest(LIST_ELEM, |w| {
            w.nest(ELEM_KEY, |w| w.attr(DATA_VALUE, self.key.as_slice()));
            if let Some(end) = &self.end {
                w.nest(ELEM_KEY_END, |w| w.attr(DATA_VALUE, end.as_slice()));
            }
            if let Some(mark) = self.mark {
                w.nest(ELEM_DATA, |w| match CLASSES.get(mark as usize) {
                    Some(chain) if set.kind == Kind::Classes => w.nest(DATA_VERDICT, |w| {
                        w.be32(VERDICT_CODE, JUMP as u32);
                        w.text(VERDICT_CHAIN, chain);
                    }),
                    _ => w.attr(DATA_VALUE, &mark.to_ne_bytes()),
                });
            }
            if let Some(lifetime) = self.lifetime {
                // Both, always: without the expiration, adding an element again with the timeout it has does nothing
                // on new kernels, and with it the lifetime starts again on all that can change an element at all.
                w.be64(ELEM_TIMEOUT, lifetime);
                w.be64(ELEM_EXPIRATION, lifetime);
            }
            if let Some(volume) = self.volume {
                w.nest(ELEM_EXPRESSION, |w| write_quota(w, volume));
            }
        });
    }
}

/// The set that holds a lease.
pub(super) fn lease_kind(target: Target) -> Kind {
    match target.open {
        Opening::One(_) => Kind::Pins,
        Opening::Web => Kind::Web,
        Opening::Any => Kind::Open,
    }
}

/// The set that holds a volume.
pub(super) fn volume_kind(volume: Volume) -> Kind {
    if volume.limit.is_some() { Kind::Volumes } else { Kind::Counts }
}

/// A quota as an expression: of an element, or of a set whose elements have one each.
pub(super) fn write_quota(writer: &mut Writer, volume: Volume) {
    // More than it allows is refused as used.
    let limit = volume.limit.unwrap_or(UNLIMITED).clamp(1, UNLIMITED);
    writer.text(EXPRESSION_NAME, "quota");
    writer.nest(EXPRESSION_DATA, |w| {
        w.be64(QUOTA_BYTES, limit);
        w.be32(QUOTA_FLAGS, QUOTA_OVER);
        w.be64(QUOTA_CONSUMED, volume.used.min(limit));
    });
}

/// The attributes of a message about elements of one set. At most 400 elements: the list's length has 16 bits.
pub(super) fn write_elements<'a>(
    writer: &mut Writer,
    table: &str,
    (set, name): (Set, &str),
    elements: impl IntoIterator<Item = &'a Element>,
) {
    write_name(writer, table, name);
    writer.nest(ELEM_LIST_ELEMENTS, |w| {
        for element in elements {
            element.write(set, w);
        }
    });
}

/// The attributes that ask for all elements of one set.
pub(super) fn write_name(writer: &mut Writer, table: &str, set: &str) {
    writer.text(ELEM_LIST_TABLE, table);
    writer.text(ELEM_LIST_SET, set);
}

/// One element as the kernel holds it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Held {
    /// Its key.
    pub key: Key,
    /// Where a map leads.
    pub mark: Option<u32>,
    /// What is left of the lifetime, milliseconds, for those that have one.
    pub left: Option<u64>,
    /// Of a quota.
    pub volume: Option<Volume>,
    /// Of a counter.
    pub packets: Option<u64>,
}

/// Elements of one dumped message. What no set of ours could hold is passed over.
pub(super) fn read_elements(attributes: &[u8], mut each: impl FnMut(Held)) {
    let Some(list) = Attributes(attributes).inside(ELEM_LIST_ELEMENTS) else { return };
    for (_, element) in list {
        let element = Attributes(element);
        let Some(key) = element.inside(ELEM_KEY).and_then(|key| Key::from_slice(key.find(DATA_VALUE)?)) else {
            continue;
        };
        let word = |data: Attributes<'_>| match data.inside(DATA_VERDICT) {
            Some(verdict) => {
                let chain = verdict.find(VERDICT_CHAIN)?.strip_suffix(b"\0")?;
                CLASSES.iter().position(|class| class.as_bytes() == chain).map(|class| class as u32)
            }
            None => Some(u32::from_ne_bytes(data.find(DATA_VALUE)?.try_into().ok()?)),
        };
        let expression = element.inside(ELEM_EXPRESSION);
        let named = |name: &[u8]| {
            let expression =
                expression.filter(|e| e.find(EXPRESSION_NAME).is_some_and(|n| n.strip_suffix(b"\0") == Some(name)))?;
            expression.inside(EXPRESSION_DATA)
        };
        each(Held {
            key,
            mark: element.inside(ELEM_DATA).and_then(word),
            left: element.be64(ELEM_EXPIRATION),
            volume: named(b"quota").and_then(|quota| {
                let limit = quota.be64(QUOTA_BYTES)?;
                let used = quota.be64(QUOTA_CONSUMED).unwrap_or(0);
                Some(Volume { limit: (limit < UNLIMITED).then_some(limit), used })
            }),
            packets: named(b"counter").and_then(|counter| counter.be64(COUNTER_PACKETS)),
        });
    }
}

/// An address of 4 or 16 octets.
pub(super) fn address(octets: &[u8]) -> Option<IpAddr> {
    if let Ok(v4) = <[u8; 4]>::try_from(octets) {
        return Some(Ipv4Addr::from(v4).into());
    }
    <[u8; 16]>::try_from(octets).ok().map(|v6| Ipv6Addr::from(v6).into())
}

#[cfg(test)]
mod tests;
