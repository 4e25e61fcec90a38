//! What two datagrams cost at least: our listener with nothing behind it, for `benches/peers`.
//!
//! `floor ADDRESS RCODE` answers every question by its own octets, with one address where the code is 0. Nothing is parsed,
//! judged or written down, so no resolver on this kernel can cost less by much.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use staunch::listen::{Config, Fast, Listener, Service};
use staunch::model::{Now, Transport};

struct Echo(u8);

impl Service for Echo {
    type Deferred = ();

    fn fast(&self, packet: &[u8], _: SocketAddr, _: Transport, _: Now, out: &mut Vec<u8>) -> Fast<()> {
        out.extend_from_slice(packet);
        let Some([_, _, flags, rcode, _, _, _, answers]) = out.first_chunk_mut() else { return Fast::Drop };
        *flags |= 0x80;
        *rcode = 0x80 | self.0;
        if self.0 == 0 {
            *answers = 1;
            out.extend_from_slice(b"\xc0\x0c\0\x01\0\x01\0\0\0\x3c\0\x04\xc0\0\x02\x01");
        }
        Fast::Reply
    }

    async fn finish(&self, (): ()) -> Option<Vec<u8>> {
        None
    }

    fn overloaded(&self, (): (), _: &mut Vec<u8>) {}
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let (Some(address), Some(rcode)) = (arguments.next(), arguments.next()) else {
        return Err("usage: floor ADDRESS RCODE".into());
    };
    let config = Config {
        addresses: vec![address.parse()?],
        workers: 1,
        queue: 1,
        in_flight: 1,
        tcp_connections: 100,
        tcp_per_source: 100,
        tcp_idle: Duration::from_secs(10),
    };
    let echo = Arc::new(Echo(rcode.parse()?));
    tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?.block_on(async {
        let listener = Listener::start(&config, echo, &tokio::runtime::Handle::current())?;
        std::future::pending::<()>().await;
        drop(listener);
        Ok(())
    })
}
