//! The table as it must stand: sets, chains and rules as messages.
//!
//! Pure: fills a [`Batch`]. In the words of the `nft` tool, with the default capacity and IPv6 twins left out:
//!
//! ```text
//! table inet staunch {
//!   flags owner,persist;                                                                # where it is owned
//!   set pins4 { type ipv4_addr . ipv4_addr . inet_proto . inet_service; size 262400; flags timeout; }
//!   set web4 { type ipv4_addr . ipv4_addr; size 262400; flags timeout; }                # the ports of a web page
//!   set open4 { type ipv4_addr . ipv4_addr; size 262400; flags timeout; }               # every port
//!   set volumes4 { type ipv4_addr . ipv4_addr; size 1049600; quota over 1 bytes; }      # each its own quota
//!   set counts4 { type ipv4_addr . ipv4_addr; size 1049600; flags dynamic; quota over 1 bytes; }   # one without end
//!   set guarded4 { type ipv4_addr; }   set monitored4 { ... }   set quarantined4 { ... }
//!   map generations4 { type ipv4_addr : mark; }   set current4 { type ipv4_addr . mark; }
//!   map classes4 { type ipv4_addr : verdict; }                                           # jump class1
//!   set ranges4_1 { type ipv4_addr . inet_proto . inet_service; flags interval; counter; }  # for each class with ranges
//!   chain forward {
//!     type filter hook forward priority filter; policy accept;
//!     ip saddr @quarantined4 counter goto refuse
//!     ip daddr @quarantined4 counter goto refuse
//!     ip saddr @guarded4 goto outward
//!     ip daddr @guarded4 goto inward
//!     ip saddr @monitored4 ct state new,established ct mark set 1
//!     iifname "veth-agent" goto unknown              # with guard_unknown
//!   }
//!   chain outward {
//!     ip saddr . ip daddr @volumes4 counter goto refuse         # holds once the quota is used up
//!     ip saddr . ip daddr @counts4                              # counts
//!     ct state established ip saddr . ct mark @current4 accept
//!     ct state related meta l4proto icmp ip saddr . ct mark @current4 accept
//!     ip saddr . ip daddr @web4 jump web
//!     ip saddr . ip daddr . meta l4proto . th dport @pins4 goto leased
//!     meta l4proto { tcp, udp } ip saddr . ip daddr @open4 goto leased
//!     ip saddr vmap @classes4
//!     counter goto refuse
//!   }
//!   chain class1 { ip daddr . meta l4proto . th dport @ranges4_1 goto permit }
//!   chain web { tcp dport 80 goto leased; tcp dport 443 goto leased; udp dport 443 goto leased }
//!   chain leased {
//!     ip saddr . ip daddr != @volumes4 ip saddr . ip daddr != @counts4 add @counts4 { ip saddr . ip daddr quota over ... }
//!     goto permit
//!   }
//!   chain permit { ct mark set ip saddr map @generations4 accept; goto refuse }
//!   chain inward {
//!     ct state established ip daddr . ct mark @current4 accept
//!     ct state established ip daddr . ip saddr @web4 jump web_back
//!     ct state established ip daddr . ip saddr . meta l4proto . th sport @pins4 goto permit_back
//!     ct state established meta l4proto { tcp, udp } ip daddr . ip saddr @open4 goto permit_back
//!     ct state related ... accept
//!     counter goto refuse
//!   }
//!   chain web_back { tcp sport 80 goto permit_back; ... }
//!   chain permit_back { ct mark set ip daddr map @generations4 accept; goto refuse }
//!   chain unknown { ip saddr @monitored4 return; counter goto refuse }
//!   chain refuse { meta l4proto tcp reject with tcp reset; reject with icmpx admin-prohibited }
//!   chain untracked { type filter hook output priority raw; meta mark 0x53544e48 notrack }
//! }
//! ```
//!
//! Quarantine comes first, so that it also ends flows that are established: their next packet, in either direction, is
//! answered with a reset. An established flow passes by its mark, which is the generation of the session in which it was
//! permitted; one of an older generation passes by a lease alone and is of the present one from there on. `related` is
//! taken for ICMP errors alone, and for those about the session's own flows, which the mark says too: the kernel asks only
//! whether an error goes to an end of the flow it quotes, whoever sends it. A connection that some helper expects needs a
//! pin like any other. A refusal is a reject and never a drop: a client must fail at once and not after its timeout.

use super::super::netlink::Batch;
use super::super::state::Volume;
use super::super::{Class, VOLUMES_A_LEASE};
use super::rules::{Rule, write_counter};
use super::sets::{CLASSES, Field, Kind, Set, write_quota};

const MSG_NEWTABLE: u16 = 0;
pub(super) const MSG_GETTABLE: u16 = 1;
const MSG_DELTABLE: u16 = 2;
const MSG_NEWCHAIN: u16 = 3;
pub(super) const MSG_GETCHAIN: u16 = 4;
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
pub(super) const CHAIN_TABLE: u16 = 1;
pub(super) const CHAIN_NAME: u16 = 3;
pub(super) const CHAIN_POLICY: u16 = 5;
pub(super) const RULE_TABLE: u16 = 1;
pub(super) const RULE_HANDLE: u16 = 3;
pub(super) const SET_TABLE: u16 = 1;
pub(super) const SET_NAME: u16 = 2;
pub(super) const SET_DESC: u16 = 9;
pub(super) const SET_DESC_SIZE: u16 = 1;
const SET_EXPRESSION: u16 = 17;

/// The set in which the kernel's behaviour is tried out.
pub(super) const PROBE: &str = "probe";

/// Room of a pin set beyond the leases we count: the kernel counts elements that have ended until it collects them, and
/// one that is refreshed twice while it looks at it.
pub(super) const SPARE: u32 = 256;

pub(super) const FORWARD: &str = "forward";
pub(super) const OUTWARD: &str = "outward";
pub(super) const INWARD: &str = "inward";
pub(super) const LEASED: &str = "leased";
pub(super) const WEB: &str = "web";
pub(super) const WEB_BACK: &str = "web_back";
pub(super) const PERMIT: &str = "permit";
pub(super) const PERMIT_BACK: &str = "permit_back";
pub(super) const UNKNOWN: &str = "unknown";
pub(super) const REFUSE: &str = "refuse";
pub(super) const UNTRACKED: &str = "untracked";

/// What the table is made of.
#[derive(Debug, Clone)]
pub(super) struct Layout {
    /// Its name.
    pub table: String,
    /// Interfaces sent to chain `unknown`; empty without `guard_unknown`.
    pub interfaces: Vec<String>,
    /// Size of each set of leases: the capacity and [`SPARE`].
    pub size: u32,
    /// Whether nobody else may change it.
    pub owned: bool,
    /// Classes that have written ranges, or had some since the table was made.
    pub classes: Vec<Class>,
}

impl Layout {
    /// Every set it has.
    pub(super) fn sets(&self) -> impl Iterator<Item = Set> {
        let ranges = self.classes.iter().flat_map(|class| [Set::ranges(*class, false), Set::ranges(*class, true)]);
        // Chains lead to ranges, and sessions to chains: the last is the first that is compared.
        ranges.chain(Set::fixed())
    }

    /// Removes the table; refused where there is none.
    pub(super) fn remove(&self, batch: &mut Batch) {
        batch.push(MSG_DELTABLE, 0, |w| w.text(TABLE_NAME, &self.table));
    }

    /// Creates what is missing and replaces the rules; elements of existing sets stay. Gives the number of rules.
    pub(super) fn install(&self, batch: &mut Batch) -> usize {
        self.table(batch);
        for (set, id) in self.sets().zip(1..) {
            self.set(batch, set, id);
        }
        for class in &self.classes {
            self.chain(batch, class_chain(*class));
        }
        for chain in [REFUSE, PERMIT, PERMIT_BACK, LEASED, WEB, WEB_BACK, OUTWARD, INWARD, UNKNOWN, FORWARD, UNTRACKED]
        {
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

    /// Creates the set for [`PROBE`]: of leases to every port.
    pub(super) fn probe_set(&self, batch: &mut Batch) {
        self.named_set(batch, PROBE, Set::family(Kind::Open, false), 16, 99);
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

    fn set(&self, batch: &mut Batch, set: Set, id: u32) {
        self.named_set(batch, set.name(), set, self.size, id);
    }

    fn named_set(&self, batch: &mut Batch, name: &str, set: Set, size: u32, id: u32) {
        const FLAG_INTERVAL: u32 = 0x4;
        const FLAG_MAP: u32 = 0x8;
        const FLAG_TIMEOUT: u32 = 0x10;
        const FLAG_DYNAMIC: u32 = 0x20;
        const FLAG_CONCATENATED: u32 = 0x80;
        const DESC_FIELDS: u16 = 2;
        const FIELD_LENGTH: u16 = 1;
        let kind = set.kind;
        // Data types are the nft tool's, six bits each in a concatenation.
        let datatype = kind.fields().iter().fold(0, |all, field| all << 6 | datatype(*field, set.v6));
        let mut flags = 0;
        for (flag, wanted) in [
            (FLAG_TIMEOUT, kind.has_timeout()),
            (FLAG_DYNAMIC, kind == Kind::Counts),
            (FLAG_MAP, kind.is_map()),
            (FLAG_INTERVAL | FLAG_CONCATENATED, kind == Kind::Ranges),
        ] {
            flags |= if wanted { flag } else { 0 };
        }
        batch.push(MSG_NEWSET, NLM_F_CREATE, |w| {
            w.text(SET_TABLE, &self.table);
            w.text(SET_NAME, name);
            w.be32(3, flags);
            w.be32(4, datatype);
            w.be32(5, set.key_length() as u32);
            match kind {
                Kind::Classes => w.be32(6, DATATYPE_VERDICT),
                _ if kind.is_map() => {
                    w.be32(6, DATATYPE_MARK);
                    w.be32(7, 4);
                }
                _ => {}
            }
            w.nest(SET_DESC, |w| {
                if kind.is_large() {
                    w.be32(SET_DESC_SIZE, size_of_set(kind, size));
                }
                if kind == Kind::Ranges {
                    w.nest(DESC_FIELDS, |w| {
                        for field in kind.fields() {
                            w.nest(1, |w| w.be32(FIELD_LENGTH, set.field_length(*field) as u32));
                        }
                    });
                }
            });
            w.be32(10, id);
            match kind {
                _ if kind.counts() => w.nest(SET_EXPRESSION, |w| write_quota(w, Volume { limit: Some(1), used: 0 })),
                Kind::Ranges => w.nest(SET_EXPRESSION, write_counter),
                _ => {}
            }
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
}

/// How many elements a set takes, where `size` leases are taken.
pub(super) fn size_of_set(kind: Kind, size: u32) -> u32 {
    if kind.counts() { size.saturating_mul(VOLUMES_A_LEASE) } else { size }
}

/// The nft tool's number of a field's data type, which it shows keys by.
fn datatype(field: Field, v6: bool) -> u32 {
    match field {
        Field::Address => {
            if v6 {
                8
            } else {
                7
            }
        }
        Field::Protocol => 12,
        Field::Port => 13,
        Field::Mark => DATATYPE_MARK,
    }
}

const DATATYPE_MARK: u32 = 19;
const DATATYPE_VERDICT: u32 = 0xffff_ff00;

/// The chain that opens the written ranges of a class.
pub(super) fn class_chain(class: Class) -> &'static str {
    CLASSES.get(usize::from(class.0)).copied().unwrap_or_default()
}

/// The nft tool shows this as the rule's comment.
fn userdata(comment: &str) -> Vec<u8> {
    const COMMENT: u8 = 0;
    let mut data = vec![COMMENT, (comment.len() + 1) as u8];
    data.extend_from_slice(comment.as_bytes());
    data.push(0);
    data
}
