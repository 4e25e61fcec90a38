//! A bound on the length of framed messages, laid under hickory's framing.
//!
//! hickory's stream sets aside as many octets as a message announces, up to 64 KiB, before the first of them arrives.
//! This wrapper follows the two-octet lengths (RFC 1035 section 4.2.2) as they pass and fails the read at one outside
//! the limits, so that the memory is never set aside. It buffers reads, so that length and message take one system
//! call together.
//!
//! It also keeps what the connection's time limits go by ([`Progress`]): since when a message is incomplete, and how many
//! octets of replies the kernel has not taken yet.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, BufReader, ReadBuf};

use crate::clock;
use crate::listen::mmsg::QUERY_MAX;
use crate::wire::HEADER;

/// Read buffer of a connection, octets: a pipeline of sixteen ordinary queries.
const READ_BUFFER: usize = 1024;

/// Most reads of so much at once that are for nothing: a receive buffer full.
const DISCARDS: usize = 32;

/// How far a connection is, for those who hold only its stream.
#[derive(Debug)]
pub(super) struct Progress {
    /// When the message under way began, milliseconds of [`crate::model::Now::mono`]; 0 between messages.
    began: AtomicU64,
    /// Octets of replies that were queued and that the kernel has not taken.
    unsent: AtomicUsize,
    /// The same of all connections together.
    total: Arc<AtomicUsize>,
}

impl Progress {
    /// Of a connection that has sent and was sent nothing; `total` is shared by all.
    pub(super) fn new(total: Arc<AtomicUsize>) -> Arc<Self> {
        Arc::new(Self { began: AtomicU64::new(0), unsent: AtomicUsize::new(0), total })
    }

    /// When the message began that is not whole yet.
    pub(super) fn began(&self) -> Option<u64> {
        Some(self.began.load(Relaxed)).filter(|began| *began != 0)
    }

    /// Whether a reply of so many octets may be queued behind what waits: `own` octets may wait here, `all` in all
    /// connections. A reply behind which nothing waits always may.
    pub(super) fn queue(&self, octets: usize, own: usize, all: usize) -> bool {
        let octets = octets + 2;
        let before = self.unsent.fetch_add(octets, Relaxed);
        let total = self.total.fetch_add(octets, Relaxed);
        before == 0 || (before + octets <= own && total + octets <= all)
    }

    /// So many octets were taken by the kernel.
    fn sent(&self, octets: usize) {
        // More than was queued is never written.
        let octets = octets.min(self.unsent.load(Relaxed));
        self.unsent.fetch_sub(octets, Relaxed);
        self.total.fetch_sub(octets, Relaxed);
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.total.fetch_sub(self.unsent.load(Relaxed), Relaxed);
    }
}

/// A stream of messages, none of them longer than [`QUERY_MAX`] or shorter than a header.
pub(super) struct Guard<S> {
    inner: BufReader<S>,
    place: Place,
    progress: Arc<Progress>,
}

/// Where in the framing the next octet stands.
#[derive(Debug, Clone, Copy)]
enum Place {
    /// At a length.
    Length,
    /// Within a length, behind its first octet.
    SecondOctet(u8),
    /// Within a message, this many octets from its end.
    Message(usize),
    /// Behind a length outside the limits: nothing more is read.
    Broken,
}

impl Place {
    /// Steps over `octets`; [`Self::Broken`] if a length among them is outside the limits.
    fn follow(mut self, mut octets: &[u8]) -> Self {
        while let [first, rest @ ..] = octets {
            (self, octets) = match self {
                Self::Broken => return self,
                Self::Length => (Self::SecondOctet(*first), rest),
                Self::SecondOctet(high) => match usize::from(u16::from_be_bytes([high, *first])) {
                    length @ HEADER..=QUERY_MAX => (Self::Message(length), rest),
                    _ => return Self::Broken,
                },
                Self::Message(left) => match octets.get(left..) {
                    Some(behind) => (Self::Length, behind),
                    None => (Self::Message(left.saturating_sub(octets.len())), &[][..]),
                },
            };
        }
        self
    }
}

impl<S: AsyncRead> Guard<S> {
    pub(super) fn new(inner: S, progress: Arc<Progress>) -> Self {
        Self { inner: BufReader::with_capacity(READ_BUFFER, inner), place: Place::Length, progress }
    }
}

impl<S: AsyncRead + Unpin> Guard<S> {
    /// Reads what has come and drops it: a socket that is closed with octets unread is reset, and what the peer has not read of
    /// its replies goes with it.
    fn discard(&mut self, cx: &mut Context<'_>) {
        let mut octets = [0; READ_BUFFER];
        for _ in 0..DISCARDS {
            let mut buf = ReadBuf::new(&mut octets);
            let read = Pin::new(&mut self.inner).poll_read(cx, &mut buf);
            if !matches!(read, Poll::Ready(Ok(()))) || buf.filled().is_empty() {
                return;
            }
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Guard<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let broken = || io::Error::new(io::ErrorKind::InvalidData, "message length not accepted");
        if matches!(self.place, Place::Broken) {
            self.discard(cx);
            return Poll::Ready(Err(broken()));
        }
        let before = buf.filled().len();
        ready!(Pin::new(&mut self.inner).poll_read(cx, buf))?;
        let place = self.place.follow(buf.filled().get(before..).unwrap_or_default());
        match (self.place, place) {
            (_, Place::Length | Place::Broken) => self.progress.began.store(0, Relaxed),
            (Place::Length, _) => self.progress.began.store(clock::now().mono.max(1), Relaxed),
            _ => {}
        }
        self.place = place;
        Poll::Ready(if matches!(place, Place::Broken) { Err(broken()) } else { Ok(()) })
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Guard<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let written = ready!(Pin::new(&mut self.inner).poll_write(cx, buf))?;
        self.progress.sent(written);
        Poll::Ready(Ok(written))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = ready!(Pin::new(&mut self.inner).poll_write_vectored(cx, bufs))?;
        self.progress.sent(written);
        Poll::Ready(Ok(written))
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn lengths_outside_the_limits_are_refused() {
        for (length, accepted) in [(0u16, false), (11, false), (12, true), (4096, true), (4097, false), (0xffff, false)]
        {
            let place = Place::Length.follow(&length.to_be_bytes());
            assert_eq!(!matches!(place, Place::Broken), accepted, "{length}");
        }
    }

    #[test]
    fn what_waits_to_be_written_is_bounded_and_given_back() {
        let total = Arc::new(AtomicUsize::new(0));
        let (one, other) = (Progress::new(total.clone()), Progress::new(total.clone()));
        assert!(one.queue(60_000, 50_000, 100_000), "the first may be of any length");
        assert!(!one.queue(10, 50_000, 100_000));
        assert!(other.queue(20_000, 50_000, 100_000) && other.queue(15_000, 50_000, 100_000));
        assert!(!other.queue(10_000, 50_000, 100_000), "all together");
        one.sent(60_014);
        assert_eq!(one.unsent.load(Relaxed), 0);
        assert!(one.queue(40_000, 50_000, 100_000));
        drop((one, other));
        assert_eq!(total.load(Relaxed), 0);
    }

    #[tokio::test]
    async fn an_incomplete_message_is_known_since_its_first_octet() {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        let (mut stub, ours) = tokio::io::duplex(256);
        let progress = Progress::new(Arc::default());
        let mut guard = Guard::new(ours, progress.clone());
        let mut octets = [0; 64];
        assert_eq!(progress.began(), None);
        stub.write_all(&[0]).await.expect("written");
        assert_eq!(guard.read(&mut octets).await.expect("read"), 1);
        let began = progress.began().expect("a message is under way");
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        stub.write_all(&[12, 1, 2, 3]).await.expect("written");
        assert_eq!(guard.read(&mut octets).await.expect("read"), 4);
        assert_eq!(progress.began(), Some(began), "whatever comes of it later");
        stub.write_all(&[0; 9]).await.expect("written");
        assert_eq!(guard.read(&mut octets).await.expect("read"), 9);
        assert_eq!(progress.began(), None);
    }

    proptest! {
        #[test]
        fn chunks_do_not_matter(
            lengths in proptest::collection::vec(12usize..60, 1..6),
            last in prop_oneof![12u16..200, Just(5), Just(5000)],
            chunk in 1usize..9,
        ) {
            let mut octets = Vec::new();
            for length in &lengths {
                octets.extend((*length as u16).to_be_bytes());
                octets.resize(octets.len() + length, 0xff);
            }
            octets.extend(last.to_be_bytes());
            let broken = |place| matches!(place, Place::Broken);
            let whole = broken(Place::Length.follow(&octets));
            prop_assert_eq!(whole, broken(octets.chunks(chunk).fold(Place::Length, Place::follow)));
            prop_assert_eq!(whole, !(12..=4096).contains(&last));
        }
    }
}
