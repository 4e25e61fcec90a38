//! Written ranges as elements of an interval set.
//!
//! Pure. The kernel takes no two elements that overlap, and people write `192.0.2.0/24` beside `192.0.2.7`: an element is
//! left out as far as one of a wider range of addresses covers it already. CIDR ranges are nested or apart, so cutting
//! ports out of the narrower one is enough.

use std::net::IpAddr;

use super::sets::{CLASSES, Element, Set};
use crate::enforce::{Class, Range};
use crate::ports::{Port, Ports, Protocol};

/// One element with the range it stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Part {
    id: u32,
    first: IpAddr,
    last: IpAddr,
    protocol: Protocol,
    from: u16,
    to: u16,
}

impl Part {
    fn contains_addresses_of(&self, other: &Self) -> bool {
        self.first <= other.first && other.last <= self.last
    }

    /// What is left of it beside `taken`.
    fn without(self, taken: &Self) -> impl Iterator<Item = Self> {
        let apart = taken.protocol != self.protocol
            || taken.to < self.from
            || self.to < taken.from
            || !taken.contains_addresses_of(&self);
        let whole = apart.then_some(self);
        let below = (!apart && self.from < taken.from).then(|| Self { to: taken.from - 1, ..self });
        let above = (!apart && taken.to < self.to).then(|| Self { from: taken.to + 1, ..self });
        [whole, below, above].into_iter().flatten()
    }
}

/// The elements of one set, each with the id of its range.
pub(super) fn elements(ranges: &[Range], set: Set) -> Vec<(u32, Element)> {
    placed(ranges, set).into_iter().map(|part| (part.id, element(&part))).collect()
}

fn placed(ranges: &[Range], set: Set) -> Vec<Part> {
    let concerned =
        |range: &&Range| range.first.to_canonical().is_ipv6() == set.v6 && range.classes & 1 << set.class().0 != 0;
    let mut wanted: Vec<Part> = ranges.iter().filter(concerned).flat_map(parts).collect();
    // Widest first; `last` of two ranges with the same first address is larger in the wider one.
    wanted.sort_by(|a, b| (a.first, b.last).cmp(&(b.first, a.last)).then(a.id.cmp(&b.id)));
    let mut placed: Vec<Part> = Vec::with_capacity(wanted.len());
    for wanted in wanted {
        let mut rest = vec![wanted];
        // Only what begins at or before it can cover it, and sorting has put that in front.
        for taken in placed.iter().filter(|taken| taken.last >= wanted.first) {
            rest = rest.into_iter().flat_map(|part| part.without(taken)).collect();
        }
        placed.extend(rest);
    }
    placed
}

/// The key of the element that stands for a single address, to ask the kernel whether a range holds it.
pub(super) fn single(address: IpAddr, port: Port) -> Element {
    Element::range((address, address), (port, port))
}

/// Classes that have ranges at all.
pub(super) fn classes(ranges: &[Range]) -> impl Iterator<Item = Class> {
    let all = ranges.iter().fold(0, |all, range| all | range.classes);
    (1..CLASSES.len() as u8).filter(move |class| all & 1 << class != 0).map(Class)
}

/// Every set that holds ranges.
pub(super) fn sets(ranges: &[Range]) -> impl Iterator<Item = Set> {
    classes(ranges).flat_map(|class| [Set::ranges(class, false), Set::ranges(class, true)])
}

fn parts(range: &Range) -> Vec<Part> {
    let spans: Vec<(Protocol, u16, u16)> = match &range.ports {
        Ports::Any => [Protocol::Tcp, Protocol::Udp].map(|protocol| (protocol, 1, u16::MAX)).into(),
        Ports::These(these) => these.iter().map(|port| (port.protocol, port.number, port.number)).collect(),
    };
    let (first, last) = (range.first.to_canonical(), range.last.to_canonical());
    let part = |(protocol, from, to)| Part { id: range.id, first, last, protocol, from, to };
    spans.into_iter().map(part).collect()
}

fn element(part: &Part) -> Element {
    let port = |number| Port { protocol: part.protocol, number };
    Element::range((part.first, part.last), (port(part.from), port(part.to)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::range::IpRange;
    use proptest::prelude::*;

    fn range(id: u32, cidr: &str, ports: Ports) -> Range {
        let range = IpRange::parse(cidr).expect("range");
        Range { id, classes: 0b10, first: range.first(), last: range.last(), ports }
    }

    fn placed_v4(ranges: &[Range]) -> Vec<Part> {
        placed(ranges, Set::ranges(Class(1), false))
    }

    #[test]
    fn a_range_inside_another_adds_only_what_is_new() {
        let ssh = || Ports::these([Port::tcp(22)]).expect("ports");
        assert_eq!(placed_v4(&[range(1, "192.0.2.0/24", ssh()), range(2, "192.0.2.128/25", ssh())]).len(), 1);
        assert_eq!(
            placed_v4(&[range(2, "192.0.2.128/25", ssh()), range(1, "192.0.2.0/24", ssh())])[0].id,
            1,
            "the wider"
        );
        // The narrower one has every port: both sides of 22, and UDP.
        assert_eq!(placed_v4(&[range(1, "192.0.2.0/24", ssh()), range(2, "192.0.2.7", Ports::Any)]).len(), 4);
        assert_eq!(placed_v4(&[range(1, "192.0.2.0/24", Ports::Any), range(2, "192.0.2.7", ssh())]).len(), 2);
        assert_eq!(placed_v4(&[range(1, "192.0.2.0/24", ssh()), range(2, "192.0.3.0/24", ssh())]).len(), 2);
    }

    #[test]
    fn ipv4_in_the_form_of_ipv6_stands_in_the_set_of_ipv4() {
        let (first, last) = ("::ffff:192.0.2.0", "::ffff:192.0.2.255");
        let (first, last) = (first.parse().expect("address"), last.parse().expect("address"));
        let mapped = [Range { first, last, ..range(1, "192.0.2.0/24", Ports::web()) }];
        assert_eq!(placed_v4(&mapped), placed_v4(&[range(1, "192.0.2.0/24", Ports::web())]));
        assert!(placed(&mapped, Set::ranges(Class(1), true)).is_empty(), "whose keys are longer");
    }

    fn some_ranges() -> impl Strategy<Value = Vec<Range>> {
        let ports = prop_oneof![
            Just(Ports::Any),
            proptest::collection::vec(1u16..6, 1..3)
                .prop_map(|numbers| Ports::these(numbers.into_iter().map(Port::tcp)).expect("ports")),
        ];
        let one = (0u32..8, 28u8..=32, ports).prop_map(|(host, prefix, ports)| {
            let base = u32::from_be_bytes([192, 0, 2, 0]) + (host & (u32::MAX << (32 - u32::from(prefix))));
            let first = std::net::Ipv4Addr::from(base);
            let last = std::net::Ipv4Addr::from(base | u32::MAX.checked_shr(prefix.into()).unwrap_or(0));
            (first, last, ports)
        });
        proptest::collection::vec(one, 0..8).prop_map(|ranges| {
            let number = |((first, last, ports), id): ((std::net::Ipv4Addr, std::net::Ipv4Addr, Ports), u32)| Range {
                id,
                classes: 0b10,
                first: first.into(),
                last: last.into(),
                ports,
            };
            ranges.into_iter().zip(0..).map(number).collect()
        })
    }

    proptest! {
        /// Every address and port that is written is in exactly one element, and no other is in any.
        #[test]
        fn elements_are_apart_and_hold_what_is_written(ranges in some_ranges()) {
            let placed = placed_v4(&ranges);
            for host in 0..16u8 {
                let address = IpAddr::from([192, 0, 2, host]);
                for port in [Port::tcp(1), Port::tcp(3), Port::tcp(5), Port::tcp(9), Port::udp(3)] {
                    let written = ranges.iter().any(|range| {
                        range.first <= address && address <= range.last && range.ports.contains(port)
                    });
                    let holds = placed.iter().filter(|part| {
                        part.first <= address && address <= part.last && part.protocol == port.protocol
                            && part.from <= port.number && port.number <= part.to
                    });
                    prop_assert_eq!(holds.count(), usize::from(written), "{} {}", address, port);
                }
            }
        }
    }
}
