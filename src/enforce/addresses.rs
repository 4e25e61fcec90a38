//! Addresses of this host, which no answer may lead a sandbox to, and its interfaces.

use std::ffi::{CStr, CString};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Every address on every interface of this network namespace, loopback included.
///
/// # Errors
///
/// What `getifaddrs` gives.
pub fn host_addresses() -> io::Result<Vec<IpAddr>> {
    let mut all: Vec<IpAddr> = interface_addresses()?.into_iter().map(|(_, address)| address).collect();
    all.sort();
    all.dedup();
    Ok(all)
}

/// Every address of this network namespace with the interface it is on.
///
/// # Errors
///
/// What `getifaddrs` gives.
pub fn interface_addresses() -> io::Result<Vec<(String, IpAddr)>> {
    let mut list = std::ptr::null_mut();
    // SAFETY: `list` is a valid place for the head of the list; it is freed below.
    if unsafe { libc::getifaddrs(&mut list) } != 0 {
        return Err(io::Error::last_os_error());
    }
    let mut all = Vec::new();
    let mut at = list;
    while !at.is_null() {
        // SAFETY: `at` is an entry of the list that getifaddrs made and that is not freed yet.
        let entry = unsafe { &*at };
        if !entry.ifa_addr.is_null() && !entry.ifa_name.is_null() {
            // SAFETY: `ifa_name` is a NUL-terminated string for as long as the list lives.
            let name = || unsafe { CStr::from_ptr(entry.ifa_name) }.to_string_lossy().into_owned();
            // SAFETY: a non-null `ifa_addr` points to a socket address whose first field is its family.
            let family = i32::from(unsafe { (*entry.ifa_addr).sa_family });
            match family {
                libc::AF_INET => {
                    // SAFETY: an AF_INET address is a `sockaddr_in`; the read makes no demand on alignment.
                    let v4 = unsafe { entry.ifa_addr.cast::<libc::sockaddr_in>().read_unaligned() };
                    all.push((name(), IpAddr::V4(Ipv4Addr::from(u32::from_be(v4.sin_addr.s_addr)))));
                }
                libc::AF_INET6 => {
                    // SAFETY: an AF_INET6 address is a `sockaddr_in6`; the read makes no demand on alignment.
                    let v6 = unsafe { entry.ifa_addr.cast::<libc::sockaddr_in6>().read_unaligned() };
                    all.push((name(), IpAddr::V6(Ipv6Addr::from(v6.sin6_addr.s6_addr))));
                }
                _ => {}
            }
        }
        at = entry.ifa_next;
    }
    // SAFETY: `list` came from getifaddrs and nothing of it is used from here on.
    unsafe { libc::freeifaddrs(list) };
    Ok(all)
}

/// Whether this network namespace has an interface of this name.
pub fn has_interface(name: &str) -> bool {
    interface_number(name).is_some()
}

/// The number of an interface of the calling thread's network namespace.
pub fn interface_number(name: &str) -> Option<u32> {
    let name = CString::new(name).ok()?;
    // SAFETY: the pointer is to a NUL-terminated string that lives across the call.
    match unsafe { libc::if_nametoindex(name.as_ptr()) } {
        0 => None,
        number => Some(number),
    }
}

/// The name of an interface of the calling thread's network namespace.
pub fn interface_name(number: u32) -> Option<String> {
    let mut name = [0u8; libc::IF_NAMESIZE];
    // SAFETY: the buffer has the length that the call demands (IF_NAMESIZE).
    let found = unsafe { !libc::if_indextoname(number, name.as_mut_ptr().cast()).is_null() };
    let name = CStr::from_bytes_until_nul(&name).ok().filter(|_| found)?;
    name.to_str().ok().map(str::to_owned)
}

/// Whether only neighbours on one IPv6 link know the address (RFC 4291 section 2.5.6).
pub fn is_link_local(address: IpAddr) -> bool {
    matches!(address, IpAddr::V6(v6) if v6.is_unicast_link_local())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_is_among_them() {
        let all = host_addresses().expect("addresses");
        assert!(all.contains(&IpAddr::V4(Ipv4Addr::LOCALHOST)), "{all:?}");
        assert!(has_interface("lo") && !has_interface("no-such-device") && !has_interface("a\0b"));
    }

    #[test]
    fn interfaces_have_names_by_number() {
        assert_eq!((interface_name(1).as_deref(), interface_number("lo")), (Some("lo"), Some(1)));
        assert_eq!((interface_name(0), interface_name(u32::MAX)), (None, None));
    }

    #[test]
    fn link_local_addresses_are_those_of_ipv6() {
        for (text, is) in [("fe80::1", true), ("fec0::1", false), ("fd77:1::1", false), ("169.254.169.254", false)] {
            assert_eq!(is_link_local(text.parse().expect(text)), is, "{text}");
        }
    }
}
