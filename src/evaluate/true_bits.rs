//! How much a forwarded query of a scheme truly carries, where its maker knows.
//!
//! A table of the form `"tool" = bits`, TOML or JSON. For tools it does not name, the characters of the payload part
//! are counted. Knows no tool by itself.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Largest file, octets.
const MAX_FILE: u64 = 1 << 20;

/// Most bits of one query: a name of 255 octets, eight each.
const MAX_BITS: f64 = 2040.0;

/// Bits for each forwarded query, by tool.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct TrueBits(BTreeMap<String, f64>);

/// Why a table was not taken.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file.
    #[error("{}: cannot be read", path.display())]
    Io {
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// Its text.
    #[error("{}: {problem}; write lines of the form \"tool\" = bits", path.display())]
    Form {
        /// The file.
        path: PathBuf,
        /// What is wrong, with its line where the parser tells.
        problem: String,
    },
    /// A number.
    #[error("{}: {tool} = {bits} is out of range; use 0 to {MAX_BITS} bits a query", path.display())]
    Range {
        /// The file.
        path: PathBuf,
        /// The tool.
        tool: String,
        /// The number.
        bits: f64,
    },
}

impl TrueBits {
    /// Reads a table: JSON where the file's name ends in `.json`, else TOML.
    ///
    /// # Errors
    /// A file that cannot be read, is no such table, or has a number below 0 or above 2,040.
    pub fn read(path: &Path) -> Result<Self, Error> {
        let io = |source| Error::Io { path: path.into(), source };
        if std::fs::metadata(path).map_err(io)?.len() > MAX_FILE {
            return Err(io(std::io::Error::other("larger than 1 MiB")));
        }
        let text = std::fs::read_to_string(path).map_err(io)?;
        let json = path.extension().is_some_and(|ending| ending == "json");
        let table: Result<BTreeMap<String, f64>, String> = match json {
            true => serde_json::from_str(&text).map_err(|error| error.to_string()),
            false => toml::from_str(&text).map_err(|error| error.to_string()),
        };
        let table = table.map_err(|problem| Error::Form { path: path.into(), problem: problem.trim_end().into() })?;
        match table.iter().find(|(_, bits)| !(0.0..=MAX_BITS).contains(*bits)) {
            Some((tool, bits)) => Err(Error::Range { path: path.into(), tool: tool.clone(), bits: *bits }),
            None => Ok(Self(table)),
        }
    }

    /// Bits for each forwarded query of a tool, where they are known.
    pub fn of(&self, tool: &str) -> Option<f64> {
        self.0.get(tool).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_are_read_and_checked() {
        let dir = tempfile::tempdir().expect("directory");
        let read = |name: &str, text: &str| {
            let path = dir.path().join(name);
            std::fs::write(&path, text).expect("file");
            TrueBits::read(&path)
        };
        let toml = read("a.toml", "# comment\nwords = 44\n\"two words\" = 1.5\n").expect("reads");
        assert_eq!((toml.of("words"), toml.of("two words"), toml.of("other")), (Some(44.0), Some(1.5), None));
        assert_eq!(read("a.json", r#"{"words":44,"two words":1.5}"#).expect("reads"), toml);
        assert!(matches!(read("b.toml", "words = -1"), Err(Error::Range { .. })));
        assert!(matches!(read("b.toml", "words = \"many\""), Err(Error::Form { .. })));
        assert!(matches!(TrueBits::read(&dir.path().join("absent")), Err(Error::Io { .. })));
    }
}
