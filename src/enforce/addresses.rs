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
    // SAFETY: the pointer is to a NUL-terminated string that lives across the call.
    CString::new(name).is_ok_and(|name| unsafe { libc::if_nametoindex(name.as_ptr()) } != 0)
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
}
