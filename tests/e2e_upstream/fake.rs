//! An upstream whose every record a test writes, and a client that reads every record of an answer.

use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, UdpSocket};
use std::sync::{Arc, Mutex};
use std::time::Duration;

pub const A: u16 = 1;
pub const NS: u16 = 2;
pub const CNAME: u16 = 5;
pub const SOA: u16 = 6;
pub const TXT: u16 = 16;
pub const AAAA: u16 = 28;
pub const DNAME: u16 = 39;
pub const HTTPS: u16 = 65;

/// A name in wire form, letter case kept.
pub fn wire(name: &str) -> Vec<u8> {
    let mut out = Vec::new();
    for label in name.split('.').filter(|label| !label.is_empty()) {
        out.push(label.len() as u8);
        out.extend(label.as_bytes());
    }
    out.push(0);
    out
}

/// A query as an upstream sees it.
#[derive(Debug, Clone)]
pub struct Query {
    pub raw: Vec<u8>,
    /// In lower case.
    pub name: String,
    pub qtype: u16,
    pub tcp: bool,
}

impl Query {
    fn read(raw: &[u8], tcp: bool) -> Self {
        let (name, end) = read_name(raw, 12);
        let qtype = u16::from_be_bytes([raw[end], raw[end + 1]]);
        Self { raw: raw.to_vec(), name: name.to_lowercase(), qtype, tcp }
    }

    /// Whether it is a question of the resolver's own.
    fn is_own(&self) -> bool {
        ["", "resolver.arpa"].contains(&&*self.name)
    }
}

/// A response in the making; no name is compressed.
#[derive(Clone)]
pub struct Reply {
    octets: Vec<u8>,
}

impl Reply {
    /// To this query, NOERROR.
    pub fn to(query: &Query) -> Self {
        let end = read_name(&query.raw, 12).1 + 4;
        let mut octets = query.raw[..end].to_vec();
        octets[2..12].copy_from_slice(&[0x81, 0x80, 0, 1, 0, 0, 0, 0, 0, 0]);
        Self { octets }
    }

    pub fn rcode(mut self, code: u8) -> Self {
        self.octets[3] = 0x80 | code;
        self
    }

    /// From one that asks nobody: RA is not set.
    pub fn without_recursion(mut self) -> Self {
        self.octets[3] &= 0x7f;
        self
    }

    fn add(mut self, section: usize, owner: &str, rtype: u16, class: u16, data: &[u8]) -> Self {
        let at = 6 + 2 * section;
        self.octets[at + 1] += 1;
        self.octets.extend(wire(owner));
        self.octets.extend(rtype.to_be_bytes());
        self.octets.extend(class.to_be_bytes());
        self.octets.extend(300u32.to_be_bytes());
        self.octets.extend((data.len() as u16).to_be_bytes());
        self.octets.extend(data);
        self
    }

    pub fn answer(self, owner: &str, rtype: u16, data: &[u8]) -> Self {
        self.add(0, owner, rtype, 1, data)
    }

    pub fn answer_in(self, class: u16, owner: &str, rtype: u16, data: &[u8]) -> Self {
        self.add(0, owner, rtype, class, data)
    }

    pub fn authority(self, owner: &str, rtype: u16, data: &[u8]) -> Self {
        self.add(1, owner, rtype, 1, data)
    }

    pub fn additional(self, owner: &str, rtype: u16, data: &[u8]) -> Self {
        self.add(2, owner, rtype, 1, data)
    }

    /// An OPT record with these options, each with a few octets.
    pub fn options(mut self, codes: &[u16]) -> Self {
        self.octets[11] += 1;
        let data: Vec<u8> =
            codes.iter().flat_map(|code| [&code.to_be_bytes()[..], &[0, 6], b"\x00\x16told"].concat()).collect();
        self.octets.extend([0, 0, 41, 4, 208, 0, 0, 0, 0]);
        self.octets.extend((data.len() as u16).to_be_bytes());
        self.octets.extend(data);
        self
    }

    pub fn done(self) -> Vec<u8> {
        self.octets
    }
}

/// A server on a port of its own, UDP and TCP.
pub struct Fake {
    pub address: SocketAddr,
    seen: Arc<Mutex<Vec<Query>>>,
}

impl Fake {
    /// Sends what `script` gives for each query; nothing of the resolver's own questions is shown to it.
    pub fn start(script: impl Fn(&Query) -> Vec<Vec<u8>> + Send + Sync + 'static) -> Self {
        let (udp, tcp) = loop {
            let udp = UdpSocket::bind("127.0.0.1:0").expect("socket");
            if let Ok(tcp) = TcpListener::bind(udp.local_addr().expect("address")) {
                break (udp, tcp);
            }
        };
        let address = udp.local_addr().expect("address");
        let seen = Arc::<Mutex<Vec<Query>>>::default();
        let log = seen.clone();
        let hear = Arc::new(move |raw: &[u8], tcp: bool| {
            let query = Query::read(raw, tcp);
            if query.is_own() {
                return vec![Reply::to(&query).done()];
            }
            log.lock().expect("no panic").push(query.clone());
            script(&query)
        });
        let on_udp = hear.clone();
        std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok((length, from)) = udp.recv_from(&mut buffer) {
                let (raw, on_udp, udp) = (buffer[..length].to_vec(), on_udp.clone(), udp.try_clone().expect("socket"));
                std::thread::spawn(move || {
                    for message in on_udp(&raw, false) {
                        let _ = udp.send_to(&message, from);
                    }
                });
            }
        });
        std::thread::spawn(move || {
            for stream in tcp.incoming().flatten() {
                let hear = hear.clone();
                std::thread::spawn(move || {
                    let mut stream = stream;
                    let mut length = [0; 2];
                    while stream.read_exact(&mut length).is_ok() {
                        let mut raw = vec![0; u16::from_be_bytes(length).into()];
                        if stream.read_exact(&mut raw).is_err() {
                            return;
                        }
                        for message in hear(&raw, true) {
                            let _ = stream.write_all(&[&(message.len() as u16).to_be_bytes(), &message[..]].concat());
                        }
                    }
                });
            }
        });
        Self { address, seen }
    }

    /// Questions so far.
    pub fn seen(&self) -> Vec<Query> {
        self.seen.lock().expect("no panic").clone()
    }

    /// How often this name was asked, of any type.
    pub fn asked(&self, name: &str) -> usize {
        self.seen().iter().filter(|query| query.name == name).count()
    }
}

/// What a client sees.
#[derive(Debug, Default)]
pub struct Answer {
    pub rcode: u8,
    /// Owner in lower case, type, TTL and data of each record but OPT.
    pub records: Vec<(String, u16, u32, Vec<u8>)>,
    /// EDE codes and texts.
    pub errors: Vec<(u16, String)>,
    /// Codes of other options.
    pub options: Vec<u16>,
}

impl Answer {
    pub fn addresses(&self) -> Vec<IpAddr> {
        let address = |data: &Vec<u8>| <[u8; 4]>::try_from(data.as_slice()).ok().map(IpAddr::from);
        self.records.iter().filter(|record| record.1 == A).filter_map(|record| address(&record.3)).collect()
    }

    /// Reads a message, additional section included.
    pub fn read(raw: &[u8]) -> Self {
        let word = |at: usize| u16::from_be_bytes([raw[at], raw[at + 1]]);
        let mut answer = Self { rcode: raw[3] & 0xf, ..Self::default() };
        let mut at = 12;
        for _ in 0..word(4) {
            at = read_name(raw, at).1 + 4;
        }
        for _ in 0..word(6) + word(8) + word(10) {
            let (owner, fields) = read_name(raw, at);
            let rtype = word(fields);
            let ttl = u32::from(word(fields + 4)) << 16 | u32::from(word(fields + 6));
            let data = fields + 10..fields + 10 + usize::from(word(fields + 8));
            at = data.end;
            let data = raw[data].to_vec();
            if rtype != 41 {
                answer.records.push((owner.to_lowercase(), rtype, ttl, data));
                continue;
            }
            let mut options = &data[..];
            while let [a, b, c, d, rest @ ..] = options {
                let length = usize::from(u16::from_be_bytes([*c, *d]));
                if [*a, *b] == [0, 15] {
                    let text = String::from_utf8_lossy(&rest[2..length]).into_owned();
                    answer.errors.push((u16::from_be_bytes([rest[0], rest[1]]), text));
                } else {
                    answer.options.push(u16::from_be_bytes([*a, *b]));
                }
                options = &rest[length..];
            }
        }
        answer
    }
}

/// The octets of a client's query with EDNS.
pub fn query(id: u16, name: &str, qtype: u16) -> Vec<u8> {
    let mut out = id.to_be_bytes().to_vec();
    out.extend([1, 0, 0, 1, 0, 0, 0, 0, 0, 1]);
    out.extend(wire(name));
    out.extend(qtype.to_be_bytes());
    out.extend([0, 1, 0, 0, 41, 4, 208, 0, 0, 0, 0, 0, 0]);
    out
}

/// Asks `server` from `from`.
pub fn ask(server: SocketAddr, from: &str, name: &str, qtype: u16) -> Answer {
    let socket = UdpSocket::bind((from, 0)).expect("socket");
    socket.set_read_timeout(Some(Duration::from_secs(40))).expect("time limit");
    socket.send_to(&query(7, name, qtype), server).expect("sent");
    let mut buffer = [0; 8192];
    let length = socket.recv(&mut buffer).expect("a reply");
    Answer::read(&buffer[..length])
}

/// The name at `at`, and where the next field begins.
fn read_name(raw: &[u8], mut at: usize) -> (String, usize) {
    let (mut labels, mut end) = (Vec::new(), None);
    loop {
        match usize::from(raw[at]) {
            0 => return (labels.join("."), end.unwrap_or(at + 1)),
            len @ 1..=63 => {
                labels.push(String::from_utf8_lossy(&raw[at + 1..=at + len]).into_owned());
                at += len + 1;
            }
            high => {
                end.get_or_insert(at + 2);
                at = (high & 0x3f) << 8 | usize::from(raw[at + 1]);
            }
        }
    }
}
