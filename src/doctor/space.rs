//! A sandbox's network namespace: found by name, path or process, entered by threads of their own.

use std::fs::File;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::AsRawFd;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;

use crate::enforce::interface_name;

/// Where `ip netns` keeps names.
const NAMED: &str = "/run/netns";

/// A network namespace.
#[derive(Debug)]
pub struct Space {
    file: File,
    /// Its resolv.conf, where one is known.
    pub resolv_conf: Option<PathBuf>,
}

/// A default route.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Gateway {
    /// The next router; none for a route into a device.
    pub address: Option<IpAddr>,
    /// Its interface.
    pub interface: String,
}

impl Space {
    /// By a name that `ip netns` knows, a path (`/proc/N/ns/net` too), or a process id.
    ///
    /// # Errors
    ///
    /// Where there is none, it is no network namespace, or it is the caller's own: a host is no sandbox.
    pub fn open(text: &str) -> io::Result<Self> {
        let pid = text.parse::<u32>().ok();
        let (path, resolv_conf) = match pid {
            Some(pid) => {
                (format!("/proc/{pid}/ns/net").into(), Some(format!("/proc/{pid}/root/etc/resolv.conf").into()))
            }
            None if text.contains('/') => (PathBuf::from(text), None),
            None => (PathBuf::from(NAMED).join(text), Some(PathBuf::from("/etc/netns").join(text).join("resolv.conf"))),
        };
        let named = |error: io::Error| io::Error::new(error.kind(), format!("{}: {error}", path.display()));
        let file = File::open(&path).map_err(named)?;
        // SAFETY: the descriptor is open; the request takes no pointer.
        let kind = unsafe { libc::ioctl(file.as_raw_fd(), NS_GET_NSTYPE) };
        if kind != libc::CLONE_NEWNET {
            return Err(named(io::Error::new(io::ErrorKind::InvalidInput, "not a network namespace")));
        }
        let own = std::fs::metadata("/proc/thread-self/ns/net")?;
        let there = file.metadata()?;
        if (own.dev(), own.ino()) == (there.dev(), there.ino()) {
            return Err(named(io::Error::new(
                io::ErrorKind::InvalidInput,
                "this is the namespace that we are in ourselves",
            )));
        }
        Ok(Self { file, resolv_conf: resolv_conf.filter(|path: &PathBuf| path.exists()) })
    }

    /// Runs `work` on a thread of its own in the namespace.
    ///
    /// # Errors
    ///
    /// Where it may not be entered, or the thread panics.
    pub fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> io::Result<T> {
        std::thread::scope(|scope| {
            let inside = scope.spawn(|| {
                // SAFETY: the descriptor is open for as long as `self` is borrowed.
                match unsafe { libc::setns(self.file.as_raw_fd(), libc::CLONE_NEWNET) } {
                    0 => Ok(work()),
                    _ => Err(io::Error::last_os_error()),
                }
            });
            inside.join().unwrap_or_else(|_| Err(io::Error::other("a probe panicked")))
        })
    }
}

/// `ioctl_ns(2)`.
const NS_GET_NSTYPE: libc::Ioctl = 0xb703;

/// Default routes of the calling thread's namespace.
pub fn gateways() -> Vec<Gateway> {
    let read = |file: &str| std::fs::read_to_string(format!("/proc/thread-self/net/{file}")).unwrap_or_default();
    let mut all: Vec<Gateway> = read("route").lines().filter_map(route4).collect();
    all.extend(read("ipv6_route").lines().filter_map(route6));
    all.dedup();
    all
}

/// `Iface Destination Gateway Flags RefCnt Use Metric Mask ...`, numbers in the machine's order.
fn route4(line: &str) -> Option<Gateway> {
    let fields: Vec<&str> = line.split_whitespace().collect();
    let [interface, "00000000", gateway, _, _, _, _, "00000000", ..] = fields[..] else { return None };
    let address = Ipv4Addr::from(u32::from_str_radix(gateway, 16).ok()?.to_ne_bytes());
    let address = (!address.is_unspecified()).then_some(address.into());
    Some(Gateway { address, interface: interface.into() })
}

/// Destination, its length, source, its length, next hop, four numbers, interface.
fn route6(line: &str) -> Option<Gateway> {
    let fields: Vec<&str> = line.split_whitespace().collect();
    let [destination, "00", _, _, next, _, _, _, _, interface] = fields[..] else { return None };
    if destination.bytes().any(|b| b != b'0') || interface == "lo" {
        return None;
    }
    let address = Ipv6Addr::from(u128::from_str_radix(next, 16).ok()?);
    Some(Gateway { address: (!address.is_unspecified()).then_some(address.into()), interface: interface.into() })
}

/// The addresses that a resolv.conf names; eight at most.
pub fn nameservers(text: &str) -> Vec<IpAddr> {
    let named = text.lines().filter_map(|line| line.trim().strip_prefix("nameserver"));
    let read = |rest: &str| rest.split_whitespace().next()?.split('%').next()?.parse().ok();
    named.filter(|rest| rest.starts_with([' ', '\t'])).filter_map(read).take(8).collect()
}

/// What an interface of the calling thread's namespace is called; its number where it has gone.
pub fn called(number: u32) -> String {
    interface_name(number).unwrap_or_else(|| format!("interface {number}"))
}

/// Where TCP connections are listened for in the calling thread's namespace, in order.
pub fn listening() -> Vec<SocketAddr> {
    let read = |file: &str| std::fs::read_to_string(format!("/proc/thread-self/net/{file}")).unwrap_or_default();
    let mut all: Vec<SocketAddr> =
        [read("tcp"), read("tcp6")].iter().flat_map(|text| text.lines()).filter_map(listener).collect();
    all.sort();
    all.dedup();
    all
}

/// A line of `/proc/net/tcp` or `tcp6` (proc(5)) in state LISTEN: its number, its own end, the other end, the state. Addresses
/// are words of 32 bits as the machine keeps them.
fn listener(line: &str) -> Option<SocketAddr> {
    const LISTEN: &str = "0A";
    let mut fields = line.split_whitespace().skip(1);
    let (address, port) = fields.next()?.split_once(':')?;
    if fields.nth(1)? != LISTEN {
        return None;
    }
    let word = |at: usize| Some(u32::from_str_radix(address.get(at..at + 8)?, 16).ok()?.to_ne_bytes());
    let ip: IpAddr = match address.len() {
        8 => word(0)?.into(),
        32 => <[u8; 16]>::try_from([word(0)?, word(8)?, word(16)?, word(24)?].concat()).ok()?.into(),
        _ => return None,
    };
    Some(SocketAddr::new(ip.to_canonical(), u16::from_str_radix(port, 16).ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn routes_are_read_as_the_kernel_writes_them() {
        let v4 = "eth0\t00000000\t01014D0A\t0003\t0\t0\t0\t00000000\t0\t0\t0";
        if cfg!(target_endian = "little") {
            let address = Some([10, 77, 1, 1].into());
            assert_eq!(route4(v4), Some(Gateway { address, interface: "eth0".into() }));
        }
        assert_eq!(route4("eth0\t00014D0A\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0"), None);
        assert_eq!(route4("Iface\tDestination\tGateway"), None);
        let v6 =
            format!("{z} 00 {z} 00 fd770001000000000000000000000001 00000400 1 0 00000003 eth0", z = "0".repeat(32));
        let address = Some("fd77:1::1".parse().expect("v6"));
        assert_eq!(route6(&v6), Some(Gateway { address, interface: "eth0".into() }));
        assert_eq!(route6(&v6.replace("eth0", "lo")), None, "the kernel's own refusal");
    }

    #[test]
    fn listeners_are_read_as_the_kernel_writes_them() {
        let rest = "00000000:00000000 00:00000000 00000000     0        0 1 1 0 100 0 0 10 0";
        if cfg!(target_endian = "little") {
            for (ends, wanted) in [
                ("00000000:1F90 00000000:0000 0A", Some("0.0.0.0:8080")),
                ("01014D0A:0035 00000000:0000 0A", Some("10.77.1.1:53")),
                ("00000000000000000000000000000000:0016 00000000000000000000000000000000:0000 0A", Some("[::]:22")),
                (
                    "010077FD000000000000000001000000:0050 00000000000000000000000000000000:0000 0A",
                    Some("[fd77:1::1]:80"),
                ),
                (
                    "0000000000000000FFFF000001014D0A:0050 00000000000000000000000000000000:0000 0A",
                    Some("10.77.1.1:80"),
                ),
                ("01014D0A:0035 02014D0A:9C40 01", None),
            ] {
                assert_eq!(listener(&format!("  12: {ends} {rest}")), wanted.map(|at| at.parse().expect(at)), "{ends}");
            }
        }
        assert_eq!(listener("  sl  local_address rem_address   st tx_queue rx_queue"), None);
        assert_eq!(listener("0: 0101:0 0:0 0A"), None);
        let own = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        assert!(listening().contains(&own.local_addr().expect("an address")));
    }

    #[test]
    fn nameservers_are_those_of_the_file() {
        let text = "# nameserver 192.0.2.1\nnameserver 10.77.1.1\nnameserver\tfe80::1%eth0\nnameservers 1.1.1.1\nnameserver x\n";
        assert_eq!(nameservers(text), ["10.77.1.1".parse::<IpAddr>().expect("v4"), "fe80::1".parse().expect("v6")]);
    }

    #[test]
    fn what_is_no_sandbox_s_namespace_is_told() {
        for (text, word) in
            [("/proc/self/ns/net", "ourselves"), ("/dev/null", "/dev/null"), ("no-such-namespace", "no-such")]
        {
            let error = Space::open(text).expect_err(text).to_string();
            assert!(error.contains(word), "{text}: {error}");
        }
    }
}
