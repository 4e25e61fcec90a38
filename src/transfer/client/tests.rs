//! A primary that answers for the whole zone, and for changes in every way that is none.

use std::net::SocketAddr;
use std::sync::Arc;

use parking_lot::Mutex;
use staunch_scoring::NameBuf;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::super::message::{TYPE_AXFR, TYPE_IXFR, TYPE_SOA};
use super::super::records::Records;
use super::super::{Algorithm, TsigKey};
use super::*;

const MOST: u64 = 4096;

fn zone() -> NameBuf {
    NameBuf::from_text("rpz.test").expect("name")
}

fn soa(serial: u32) -> Vec<u8> {
    let mut rdata = b"\x02ns\x04test\0\x01h\x04test\0".to_vec();
    for number in [serial, 3600, 600, 86_400, 60] {
        rdata.extend(number.to_be_bytes());
    }
    rdata
}

/// A record at the zone's own name.
fn apex(rtype: u16, rdata: &[u8]) -> Vec<u8> {
    let mut record = vec![0xc0, 12];
    record.extend([rtype.to_be_bytes(), [0, 1], [0, 0], [0, 60], (rdata.len() as u16).to_be_bytes()].concat());
    record.extend_from_slice(rdata);
    record
}

/// What a primary makes of a question for changes.
#[derive(Debug, Clone)]
enum Changes {
    Rcode(u8),
    /// Records in one message; then the connection stays, and nothing more comes.
    Records(Vec<Vec<u8>>),
    /// The connection ends.
    Closed,
    /// Octets that are no message.
    Noise,
}

/// One that has the whole zone, serial 9, and changes like these. What it was asked for is written down.
async fn primary(changes: Changes) -> (SocketAddr, Arc<Mutex<Vec<u16>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    let asked: Arc<Mutex<Vec<u16>>> = Arc::default();
    let log = asked.clone();
    tokio::spawn(async move {
        let mut kept = Vec::new();
        while let Ok((mut stream, _)) = listener.accept().await {
            let length = stream.read_u16().await.expect("a length");
            let mut request = vec![0; length.into()];
            stream.read_exact(&mut request).await.expect("a request");
            let rtype = message::question(&request).expect("a question").1;
            log.lock().push(rtype);
            let whole = Changes::Records(vec![apex(TYPE_SOA, &soa(9)), apex(2, &[0]), apex(TYPE_SOA, &soa(9))]);
            give(&mut stream, &request, if rtype == TYPE_AXFR { &whole } else { &changes }).await;
            if matches!(changes, Changes::Records(_)) {
                kept.push(stream);
            }
        }
    });
    (address, asked)
}

async fn give(stream: &mut TcpStream, request: &[u8], what: &Changes) {
    let (rcode, records) = match what {
        Changes::Rcode(rcode) => (*rcode, &[][..]),
        Changes::Records(records) => (0, &**records),
        Changes::Closed => return,
        Changes::Noise => return stream.write_all(&[0, 3, 1, 2, 3]).await.expect("sent"),
    };
    let mut reply = request[..2].to_vec();
    reply.extend([0x84, rcode, 0, 1, 0, records.len() as u8, 0, 0, 0, 0]);
    reply.extend_from_slice(&request[12..12 + zone().as_ref().wire_len() + 4]);
    reply.extend(records.concat());
    stream.write_all(&[&(reply.len() as u16).to_be_bytes(), &*reply].concat()).await.expect("sent");
}

fn primaries(server: SocketAddr, tsig: Option<TsigKey>) -> Primaries {
    let servers = vec![Primary { address: server, tls: None }];
    Primaries { servers, tsig, required: false, keep_expired: true, lenient: false, max_octets: MOST }
}

/// Asks with a copy of serial 7.
async fn ask(server: SocketAddr, tsig: Option<TsigKey>) -> Result<Outcome, Failure> {
    let have = Copy { soa: soa(7), soa_ttl: 60, records: Records::default() };
    let primaries = primaries(server, tsig);
    let patience = Duration::from_secs(3);
    transfer_within(&primaries.servers[0], zone().as_ref(), Some(&have), false, &primaries, patience).await
}

#[tokio::test]
async fn whatever_goes_wrong_with_changes_the_whole_zone_is_asked_for() {
    let serial = |serial| apex(TYPE_SOA, &soa(serial));
    let large: Vec<_> = (0..20).map(|i| apex(16, &[vec![250; 1], vec![i; 250]].concat())).collect();
    for changes in [
        Changes::Rcode(1),
        Changes::Rcode(2),
        Changes::Rcode(4),
        Changes::Rcode(5),
        Changes::Closed,
        Changes::Noise,
        // From another serial than ours, one newer SOA alone, and more than a transfer may have.
        Changes::Records(vec![serial(9), serial(8), serial(9), serial(9)]),
        Changes::Records(vec![serial(9)]),
        Changes::Records([vec![serial(9), serial(7)], large, vec![serial(9), serial(9)]].concat()),
    ] {
        let (server, asked) = primary(changes.clone()).await;
        let outcome = ask(server, None).await;
        let Ok(Outcome::Whole(copy)) = outcome else { panic!("{changes:?}: {:?}", outcome.err()) };
        assert_eq!(soa_of(&copy.soa).map(|soa| soa.serial), Some(9), "{changes:?}");
        assert_eq!(*asked.lock(), [TYPE_IXFR, TYPE_AXFR], "{changes:?}");
    }
}

#[tokio::test]
async fn changes_that_come_and_failures_of_the_primary_itself_ask_for_nothing_more() {
    let serial = |serial| apex(TYPE_SOA, &soa(serial));
    let (server, asked) = primary(Changes::Records(vec![serial(9), serial(7), serial(9), serial(9)])).await;
    assert!(matches!(ask(server, None).await, Ok(Outcome::Changes(changes)) if changes.len() == 1));
    assert_eq!(*asked.lock(), [TYPE_IXFR]);
    let (server, asked) = primary(Changes::Records(vec![serial(7)])).await;
    assert!(matches!(ask(server, None).await, Ok(Outcome::Current)));
    assert_eq!(*asked.lock(), [TYPE_IXFR]);
    // An older one has the whole of an older zone.
    let (server, asked) = primary(Changes::Records(vec![serial(6)])).await;
    assert!(matches!(ask(server, None).await, Err(Failure::Older { theirs: 6, ours: 7 })));
    assert_eq!(*asked.lock(), [TYPE_IXFR]);
    // Changes may lead back, too.
    let back = vec![serial(6), serial(7), serial(6), serial(6)];
    let (server, asked) = primary(Changes::Records(back)).await;
    assert!(matches!(ask(server, None).await, Err(Failure::Older { theirs: 6, ours: 7 })));
    assert_eq!(*asked.lock(), [TYPE_IXFR]);
    // Not signed, though a key is written.
    let key = TsigKey::new(NameBuf::from_text("key").expect("name"), Algorithm::HmacSha256, vec![7; 32]);
    let (server, asked) = primary(Changes::Records(vec![serial(9)])).await;
    assert!(matches!(ask(server, Some(key)).await, Err(Failure::Tsig(_))));
    assert_eq!(*asked.lock(), [TYPE_IXFR]);
    // Nobody is there.
    let gone = SocketAddr::from(([127, 0, 0, 1], 9));
    assert!(matches!(ask(gone, None).await, Err(Failure::Connect(_))));
}
