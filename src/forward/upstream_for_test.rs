//! A scripted upstream on loopback: UDP and TCP on one port, every query recorded.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use rustls::ServerConfig;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, split};
use tokio::net::{TcpListener, UdpSocket};
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;

use crate::model::Transport;

/// What it does with a query.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Act {
    /// Nothing.
    Silence,
    /// Sends these messages in this order.
    Send(Vec<Vec<u8>>),
    /// The same after a while.
    Late(Duration, Vec<u8>),
    /// Closes the connection.
    Close,
    /// Sends these messages and closes the connection.
    Last(Vec<Vec<u8>>),
}

pub(super) type Script = dyn Fn(&[u8], Transport) -> Act + Send + Sync;

/// Queries, in order.
type Heard = Vec<(Transport, Vec<u8>)>;

pub(super) struct Fake {
    pub(super) addr: SocketAddr,
    queries: Arc<Mutex<Heard>>,
    script: Arc<Mutex<Arc<Script>>>,
    connections: Arc<AtomicUsize>,
    /// So many of the first connections are dead.
    dead: Arc<AtomicUsize>,
    /// Questions that are answered on a connection before it is closed.
    each: Arc<AtomicUsize>,
    /// Connections at once; further ones are dropped as soon as they are there.
    places: Arc<AtomicUsize>,
    tasks: [JoinHandle<()>; 2],
}

impl Drop for Fake {
    fn drop(&mut self) {
        for task in &self.tasks {
            task.abort();
        }
    }
}

impl Fake {
    pub(super) async fn start(script: impl Fn(&[u8], Transport) -> Act + Send + Sync + 'static) -> Self {
        Self::start_with(None, script).await
    }

    /// The same with TLS on its TCP port.
    pub(super) async fn start_with(
        tls: Option<Arc<ServerConfig>>,
        script: impl Fn(&[u8], Transport) -> Act + Send + Sync + 'static,
    ) -> Self {
        // A port that is free for UDP may be taken for TCP: try another one then.
        let (udp, tcp) = loop {
            let udp = UdpSocket::bind("127.0.0.1:0").await.expect("a loopback socket");
            let addr = udp.local_addr().expect("bound");
            if let Ok(tcp) = TcpListener::bind(addr).await {
                break (Arc::new(udp), tcp);
            }
        };
        let addr = udp.local_addr().expect("bound");
        let queries: Arc<Mutex<Heard>> = Arc::default();
        let script: Arc<Mutex<Arc<Script>>> = Arc::new(Mutex::new(Arc::new(script)));
        let heard = {
            let (queries, script) = (queries.clone(), script.clone());
            move |transport, query: &[u8]| {
                queries.lock().push((transport, query.to_vec()));
                let script = script.lock().clone();
                script(query, transport)
            }
        };
        let on_udp = heard.clone();
        let datagrams = tokio::spawn(async move {
            let mut buf = [0; 4096];
            while let Ok((len, from)) = udp.recv_from(&mut buf).await {
                let act = on_udp(Transport::Udp, &buf[..len]);
                let udp = udp.clone();
                tokio::spawn(async move {
                    for message in unfold(act).await {
                        let _ = udp.send_to(&message, from).await;
                    }
                });
            }
        });
        let connections = Arc::<AtomicUsize>::default();
        let dead = Arc::<AtomicUsize>::default();
        let each = Arc::new(AtomicUsize::new(usize::MAX));
        let places = Arc::new(AtomicUsize::new(usize::MAX));
        let (counted, silent, most, room) = (connections.clone(), dead.clone(), each.clone(), places.clone());
        let streams = tokio::spawn(async move {
            let open = Arc::<()>::default();
            while let Ok((stream, _)) = tcp.accept().await {
                if Arc::strong_count(&open) > room.load(Ordering::Relaxed) {
                    continue;
                }
                let place = open.clone();
                let index = counted.fetch_add(1, Ordering::Relaxed);
                let (heard, tls, silent, most) = (heard.clone(), tls.clone(), silent.clone(), most.clone());
                let asked = Arc::<AtomicUsize>::default();
                let heard = move |transport, query: &[u8]| match heard(transport, query) {
                    _ if index < silent.load(Ordering::Relaxed) => Act::Silence,
                    Act::Send(messages)
                        if asked.fetch_add(1, Ordering::Relaxed) + 1 >= most.load(Ordering::Relaxed) =>
                    {
                        Act::Last(messages)
                    }
                    act => act,
                };
                tokio::spawn(async move {
                    match tls {
                        None => talk(stream, heard).await,
                        Some(tls) => {
                            if let Ok(stream) = TlsAcceptor::from(tls).accept(stream).await {
                                talk(stream, heard).await;
                            }
                        }
                    }
                    drop(place);
                });
            }
        });
        Self { addr, queries, script, connections, dead, each, places, tasks: [datagrams, streams] }
    }

    /// Connections so far.
    pub(super) fn connections(&self) -> usize {
        self.connections.load(Ordering::Relaxed)
    }

    /// The connections that there are stay open and are silent from now on.
    pub(super) fn connections_go_dead(&self) {
        self.dead.store(self.connections(), Ordering::Relaxed);
    }

    /// Connections are closed behind so many answers, whatever else is on them.
    pub(super) fn answers_on_each(&self, most: usize) {
        self.each.store(most, Ordering::Relaxed);
    }

    /// No more connections than this at once.
    pub(super) fn has_places(&self, most: usize) {
        self.places.store(most, Ordering::Relaxed);
    }

    /// Nobody listens for connections any more.
    pub(super) async fn closes_tcp(&self) {
        self.tasks[1].abort();
        while !self.tasks[1].is_finished() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    /// Behaves otherwise from now on.
    pub(super) fn becomes(&self, script: impl Fn(&[u8], Transport) -> Act + Send + Sync + 'static) {
        *self.script.lock() = Arc::new(script);
    }

    /// Queries so far, our own (`. NS`, `resolver.arpa`) left out.
    pub(super) fn queries(&self) -> Heard {
        let all = self.queries.lock();
        all.iter().filter(|(_, q)| q.get(12) != Some(&0) && !is_trial(q)).cloned().collect()
    }

    /// Probes so far.
    pub(super) fn probes(&self) -> usize {
        let all = self.queries.lock();
        all.iter().filter(|(_, q)| q.get(12) == Some(&0)).count()
    }

    /// Trials so far.
    pub(super) fn trials(&self) -> usize {
        self.queries.lock().iter().filter(|(_, q)| is_trial(q)).count()
    }
}

fn is_trial(query: &[u8]) -> bool {
    query.get(12..26).is_some_and(|name| name.eq_ignore_ascii_case(b"\x08resolver\x04arpa"))
}

/// Answers many questions on one connection, each in its time.
async fn talk<S: AsyncRead + AsyncWrite + Send + 'static>(
    stream: S,
    heard: impl Fn(Transport, &[u8]) -> Act + Clone + Send + 'static,
) {
    let (mut reader, writer) = split(stream);
    let writer = Arc::new(tokio::sync::Mutex::new(writer));
    while let Ok(len) = reader.read_u16().await {
        let mut query = vec![0; usize::from(len)];
        if reader.read_exact(&mut query).await.is_err() {
            return;
        }
        let act = heard(Transport::Tcp, &query);
        if act == Act::Close {
            let _ = writer.lock().await.shutdown().await;
            return;
        }
        let is_last = matches!(act, Act::Last(_));
        let to = writer.clone();
        let sent = tokio::spawn(async move {
            for message in unfold(act).await {
                let framed = [&(message.len() as u16).to_be_bytes(), &message[..]].concat();
                let mut writer = to.lock().await;
                let _ = writer.write_all(&framed).await;
                let _ = writer.flush().await;
            }
        });
        if is_last {
            // What was begun before goes out before.
            let _ = sent.await;
            let _ = writer.lock().await.shutdown().await;
            return;
        }
    }
}

async fn unfold(act: Act) -> Vec<Vec<u8>> {
    match act {
        Act::Silence | Act::Close => Vec::new(),
        Act::Send(messages) | Act::Last(messages) => messages,
        Act::Late(wait, message) => {
            tokio::time::sleep(wait).await;
            vec![message]
        }
    }
}

/// Where the question of `query` ends.
fn question_end(query: &[u8]) -> usize {
    let mut at = 12;
    while query[at] != 0 {
        at += 1 + usize::from(query[at]);
    }
    at + 5
}

/// Header and question of `query` as a response with `flags`.
pub(super) fn bare(query: &[u8], flags: u16) -> Vec<u8> {
    let mut out = query[..question_end(query)].to_vec();
    out[2..4].copy_from_slice(&flags.to_be_bytes());
    out[4..12].copy_from_slice(&[0, 1, 0, 0, 0, 0, 0, 0]);
    out
}

/// A good response: one A record at the asked name.
pub(super) fn answer(query: &[u8], last: u8) -> Vec<u8> {
    let mut out = bare(query, 0x8180);
    out[7] = 1;
    out.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 1, 44, 0, 4, 203, 0, 113, last]);
    out
}

/// Answers everything well; the last octet of the address is `last`.
pub(super) fn good(last: u8) -> impl Fn(&[u8], Transport) -> Act + Send + Sync + 'static {
    move |query, _| Act::Send(vec![answer(query, last)])
}

/// Says nothing, ever.
pub(super) fn silent(_: &[u8], _: Transport) -> Act {
    Act::Silence
}
