//! A scripted upstream on loopback: UDP and TCP on one port, every query recorded.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, UdpSocket};
use tokio::task::JoinHandle;

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
}

pub(super) type Script = dyn Fn(&[u8], Transport) -> Act + Send + Sync;

/// Queries, in order.
type Heard = Vec<(Transport, Vec<u8>)>;

pub(super) struct Upstream {
    pub(super) addr: SocketAddr,
    queries: Arc<Mutex<Heard>>,
    script: Arc<Mutex<Arc<Script>>>,
    tasks: [JoinHandle<()>; 2],
}

impl Drop for Upstream {
    fn drop(&mut self) {
        for task in &self.tasks {
            task.abort();
        }
    }
}

impl Upstream {
    pub(super) async fn start(script: impl Fn(&[u8], Transport) -> Act + Send + Sync + 'static) -> Self {
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
        let streams = tokio::spawn(async move {
            while let Ok((mut stream, _)) = tcp.accept().await {
                let heard = heard.clone();
                tokio::spawn(async move {
                    let Ok(len) = stream.read_u16().await else { return };
                    let mut query = vec![0; usize::from(len)];
                    if stream.read_exact(&mut query).await.is_err() {
                        return;
                    }
                    for message in unfold(heard(Transport::Tcp, &query)).await {
                        let _ = stream.write_u16(message.len() as u16).await;
                        let _ = stream.write_all(&message).await;
                    }
                });
            }
        });
        Self { addr, queries, script, tasks: [datagrams, streams] }
    }

    /// Behaves otherwise from now on.
    pub(super) fn becomes(&self, script: impl Fn(&[u8], Transport) -> Act + Send + Sync + 'static) {
        *self.script.lock() = Arc::new(script);
    }

    /// Queries so far, our own probes (`. NS`) left out.
    pub(super) fn queries(&self) -> Heard {
        let all = self.queries.lock();
        all.iter().filter(|(_, q)| q.get(12) != Some(&0)).cloned().collect()
    }

    /// Probes so far.
    pub(super) fn probes(&self) -> usize {
        let all = self.queries.lock();
        all.iter().filter(|(_, q)| q.get(12) == Some(&0)).count()
    }
}

async fn unfold(act: Act) -> Vec<Vec<u8>> {
    match act {
        Act::Silence => Vec::new(),
        Act::Send(messages) => messages,
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
