//! The file that outlives a restart: one key a line, `zone flags protocol algorithm key state since`.

use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use staunch_scoring::NameBuf;

use super::super::keys::Key;
use super::{KeyState, Known, Rollover};

/// Most keys of a file: as many as all zones that may have an anchor could have.
const MAX_LINES: usize = 8192;

/// A line of the file is not one that we have written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("line {0} is not `zone flags protocol algorithm key state since`")]
pub struct RolloverError(pub usize);

impl Rollover {
    /// Reads what [`Display`](fmt::Display) has written.
    ///
    /// # Errors
    /// The first line that cannot be read.
    pub fn read(text: &str) -> Result<Self, RolloverError> {
        let mut all = Self::default();
        for (i, line) in text.lines().enumerate().filter(|(_, line)| !line.is_empty() && !line.starts_with(';')) {
            let known = known(line).filter(|_| all.keys.len() < MAX_LINES).ok_or(RolloverError(i + 1))?;
            all.keys.push(known);
        }
        Ok(all)
    }
}

fn known(line: &str) -> Option<Known> {
    let words: Vec<&str> = line.split_ascii_whitespace().collect();
    let [zone, flags, protocol, algorithm, key, state, since] = *words else { return None };
    let zone = NameBuf::from_text(zone).ok()?;
    let [high, low] = flags.parse::<u16>().ok()?.to_be_bytes();
    let head = [high, low, protocol.parse().ok()?, algorithm.parse().ok()?];
    let data: Box<[u8]> = [&head[..], &STANDARD.decode(key).ok()?].concat().into();
    let state = KeyState::ALL.into_iter().find(|known| known.as_str() == state)?;
    Key::read(&data)?;
    Some(Known { zone, data, state, since: since.parse().ok()? })
}

impl fmt::Display for Rollover {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "; Keys of trust points (RFC 5011), written by the service: zone, key, state, since when in ms.")?;
        for Known { zone, data, state, since } in &self.keys {
            let [high, low, protocol, algorithm, key @ ..] = &**data else { continue };
            let flags = u16::from_be_bytes([*high, *low]);
            writeln!(f, "{zone} {flags} {protocol} {algorithm} {} {} {since}", STANDARD.encode(key), state.as_str())?;
        }
        Ok(())
    }
}
