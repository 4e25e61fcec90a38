//! Documents on a stream: the length, four octets, most significant first, then so many octets of JSON.

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::enforce::wire::DOCUMENT_MAX;

/// Octets of a length.
const HEAD: usize = 4;

/// What stands on a stream and is no document of ours.
#[derive(Debug, thiserror::Error)]
pub enum FrameError {
    /// Longer than may be.
    #[error("a document of {0} octets, at most {DOCUMENT_MAX}")]
    TooLong(usize),
    /// Not of our forms.
    #[error("not a document of this protocol: {0}")]
    Form(#[from] serde_json::Error),
}

/// A document as it goes on the stream.
///
/// # Errors
///
/// Where it is longer than [`DOCUMENT_MAX`].
pub fn encode<T: Serialize>(document: &T) -> Result<Vec<u8>, FrameError> {
    let mut octets = vec![0; HEAD];
    serde_json::to_writer(&mut octets, document)?;
    let length = octets.len() - HEAD;
    match u32::try_from(length) {
        Ok(head) if length <= DOCUMENT_MAX => {
            octets.splice(..HEAD, head.to_be_bytes());
            Ok(octets)
        }
        _ => Err(FrameError::TooLong(length)),
    }
}

/// Octets of a stream, until they make a document.
#[derive(Debug, Default)]
pub struct Incoming {
    octets: Vec<u8>,
    /// How many at the front have been read already.
    read: usize,
}

impl Incoming {
    /// Takes octets in.
    pub fn push(&mut self, octets: &[u8]) {
        if self.read > 0 {
            self.octets.drain(..self.read);
            self.read = 0;
        }
        self.octets.extend_from_slice(octets);
    }

    /// Octets that are kept.
    #[cfg(test)]
    pub(super) fn kept(&self) -> usize {
        self.octets.len()
    }

    /// The next document, where it is whole.
    ///
    /// # Errors
    ///
    /// Where what comes is no document of `T`'s form, or too long for one. Behind that nothing on this stream has a meaning.
    pub fn take<T: DeserializeOwned>(&mut self) -> Result<Option<T>, FrameError> {
        let rest = self.octets.get(self.read..).unwrap_or_default();
        let Some((head, rest)) = rest.split_first_chunk::<HEAD>() else { return Ok(None) };
        let length = u32::from_be_bytes(*head) as usize;
        // Before it is awaited: nothing is kept for a length that nobody may send.
        if length > DOCUMENT_MAX {
            return Err(FrameError::TooLong(length));
        }
        let Some(document) = rest.get(..length) else { return Ok(None) };
        let document = serde_json::from_slice(document)?;
        self.read += HEAD + length;
        Ok(Some(document))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::enforce::wire::{Reply, Request};
    use proptest::prelude::*;

    #[test]
    fn documents_come_out_as_they_went_in_however_they_are_cut() {
        let documents = [Request::Health, Request::Snapshot { after: None }, Request::Health];
        let stream: Vec<u8> = documents.iter().flat_map(|d| encode(d).expect("fits")).collect();
        for cut in 1..stream.len() {
            let (mut incoming, mut out) = (Incoming::default(), Vec::new());
            for piece in stream.chunks(cut) {
                incoming.push(piece);
                while let Some(document) = incoming.take::<Request>().expect("ours") {
                    out.push(document);
                }
            }
            assert_eq!(out, documents);
        }
    }

    #[test]
    fn what_is_too_long_is_refused_before_it_is_awaited() {
        let mut incoming = Incoming::default();
        incoming.push(&u32::MAX.to_be_bytes());
        assert!(matches!(incoming.take::<Request>(), Err(FrameError::TooLong(_))));
        let why = "x".repeat(DOCUMENT_MAX);
        assert!(matches!(encode(&Reply::Refused { why }), Err(FrameError::TooLong(_))));
    }

    proptest! {
        #[test]
        fn any_octets_are_read_or_refused(pieces in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..40), 0..20)) {
            let mut incoming = Incoming::default();
            'all: for piece in pieces {
                incoming.push(&piece);
                loop {
                    match incoming.take::<Request>() {
                        Ok(Some(_)) => {}
                        Ok(None) => break,
                        Err(_) => break 'all,
                    }
                }
            }
        }

        #[test]
        fn any_text_in_a_frame_is_read_or_refused(text in "[{}\\[\\]\",:a-z0-9_./-]{0,200}") {
            let mut incoming = Incoming::default();
            incoming.push(&(text.len() as u32).to_be_bytes());
            incoming.push(text.as_bytes());
            let _ = incoming.take::<Request>();
        }
    }
}
