//! A bar before a socket's queue: of sources that send more than a worker judges, the kernel lets a part through and drops the
//! rest, in the time of whoever sends, so that others find room in the queue and the worker's time goes to answers.
//!
//! [`super::fair`] decides how many datagrams of a source are judged; this follows it, window by window. The part that is let
//! through is drawn by chance, in a program of a few instructions (classic BPF, which needs no privilege), and set so that a
//! quarter more comes than is judged: a flood gets its share of the answers all the time, and costs little beyond it. The part
//! grows by a sixteenth each window in which nothing had to be discarded, until all is let through, and by half where little
//! comes at all: whoever stops is heard in full within a second or two, and a flood that comes in bursts finds the bar where it was.

use std::io;
use std::net::{IpAddr, UdpSocket};

use socket2::{SockFilter, SockRef};

use super::fair::WINDOW;

/// Most sources at once: the program is walked through for each datagram.
pub(super) const SOURCES: usize = 16;
/// So many datagrams in a window make a source one that may be barred: 25,600 a second to one worker.
pub(super) const HEAVY: u32 = 256;
/// Fewer in a window are not cut further: they cost nothing.
const LIGHT: u32 = 16;
/// A source is cut where this many times as much comes as is judged, and gets more where it is less than that many times.
const EXCESS: f64 = 1.5;
const LITTLE: f64 = 1.25;
/// So many times what is judged is let through.
const SPARE: f64 = 1.25;
/// What the part let through grows by in a window.
const RISE: f64 = 1.0 / 16.0;
/// What it grows by where so little comes that there is room for four times as much: it was cut by what stood in the queue from
/// before.
const CATCH_UP: f64 = 0.5;
/// The smallest part: a flood of ten million a second is 24 in a window then.
const LEAST: f64 = 1.0 / 4096.0;
/// Part of a new count in the memory of what is judged: about ten windows.
const FRESH: f64 = 0.1;
/// The kernel's program is changed where a part is off by more than this part of it: that costs some 20 us.
const NOTABLE: f64 = 0.2;
/// No more windows than these are made up for at once: enough for the smallest part to grow whole.
const MOST_WINDOWS: u64 = 200;

/// Offset of the network header for absolute loads (`SKF_NET_OFF`).
const NETWORK: u32 = libc::SKF_NET_OFF as u32;
/// Offset at which a load gives 32 random bits (`SKF_AD_RANDOM`).
const RANDOM: u32 = (libc::SKF_AD_OFF + libc::SKF_AD_RANDOM) as u32;
const LOAD_OCTET: u16 = (libc::BPF_LD | libc::BPF_B | libc::BPF_ABS) as u16;
const LOAD_WORD: u16 = (libc::BPF_LD | libc::BPF_W | libc::BPF_ABS) as u16;
const SHIFT_RIGHT: u16 = (libc::BPF_ALU | libc::BPF_RSH | libc::BPF_K) as u16;
const JUMP_IF_EQUAL: u16 = (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16;
const JUMP_IF_ABOVE: u16 = (libc::BPF_JMP | libc::BPF_JGT | libc::BPF_K) as u16;
const RETURN: u16 = (libc::BPF_RET | libc::BPF_K) as u16;

/// One instruction: code, how many to skip where it holds and where it does not, operand.
type Step = (u16, u8, u8, u32);

/// What came of a source in a window that is over, how much of it was judged, and how much would have been at most.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Count {
    pub(super) came: u32,
    pub(super) judged: u32,
    pub(super) level: u32,
}

/// A source of which a part is dropped.
#[derive(Debug)]
struct Barred {
    source: IpAddr,
    /// Part that is to be let through, and part that the kernel's program lets through; 0 before it does.
    part: f64,
    in_force: f64,
    /// What is judged of it in a window, over some windows.
    judged: f64,
}

/// A worker's own; where workers share a socket, one of them has one.
#[derive(Debug, Default)]
pub(super) struct Bar {
    barred: Vec<Barred>,
    /// When it was last adjusted, monotonic milliseconds.
    at: u64,
    /// The kernel takes no such program.
    refused: bool,
}

impl Bar {
    /// Whether somebody is barred.
    pub(super) fn is_down(&self) -> bool {
        !self.barred.is_empty()
    }

    /// A window is over: adjusts what is let through of each source by what [`super::fair`] counted of it, and bars those of
    /// `heavy` (more than [`HEAVY`]) that send more than is judged. Says how many were barred anew.
    ///
    /// # Errors
    /// Where the kernel does not take the program; nobody is barred then, and it is not tried again.
    pub(super) fn adjust(
        &mut self,
        socket: &UdpSocket,
        now: u64,
        heavy: &[IpAddr],
        count: impl Fn(IpAddr) -> Count,
    ) -> io::Result<u64> {
        if self.refused {
            return Ok(0);
        }
        let windows = (now.saturating_sub(self.at) / WINDOW).clamp(1, MOST_WINDOWS);
        self.at = now;
        let before = self.barred.len();
        for barred in &mut self.barred {
            barred.adjust(count(barred.source), windows as i32); // at most MOST_WINDOWS
        }
        self.barred.retain(|barred| barred.part < 1.0);
        let mut changed = self.barred.len() != before;
        let mut anew = 0;
        for source in heavy.iter().copied() {
            let Count { came, judged, .. } = count(source);
            let is_flood = f64::from(came) >= EXCESS * f64::from(judged);
            if is_flood && self.barred.len() < SOURCES && self.barred.iter().all(|barred| barred.source != source) {
                let part = SPARE * f64::from(judged) / f64::from(came);
                let part = part.max(LEAST);
                self.barred.push(Barred { source, part, in_force: 0.0, judged: f64::from(judged) });
                anew += 1;
            }
        }
        changed |= self.barred.iter().any(|barred| (barred.part - barred.in_force).abs() > NOTABLE * barred.in_force);
        if changed && let Err(error) = self.put(socket) {
            self.refused = true;
            self.barred.clear();
            Self::lift(socket);
            return Err(error);
        }
        Ok(anew)
    }

    /// Takes away whatever bar is on a socket, be it one that a process before this one has left there: nobody would ever lift it.
    pub(super) fn lift(socket: &UdpSocket) {
        // As a rule there is none.
        let _ = SockRef::from(socket).detach_filter();
    }

    /// Part of a source that the kernel lets through.
    #[cfg(test)]
    pub(super) fn part_of(&self, source: IpAddr) -> f64 {
        self.barred.iter().find(|barred| barred.source == source).map_or(1.0, |barred| barred.in_force)
    }

    /// Gives the kernel the program for who is barred now, or takes it away.
    fn put(&mut self, socket: &UdpSocket) -> io::Result<()> {
        if self.barred.is_empty() {
            return SockRef::from(socket).detach_filter();
        }
        let parts: Vec<_> = self.barred.iter().map(|barred| (barred.source, barred.part)).collect();
        let filters: Vec<_> =
            program(&parts).into_iter().map(|(code, jt, jf, k)| SockFilter::new(code, jt, jf, k)).collect();
        SockRef::from(socket).attach_filter(&filters)?;
        self.barred.iter_mut().for_each(|barred| barred.in_force = barred.part);
        Ok(())
    }
}

impl Barred {
    fn adjust(&mut self, Count { came, judged, level }: Count, windows: i32) {
        let (came, judged) = (f64::from(came), f64::from(judged));
        self.judged += (judged - self.judged) * FRESH;
        // A burst of which more is judged than of late is no excess.
        let judged = judged.max(self.judged);
        if came >= f64::from(LIGHT) && came >= EXCESS * judged {
            self.part = (self.part * SPARE * judged / came).max(LEAST);
        } else if came <= LITTLE * judged {
            let rise = if came > 0.0 && 4.0 * came < f64::from(level) { CATCH_UP } else { RISE };
            self.part *= (1.0 + rise).powi(windows);
        }
    }
}

/// Lets these parts of what these sources send through, and all else, what cannot be read included. An IPv6 source that is the
/// first address of a /64 is all of it.
fn program(parts: &[(IpAddr, f64)]) -> Vec<Step> {
    let v4: Vec<_> = parts.iter().filter_map(|(ip, part)| Some((as_v4(*ip)?, *part))).take(SOURCES).collect();
    let v6: Vec<_> = parts.iter().filter_map(|(ip, part)| Some((as_v6(*ip)?, *part))).take(SOURCES).collect();
    let by_chance = |part: f64| {
        // Saturates at either end.
        let highest = (part * f64::from(u32::MAX)) as u32;
        [(LOAD_WORD, 0, 0, RANDOM), (JUMP_IF_ABOVE, 0, 1, highest), (RETURN, 0, 0, 0), (RETURN, 0, 0, u32::MAX)]
    };
    let mut steps = vec![(LOAD_OCTET, 0, 0, NETWORK), (SHIFT_RIGHT, 0, 0, 4)];
    // Over the IPv4 part: a load, five steps a source, and a return.
    steps.push((JUMP_IF_EQUAL, 0, v4.len() as u8 * 5 + 2, 4));
    steps.push((LOAD_WORD, 0, 0, NETWORK.wrapping_add(12)));
    for (ip, part) in v4 {
        steps.push((JUMP_IF_EQUAL, 0, 4, ip));
        steps.extend(by_chance(part));
    }
    steps.push((RETURN, 0, 0, u32::MAX));
    for (words, part) in v6 {
        let mut skips = words.len() as u8 * 2 + 4; // four words at most
        for (at, word) in (8..).step_by(4).zip(words) {
            skips -= 2;
            steps.extend([(LOAD_WORD, 0, 0, NETWORK.wrapping_add(at)), (JUMP_IF_EQUAL, 0, skips, word)]);
        }
        steps.extend(by_chance(part));
    }
    steps.push((RETURN, 0, 0, u32::MAX));
    steps
}

fn as_v4(source: IpAddr) -> Option<u32> {
    match source.to_canonical() {
        IpAddr::V4(ip) => Some(ip.to_bits()),
        IpAddr::V6(_) => None,
    }
}

/// What has to be equal: the words of a network, or of an address.
fn as_v6(source: IpAddr) -> Option<Vec<u32>> {
    let IpAddr::V6(ip) = source.to_canonical() else { return None };
    let words = [96, 64, 32, 0].map(|shift| (ip.to_bits() >> shift) as u32);
    let of_network = words.ends_with(&[0, 0]);
    Some(words.into_iter().take(if of_network { 2 } else { 4 }).collect())
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, SocketAddr};
    use std::time::Duration;

    use super::*;

    fn bound(ip: &str) -> UdpSocket {
        let ip: IpAddr = ip.parse().expect("an address");
        UdpSocket::bind((ip, 0)).expect("a socket")
    }

    /// What arrives of one datagram from each of these addresses, in their order.
    fn arrives(at: &UdpSocket, from: &[&str]) -> Vec<String> {
        at.set_read_timeout(Some(Duration::from_millis(100))).expect("a time limit");
        let to = SocketAddr::new(at.local_addr().expect("bound").ip(), at.local_addr().expect("bound").port());
        for source in from {
            bound(source).send_to(source.as_bytes(), to).expect("sent");
        }
        let mut octets = [0; 64];
        let mut next =
            || at.recv(&mut octets).ok().map(|length| String::from_utf8_lossy(&octets[..length]).into_owned());
        std::iter::from_fn(&mut next).collect()
    }

    /// As often as there are windows until it is so, at most a hundred times.
    fn windows_until(mut so: impl FnMut(u64) -> bool) -> u64 {
        (1..100).find(|n| so(*n)).expect("within a second")
    }

    #[test]
    fn a_part_of_who_is_barred_is_let_through_and_all_of_everybody_else() {
        let socket = bound("127.0.0.1");
        let all = ["127.0.0.2", "127.0.0.3", "127.0.0.4", "127.0.0.5"];
        assert_eq!(arrives(&socket, &all), all);
        let put = |parts: &[(&str, f64)]| {
            let barred = |(ip, part): &(&str, f64)| {
                let source = ip.parse().expect("an address");
                Barred { source, part: *part, in_force: 0.0, judged: 0.0 }
            };
            let mut bar = Bar { barred: parts.iter().map(barred).collect(), ..Bar::default() };
            bar.put(&socket).expect("taken without any privilege");
        };
        put(&[("127.0.0.3", 0.0), ("2001:db8::1", 0.0), ("::ffff:127.0.0.5", 0.0)]);
        assert_eq!(arrives(&socket, &all), ["127.0.0.2", "127.0.0.4"]);
        put(&[("127.0.0.2", 1.0), ("127.0.0.3", 0.0)]);
        assert_eq!(arrives(&socket, &all), ["127.0.0.2", "127.0.0.4", "127.0.0.5"]);
        // Of four hundred, by chance: less than one in a million runs is beyond these.
        put(&[("127.0.0.2", 0.25), ("127.0.0.3", 0.0)]);
        let many = arrives(&socket, &["127.0.0.2"; 400]).len();
        assert!((55..150).contains(&many), "{many}");
        // As many as there may be, at either end of the table.
        let table: Vec<String> = (2..18).map(|n| format!("127.0.0.{n}")).collect();
        assert_eq!(table.len(), SOURCES);
        put(&table.iter().map(|ip| (ip.as_str(), 0.0)).collect::<Vec<_>>());
        assert_eq!(arrives(&socket, &["127.0.0.2", "127.0.0.17", "127.0.0.18"]), ["127.0.0.18"]);
        put(&[]);
        assert_eq!(arrives(&socket, &all), all);
    }

    #[test]
    fn what_is_let_through_follows_what_is_judged() {
        let (socket, flood) = (bound("127.0.0.1"), IpAddr::from([127, 0, 0, 2]));
        let mut bar = Bar::default();
        // Of 100,000 in a window a worker takes 4,000 from its queue and judges 100; of another source all of 300.
        let count = |part: f64| {
            move |source| match source == flood {
                true => {
                    let came = 1e5 * part;
                    Count { came: came.min(4000.0) as u32, judged: came.min(100.0) as u32, level: 100 }
                }
                false => Count { came: 300, judged: 300, level: 300 },
            }
        };
        let heavy = [flood, [127, 0, 0, 3].into()];
        assert_eq!(bar.adjust(&socket, WINDOW, &heavy, count(1.0)).expect("taken"), 1);
        let settled = windows_until(|n| {
            bar.adjust(&socket, (1 + n) * WINDOW, &heavy, count(bar.part_of(flood))).expect("taken");
            (0.0009..0.0016).contains(&bar.part_of(flood))
        });
        assert!(settled < 4, "{settled}");
        assert_eq!((bar.barred.len(), bar.is_down()), (1, true), "and nobody else");
        // It stops: a second later it is heard in full. A worker without a datagram looks now and then.
        let lifted = windows_until(|n| {
            bar.adjust(&socket, (1 + settled + n * 10) * WINDOW, &[], |_| Count::default()).expect("taken");
            !bar.is_down()
        });
        assert!((5..13).contains(&lifted), "{lifted}");
        assert_eq!(arrives(&socket, &["127.0.0.2"]), ["127.0.0.2"]);
    }

    #[test]
    fn bursts_that_are_judged_are_not_cut() {
        let mut barred = Barred { source: [127, 0, 0, 2].into(), part: 0.5, in_force: 0.5, judged: 0.0 };
        barred.adjust(Count { came: 1000, judged: 1000, level: 2000 }, 1);
        assert!(barred.part > 0.5);
        barred.adjust(Count { came: LIGHT - 1, judged: 1, level: 1 }, 1);
        assert!(barred.part > 0.5, "so few cost nothing");
        barred.adjust(Count { came: 1000, judged: 0, level: 0 }, 1);
        assert!(barred.part < 0.1 && barred.part >= LEAST, "{}", barred.part);
        (0..100).for_each(|_| barred.adjust(Count { came: 1000, judged: 0, level: 0 }, 1));
        assert!(barred.part >= LEAST);
        barred.adjust(Count { came: 10, judged: 10, level: 41 }, 1);
        assert!(barred.part >= LEAST * 1.49, "little comes where there is much room");
        barred.adjust(Count::default(), MOST_WINDOWS as i32);
        assert!(barred.part >= 1.0, "made up for at once after a silence");
    }

    #[test]
    fn an_ipv6_source_is_an_address_or_a_network() {
        let Ok(socket) = UdpSocket::bind("[::1]:0") else { return println!("SKIPPED: no IPv6 on this machine") };
        let put = |ip: &str| {
            let source = ip.parse().expect("an address");
            let barred = vec![Barred { source, part: 0.0, in_force: 0.0, judged: 0.0 }];
            Bar { barred, ..Bar::default() }.put(&socket).expect("taken");
        };
        for other in ["2001:db8::", "2001:db8::1", "::2", "::1:0:1"] {
            put(other);
            assert_eq!(arrives(&socket, &["::1"]), ["::1"], "{other}");
        }
        for same in ["::", "::1"] {
            put(same);
            assert!(arrives(&socket, &["::1"]).is_empty(), "{same}");
        }
        let v4_alone = program(&[(Ipv4Addr::LOCALHOST.into(), 0.0)]);
        assert_eq!(v4_alone.last(), Some(&(RETURN, 0, 0, u32::MAX)), "without a source of IPv6 all of it is kept");
    }
}
