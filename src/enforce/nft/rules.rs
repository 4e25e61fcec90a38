//! The rules of the table, and how a rule's expressions are written.
//!
//! Pure. In the words of the `nft` tool they stand in [`super::table`].

use super::super::mark::MONITORED;
use super::super::netlink::Writer;
use super::super::state::Volume;
use super::resets::MARK;
use super::sets::{Kind, Set, write_quota};
use super::table::{
    FORWARD, INWARD, LEASED, Layout, OUTWARD, PERMIT, PERMIT_BACK, REFUSE, UNKNOWN, UNTRACKED, WEB, WEB_BACK,
    class_chain,
};
use crate::ports::{Opening, Port, Protocol};

/// The side of a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Side {
    Source,
    Destination,
}
use Side::{Destination, Source};

impl Side {
    fn other(self) -> Self {
        if self == Source { Destination } else { Source }
    }
}

/// Keys of the `ct` expression.
const CT_STATE: u32 = 0;
const CT_MARK: u32 = 3;
/// Where a verdict is put.
const VERDICT_REGISTER: u32 = 0;
/// Key of the `meta` expression.
const L4PROTO: u32 = 16;
/// Bits of the state.
const CT_ESTABLISHED: u32 = 2;
const CT_RELATED: u32 = 4;
const CT_NEW: u32 = 8;

impl Layout {
    /// Gives every rule, in order, as chain, comment and expressions.
    pub(super) fn rules(&self, mut rule: impl FnMut(&str, &str, &dyn Fn(&mut Rule<'_>))) {
        rule(REFUSE, "fail at once: tcp", &|r| {
            r.protocol(libc::IPPROTO_TCP as u8);
            r.reject_reset();
        });
        rule(REFUSE, "fail at once: rest", &|r| r.reject_prohibited());
        for class in &self.classes {
            for v6 in [false, true] {
                rule(class_chain(*class), "written range", &|r| {
                    r.range_in(Set::ranges(*class, v6));
                    r.go(PERMIT);
                });
            }
        }
        for (chain, side) in [(PERMIT, Source), (PERMIT_BACK, Destination)] {
            for v6 in [false, true] {
                rule(chain, "of the session's generation from now on", &|r| {
                    r.generation(side, v6);
                    r.accept();
                });
            }
            rule(chain, "a session without a generation", &|r| r.go(REFUSE));
        }
        for v6 in [false, true] {
            rule(LEASED, "what goes there is counted from here on", &|r| r.begin_count(v6));
        }
        rule(LEASED, "a lease", &|r| r.go(PERMIT));
        for v6 in [false, true] {
            rule(OUTWARD, "as much as may go there has gone", &|r| {
                r.pair_in(Source, Set::family(Kind::Volumes, v6));
                r.counter();
                r.go(REFUSE);
            });
        }
        for v6 in [false, true] {
            rule(OUTWARD, "what goes there is counted", &|r| r.pair_in(Source, Set::family(Kind::Counts, v6)));
        }
        for (chain, side, permit) in [(WEB, Destination, LEASED), (WEB_BACK, Source, PERMIT_BACK)] {
            for port in Opening::WEB {
                rule(chain, "of a web page", &|r| {
                    r.port(side, port);
                    r.go(permit);
                });
            }
        }
        for (chain, session, permit, web) in
            [(OUTWARD, Source, LEASED, WEB), (INWARD, Destination, PERMIT_BACK, WEB_BACK)]
        {
            let established = chain == INWARD;
            for v6 in [false, true] {
                rule(chain, "open flows of this generation", &|r| {
                    r.state(CT_ESTABLISHED);
                    r.marked_in(session, Set::family(Kind::Current, v6));
                    r.accept();
                });
            }
            for (protocol, v6) in [(libc::IPPROTO_ICMP, false), (libc::IPPROTO_ICMPV6, true)] {
                rule(chain, "errors of open flows of this generation", &|r| {
                    r.state(CT_RELATED);
                    r.protocol(protocol as u8);
                    r.marked_in(session, Set::family(Kind::Current, v6));
                    r.accept();
                });
            }
            for v6 in [false, true] {
                rule(chain, "pinned, the ports of a web page", &|r| {
                    r.established_if(established);
                    r.pair_in(session, Set::family(Kind::Web, v6));
                    r.visit(web);
                });
                rule(chain, "pinned", &|r| {
                    r.established_if(established);
                    r.lease_in(session, Set::family(Kind::Pins, v6));
                    r.go(permit);
                });
                for protocol in [Protocol::Tcp, Protocol::Udp] {
                    rule(chain, "pinned, every port", &|r| {
                        r.established_if(established);
                        r.protocol(protocol.number());
                        r.pair_in(session, Set::family(Kind::Open, v6));
                        r.go(permit);
                    });
                }
            }
            if chain == OUTWARD {
                for v6 in [false, true] {
                    rule(chain, "written ranges of the session's class", &|r| {
                        r.class_of(Set::family(Kind::Classes, v6));
                    });
                }
            }
            rule(chain, if established { "nothing asked for it" } else { "no pin" }, &|r| {
                r.counter();
                r.go(REFUSE);
            });
        }
        for v6 in [false, true] {
            rule(UNKNOWN, "monitored session", &|r| {
                r.address_in(Source, Set::family(Kind::Monitored, v6));
                r.back();
            });
        }
        rule(UNKNOWN, "nobody announced this source", &|r| {
            r.counter();
            r.go(REFUSE);
        });
        for v6 in [false, true] {
            for (side, comment) in [(Source, "quarantined session"), (Destination, "to a quarantined session")] {
                rule(FORWARD, comment, &|r| {
                    r.address_in(side, Set::family(Kind::Quarantined, v6));
                    r.counter();
                    r.go(REFUSE);
                });
            }
        }
        for (side, chain, comment) in
            [(Source, OUTWARD, "guarded session"), (Destination, INWARD, "to a guarded session")]
        {
            for v6 in [false, true] {
                rule(FORWARD, comment, &|r| {
                    r.address_in(side, Set::family(Kind::Guarded, v6));
                    r.go(chain);
                });
            }
        }
        for v6 in [false, true] {
            rule(FORWARD, "monitored session: the service's word on it", &|r| {
                r.address_in(Source, Set::family(Kind::Monitored, v6));
                // An error may be about anybody's flow, and the mark is the flow's.
                r.state(CT_NEW | CT_ESTABLISHED);
                r.set_mark(MONITORED);
            });
        }
        rule(UNTRACKED, "questions to silent ends", &|r| {
            r.mark(MARK);
            r.untrack();
        });
        for interface in &self.interfaces {
            rule(FORWARD, "sandbox interface", &|r| {
                r.interface(interface);
                r.go(UNKNOWN);
            });
        }
    }
}

/// A counter as an expression: of a rule, or of a set whose elements have one each.
pub(super) fn write_counter(w: &mut Writer) {
    w.text(1, "counter");
    w.nest(2, |w| {
        w.be64(1, 0);
        w.be64(2, 0);
    });
}

/// Writes expressions of one rule. Registers have 4 octets, numbered from [`Rule::FIRST`]; what is loaded one behind the other
/// is a key.
pub(super) struct Rule<'a>(pub(super) &'a mut Writer);

impl Rule<'_> {
    const FIRST: u32 = 8;

    fn expression(&mut self, name: &str, data: impl FnOnce(&mut Writer)) {
        self.0.nest(1, |w| {
            w.text(1, name);
            w.nest(2, data);
        });
    }

    fn meta(&mut self, key: u32, register: u32) {
        self.expression("meta", |w| {
            w.be32(1, register);
            w.be32(2, key);
        });
    }

    fn compare(&mut self, equal: bool, value: &[u8]) {
        self.expression("cmp", |w| {
            w.be32(1, Self::FIRST);
            w.be32(2, u32::from(!equal));
            w.nest(3, |w| w.attr(1, value));
        });
    }

    fn family(&mut self, v6: bool) {
        const NFPROTO: u32 = 15;
        self.meta(NFPROTO, Self::FIRST);
        self.compare(true, &[if v6 { libc::NFPROTO_IPV6 } else { libc::NFPROTO_IPV4 } as u8]);
    }

    /// Loads an address into `register` and gives the next one.
    fn load_address(&mut self, side: Side, v6: bool, register: u32) -> u32 {
        const NETWORK_HEADER: u32 = 1;
        let ([source, destination], length) = if v6 { ([8, 24], 16) } else { ([12, 16], 4) };
        self.payload(NETWORK_HEADER, if side == Source { source } else { destination }, length, register);
        register + length / 4
    }

    /// Loads protocol and port of one side into `register` and the next.
    fn load_port(&mut self, side: Side, register: u32) {
        self.meta(L4PROTO, register);
        self.load_port_number(side, register + 1);
    }

    fn load_port_number(&mut self, side: Side, register: u32) {
        const TRANSPORT_HEADER: u32 = 2;
        self.payload(TRANSPORT_HEADER, if side == Source { 0 } else { 2 }, 2, register);
    }

    /// Goes on where this is the packet's port on one side.
    fn port(&mut self, side: Side, port: Port) {
        self.protocol(port.protocol.number());
        self.load_port_number(side, Self::FIRST);
        self.compare(true, &port.number.to_be_bytes());
    }

    fn payload(&mut self, base: u32, offset: u32, length: u32, register: u32) {
        self.expression("payload", |w| {
            w.be32(1, register);
            w.be32(2, base);
            w.be32(3, offset);
            w.be32(4, length);
        });
    }

    /// Goes on where the key that is loaded from the first register on is in `set`; where `into` is given, with what it
    /// leads to in that register.
    fn lookup(&mut self, set: Set, into: Option<u32>) {
        self.expression("lookup", |w| {
            w.text(1, set.name());
            w.be32(2, Self::FIRST);
            if let Some(register) = into {
                w.be32(3, register);
            }
        });
    }

    fn address_in(&mut self, side: Side, set: Set) {
        self.family(set.v6);
        self.load_address(side, set.v6, Self::FIRST);
        self.lookup(set, None);
    }

    /// `session`: the side that the session is on.
    fn pair_in(&mut self, session: Side, set: Set) {
        self.family(set.v6);
        let next = self.load_address(session, set.v6, Self::FIRST);
        self.load_address(session.other(), set.v6, next);
        self.lookup(set, None);
    }

    /// Begins a count without a limit for the packet's session and destination, where there is none of either kind: an element
    /// that is there has counted the packet already. Where the set is full there will be none.
    fn begin_count(&mut self, v6: bool) {
        const INVERTED: u32 = 1;
        const ADD: u32 = 0;
        self.family(v6);
        let next = self.load_address(Source, v6, Self::FIRST);
        self.load_address(Destination, v6, next);
        for kind in [Kind::Volumes, Kind::Counts] {
            self.expression("lookup", |w| {
                w.text(1, Set::family(kind, v6).name());
                w.be32(2, Self::FIRST);
                w.be32(5, INVERTED);
            });
        }
        self.expression("dynset", |w| {
            w.text(1, Set::family(Kind::Counts, v6).name());
            w.be32(3, ADD);
            w.be32(4, Self::FIRST);
            w.nest(7, |w| write_quota(w, Volume::default()));
        });
    }

    fn lease_in(&mut self, session: Side, set: Set) {
        self.family(set.v6);
        let next = self.load_address(session, set.v6, Self::FIRST);
        let next = self.load_address(session.other(), set.v6, next);
        self.load_port(session.other(), next);
        self.lookup(set, None);
    }

    fn marked_in(&mut self, session: Side, set: Set) {
        self.family(set.v6);
        let next = self.load_address(session, set.v6, Self::FIRST);
        self.ct(CT_MARK, next);
        self.lookup(set, None);
    }

    /// Goes where the session's class leads, if anywhere.
    fn class_of(&mut self, set: Set) {
        self.family(set.v6);
        self.load_address(Source, set.v6, Self::FIRST);
        self.lookup(set, Some(VERDICT_REGISTER));
    }

    fn range_in(&mut self, set: Set) {
        self.family(set.v6);
        let next = self.load_address(Destination, set.v6, Self::FIRST);
        self.load_port(Destination, next);
        self.lookup(set, None);
    }

    /// The flow is of the session's generation from now on.
    fn generation(&mut self, session: Side, v6: bool) {
        self.family(v6);
        self.load_address(session, v6, Self::FIRST);
        self.lookup(Set::family(Kind::Generations, v6), Some(Self::FIRST));
        self.store_mark();
    }

    fn set_mark(&mut self, mark: u32) {
        self.expression("immediate", |w| {
            w.be32(1, Self::FIRST);
            w.nest(2, |w| w.attr(1, &mark.to_ne_bytes()));
        });
        self.store_mark();
    }

    fn store_mark(&mut self) {
        const SOURCE_REGISTER: u16 = 4;
        self.expression("ct", |w| {
            w.be32(2, CT_MARK);
            w.be32(SOURCE_REGISTER, Self::FIRST);
        });
    }

    fn ct(&mut self, key: u32, register: u32) {
        self.expression("ct", |w| {
            w.be32(1, register);
            w.be32(2, key);
        });
    }

    fn established_if(&mut self, wanted: bool) {
        if wanted {
            self.state(CT_ESTABLISHED);
        }
    }

    fn interface(&mut self, name: &str) {
        const IIFNAME: u32 = 6;
        self.meta(IIFNAME, Self::FIRST);
        match name.strip_suffix('*') {
            Some(prefix) => self.compare(true, prefix.as_bytes()),
            None => {
                let mut padded = [0; libc::IFNAMSIZ];
                // Names are checked to be shorter before they come here.
                for (place, byte) in padded.iter_mut().zip(name.bytes()) {
                    *place = byte;
                }
                self.compare(true, &padded);
            }
        }
    }

    fn mark(&mut self, mark: u32) {
        const KEY_MARK: u32 = 3;
        self.meta(KEY_MARK, Self::FIRST);
        self.compare(true, &mark.to_ne_bytes());
    }

    fn untrack(&mut self) {
        self.expression("notrack", |_| {});
    }

    fn protocol(&mut self, protocol: u8) {
        self.meta(L4PROTO, Self::FIRST);
        self.compare(true, &[protocol]);
    }

    /// Goes on where the flow's state is one of `bits`.
    fn state(&mut self, bits: u32) {
        self.ct(CT_STATE, Self::FIRST);
        self.expression("bitwise", |w| {
            w.be32(1, Self::FIRST);
            w.be32(2, Self::FIRST);
            w.be32(3, 4);
            // The register holds the state in host order.
            w.nest(4, |w| w.attr(1, &bits.to_ne_bytes()));
            w.nest(5, |w| w.attr(1, &[0; 4]));
        });
        self.compare(false, &[0; 4]);
    }

    fn counter(&mut self) {
        self.0.nest(1, write_counter);
    }

    fn reject_reset(&mut self) {
        self.reject(1, 0);
    }

    fn reject_prohibited(&mut self) {
        self.reject(2, 3);
    }

    fn reject(&mut self, kind: u32, code: u8) {
        self.expression("reject", |w| {
            w.be32(1, kind);
            w.attr(2, &[code]);
        });
    }

    fn accept(&mut self) {
        self.verdict(1, None);
    }

    fn back(&mut self) {
        self.verdict(-5, None);
    }

    /// Goes on behind this rule where `chain` has no word on it.
    fn visit(&mut self, chain: &str) {
        self.verdict(-3, Some(chain));
    }

    fn go(&mut self, chain: &str) {
        self.verdict(-4, Some(chain));
    }

    fn verdict(&mut self, code: i32, chain: Option<&str>) {
        self.expression("immediate", |w| {
            w.be32(1, VERDICT_REGISTER);
            w.nest(2, |w| {
                w.nest(2, |w| {
                    w.be32(1, code as u32);
                    if let Some(chain) = chain {
                        w.text(2, chain);
                    }
                });
            });
        });
    }
}
