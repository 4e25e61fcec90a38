//! The table as it must stand: sets, chains and rules as messages.
//!
//! Pure: fills a [`Batch`]. In the words of the `nft` tool, with IPv6 twins left out:
//!
//! ```text
//! table inet staunch {
//!   set pins4 { type ipv4_addr . ipv4_addr; flags timeout; size 131072; }
//!   set guarded4 { type ipv4_addr; }   set monitored4 { ... }   set quarantined4 { ... }
//!   chain forward {
//!     type filter hook forward priority filter; policy accept;
//!     ip saddr @quarantined4 counter goto refuse
//!     ip daddr @quarantined4 counter goto refuse
//!     ip saddr @guarded4 goto outward
//!     ip daddr @guarded4 goto inward
//!     iifname "veth-agent" goto unknown              # with guard_unknown
//!   }
//!   chain outward {
//!     ct state established accept
//!     ct state related meta l4proto { icmp, ipv6-icmp } accept
//!     ip saddr . ip daddr @pins4 accept
//!     counter goto refuse
//!   }
//!   chain inward { ct state ... accept; counter goto refuse }
//!   chain unknown { ip saddr @monitored4 return; counter goto refuse }
//!   chain refuse { meta l4proto tcp reject with tcp reset; reject with icmpx admin-prohibited }
//!   chain untracked { type filter hook output priority raw; meta mark 0x53544e48 notrack }
//! }
//! ```
//!
//! Quarantine comes first, so that it also ends flows that are established: their next packet, in either direction, is
//! answered with a reset. `related` is taken for ICMP errors alone; a connection that some helper expects needs a pin
//! like any other. A refusal is a reject and never a drop: a client must fail at once and not after its timeout.

use super::super::netlink::{Batch, Writer};
use super::resets::MARK;
use super::sets::{Kind, Set};

const MSG_NEWTABLE: u16 = 0;
pub(super) const MSG_GETTABLE: u16 = 1;
const MSG_DELTABLE: u16 = 2;
const MSG_NEWCHAIN: u16 = 3;
const MSG_NEWRULE: u16 = 6;
pub(super) const MSG_GETRULE: u16 = 7;
const MSG_DELRULE: u16 = 8;
const MSG_NEWSET: u16 = 9;
pub(super) const MSG_GETSET: u16 = 10;
const MSG_DELSET: u16 = 11;

const NLM_F_CREATE: u16 = 0x400;
const NLM_F_APPEND: u16 = 0x800;

pub(super) const TABLE_NAME: u16 = 1;
pub(super) const TABLE_FLAGS: u16 = 2;
pub(super) const TABLE_HANDLE: u16 = 4;
/// The table is switched off.
pub(super) const TABLE_DORMANT: u32 = 1;
/// Only the socket that created it may change it (Linux 5.12).
const TABLE_OWNER: u32 = 2;
/// It stays when that socket closes, to be taken over (Linux 6.9).
const TABLE_PERSIST: u32 = 4;
pub(super) const RULE_TABLE: u16 = 1;
pub(super) const RULE_HANDLE: u16 = 3;
pub(super) const SET_TABLE: u16 = 1;
pub(super) const SET_NAME: u16 = 2;
pub(super) const SET_DESC: u16 = 9;
pub(super) const SET_DESC_SIZE: u16 = 1;

/// The set in which the kernel's behaviour is tried out.
pub(super) const PROBE: &str = "probe";

/// Room of a pin set beyond the leases we count: the kernel counts elements that have ended until it collects them, and
/// one that is refreshed twice while it looks at it.
pub(super) const SPARE: u32 = 256;

const FORWARD: &str = "forward";
const OUTWARD: &str = "outward";
const INWARD: &str = "inward";
const UNKNOWN: &str = "unknown";
const REFUSE: &str = "refuse";
const UNTRACKED: &str = "untracked";

const SADDR: usize = 0;
const DADDR: usize = 1;
const CT_ESTABLISHED: u32 = 2;
const CT_RELATED: u32 = 4;

/// What the table is made of.
#[derive(Debug, Clone)]
pub(super) struct Layout {
    /// Its name.
    pub table: String,
    /// Interfaces sent to chain `unknown`; empty without `guard_unknown`.
    pub interfaces: Vec<String>,
    /// Size of each pin set: the capacity and [`SPARE`].
    pub size: u32,
    /// Whether nobody else may change it.
    pub owned: bool,
}

impl Layout {
    /// Removes the table; refused where there is none.
    pub(super) fn remove(&self, batch: &mut Batch) {
        batch.push(MSG_DELTABLE, 0, |w| w.text(TABLE_NAME, &self.table));
    }

    /// Creates what is missing and replaces the rules; elements of existing sets stay. Gives the number of rules.
    pub(super) fn install(&self, batch: &mut Batch) -> usize {
        self.table(batch);
        for (set, id) in Set::all().zip(1..) {
            let address = if set.v6 { Datatype::V6 } else { Datatype::V4 };
            match set.kind {
                Kind::Pins => self.set(batch, set.name(), address, true, Some(self.size), id),
                Kind::Guarded | Kind::Monitored | Kind::Quarantined => {
                    self.set(batch, set.name(), address, false, None, id);
                }
            }
        }
        for chain in [REFUSE, OUTWARD, INWARD, UNKNOWN, FORWARD, UNTRACKED] {
            self.chain(batch, chain);
        }
        batch.push(MSG_DELRULE, 0, |w| w.text(RULE_TABLE, &self.table));
        let mut rules = 0;
        self.rules(|chain, comment, expressions| {
            rules += 1;
            batch.push(MSG_NEWRULE, NLM_F_CREATE | NLM_F_APPEND, |w| {
                w.text(1, &self.table);
                w.text(2, chain);
                w.nest(4, |w| expressions(&mut Rule(w)));
                w.attr(7, &userdata(comment));
            });
        });
        rules
    }

    /// Creates the set for [`PROBE`].
    pub(super) fn probe_set(&self, batch: &mut Batch) {
        self.set(batch, PROBE, Datatype::V4, true, Some(16), 99);
    }

    /// Removes the set for [`PROBE`].
    pub(super) fn remove_probe_set(&self, batch: &mut Batch) {
        batch.push(MSG_DELSET, 0, |w| {
            w.text(SET_TABLE, &self.table);
            w.text(SET_NAME, PROBE);
        });
    }

    fn table(&self, batch: &mut Batch) {
        batch.push(MSG_NEWTABLE, NLM_F_CREATE, |w| {
            w.text(TABLE_NAME, &self.table);
            w.be32(TABLE_FLAGS, if self.owned { TABLE_OWNER | TABLE_PERSIST } else { 0 });
        });
    }

    fn set(&self, batch: &mut Batch, name: &str, address: Datatype, pins: bool, size: Option<u32>, id: u32) {
        const FLAG_TIMEOUT: u32 = 0x10;
        // Data types are the nft tool's, six bits each in a concatenation.
        let (kind, length) = match (address, pins && name != PROBE) {
            (Datatype::V4, false) => (7, 4),
            (Datatype::V6, false) => (8, 16),
            (Datatype::V4, true) => (7 << 6 | 7, 8),
            (Datatype::V6, true) => (8 << 6 | 8, 32),
        };
        batch.push(MSG_NEWSET, NLM_F_CREATE, |w| {
            w.text(SET_TABLE, &self.table);
            w.text(SET_NAME, name);
            w.be32(3, if pins { FLAG_TIMEOUT } else { 0 });
            w.be32(4, kind);
            w.be32(5, length);
            if let Some(size) = size {
                w.nest(SET_DESC, |w| w.be32(SET_DESC_SIZE, size));
            }
            w.be32(10, id);
        });
    }

    fn chain(&self, batch: &mut Batch, name: &str) {
        const HOOK_FORWARD: u32 = 2;
        const HOOK_OUTPUT: u32 = 3;
        const PRIORITY_FILTER: i32 = 0;
        const PRIORITY_RAW: i32 = -300;
        const ACCEPT: u32 = 1;
        let hook = match name {
            FORWARD => Some((HOOK_FORWARD, PRIORITY_FILTER)),
            UNTRACKED => Some((HOOK_OUTPUT, PRIORITY_RAW)),
            _ => None,
        };
        batch.push(MSG_NEWCHAIN, NLM_F_CREATE, |w| {
            w.text(1, &self.table);
            w.text(3, name);
            if let Some((hook, priority)) = hook {
                w.nest(4, |w| {
                    w.be32(1, hook);
                    w.be32(2, priority as u32);
                });
                w.be32(5, ACCEPT);
                w.text(7, "filter");
            }
        });
    }

    /// Gives every rule, in order, as chain, comment and expressions.
    fn rules(&self, mut rule: impl FnMut(&str, &str, &dyn Fn(&mut Rule<'_>))) {
        rule(REFUSE, "fail at once: tcp", &|r| {
            r.protocol(libc::IPPROTO_TCP as u8);
            r.reject_reset();
        });
        rule(REFUSE, "fail at once: rest", &|r| r.reject_prohibited());
        for (chain, end) in [(OUTWARD, "no pin"), (INWARD, "nothing asked for it")] {
            rule(chain, "open flows", &|r| {
                r.state(CT_ESTABLISHED);
                r.accept();
            });
            for (protocol, comment) in
                [(libc::IPPROTO_ICMP, "errors of open flows"), (libc::IPPROTO_ICMPV6, "as above")]
            {
                rule(chain, comment, &|r| {
                    r.state(CT_RELATED);
                    r.protocol(protocol as u8);
                    r.accept();
                });
            }
            if chain == OUTWARD {
                for v6 in [false, true] {
                    rule(chain, "pinned", &|r| {
                        r.pair_in(Set { kind: Kind::Pins, v6 });
                        r.accept();
                    });
                }
            }
            rule(chain, end, &|r| {
                r.counter();
                r.go(REFUSE);
            });
        }
        for v6 in [false, true] {
            rule(UNKNOWN, "monitored session", &|r| {
                r.address_in(SADDR, Set { kind: Kind::Monitored, v6 });
                r.back();
            });
        }
        rule(UNKNOWN, "nobody announced this source", &|r| {
            r.counter();
            r.go(REFUSE);
        });
        for v6 in [false, true] {
            for (side, comment) in [(SADDR, "quarantined session"), (DADDR, "to a quarantined session")] {
                rule(FORWARD, comment, &|r| {
                    r.address_in(side, Set { kind: Kind::Quarantined, v6 });
                    r.counter();
                    r.go(REFUSE);
                });
            }
        }
        for (side, chain, comment) in [(SADDR, OUTWARD, "guarded session"), (DADDR, INWARD, "to a guarded session")] {
            for v6 in [false, true] {
                rule(FORWARD, comment, &|r| {
                    r.address_in(side, Set { kind: Kind::Guarded, v6 });
                    r.go(chain);
                });
            }
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

#[derive(Debug, Clone, Copy)]
enum Datatype {
    V4,
    V6,
}

/// The nft tool shows this as the rule's comment.
fn userdata(comment: &str) -> Vec<u8> {
    const COMMENT: u8 = 0;
    let mut data = vec![COMMENT, (comment.len() + 1) as u8];
    data.extend_from_slice(comment.as_bytes());
    data.push(0);
    data
}

/// Writes expressions of one rule. Registers: 1 to 4 have 16 octets, 8 and up are their 4-octet parts.
struct Rule<'a>(&'a mut Writer);

impl Rule<'_> {
    fn expression(&mut self, name: &str, data: impl FnOnce(&mut Writer)) {
        self.0.nest(1, |w| {
            w.text(1, name);
            w.nest(2, data);
        });
    }

    fn meta(&mut self, key: u32) {
        self.expression("meta", |w| {
            w.be32(1, 1);
            w.be32(2, key);
        });
    }

    fn compare(&mut self, equal: bool, value: &[u8]) {
        self.expression("cmp", |w| {
            w.be32(1, 1);
            w.be32(2, u32::from(!equal));
            w.nest(3, |w| w.attr(1, value));
        });
    }

    fn family(&mut self, v6: bool) {
        const NFPROTO: u32 = 15;
        self.meta(NFPROTO);
        self.compare(true, &[if v6 { libc::NFPROTO_IPV6 } else { libc::NFPROTO_IPV4 } as u8]);
    }

    fn load_address(&mut self, side: usize, v6: bool, register: u32) {
        const NETWORK_HEADER: u32 = 1;
        let (offset, length) = if v6 { ([8, 24], 16) } else { ([12, 16], 4) };
        self.expression("payload", |w| {
            w.be32(1, register);
            w.be32(2, NETWORK_HEADER);
            w.be32(3, offset[side & 1]);
            w.be32(4, length);
        });
    }

    fn lookup(&mut self, set: Set) {
        self.expression("lookup", |w| {
            w.text(1, set.name());
            w.be32(2, 1);
        });
    }

    fn address_in(&mut self, side: usize, set: Set) {
        self.family(set.v6);
        self.load_address(side, set.v6, 1);
        self.lookup(set);
    }

    fn pair_in(&mut self, set: Set) {
        self.family(set.v6);
        self.load_address(SADDR, set.v6, 1);
        // Right behind the source address.
        self.load_address(DADDR, set.v6, if set.v6 { 2 } else { 9 });
        self.lookup(set);
    }

    fn interface(&mut self, name: &str) {
        const IIFNAME: u32 = 6;
        self.meta(IIFNAME);
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
        self.meta(KEY_MARK);
        self.compare(true, &mark.to_ne_bytes());
    }

    fn untrack(&mut self) {
        self.expression("notrack", |_| {});
    }

    fn protocol(&mut self, protocol: u8) {
        const L4PROTO: u32 = 16;
        self.meta(L4PROTO);
        self.compare(true, &[protocol]);
    }

    fn state(&mut self, bit: u32) {
        self.expression("ct", |w| {
            w.be32(1, 1);
            w.be32(2, 0);
        });
        self.expression("bitwise", |w| {
            w.be32(1, 1);
            w.be32(2, 1);
            w.be32(3, 4);
            // The register holds the state in host order.
            w.nest(4, |w| w.attr(1, &bit.to_ne_bytes()));
            w.nest(5, |w| w.attr(1, &[0; 4]));
        });
        self.compare(false, &[0; 4]);
    }

    fn counter(&mut self) {
        self.expression("counter", |w| {
            w.be64(1, 0);
            w.be64(2, 0);
        });
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

    fn go(&mut self, chain: &str) {
        self.verdict(-4, Some(chain));
    }

    fn verdict(&mut self, code: i32, chain: Option<&str>) {
        const VERDICT_REGISTER: u32 = 0;
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
