//! A connection to a primary: TCP, or TLS where that is written, and then nothing else (RFC 9103 section 9.3.2: strict).

use std::io;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::Primary;
use crate::forward::tls::DOT;

/// Octets both ways.
trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin> Stream for S {}

/// See the module.
pub(super) struct Connection(Box<dyn Stream>);

impl Connection {
    /// Opens one. What a primary that is to be reached over TLS cannot prove is an error, and so is one that does not say that it
    /// speaks DNS there.
    pub(super) async fn open(to: &Primary) -> io::Result<Self> {
        let stream = TcpStream::connect(to.address).await?;
        let Some(tls) = &to.tls else { return Ok(Self(Box::new(stream))) };
        let stream = TlsConnector::from(tls.client()).connect(tls.server_name(), stream).await?;
        if stream.get_ref().1.alpn_protocol() != Some(DOT) {
            return Err(io::Error::other(
                "it does not speak DNS over TLS (RFC 9103 section 7.1: no `dot` in its handshake)",
            ));
        }
        Ok(Self(Box::new(stream)))
    }

    /// Sends one message.
    pub(super) async fn send(&mut self, message: &[u8]) -> io::Result<()> {
        let length = u16::try_from(message.len()).map_err(io::Error::other)?;
        let framed = [&length.to_be_bytes(), message].concat();
        self.0.write_all(&framed).await?;
        self.0.flush().await
    }

    /// Reads one message into `octets`.
    pub(super) async fn receive(&mut self, octets: &mut Vec<u8>) -> io::Result<()> {
        let length = self.0.read_u16().await?;
        octets.resize(usize::from(length), 0);
        self.0.read_exact(octets).await?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;
    use std::sync::Arc;

    use rustls::ServerConfig;
    use tokio::net::TcpListener;
    use tokio_rustls::TlsAcceptor;

    use super::*;
    use crate::forward::certs_for_test::Root;
    use crate::forward::tls::Tls;

    /// A server that says back what it hears, framed as it came.
    async fn echo(config: Arc<ServerConfig>) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let Ok(mut stream) = TlsAcceptor::from(config.clone()).accept(stream).await else { continue };
                let mut octets = [0; 5];
                if stream.read_exact(&mut octets).await.is_ok() {
                    let _ = stream.write_all(&octets).await;
                    let _ = stream.shutdown().await;
                }
            }
        });
        address
    }

    #[tokio::test]
    async fn only_dns_over_tls_of_the_right_name_is_a_connection() {
        let root = Root::new();
        let shown = root.issue("primary.example", false).config;
        let mut speaks_dns = ServerConfig::clone(&shown);
        speaks_dns.alpn_protocols = vec![b"h2".to_vec(), DOT.to_vec()];
        let mut speaks_else = ServerConfig::clone(&shown);
        speaks_else.alpn_protocols = vec![b"h2".to_vec()];
        let tls = |name: &str| {
            let tls = Tls::new(name, Vec::new(), Some(root.pem.as_bytes())).expect("settings");
            Some(tls.for_transfers().expect("settings"))
        };
        let dns = echo(Arc::new(speaks_dns)).await;
        let mut open = Connection::open(&Primary { address: dns, tls: tls("primary.example") }).await.expect("open");
        open.send(b"abc").await.expect("sent");
        let mut octets = Vec::new();
        open.receive(&mut octets).await.expect("received");
        assert_eq!(octets, b"abc");

        let refused = |address, name: &'static str| {
            let tls = tls(name);
            async move { Connection::open(&Primary { address, tls }).await.err().map(|error| error.to_string()) }
        };
        assert!(refused(dns, "other.example").await.is_some_and(|why| why.contains("certificate")));
        assert!(refused(echo(Arc::new(speaks_else)).await, "primary.example").await.is_some());
        let silent = refused(echo(shown).await, "primary.example").await;
        assert!(silent.as_ref().is_some_and(|why| why.contains("RFC 9103")), "{silent:?}");
    }
}
