//! The listeners on real loopback sockets, with a service that refuses every name: what stubs see on the wire.

#[path = "listen_wire/allocations.rs"]
mod allocations;
#[path = "listen_wire/connections.rs"]
mod connections;
#[path = "listen_wire/handed_on.rs"]
mod handed_on;
#[path = "world/skip.rs"]
mod skip;

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, Shutdown, SocketAddr, TcpStream, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, Instant};

use staunch::listen::{Config, Error, Fast, Inherited, Listener, Service};
use staunch::model::{Ede, Now, Transport};
use staunch::reply::{self, Refusal};
use staunch::wire::{self, Parsed, Query};
use tokio::sync::Semaphore;

/// Refuses every name. The first label says how: `wait<ms>` and `stuck` on the slow path, `die` and `latedie` with a
/// panic, `mute` not at all, `big` with 60,000 octets, `bigwait<ms>` both.
struct Refuser {
    gate: Semaphore,
    seen: AtomicUsize,
    /// How many are at the gate or past it.
    stuck: AtomicUsize,
}

fn refuse(query: &Query<'_>, out: &mut Vec<u8>) {
    let owner = query.qname.as_ref();
    let text = "case c0123456789ab: refused by policy";
    let refusal = Refusal { rcode: 3, soa_owner: owner, negative_ttl: 5, ede: Ede::Blocked, text, txt: true };
    reply::refusal(out, query, &refusal);
}

impl Service for Refuser {
    type Deferred = Vec<u8>;

    fn fast(&self, packet: &[u8], _: SocketAddr, _: Transport, _: Now, out: &mut Vec<u8>) -> Fast<Vec<u8>> {
        self.seen.fetch_add(1, Relaxed);
        let query = match wire::parse(packet) {
            Parsed::Query(query) => query,
            Parsed::Reject(reject) => {
                reply::reject(out, &reject);
                return Fast::Reply;
            }
            Parsed::Drop => return Fast::Drop,
        };
        match query.qname.as_ref().labels().next() {
            Some(label)
                if label.starts_with(b"wait")
                    || label.starts_with(b"bigwait")
                    || label == b"stuck"
                    || label == b"latedie" =>
            {
                return Fast::Deferred(packet.to_vec());
            }
            Some(b"die") => panic!("as asked"),
            Some(b"mute") => return Fast::Drop,
            _ => refuse(&query, out),
        }
        if query.qname.as_ref().labels().next() == Some(b"big") {
            out.resize(60_000, 0);
        }
        Fast::Reply
    }

    async fn finish(&self, packet: Vec<u8>) -> Option<Vec<u8>> {
        let Parsed::Query(query) = wire::parse(&packet) else { return None };
        let label = String::from_utf8_lossy(query.qname.as_ref().labels().next()?).into_owned();
        if label == "latedie" {
            panic!("as asked");
        }
        match label.trim_start_matches("big").strip_prefix("wait") {
            Some(ms) => tokio::time::sleep(Duration::from_millis(ms.parse().expect("wait<ms>"))).await,
            None => {
                self.stuck.fetch_add(1, Relaxed);
                drop(self.gate.acquire().await);
            }
        }
        let mut out = Vec::new();
        refuse(&query, &mut out);
        if label.starts_with("big") {
            out.resize(60_000, 0);
        }
        Some(out)
    }

    fn overloaded(&self, packet: Vec<u8>, out: &mut Vec<u8>) {
        if let Parsed::Query(query) = wire::parse(&packet) {
            reply::servfail(out, &query, Ede::NotReady, "too many queries are waiting");
        }
    }
}

/// A listener with a runtime of its own.
struct Rig {
    listener: Option<Listener>,
    service: Arc<Refuser>,
    runtime: tokio::runtime::Runtime,
}

fn config(address: &str) -> Config {
    Config {
        addresses: vec![address.parse().expect("address")],
        workers: 2,
        queue: 64,
        in_flight: 64,
        tcp_connections: 100,
        tcp_per_source: 20,
        tcp_idle: Duration::from_secs(10),
    }
}

impl Rig {
    fn start(config: &Config) -> Self {
        Self::start_with(config, Inherited::default())
    }

    fn start_with(config: &Config, inherited: Inherited) -> Self {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("runtime");
        let service =
            Arc::new(Refuser { gate: Semaphore::new(0), seen: AtomicUsize::new(0), stuck: AtomicUsize::new(0) });
        let listener = Listener::start_with(config, inherited, Arc::clone(&service), runtime.handle());
        let listener = listener.expect("listener");
        Self { listener: Some(listener), service, runtime }
    }

    fn local() -> Self {
        Self::start(&config("127.0.0.1:0"))
    }

    fn listener(&self) -> &Listener {
        self.listener.as_ref().expect("running")
    }

    fn address(&self) -> SocketAddr {
        self.listener().local_addrs()[0]
    }

    /// A UDP socket that hears from the listener's address alone.
    fn stub(&self) -> UdpSocket {
        stub_of(self.address(), "127.0.0.1:0")
    }

    fn connect(&self) -> TcpStream {
        self.connect_from(Ipv4Addr::LOCALHOST)
    }

    fn connect_from(&self, source: Ipv4Addr) -> TcpStream {
        let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).expect("socket");
        socket.bind(&SocketAddr::from((source, 0)).into()).expect("bind");
        socket.connect(&self.address().into()).expect("connect");
        socket.set_tcp_nodelay(true).expect("option");
        let stream = TcpStream::from(socket);
        stream.set_read_timeout(Some(Duration::from_secs(20))).expect("option");
        stream
    }

    fn stop(&mut self) {
        if let Some(listener) = self.listener.take() {
            self.runtime.block_on(listener.shutdown());
        }
    }

    /// Waits until a counter has reached `value`.
    fn await_count(&self, what: impl Fn(&staunch::listen::Counters) -> u64, value: u64) {
        let start = Instant::now();
        while what(self.listener().counters()) < value {
            assert!(start.elapsed() < Duration::from_secs(20), "waited for {value}: {:?}", self.listener().counters());
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

fn stub_of(server: SocketAddr, own: &str) -> UdpSocket {
    let socket = UdpSocket::bind(own).expect("bind");
    socket.connect(server).expect("connect");
    socket.set_read_timeout(Some(Duration::from_secs(20))).expect("option");
    socket
}

/// A query for A, spelled as given, with EDNS.
fn query(id: u16, name: &str) -> Vec<u8> {
    let mut out = id.to_be_bytes().to_vec();
    out.extend(b"\x01\0\0\x01\0\0\0\0\0\x01");
    for label in name.split('.') {
        out.push(label.len() as u8);
        out.extend(label.as_bytes());
    }
    out.extend(b"\0\0\x01\0\x01\0\0\x29\x10\0\0\0\0\0\0\0");
    out
}

fn framed(message: &[u8]) -> Vec<u8> {
    [&(message.len() as u16).to_be_bytes(), message].concat()
}

fn receive(stub: &UdpSocket) -> Vec<u8> {
    let mut buffer = vec![0; 65_535];
    let length = stub.recv(&mut buffer).expect("reply");
    buffer.truncate(length);
    buffer
}

/// One framed reply, or `None` at the end of the stream.
fn receive_framed(stream: &mut TcpStream) -> Option<Vec<u8>> {
    let mut length = [0; 2];
    match stream.read_exact(&mut length) {
        Ok(()) => {}
        Err(e) if matches!(e.kind(), std::io::ErrorKind::WouldBlock) => panic!("neither reply nor end"),
        Err(_) => return None,
    }
    let mut message = vec![0; usize::from(u16::from_be_bytes(length))];
    stream.read_exact(&mut message).expect("whole message");
    Some(message)
}

fn id(message: &[u8]) -> u16 {
    u16::from_be_bytes([message[0], message[1]])
}

fn rcode(message: &[u8]) -> u8 {
    message[3] & 0xf
}

/// Checks that `reply` is the refusal of `query`, question as spelled.
fn assert_refusal(reply: &[u8], query: &[u8]) {
    assert_eq!(reply[..2], query[..2], "id");
    assert_eq!(rcode(reply), 3, "NXDOMAIN");
    let question = &query[12..query.len() - 11];
    assert_eq!(&reply[12..12 + question.len()], question, "question as spelled");
    assert!(reply.windows(13).any(|w| w == b"c0123456789ab"), "the reason is in it");
}

#[test]
fn both_transports_answer_and_echo_the_spelling() {
    let rig = Rig::local();
    let stub = rig.stub();
    let mut stream = rig.connect();
    for (i, name) in ["wWw.ExAmPlE.cOm", "wAIt20.eXample.com"].iter().enumerate() {
        let query = query(i as u16, name);
        stub.send(&query).expect("send");
        assert_refusal(&receive(&stub), &query);
        stream.write_all(&framed(&query)).expect("send");
        assert_refusal(&receive_framed(&mut stream).expect("reply"), &query);
    }
    rig.await_count(|c| c.replies.load(Relaxed), 4);
    rig.await_count(|c| c.deferred.load(Relaxed), 2);
    assert_eq!(rig.listener().counters().tcp_accepted.load(Relaxed), 1);
}

#[test]
fn replies_leave_from_the_address_that_was_asked() {
    let rig = Rig::start(&config("0.0.0.0:0"));
    for last in [2, 3] {
        let server = SocketAddr::from(([127, 0, 0, last], rig.address().port()));
        // A connected socket hears from that address alone.
        let stub = stub_of(server, "127.0.0.1:0");
        for (id, name) in [(1, "fast.example"), (2, "wait10.example")] {
            let query = query(id, name);
            stub.send(&query).expect("send");
            assert_refusal(&receive(&stub), &query);
        }
    }
}

#[test]
fn ipv6_is_served_beside_ipv4() {
    if UdpSocket::bind((Ipv6Addr::LOCALHOST, 0)).is_err() {
        return skip::skipped("no IPv6 loopback");
    }
    let v6_first = Rig::start(&config("[::]:0"));
    let port = v6_first.address().port();
    let both = Rig::start(&config(&format!("0.0.0.0:{port}")));
    let stub = stub_of(SocketAddr::from((Ipv6Addr::LOCALHOST, port)), "[::1]:0");
    for name in ["fast.example", "wait10.example"] {
        let query = query(7, name);
        stub.send(&query).expect("send");
        assert_refusal(&receive(&stub), &query);
    }
    let stub = stub_of(SocketAddr::from((Ipv4Addr::LOCALHOST, port)), "127.0.0.1:0");
    stub.send(&query(8, "fast.example")).expect("send");
    assert_eq!(id(&receive(&stub)), 8);
    both.await_count(|c| c.replies.load(Relaxed), 1);
}

#[test]
fn malformed_messages_get_their_error_or_silence_on_both_transports() {
    let rig = Rig::local();
    let stub = rig.stub();
    let good = query(0xaaaa, "www.example.com");
    let edit = |at: usize, value: u8| {
        let mut packet = good.clone();
        packet[at] = value;
        packet
    };
    let version = good.len() - 5;
    let rows: Vec<(&str, Vec<u8>, Option<u8>)> = vec![
        ("a response", edit(2, 0x81), None),
        ("opcode NOTIFY", edit(2, 0x21), Some(4)),
        ("recursion not desired", edit(2, 0), Some(5)),
        ("two questions", edit(5, 2), Some(1)),
        ("no question", edit(5, 0), Some(1)),
        ("an answer", edit(7, 1), Some(1)),
        ("pointer as a name", edit(12, 0xc0), Some(1)),
        ("two OPT counted, one there", edit(11, 2), Some(1)),
        ("EDNS version 1", edit(version, 1), Some(0)), // BADVERS: its upper bits stand in OPT
        ("header alone", good[..12].to_vec(), Some(1)),
        ("octet behind the message", [&good[..], b"x"].concat(), Some(1)),
        ("cut inside OPT", good[..good.len() - 3].to_vec(), Some(1)),
    ];
    for (why, packet, expected) in rows {
        let after = query(0x5555, "after.example");
        let mut stream = rig.connect();
        stub.send(&packet).expect("send");
        stub.send(&after).expect("send");
        stream.write_all(&[framed(&packet), framed(&after)].concat()).expect("send");
        if let Some(expected) = expected {
            for reply in [receive(&stub), receive_framed(&mut stream).expect("reply")] {
                assert_eq!((id(&reply), rcode(&reply)), (0xaaaa, expected), "{why}");
                assert_eq!(reply[6..10], [0; 4], "{why}: no records");
            }
        }
        assert_refusal(&receive(&stub), &after);
        assert_refusal(&receive_framed(&mut stream).expect("reply"), &after);
    }
    assert_eq!(rig.listener().counters().panics.load(Relaxed), 0);
}

#[test]
fn a_query_longer_than_we_read_is_a_format_error() {
    let rig = Rig::local();
    let stub = rig.stub();
    let mut packet = query(9, "www.example.com");
    packet.resize(5000, 0);
    stub.send(&packet).expect("send");
    let reply = receive(&stub);
    assert_eq!((id(&reply), rcode(&reply), reply.len()), (9, 1, 12));
    let seen = rig.service.seen.load(Relaxed);
    assert_eq!(seen, 0, "what is cut off is not judged");
}

#[test]
fn twenty_thousand_random_datagrams_do_not_stop_it() {
    let rig = Rig::local();
    let stubs: Vec<_> = (0..8).map(|_| rig.stub()).collect();
    // xorshift64: any octets will do, and a failure can be repeated.
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut random = move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    let base = query(0, "www.example.com");
    for i in 0..20_000 {
        let packet: Vec<u8> = if i % 2 == 0 {
            (0..random() % 300).map(|_| random() as u8).collect()
        } else {
            let mut packet = base.clone();
            for _ in 0..=random() % 4 {
                let at = random() as usize % packet.len();
                packet[at] = random() as u8;
            }
            packet
        };
        stubs[i % 8].send(&packet).expect("send");
        if i % 64 == 0 {
            rig.await_count(|c| c.packets.load(Relaxed), i as u64); // so that the kernel need not drop any
        }
    }
    rig.await_count(|c| c.packets.load(Relaxed), 20_000);
    assert_eq!(rig.listener().counters().panics.load(Relaxed), 0);
    let stub = rig.stub();
    let query = query(1, "still.example");
    stub.send(&query).expect("send");
    assert_refusal(&receive(&stub), &query);
}

#[test]
fn a_panic_is_answered_and_does_not_end_a_worker() {
    let rig = Rig::start(&Config { workers: 1, ..config("127.0.0.1:0") });
    let stub = rig.stub();
    let mut stream = rig.connect();
    for (i, name) in ["die.example", "latedie.example", "die.example"].iter().enumerate() {
        let query = query(i as u16, name);
        stub.send(&query).expect("send");
        let reply = receive(&stub);
        assert_eq!((id(&reply), rcode(&reply)), (i as u16, 2), "{name}");
        assert!(reply.ends_with(b"\0\x0f\0\x10\0\0internal error"), "EDE 0: {reply:02x?}");
        stream.write_all(&framed(&query)).expect("send");
        let reply = receive_framed(&mut stream).expect("reply");
        assert_eq!((id(&reply), rcode(&reply)), (i as u16, 2), "{name}");
    }
    rig.await_count(|c| c.panics.load(Relaxed), 6);
    let query = query(77, "after.example");
    stub.send(&query).expect("send");
    assert_refusal(&receive(&stub), &query);
}

#[test]
fn a_full_queue_says_so_at_once() {
    let rig = Rig::start(&Config { queue: 2, in_flight: 1, ..config("127.0.0.1:0") });
    let stub = rig.stub();
    // One runs; wait until it has left the queue, so that the next two fill it.
    stub.send(&query(0, "stuck.example")).expect("send");
    rig.await_count(|_| rig.service.stuck.load(Relaxed) as u64, 1);
    for i in 1..10 {
        stub.send(&query(i, "stuck.example")).expect("send");
    }
    // Told while nothing goes on: the gate is closed until behind it.
    for _ in 3..10 {
        let reply = receive(&stub);
        assert!(id(&reply) >= 3, "{}", id(&reply));
        assert_eq!(rcode(&reply), 2);
        let ede = b"\0\x0f\0\x1e\0\x0etoo many queries are waiting";
        assert!(reply.ends_with(ede), "EDE 14 with words: {reply:02x?}");
    }
    // A connection meets the same limit.
    let mut stream = rig.connect();
    stream.write_all(&framed(&query(50, "stuck.example"))).expect("send");
    assert_eq!(rcode(&receive_framed(&mut stream).expect("reply")), 2);
    // What is answered from the fast path is not touched by it.
    stub.send(&query(20, "fast.example")).expect("send");
    assert_eq!(rcode(&receive(&stub)), 3);
    rig.service.gate.add_permits(100);
    let mut ids: Vec<_> = (0..3).map(|_| id(&receive(&stub))).collect();
    ids.sort_unstable();
    assert_eq!(ids, [0, 1, 2], "those that waited are answered");
    rig.await_count(|c| c.queue_full.load(Relaxed), 8);
}

#[test]
fn dig_shows_the_reason() {
    if std::process::Command::new("dig").arg("-v").output().is_err() {
        return skip::lacking("dig");
    }
    let rig = Rig::local();
    let IpAddr::V4(server) = rig.address().ip() else { panic!("IPv4") };
    let ask = |extra: &[&str]| {
        let output = std::process::Command::new("dig")
            .args([&format!("@{server}"), "-p", &rig.address().port().to_string(), "+tries=1", "+time=15"])
            .args(extra)
            .output()
            .expect("dig");
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    for transport in ["+notcp", "+tcp"] {
        let shown = ask(&[transport, "secret.evil.example", "A"]);
        assert!(shown.contains("status: NXDOMAIN"), "{shown}");
        assert!(shown.contains("EDE: 15 (Blocked): (case c0123456789ab: refused by policy)"), "{shown}");
        assert!(shown.contains("staunch.invalid. policy.staunch.invalid. 1 3600 600 86400 5"), "{shown}");
        assert!(!shown.contains(";; WARNING") && !shown.contains("malformed"), "{shown}");
    }
    assert!(ask(&["+short", "secret.evil.example", "TXT"]).contains("case c0123456789ab"));
    assert!(ask(&["+edns=1", "+noednsneg", "x.example", "A"]).contains("status: BADVERS"));
    assert!(ask(&["+ednsopt=100:beef", "+ednsflags=0x80", "x.example", "A"]).contains("status: NXDOMAIN"));
    assert!(ask(&["version.bind", "TXT", "CH"]).contains("status: REFUSED"));
    assert!(ask(&["+norecurse", "x.example", "A"]).contains("status: REFUSED"));
    assert!(ask(&["+opcode=15", "+header-only"]).contains("status: NOTIMP"));
}
