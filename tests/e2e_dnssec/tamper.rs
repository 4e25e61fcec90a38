//! An upstream that hands everything on to the real one and changes what comes back.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex};

use hickory_proto::op::Message;

use crate::signed::RESOLVER;
use crate::world::{World, dns, upstream};

/// Where it is.
pub const TAMPER: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 98);

/// What it does to a reply; `false` where none is given.
pub type Change = fn(&mut Message) -> bool;

/// A query as it came: name, type, flags, DO.
pub type Asked = (String, u16, u16, bool);

/// The running upstream.
#[derive(Clone, Default)]
pub struct Tamper {
    change: Arc<Mutex<Option<Change>>>,
    asked: Arc<Mutex<Vec<Asked>>>,
}

impl Tamper {
    /// Serves in the outside until the world ends. Changes nothing yet.
    pub fn start(world: &World) -> Self {
        let this = Self::default();
        let address = SocketAddr::from((TAMPER, 53));
        let socket = world.net.run(async move { tokio::net::UdpSocket::bind(address).await.expect("a free port") });
        let (socket, tamper) = (Arc::new(socket), this.clone());
        world.net.spawn(async move {
            let mut buffer = vec![0; 4096];
            loop {
                let Ok((length, from)) = socket.recv_from(&mut buffer).await else { continue };
                let (query, socket, tamper) = (buffer[..length].to_vec(), socket.clone(), tamper.clone());
                tokio::spawn(async move {
                    if let Some(reply) = tamper.answer(&query).await {
                        let _ = socket.send_to(&reply, from).await;
                    }
                });
            }
        });
        this
    }

    /// From now on.
    pub fn set(&self, change: Option<Change>) {
        *self.change.lock().expect("held for an assignment") = change;
    }

    /// What came since this was asked last, but for trials and probes.
    pub fn asked(&self) -> Vec<Asked> {
        let mut asked = std::mem::take(&mut *self.asked.lock().expect("held for a push"));
        asked.retain(|(name, qtype, ..)| name != "resolver.arpa" && !(name.is_empty() && *qtype == 2));
        asked
    }

    async fn answer(&self, query: &[u8]) -> Option<Vec<u8>> {
        let (name, end) = dns::read_name(query, 12)?;
        let word = |at: usize| query.get(at..at + 2).map(|two| u16::from_be_bytes([two[0], two[1]]));
        // The OPT record is the first behind the question: root, type, payload, extended code and version, flags.
        let dnssec_ok = query.get(end + 4 + 7).is_some_and(|flags| flags & 0x80 != 0);
        let asked = (name.to_ascii_lowercase(), word(end)?, word(2)?, dnssec_ok);
        self.asked.lock().expect("held for a push").push(asked);
        let reply = upstream::relay(query, (RESOLVER, 53).into()).await?;
        let change = *self.change.lock().expect("held for an assignment");
        let Some(change) = change else { return Some(reply) };
        let mut message = Message::from_vec(&reply).expect("a message of unbound's");
        change(&mut message).then(|| message.to_vec().expect("a message"))
    }
}
