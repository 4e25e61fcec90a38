//! A group's state as the store keeps it: one Base64 string of numbers, as of a session's ledger. Before, it was an object with a
//! name for every number, which is still read.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use serde::de::Error as _;

use super::{GroupSnapshot, HOURS};
use crate::bits::Bits;
use crate::snapshot::{In, Out};

/// How the numbers are put together.
const FORM: u64 = 1;

impl GroupSnapshot {
    fn encoded(&self) -> String {
        let mut out = Out(Vec::with_capacity(64 + 8 * self.names.len()));
        out.numbers([FORM, self.hour]);
        out.0.extend_from_slice(&self.seed.to_le_bytes());
        out.0.extend_from_slice(&self.check.to_le_bytes());
        let mut hours = [0; HOURS];
        for (word, spent) in hours.iter_mut().zip(&self.hours) {
            *word = spent.steps().into();
        }
        out.words(&hours);
        out.number(self.names.len() as u64);
        self.names.iter().for_each(|name| out.0.extend_from_slice(&name.to_le_bytes()));
        STANDARD_NO_PAD.encode(&out.0)
    }

    fn decoded(text: &str) -> Option<Self> {
        let octets = STANDARD_NO_PAD.decode(text).ok()?;
        let mut rest = In(&octets);
        if rest.number()? != FORM {
            return None;
        }
        let hour = rest.number()?;
        let [seed, check] = [rest.fixed()?, rest.fixed()?].map(u64::from_le_bytes);
        let hours: [u64; HOURS] = rest.words()?;
        let hours = hours.map(|word| u32::try_from(word).ok().map(Bits::from_steps));
        let hours = hours.into_iter().collect::<Option<_>>()?;
        // A count is only a claim: memory follows the octets.
        let names = (0..rest.number()?).map(|_| rest.fixed().map(u64::from_le_bytes)).collect::<Option<_>>()?;
        Some(Self { seed, check, hour, hours, names })
    }
}

impl serde::Serialize for GroupSnapshot {
    fn serialize<S: serde::Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(&self.encoded())
    }
}

#[derive(serde::Deserialize)]
#[serde(untagged)]
enum Wire {
    Numbers(String),
    Named(Named),
}

/// As it was written before, every field defaulted.
#[derive(Default, serde::Deserialize)]
#[serde(default)]
struct Named {
    seed: u64,
    check: u64,
    hour: u64,
    hours: Vec<Bits>,
    names: Vec<u64>,
}

impl<'de> serde::Deserialize<'de> for GroupSnapshot {
    fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        match Wire::deserialize(from)? {
            Wire::Numbers(text) => Self::decoded(&text).ok_or_else(|| D::Error::custom("no group of this version")),
            Wire::Named(Named { seed, check, hour, hours, names }) => Ok(Self { seed, check, hour, hours, names }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::GroupState;
    use super::*;
    use crate::name::NameBuf;

    #[test]
    fn what_is_written_is_read_and_is_short() {
        let mut group = GroupState::new(u64::MAX);
        let hour = 490_000 * super::super::HOUR_MS;
        for n in 0..300 {
            let name = NameBuf::from_text(&format!("n{n}.example")).expect("a name");
            group.book(name.as_ref(), Bits::whole(70), hour + n * super::super::HOUR_MS / 12);
        }
        let write = |state: &GroupSnapshot| serde_json::to_string(state).expect("JSON");
        for state in [group.snapshot(), group.spending()] {
            let text = write(&state);
            assert_eq!(serde_json::from_str::<GroupSnapshot>(&text).expect("read"), state);
            for cut in 0..text.len() - 1 {
                let _ = serde_json::from_str::<GroupSnapshot>(&format!("{}\"", &text[..cut]));
            }
        }
        // 24 busy hours; as an object it was 289.
        assert!(write(&group.spending()).len() < 150, "{}", write(&group.spending()));
    }

    #[test]
    fn what_was_an_object_is_read_and_what_is_none_is_refused() {
        let text = r#"{"seed":7,"check":9,"hour":30,"hours":[0,1.5,0],"names":[1,18446744073709551615]}"#;
        let state: GroupSnapshot = serde_json::from_str(text).expect("read");
        assert_eq!((state.seed, state.check, state.hour), (7, 9, 30));
        assert_eq!((state.names.as_slice(), state.hours.len()), (&[1, u64::MAX][..], 3));
        assert_eq!(serde_json::from_str::<GroupSnapshot>("{}").expect("read"), GroupSnapshot::default());
        for text in ["\"\"", "\"AgAA\"", "\"AQAA\"", "\"%\"", "7"] {
            assert!(serde_json::from_str::<GroupSnapshot>(text).is_err(), "{text}");
        }
    }
}
