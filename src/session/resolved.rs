//! Names a session has resolved, until it is known that one of their addresses was connected to.
//!
//! Pure. What is forgotten here counts as never connected to, so filling it up buys no trust.

use std::collections::VecDeque;
use std::net::IpAddr;

use staunch_scoring::{NameBuf, NameRef};

/// Names that wait to be connected to; the oldest gives way. A page has some hundred.
const WAITING: usize = 128;
/// Names remembered as connected to, so that each counts once. A name that is resolved and connected to again after so
/// many others counts again.
const TOLD: usize = 256;
/// Addresses remembered for one answer, the first ones: stubs try them in order.
const ADDRESSES: usize = 8;

/// See the module. At most some 60 KiB; nothing before the first name.
#[derive(Debug, Default)]
pub struct Resolved {
    waiting: VecDeque<Waiting>,
    told: VecDeque<u64>,
    connected: u64,
}

#[derive(Debug)]
struct Waiting {
    name: u64,
    tenant: NameBuf,
    addresses: Box<[IpAddr]>,
}

impl Resolved {
    /// Notes that a name under `tenant` has resolved to `addresses`; `name` is its hash.
    pub fn note(&mut self, name: u64, tenant: NameRef<'_>, addresses: &[IpAddr]) {
        let addresses = addresses.get(..ADDRESSES).unwrap_or(addresses);
        let (Some(first), false) = (addresses.first(), self.told.contains(&name)) else { return };
        // A newer answer takes the older one's place; that of the other family stands beside it.
        let same = |waiting: &&mut Waiting| {
            waiting.name == name && waiting.addresses.first().map(IpAddr::is_ipv4) == Some(first.is_ipv4())
        };
        if let Some(known) = self.waiting.iter_mut().find(same) {
            known.addresses = addresses.into();
            return;
        }
        if self.waiting.len() >= WAITING {
            self.waiting.pop_front();
        }
        self.waiting.push_back(Waiting { name, tenant: tenant.to_owned(), addresses: addresses.into() });
    }

    /// An address was connected to: the tenants of the names that had resolved to it, each name once.
    pub fn connected(&mut self, to: IpAddr) -> Vec<NameBuf> {
        let mut tenants = Vec::new();
        while let Some(at) = self.waiting.iter().position(|waiting| waiting.addresses.contains(&to)) {
            let Some(found) = self.waiting.remove(at) else { break };
            self.waiting.retain(|waiting| waiting.name != found.name);
            if self.told.len() >= TOLD {
                self.told.pop_front();
            }
            self.told.push_back(found.name);
            self.connected += 1;
            tenants.push(found.tenant);
        }
        tenants
    }

    /// Names that were connected to.
    pub fn count(&self) -> u64 {
        self.connected
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tenant() -> NameBuf {
        NameBuf::from_text("site.example").expect("name")
    }

    fn address(n: u32) -> IpAddr {
        std::net::Ipv4Addr::from(0xcb00_7100 + n).into()
    }

    #[test]
    fn a_name_counts_once_by_whichever_address() {
        let mut resolved = Resolved::default();
        let v6 = IpAddr::from([0x2001, 0xdb8, 0, 0, 0, 0, 0, 1]);
        resolved.note(1, tenant().as_ref(), &[address(1), address(2)]);
        resolved.note(1, tenant().as_ref(), &[v6]);
        resolved.note(2, tenant().as_ref(), &[address(2)]);
        resolved.note(3, tenant().as_ref(), &[]);
        assert!(resolved.connected(address(9)).is_empty());
        assert_eq!(resolved.connected(address(2)).len(), 2, "both names lead there");
        assert!(resolved.connected(v6).is_empty() && resolved.connected(address(1)).is_empty(), "counted already");
        resolved.note(1, tenant().as_ref(), &[address(1)]);
        assert!(resolved.connected(address(1)).is_empty(), "resolved again, still one name");
        assert_eq!(resolved.count(), 2);
    }

    #[test]
    fn a_newer_answer_takes_the_olders_place() {
        let mut resolved = Resolved::default();
        resolved.note(1, tenant().as_ref(), &[address(1)]);
        resolved.note(1, tenant().as_ref(), &[address(2)]);
        assert!(resolved.connected(address(1)).is_empty());
        assert_eq!(resolved.connected(address(2)), [tenant()]);
    }

    #[test]
    fn it_is_bounded_and_forgetting_buys_nothing() {
        let mut resolved = Resolved::default();
        for n in 0..1_000 {
            resolved.note(u64::from(n), tenant().as_ref(), &[address(n)]);
        }
        assert_eq!(resolved.waiting.len(), WAITING);
        assert!(resolved.connected(address(0)).is_empty(), "the oldest never counts");
        for n in 0..1_000 {
            resolved.connected(address(n));
        }
        assert_eq!((resolved.count(), resolved.told.len()), (WAITING as u64, WAITING));
        for n in 2_000..4_000 {
            resolved.note(u64::from(n), tenant().as_ref(), &[address(n)]);
            resolved.connected(address(n));
        }
        assert_eq!(resolved.told.len(), TOLD);
    }
}
