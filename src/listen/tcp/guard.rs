//! A bound on the length of framed messages, laid under hickory's framing.
//!
//! hickory's stream sets aside as many octets as a message announces, up to 64 KiB, before the first of them arrives.
//! This wrapper follows the two-octet lengths (RFC 1035 section 4.2.2) as they pass and fails the read at one outside
//! the limits, so that the memory is never set aside. It buffers reads, so that length and message take one system
//! call together, and passes writes through.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, BufReader, ReadBuf};

use crate::listen::mmsg::QUERY_MAX;
use crate::wire::HEADER;

/// Read buffer of a connection, octets: a pipeline of sixteen ordinary queries.
const READ_BUFFER: usize = 1024;

/// A stream of messages, none of them longer than [`QUERY_MAX`] or shorter than a header.
pub(super) struct Guard<S> {
    inner: BufReader<S>,
    place: Place,
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
}

impl Place {
    /// Steps over `octets`; `None` if a length among them is outside the limits.
    fn follow(mut self, mut octets: &[u8]) -> Option<Self> {
        while let [first, rest @ ..] = octets {
            (self, octets) = match self {
                Self::Length => (Self::SecondOctet(*first), rest),
                Self::SecondOctet(high) => match usize::from(u16::from_be_bytes([high, *first])) {
                    length @ HEADER..=QUERY_MAX => (Self::Message(length), rest),
                    _ => return None,
                },
                Self::Message(left) => match octets.get(left..) {
                    Some(behind) => (Self::Length, behind),
                    None => (Self::Message(left.saturating_sub(octets.len())), &[][..]),
                },
            };
        }
        Some(self)
    }
}

impl<S: AsyncRead> Guard<S> {
    pub(super) fn new(inner: S) -> Self {
        Self { inner: BufReader::with_capacity(READ_BUFFER, inner), place: Place::Length }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Guard<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        ready!(Pin::new(&mut self.inner).poll_read(cx, buf))?;
        match self.place.follow(buf.filled().get(before..).unwrap_or_default()) {
            Some(place) => self.place = place,
            None => return Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidData, "message length not accepted"))),
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Guard<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write_vectored(cx, bufs)
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
            assert_eq!(Place::Length.follow(&length.to_be_bytes()).is_some(), accepted, "{length}");
        }
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
            let whole = Place::Length.follow(&octets).is_some();
            let pieces = octets.chunks(chunk).try_fold(Place::Length, Place::follow).is_some();
            prop_assert_eq!(whole, pieces);
            prop_assert_eq!(whole, (12..=4096).contains(&last));
        }
    }
}
