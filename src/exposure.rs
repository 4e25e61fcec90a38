//! Shared addresses: how many names are known behind each.
//!
//! A lease opens an address and not a name: whatever else is served there can be reached through it. What is known is what
//! this deployment has resolved, so the number is a lower limit. Keeps no name, only hashes of them.

use std::net::IpAddr;
use std::sync::Arc;

use parking_lot::Mutex;
use quick_cache::sync::Cache;

/// Addresses remembered; the least useful ones give way. Forgetting makes a number smaller and opens nothing.
const ADDRESSES: usize = 65_536;

/// Names told apart behind one address; beyond it the number stands for "this many or more".
const NAMES: usize = 64;

/// Hashes of names.
type Names = Arc<Mutex<Vec<u64>>>;

/// What is known. About 600 octets for an address with [`NAMES`] names, some 100 for one with a single name.
pub struct Exposure {
    names: Cache<IpAddr, Names>,
}

impl Default for Exposure {
    fn default() -> Self {
        Self { names: Cache::new(ADDRESSES) }
    }
}

impl Exposure {
    /// Notes that the name with this hash leads to `address`; how many others do, as far as is known.
    pub fn note(&self, address: IpAddr, name: u64) -> u32 {
        let names =
            match self.names.get_or_insert_with(&address, || Ok::<_, std::convert::Infallible>(Names::default())) {
                Ok(names) => names,
                Err(never) => match never {},
            };
        let mut names = names.lock();
        let known = names.contains(&name);
        if !known && names.len() < NAMES {
            names.push(name);
            return names.len() as u32 - 1;
        }
        names.len() as u32 - u32::from(known)
    }

    /// How many names lead to `address`, as far as is known.
    pub fn names(&self, address: IpAddr) -> u32 {
        self.names.peek(&address).map_or(0, |names| names.lock().len() as u32)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_behind_an_address_are_counted_once_and_up_to_a_cap() {
        let exposure = Exposure::default();
        let address = IpAddr::from([203, 0, 113, 9]);
        assert_eq!((exposure.note(address, 1), exposure.note(address, 1), exposure.note(address, 2)), (0, 0, 1));
        assert_eq!(exposure.names(address), 2);
        for name in 3..1_000 {
            exposure.note(address, name);
        }
        assert_eq!(exposure.names(address), NAMES as u32);
        assert_eq!(exposure.note(address, 1), NAMES as u32 - 1, "a known name is not among the others");
        assert_eq!(exposure.note(address, 5_000), NAMES as u32);
        assert_eq!(exposure.names(IpAddr::from([203, 0, 113, 10])), 0);
    }

    #[test]
    fn it_is_bounded() {
        let exposure = Exposure::default();
        for n in 0..200_000u32 {
            exposure.note(std::net::Ipv4Addr::from(n).into(), 1);
        }
        assert!(exposure.names.len() <= ADDRESSES, "{}", exposure.names.len());
    }
}
