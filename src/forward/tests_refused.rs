//! Word that nobody is there, whoever says so.

use std::net::{SocketAddr, UdpSocket};
use std::time::Duration;

use socket2::{Domain, Protocol, Socket, Type};

use super::tests::{config, last, permit, timed};
use super::upstream_for_test::answer;
use super::*;

/// An upstream, and what says in its name that nobody is there: that takes privilege.
struct Upstreamed {
    socket: UdpSocket,
    errors: Socket,
}

impl Upstreamed {
    fn start() -> Option<Self> {
        let errors = Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::ICMPV4));
        let Ok(errors) = errors else {
            println!("SKIPPED: needs raw sockets");
            return None;
        };
        let socket = UdpSocket::bind("127.0.0.1:0").expect("loopback");
        socket.set_read_timeout(Some(Duration::from_secs(5))).expect("a timeout");
        Some(Self { socket, errors })
    }

    fn address(&self) -> SocketAddr {
        self.socket.local_addr().expect("bound")
    }

    /// The next query for the test's name, and where it came from.
    fn heard(&self) -> (Vec<u8>, SocketAddr) {
        let mut buffer = [0; 512];
        loop {
            let (length, from) = self.socket.recv_from(&mut buffer).expect("a query");
            let query = &buffer[..length];
            if query.windows(9).any(|window| window == b"\x07example\0") {
                return (query.to_vec(), from);
            }
        }
    }

    /// Says to the port behind `from` that there is no upstream (RFC 792: port unreachable).
    fn refuse(&self, from: SocketAddr) -> std::io::Result<usize> {
        // The packet that is refused: an IPv4 header as far as it is looked at, and the ports.
        let mut error =
            vec![3, 3, 0, 0, 0, 0, 0, 0, 0x45, 0, 0, 36, 0, 0, 0, 0, 64, 17, 0, 0, 127, 0, 0, 1, 127, 0, 0, 1];
        error.extend(from.port().to_be_bytes());
        error.extend(self.address().port().to_be_bytes());
        error.extend([0, 16, 0, 0]);
        let words = error.chunks_exact(2).map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]])));
        let sum = words.sum::<u32>();
        let sum = !((sum & 0xffff) + (sum >> 16)) as u16;
        error[2..4].copy_from_slice(&sum.to_be_bytes());
        self.errors.send_to(&error, &from.into())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_that_somebody_else_sends_costs_no_answer() {
    for answers in ["the first query", "the second query", "none"] {
        let Some(up) = Upstreamed::start() else { return };
        let address = up.address();
        let forwarder = Forwarder::new(Config { upstreams: vec![Upstream::udp(address)], ..config(&[]) });
        let served = tokio::task::spawn_blocking(move || {
            let (first, from) = up.heard();
            up.refuse(from).expect("sent");
            let (second, again) = up.heard();
            assert_ne!(from.port(), again.port(), "from a port that whoever refused the first has to find");
            // More of them change nothing at the first port.
            up.refuse(from).expect("sent");
            match answers {
                "the first query" => up.socket.send_to(&answer(&first, 1), from),
                "the second query" => up.socket.send_to(&answer(&second, 2), again),
                _ => up.refuse(again),
            }
            .expect("sent");
            up
        });
        let (found, took) = timed(forwarder.resolve(&permit("n.example"))).await;
        match answers {
            "the first query" => assert_eq!(last(&found), Some(1)),
            "the second query" => assert_eq!(last(&found), Some(2)),
            _ => {
                let failed = vec![Failed { upstream: address, kind: FailKind::Unreachable, said: None }];
                assert_eq!(found.expect_err("refused twice"), ForwardError::Failed(failed));
            }
        }
        assert!(took < Duration::from_millis(700), "{answers}: took {took:?}");
        served.await.expect("the upstream's end");
    }
}
