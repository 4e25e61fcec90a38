//! A sandbox's network namespace: found by name, path or process, entered by threads of their own.

use std::ffi::CStr;
use std::fs::File;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6};
use std::os::fd::{AsRawFd, FromRawFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use crate::enforce::interface_name;
use crate::lockdown::DEFAULT_PORT;
use crate::regular;

/// Where `ip netns` keeps names.
const NAMED: &str = "/run/netns";
/// Most octets of a resolv.conf that are read: glibc looks at three servers, so that one has some hundred.
const RESOLV_CONF: u64 = 64 * 1024;
/// Tries at opening it.
const OPEN_TRIES: u32 = 100;

/// A network namespace.
#[derive(Debug)]
pub struct Space {
    file: File,
    /// What its resolv.conf says, where one is known.
    pub resolv_conf: Option<String>,
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
        let path = match pid {
            Some(pid) => format!("/proc/{pid}/ns/net").into(),
            None if text.contains('/') => PathBuf::from(text),
            None => PathBuf::from(NAMED).join(text),
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
        let resolv_conf = match pid {
            Some(pid) => resolv_conf_within(format!("/proc/{pid}/root").as_ref()),
            None if text.contains('/') => None,
            None => resolv_conf(&PathBuf::from("/etc/netns").join(text).join("resolv.conf")),
        };
        Ok(Self { file, resolv_conf })
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

/// What a resolv.conf says; none where it cannot be read, or is none.
pub fn resolv_conf(path: &Path) -> Option<String> {
    String::from_utf8(regular::read(path, RESOLV_CONF).ok()?).ok()
}

/// What the resolv.conf of a sandbox says whose root directory this is. The sandbox may have written it: a link in it leads to
/// where it leads the sandbox, and not to a file of this host's, and what is no file, or without end, is none.
fn resolv_conf_within(root: &Path) -> Option<String> {
    const FILE: &CStr = c"etc/resolv.conf";
    let root = File::open(root).ok()?;
    // SAFETY: plain numbers, for which zero is a value.
    let mut how: libc::open_how = unsafe { std::mem::zeroed() };
    // Found, and not opened: what a sandbox calls so may be a device, and opening one may do something (a watchdog's starts it).
    how.flags = (libc::O_PATH | libc::O_CLOEXEC) as u64;
    how.resolve = libc::RESOLVE_IN_ROOT | libc::RESOLVE_NO_MAGICLINKS;
    let open = || {
        // SAFETY: the descriptor is open, the name ends with a NUL, and `how` is as long as said; all live through the call.
        let opened = unsafe {
            libc::syscall(
                libc::SYS_openat2,
                root.as_raw_fd(),
                FILE.as_ptr(),
                &raw const how,
                size_of::<libc::open_how>(),
            )
        };
        if opened < 0 { Err(io::Error::last_os_error()) } else { Ok(opened) }
    };
    // Where anything at all is renamed or mounted on this host while a `..` is followed, the kernel has it asked again.
    let again = |opened: &io::Result<_>| opened.as_ref().is_err_and(|error| error.raw_os_error() == Some(libc::EAGAIN));
    let opened = (1..OPEN_TRIES).map(|_| open()).find(|opened| !again(opened)).unwrap_or_else(open);
    let opened = i32::try_from(opened.ok()?).ok()?;
    // SAFETY: the descriptor was just made and is nobody else's.
    let found = unsafe { File::from_raw_fd(opened) };
    if !found.metadata().ok()?.is_file() {
        return None;
    }
    resolv_conf(format!("/proc/self/fd/{}", found.as_raw_fd()).as_ref())
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

/// The servers that a resolv.conf names, eight at most; `number` gives that of an interface by its name, which says on which link a
/// link-local address is.
pub fn nameservers(text: &str, number: impl Fn(&str) -> Option<u32>) -> Vec<SocketAddr> {
    let named = text.lines().filter_map(|line| line.trim().strip_prefix("nameserver"));
    let read = |rest: &str| {
        let word = rest.split_whitespace().next()?;
        let (address, link) = word.split_once('%').unwrap_or((word, ""));
        Some(match address.parse().ok()? {
            IpAddr::V6(v6) if !link.is_empty() => {
                let link = link.parse().ok().or_else(|| number(link)).unwrap_or(0);
                SocketAddrV6::new(v6, DEFAULT_PORT, 0, link).into()
            }
            address => SocketAddr::new(address, DEFAULT_PORT),
        })
    };
    named.filter(|rest| rest.starts_with([' ', '\t'])).filter_map(read).take(8).collect()
}

/// Whether the calling thread's namespace takes no IPv6 packet that comes in by these interfaces: there is no IPv6, or it is
/// switched off on each of them.
pub fn is_without_ipv6(interfaces: &[u32]) -> bool {
    let is_off = |number: &u32| {
        let file = interface_name(*number).map(|name| format!("/proc/sys/net/ipv6/conf/{name}/disable_ipv6"));
        file.and_then(|file| std::fs::read_to_string(file).ok()).is_some_and(|value| value.trim() == "1")
    };
    // Where nothing is shown of the network at all, nothing says that there is none.
    let none = Path::new("/proc/sys/net").exists() && !Path::new("/proc/sys/net/ipv6").exists();
    none || (!interfaces.is_empty() && interfaces.iter().all(is_off))
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
        let text = "# nameserver 192.0.2.1\nnameserver 10.77.1.1\nnameserver\tfe80::1%eth0\nnameserver fe80::2%9\n\
                    nameservers 1.1.1.1\nnameserver x\nnameserver fd77::1\n";
        let number = |name: &str| (name == "eth0").then_some(7);
        let link = |text: &str, link| SocketAddrV6::new(text.parse().expect("v6"), 53, 0, link).into();
        let read = nameservers(text, number);
        assert_eq!(
            read,
            ["10.77.1.1:53".parse().expect("v4"), link("fe80::1", 7), link("fe80::2", 9), link("fd77::1", 0)]
        );
    }

    #[test]
    fn a_sandboxs_resolv_conf_is_read_as_the_sandbox_reads_it_and_hangs_nobody() {
        use std::os::unix::fs::symlink;
        let (root, outside) = (tempfile::tempdir().expect("root"), tempfile::tempdir().expect("outside"));
        std::fs::create_dir_all(root.path().join("etc")).expect("made");
        std::fs::create_dir_all(root.path().join("run/resolve")).expect("made");
        let file = root.path().join("etc/resolv.conf");
        let read = || resolv_conf_within(root.path());
        let (theirs, ours) = ("nameserver 192.0.2.1\n", "nameserver 192.0.2.2\n");
        assert_eq!(read(), None);
        std::fs::write(&file, theirs).expect("written");
        assert_eq!(read().as_deref(), Some(theirs));
        // A link is the sandbox's, wherever it leads.
        let stub = outside.path().join("stub");
        std::fs::write(&stub, ours).expect("written");
        std::fs::write(root.path().join("run/resolve/stub"), theirs).expect("written");
        let link = |to: &Path| {
            std::fs::remove_file(&file).expect("removed");
            symlink(to, &file).expect("linked");
        };
        for to in ["/run/resolve/stub", "../run/resolve/stub", "../../../run/resolve/stub"] {
            link(Path::new(to));
            assert_eq!(read().as_deref(), Some(theirs), "{to}");
        }
        link(&stub);
        assert_eq!(read(), None, "a file of this host's");
        // What never ends, and what nobody writes to.
        link(Path::new("/dev/zero"));
        assert_eq!(read(), None);
        std::fs::remove_file(&file).expect("removed");
        let pipe = std::ffi::CString::new(file.as_os_str().as_encoded_bytes()).expect("a path");
        // SAFETY: the pointer is to a NUL-terminated string that lives until the call is over.
        assert_eq!(unsafe { libc::mkfifo(pipe.as_ptr(), 0o600) }, 0);
        assert_eq!((read(), resolv_conf(&file)), (None, None));
        std::fs::remove_file(&file).expect("removed");
        std::fs::write(&file, theirs.repeat(10_000)).expect("written");
        assert_eq!((read(), resolv_conf(&file)), (None, None), "no resolv.conf is so long");
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
