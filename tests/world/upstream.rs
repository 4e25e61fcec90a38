//! The DNS outside: answers from a table, hands delegated zones to the attacker's servers as they come, and keeps every
//! query it sees.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, UdpSocket};

use super::dns::{Data, Message, put_name, rtype};
use super::ns::Ns;

/// A query as it arrived.
#[derive(Debug, Clone)]
pub struct Seen {
    /// When.
    pub at: Instant,
    /// Every octet of it.
    pub raw: Vec<u8>,
    /// Over TCP.
    pub tcp: bool,
    /// The name asked, in lower case: its case is drawn by the resolver.
    pub name: String,
    /// The type asked.
    pub qtype: u16,
    /// Who sent it: address and port.
    pub from: SocketAddr,
}

/// What is wrong with a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// Says nothing, over UDP and TCP.
    Silent,
    /// Every answer comes so much later.
    Slow(Duration),
    /// Drops so many of a hundred questions.
    Loss(u64),
    /// Sends every answer three times, the last one late.
    Duplicates,
    /// Every second answer comes after the next ones.
    Reorders,
    /// Answers everything with this response code.
    Rcode(u8),
    /// Answers with another id.
    WrongId,
    /// Answers another question.
    WrongQuestion,
    /// Answers with octets that are no message.
    Garbage,
    /// Says that its answers are cut off, over TCP too.
    AlwaysTruncated,
    /// Answers and is silent in turns of half so long.
    Flaps(Duration),
}

/// Handle on the running server.
#[derive(Clone)]
pub struct Upstream {
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    records: HashMap<String, Vec<(u32, Data)>>,
    delays: HashMap<String, Duration>,
    delegations: Vec<(String, SocketAddr)>,
    seen: Vec<Seen>,
    trials: usize,
    fault: Option<Fault>,
    since: Option<Instant>,
    turns: u64,
}

impl Upstream {
    /// Starts it on `address` in `ns`, UDP and TCP.
    pub fn start(ns: &Ns, address: SocketAddr) -> Self {
        let server = Self { state: Arc::default() };
        let (udp, tcp) = (server.clone(), server.clone());
        let (socket, listener) = ns.run(async move {
            let socket = UdpSocket::bind(address).await.expect("the upstream's UDP port is free");
            // A thousand questions at once must not be lost here.
            super::capture::make_room(&socket);
            (socket, TcpListener::bind(address).await.expect("the upstream's TCP port is free"))
        });
        ns.spawn(udp.serve_udp(Arc::new(socket)));
        ns.spawn(tcp.serve_tcp(listener));
        server
    }

    /// Adds a record. `*.zone` stands for every name below `zone` that has none of its own.
    pub fn add(&self, name: &str, ttl: u32, data: Data) {
        self.lock().records.entry(name.to_ascii_lowercase()).or_default().push((ttl, data));
    }

    /// Adds an address that is good for five minutes.
    pub fn add_site(&self, name: &str, address: IpAddr) {
        self.add(name, 300, address.into());
    }

    /// Answers for this name come late.
    pub fn delay(&self, name: &str, by: Duration) {
        self.lock().delays.insert(name.to_ascii_lowercase(), by);
    }

    /// Queries for and below `zone` go to `server` as they came, and its replies back.
    pub fn delegate(&self, zone: &str, server: SocketAddr) {
        self.lock().delegations.push((zone.to_ascii_lowercase(), server));
    }

    /// Whether it stops answering anything.
    pub fn silent(&self, silent: bool) {
        self.fails(silent.then_some(Fault::Silent));
    }

    /// What is wrong with it from now on.
    pub fn fails(&self, fault: Option<Fault>) {
        let mut state = self.lock();
        (state.fault, state.since) = (fault, Some(Instant::now()));
    }

    /// Questions by which the resolver tries how it is treated; they are none of those below.
    pub fn trials(&self) -> usize {
        self.lock().trials
    }

    /// Every query so far.
    pub fn seen(&self) -> Vec<Seen> {
        self.lock().seen.clone()
    }

    /// Queries at and below a name.
    pub fn seen_below(&self, zone: &str) -> Vec<Seen> {
        self.lock().seen.iter().filter(|q| is_below(&q.name, zone)).cloned().collect()
    }

    /// Forgets the queries so far.
    pub fn forget(&self) {
        self.lock().seen.clear();
    }

    /// Distinct names at and below `zone` that arrived here, and the octets of their labels left of it.
    pub fn leaked(&self, zone: &str) -> (usize, usize) {
        let mut names: Vec<String> = self.seen_below(zone).into_iter().map(|q| q.name).collect();
        names.sort();
        names.dedup();
        let left = |name: &String| name[..name.len() - zone.len()].chars().filter(|c| *c != '.').count();
        (names.len(), names.iter().map(left).sum())
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    async fn serve_udp(self, socket: Arc<UdpSocket>) {
        let mut buffer = vec![0; 65_535];
        loop {
            let Ok((n, from)) = socket.recv_from(&mut buffer).await else { continue };
            let (query, server, socket) = (buffer[..n].to_vec(), self.clone(), socket.clone());
            tokio::spawn(async move {
                let Some(reply) = server.answer(query, false, from).await else { return };
                let _ = socket.send_to(&reply, from).await;
                if server.lock().fault == Some(Fault::Duplicates) {
                    let _ = socket.send_to(&reply, from).await;
                    tokio::time::sleep(Duration::from_millis(30)).await;
                    let _ = socket.send_to(&reply, from).await;
                }
            });
        }
    }

    async fn serve_tcp(self, listener: TcpListener) {
        loop {
            let Ok((mut stream, from)) = listener.accept().await else { continue };
            let server = self.clone();
            tokio::spawn(async move {
                while let Ok(length) = stream.read_u16().await {
                    let mut query = vec![0; length.into()];
                    if stream.read_exact(&mut query).await.is_err() {
                        return;
                    }
                    let Some(reply) = server.answer(query, true, from).await else { return };
                    let mut framed = (reply.len() as u16).to_be_bytes().to_vec();
                    framed.extend(reply);
                    if stream.write_all(&framed).await.is_err() {
                        return;
                    }
                }
            });
        }
    }

    async fn answer(&self, raw: Vec<u8>, tcp: bool, from: SocketAddr) -> Option<Vec<u8>> {
        let query = Message::decode(&raw)?;
        let name = query.name.to_ascii_lowercase();
        let (delay, delegated, fault) = {
            let mut state = self.lock();
            let at = Instant::now();
            if name == "resolver.arpa" {
                state.trials += 1;
            } else {
                let (name, raw) = (name.clone(), raw.clone());
                state.seen.push(Seen { at, raw, tcp, name, qtype: query.qtype, from });
            }
            let fault = state.fault_now();
            if fault == Some(Fault::Silent) {
                return None;
            }
            let zone = state.delegations.iter().find(|(zone, _)| is_below(&name, zone));
            let slow = match fault {
                Some(Fault::Slow(by)) => Some(by),
                _ => state.delays.get(&name).copied(),
            };
            (slow, zone.map(|(_, server)| *server), fault)
        };
        if let Some(delay) = delay {
            tokio::time::sleep(delay).await;
        }
        let reply = match delegated {
            Some(server) => relay(&raw, server).await,
            None => self.look_up(&raw, &query, tcp),
        };
        reply.map(|reply| spoil(reply, fault))
    }

    fn look_up(&self, raw: &[u8], query: &Message, tcp: bool) -> Option<Vec<u8>> {
        let state = self.lock();
        let mut answers = Vec::new();
        let (mut owner, mut exists) = (query.name.to_ascii_lowercase(), false);
        for _ in 0..16 {
            let Some(records) = state.lookup(&owner) else { break };
            exists = true;
            answers
                .extend(records.iter().filter(|(_, d)| d.rtype() == query.qtype).map(|r| (owner.clone(), r.clone())));
            let alias = records.iter().find(|(_, d)| matches!(d, Data::Cname(_)) && query.qtype != rtype::CNAME);
            let Some((ttl, Data::Cname(target))) = alias else { break };
            answers.push((owner.clone(), (*ttl, Data::Cname(target.clone()))));
            owner = target.trim_end_matches('.').to_ascii_lowercase();
        }
        let question = super::dns::read_name(raw, 12)?.1 + 4;
        let mut out = raw.get(..question)?.to_vec();
        let flags: u16 = 0x8180 | query.flags & 0x0110 | if exists { 0 } else { 3 };
        let negative = !answers.iter().any(|(_, (_, data))| data.rtype() == query.qtype);
        for (owner, (ttl, data)) in &answers {
            put_record(&mut out, owner, data.rtype(), *ttl, &data.encode());
        }
        if negative {
            let mut zone: Vec<&str> = owner.rsplit('.').take(2).collect();
            zone.reverse();
            let zone = zone.join(".");
            let mut soa = Vec::new();
            put_name(&mut soa, &format!("ns.{zone}"));
            put_name(&mut soa, &format!("hostmaster.{zone}"));
            soa.extend([1u32, 7200, 900, 86_400, 60].iter().flat_map(|n| n.to_be_bytes()));
            put_record(&mut out, &zone, rtype::SOA, 60, &soa);
        }
        if query.opt().is_some() {
            out.push(0);
            out.extend([rtype::OPT, 1232, 0, 0, 0].iter().flat_map(|n: &u16| n.to_be_bytes()));
        }
        let counts = [answers.len() as u16, u16::from(negative), u16::from(query.opt().is_some())];
        out[2..4].copy_from_slice(&flags.to_be_bytes());
        for (i, count) in counts.iter().enumerate() {
            out[6 + 2 * i..8 + 2 * i].copy_from_slice(&count.to_be_bytes());
        }
        let room = query.opt().map_or(512, |opt| opt.class.max(512)).into();
        if !tcp && out.len() > room {
            out.truncate(question);
            out[2] |= 2;
            out[6..12].fill(0);
        }
        Some(out)
    }
}

/// A good reply, spoilt.
fn spoil(mut reply: Vec<u8>, fault: Option<Fault>) -> Vec<u8> {
    let question = super::dns::read_name(&reply, 12).map_or(reply.len(), |(_, end)| end + 4);
    match fault {
        Some(Fault::Rcode(code)) => {
            reply.truncate(question);
            reply[3] = reply[3] & 0xf0 | code;
            reply[6..12].fill(0);
        }
        Some(Fault::WrongId) => reply[1] ^= 0x55,
        Some(Fault::WrongQuestion) => reply[13] = if reply[13] == b'z' { b'y' } else { b'z' },
        Some(Fault::Garbage) => reply = vec![0xa5; 37],
        Some(Fault::AlwaysTruncated) => {
            reply.truncate(question);
            reply[2] |= 2;
            reply[6..12].fill(0);
        }
        _ => {}
    }
    reply
}

impl State {
    /// What is wrong with this very answer.
    fn fault_now(&mut self) -> Option<Fault> {
        self.turns += 1;
        let on = |is_so: bool, fault| if is_so { Some(fault) } else { None };
        match self.fault? {
            Fault::Loss(percent) => on(super::Chance(self.turns).below(100) < percent, Fault::Silent),
            Fault::Reorders => on(self.turns % 2 == 1, Fault::Slow(Duration::from_millis(40))),
            Fault::Flaps(turn) => {
                let past = self.since.map_or(Duration::ZERO, |since| since.elapsed());
                on(past.as_millis() % turn.as_millis() >= turn.as_millis() / 2, Fault::Silent)
            }
            other => Some(other),
        }
    }

    fn lookup(&self, name: &str) -> Option<&Vec<(u32, Data)>> {
        if let Some(records) = self.records.get(name) {
            return Some(records);
        }
        let mut rest = name;
        while let Some((_, parent)) = rest.split_once('.') {
            if let Some(records) = self.records.get(&format!("*.{parent}")) {
                return Some(records);
            }
            rest = parent;
        }
        None
    }
}

/// Whether `name` is `zone` or lies below it, in any case.
pub fn is_below(name: &str, zone: &str) -> bool {
    let (name, zone) = (name.to_ascii_lowercase(), zone.to_ascii_lowercase());
    name == zone || name.strip_suffix(&zone).is_some_and(|left| left.ends_with('.'))
}

/// One exchange over UDP with another server, octet for octet.
pub async fn relay(query: &[u8], server: SocketAddr) -> Option<Vec<u8>> {
    let socket = UdpSocket::bind("0.0.0.0:0").await.ok()?;
    socket.connect(server).await.ok()?;
    socket.send(query).await.ok()?;
    let mut buffer = vec![0; 65_535];
    let n = tokio::time::timeout(Duration::from_secs(8), socket.recv(&mut buffer)).await.ok()?.ok()?;
    buffer.truncate(n);
    Some(buffer)
}

fn put_record(out: &mut Vec<u8>, owner: &str, rtype: u16, ttl: u32, rdata: &[u8]) {
    put_name(out, owner);
    out.extend(rtype.to_be_bytes());
    out.extend(1u16.to_be_bytes());
    out.extend(ttl.to_be_bytes());
    out.extend((rdata.len() as u16).to_be_bytes());
    out.extend(rdata);
}
