//! One transfer from one primary, over TCP (RFC 5936 section 4.1) or TLS (RFC 9103).

use std::time::Duration;

use staunch_scoring::NameRef;
use tokio::time::timeout;

use super::connection::Connection;
use super::message::{self, Header};
use super::records::Copy;
use super::stream::{Outcome, Stream, StreamError};
use super::tsig::{TsigError, Verifier};
use super::{Primaries, Primary};
use crate::clock;
use crate::rpz::soa_of;

/// For a connection, its handshake included.
const CONNECT: Duration = Duration::from_secs(5);
/// For the next message.
const MESSAGE: Duration = Duration::from_secs(15);
/// For the whole transfer.
const TRANSFER: Duration = Duration::from_secs(600);

/// Why a transfer failed; nothing of it is used.
#[derive(Debug, thiserror::Error)]
pub(super) enum Failure {
    /// No connection: nothing was asked.
    #[error("{0}")]
    Connect(std::io::Error),
    #[error("{0}")]
    Io(#[from] std::io::Error),
    #[error("it takes too long")]
    Slow,
    #[error("a message is malformed, or answers something else")]
    Malformed,
    #[error("the primary answers with response code {0}")]
    Rcode(u8),
    #[error(transparent)]
    Tsig(#[from] TsigError),
    #[error(transparent)]
    Stream(#[from] StreamError),
    #[error(
        "the primary has serial {theirs}, which is older than ours, {ours}; where that is meant, stop the service, remove the \
         zone's copy (rpz/ in the state directory) and start it again"
    )]
    Older { theirs: u32, ours: u32 },
    #[error("no randomness")]
    Random,
}

impl Failure {
    /// Whether the whole zone may be had where changes are not. A primary whose log of changes is gone, or that has none, says so
    /// in every way there is (RFC 1995 section 4 leaves it to fall back); one that is not there, that does not prove who it is, or
    /// whose copy is older than ours, has no better one.
    fn is_of_changes(&self) -> bool {
        match self {
            Self::Connect(_) | Self::Tsig(_) | Self::Older { .. } | Self::Random => false,
            Self::Io(_) | Self::Slow | Self::Malformed | Self::Rcode(_) | Self::Stream(_) => true,
        }
    }
}

/// Asks `server` for what is newer than `have`: for changes first, for the whole zone where none come. `whole`: asks for the
/// whole zone at once.
pub(super) async fn transfer(
    server: &Primary,
    zone: NameRef<'_>,
    have: Option<&Copy>,
    whole: bool,
    primaries: &Primaries,
) -> Result<Outcome, Failure> {
    transfer_within(server, zone, have, whole, primaries, MESSAGE).await
}

/// As [`transfer`]; the next message is waited for as long as `patience`.
async fn transfer_within(
    server: &Primary,
    zone: NameRef<'_>,
    have: Option<&Copy>,
    whole: bool,
    primaries: &Primaries,
    patience: Duration,
) -> Result<Outcome, Failure> {
    let ask = |since: Option<&Copy>| {
        let since = since.map(|copy| copy.soa.clone());
        async move {
            match timeout(TRANSFER, exchange(server, zone, since, primaries, patience)).await {
                Ok(outcome) => outcome,
                Err(_) => Err(Failure::Slow),
            }
        }
    };
    let (outcome, theirs) = match have.filter(|_| !whole) {
        None => ask(None).await?,
        Some(have) => match ask(Some(have)).await {
            Err(failure) if failure.is_of_changes() => {
                tracing::info!(%zone, %server, %failure, "no changes are to be had; the whole zone is asked for");
                ask(None).await?
            }
            outcome => outcome?,
        },
    };
    let ours = have.and_then(|have| soa_of(&have.soa)).map(|soa| soa.serial);
    match (ours, &outcome) {
        (Some(ours), Outcome::Whole(_) | Outcome::Changes(_)) if super::stream::is_newer(ours, theirs) => {
            Err(Failure::Older { theirs, ours })
        }
        (Some(ours), Outcome::Whole(_)) if ours == theirs && !whole => Ok(Outcome::Current),
        _ => Ok(outcome),
    }
}

async fn exchange(
    server: &Primary,
    zone: NameRef<'_>,
    since: Option<Vec<u8>>,
    primaries: &Primaries,
    patience: Duration,
) -> Result<(Outcome, u32), Failure> {
    let mut id = [0; 2];
    getrandom::fill(&mut id).map_err(|_| Failure::Random)?;
    let id = u16::from_be_bytes(id);
    let mut request = message::request(id, zone, since.as_deref());
    let time = || clock::now().wall.shown / 1000;
    let mut verifier = primaries.tsig.as_ref().map(|key| {
        let mac = key.sign(&mut request, None, time());
        Verifier::new(key, mac)
    });
    let mut connection = match timeout(CONNECT, Connection::open(server)).await {
        Ok(connection) => connection.map_err(Failure::Connect)?,
        Err(_) => return Err(Failure::Connect(std::io::ErrorKind::TimedOut.into())),
    };
    connection.send(&request).await?;
    let have = since.as_deref().and_then(soa_of).map(|soa| soa.serial);
    let mut stream = Stream::new(zone, have, primaries.max_octets);
    let mut octets = Vec::new();
    loop {
        match timeout(patience, connection.receive(&mut octets)).await {
            Ok(read) => read?,
            Err(_) => return Err(Failure::Slow),
        }
        let header = Header::read(&octets).ok_or(Failure::Malformed)?;
        if header.id != id || !header.is_response || header.opcode != 0 || header.truncated {
            return Err(Failure::Malformed);
        }
        // Before anything of it is believed.
        let signed = match &mut verifier {
            Some(verifier) => {
                let taken = verifier.take(&octets, time());
                match (taken, header.rcode) {
                    // A refusal need not be signed (RFC 8945 section 5.3.2); it gives us nothing either.
                    (Err(TsigError::Missing), rcode) if rcode != 0 => return Err(Failure::Rcode(rcode)),
                    (taken, _) => taken?,
                }
            }
            None => true,
        };
        if header.rcode != 0 {
            return Err(Failure::Rcode(header.rcode));
        }
        message::answers(&octets, |record| stream.take(record)).ok_or(Failure::Malformed)??;
        if stream.is_over() {
            // The last message must be signed itself.
            if !signed || verifier.as_ref().is_some_and(|verifier| !verifier.is_settled()) {
                return Err(TsigError::Missing.into());
            }
            let serial = stream.serial();
            return Ok((stream.finish(), serial));
        }
        // A server that has nothing newer than what it thinks we have answers with its SOA alone, older or not.
        if have.is_some() && stream.has_soa_alone() {
            let (theirs, ours) = (stream.serial(), have.unwrap_or_default());
            if super::stream::is_newer(ours, theirs) {
                return Err(Failure::Older { theirs, ours });
            }
        }
    }
}

#[cfg(test)]
mod tests;
