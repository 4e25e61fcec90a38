//! Copies of fetched lists on disk: the one in force, the one before it, and one that waits for somebody's word.
//!
//! One directory a list. Contents lie in files named by their digest, which are written whole and never changed;
//! `state.json` says which is what and is replaced in one step. So there is no moment at which a crash could leave a list
//! without its last good copy.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::Source;
use super::files::{aside, private_directory, read_small, write_whole};
use crate::lists::{Format, Room};
use crate::store::hex;

/// Largest `state.json`, octets: a few digests and headers.
const MAX_STATE: u64 = 64 * 1024;

/// What is known of a copy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stamp {
    /// Where it came from.
    pub url: String,
    /// Hex SHA-256 of its octets.
    pub sha256: String,
    /// Its size.
    pub octets: u64,
    /// Entries in it.
    pub entries: u32,
    /// How it is written.
    pub format: Format,
    /// Whether that was written in the configuration, and not told by its first lines.
    #[serde(default)]
    pub given: bool,
    /// No more entries than this are read of it; copies of earlier releases do not say.
    #[serde(default)]
    pub most: u64,
    /// Its lines.
    #[serde(default)]
    pub lines: u64,
    /// The server's word for this version (RFC 9110 section 8.8.3).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub etag: Option<String>,
    /// When the server says it was changed, as it said it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_modified: Option<String>,
    /// When it was fetched, milliseconds since the Unix epoch.
    pub fetched: u64,
    /// Why it waits, or waited.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub held_for: Option<String>,
    /// Who let it in although a gate held it, and why.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub accepted: Option<(String, String)>,
}

impl Stamp {
    /// Whether it is a copy of what is asked for: from there, and read as it is to be.
    pub(super) fn is_of(&self, source: &Source) -> bool {
        self.url == source.url && source.format.map_or(!self.given, |format| format == self.format)
    }

    /// Takes what it needs of the table that denies, if it is there.
    pub(super) fn take(&self, room: &mut Room) -> bool {
        room.take(self.most.max(u64::from(self.entries)), self.lines)
    }
}

/// What there is of a list.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Kept {
    /// The copy in force.
    pub good: Option<Stamp>,
    /// The one before it, for the day on which the disk has lost the other.
    pub before: Option<Stamp>,
    /// One that a gate holds.
    pub held: Option<Stamp>,
    /// When the server was last asked and answered, milliseconds since the Unix epoch.
    pub checked: u64,
}

/// See the module.
#[derive(Debug, Clone)]
pub struct Copies {
    directory: PathBuf,
}

impl Copies {
    /// Of the list `id`, which is a word without separators.
    pub fn of(state_dir: &Path, id: &str) -> Self {
        Self { directory: super::directory(state_dir).join(format!("feed-{id}")) }
    }

    /// What there is. Nothing where nothing can be read: it is then fetched anew.
    pub fn kept(&self) -> Kept {
        let octets = read_small(&self.directory.join("state.json"), MAX_STATE);
        octets.ok().and_then(|octets| serde_json::from_slice(&octets).ok()).unwrap_or_default()
    }

    /// Replaces what is known; contents that are not named any more are removed.
    ///
    /// # Errors
    /// Where it cannot be written; what was known before then holds.
    pub fn keep(&self, kept: &Kept) -> io::Result<()> {
        private_directory(&self.directory)?;
        write_whole(&self.directory.join("state.json"), &serde_json::to_vec_pretty(kept)?)?;
        let named: Vec<_> = [&kept.good, &kept.before, &kept.held].into_iter().flatten().map(name).collect();
        for entry in std::fs::read_dir(&self.directory)?.flatten() {
            let file = entry.file_name();
            let list = file.to_str().is_some_and(|file| file.ends_with(".list"));
            if list && named.iter().all(|name| file != **name) {
                let _ = std::fs::remove_file(entry.path());
            }
        }
        Ok(())
    }

    /// A file to write a new copy to.
    pub(super) fn draft(&self) -> io::Result<Draft> {
        private_directory(&self.directory)?;
        let (file, path) = aside(&self.directory.join("draft"))?;
        Ok(Draft { file: BufWriter::new(file), path: Some(path), digest: Sha256::new(), octets: 0 })
    }

    /// Gives a draft that is what `stamp` says its name.
    pub(super) fn adopt(&self, draft: Finished, stamp: &Stamp) -> io::Result<()> {
        draft.file.sync_data()?;
        draft.rename(&self.directory.join(name(stamp)))
    }

    /// The octets of a copy, not looked at.
    ///
    /// # Errors
    /// As the system says.
    pub fn open(&self, stamp: &Stamp) -> io::Result<File> {
        File::open(self.directory.join(name(stamp)))
    }
}

fn name(stamp: &Stamp) -> String {
    // From a file: only what a digest consists of may become part of a path.
    let digest: String = stamp.sha256.chars().filter(char::is_ascii_hexdigit).take(64).collect();
    format!("{digest}.list")
}

/// A copy that is being written; removed unless it is adopted.
pub(super) struct Draft {
    file: BufWriter<File>,
    path: Option<PathBuf>,
    digest: Sha256,
    octets: u64,
}

impl Draft {
    pub(super) fn octets(&self) -> u64 {
        self.octets
    }

    /// Ends the writing.
    pub(super) fn finish(mut self) -> io::Result<(Finished, String, u64)> {
        self.file.flush()?;
        let file = self.file.get_ref().try_clone()?;
        let digest = hex(&std::mem::take(&mut self.digest).finalize());
        Ok((Finished { file, path: self.path.take() }, digest, self.octets))
    }
}

impl Write for Draft {
    fn write(&mut self, octets: &[u8]) -> io::Result<usize> {
        let length = self.file.write(octets)?;
        self.digest.update(octets.get(..length).unwrap_or_default());
        self.octets += length as u64;
        Ok(length)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

impl Drop for Draft {
    fn drop(&mut self) {
        if let Some(path) = &self.path {
            let _ = std::fs::remove_file(path);
        }
    }
}

/// A copy that was written and has no name yet; removed unless it is adopted.
pub(super) struct Finished {
    pub(super) file: File,
    path: Option<PathBuf>,
}

impl Finished {
    fn rename(mut self, to: &Path) -> io::Result<()> {
        let Some(path) = &self.path else { return Ok(()) };
        std::fs::rename(path, to)?;
        self.path = None;
        Ok(())
    }
}

impl Drop for Finished {
    fn drop(&mut self) {
        if let Some(path) = &self.path {
            let _ = std::fs::remove_file(path);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stamp(sha256: &str) -> Stamp {
        Stamp {
            url: "https://lists.example/l".into(),
            sha256: sha256.into(),
            octets: 1,
            entries: 1,
            format: Format::Domains,
            given: false,
            most: 1,
            lines: 1,
            etag: Some("\"v1\"".into()),
            last_modified: None,
            fetched: 7,
            held_for: None,
            accepted: None,
        }
    }

    fn written(copies: &Copies, text: &str) -> Stamp {
        let mut draft = copies.draft().expect("a draft");
        draft.write_all(text.as_bytes()).expect("written");
        let (draft, digest, octets) = draft.finish().expect("whole");
        assert_eq!(octets, text.len() as u64);
        let stamp = stamp(&digest);
        copies.adopt(draft, &stamp).expect("named");
        stamp
    }

    fn files(copies: &Copies) -> usize {
        std::fs::read_dir(&copies.directory).expect("listed").count()
    }

    #[test]
    fn what_is_named_stays_and_what_is_not_goes() {
        let dir = tempfile::tempdir().expect("directory");
        let copies = Copies::of(dir.path(), "l");
        assert_eq!(copies.kept(), Kept::default());
        let (one, two) = (written(&copies, "one.example\n"), written(&copies, "two.example\n"));
        let kept = Kept { good: Some(two.clone()), before: Some(one.clone()), held: None, checked: 9 };
        copies.keep(&kept).expect("kept");
        assert_eq!(copies.kept(), kept);
        assert_eq!(std::io::read_to_string(copies.open(&one).expect("opens")).expect("text"), "one.example\n");
        copies.keep(&Kept { before: None, ..kept }).expect("kept");
        assert!(copies.open(&one).is_err() && copies.open(&two).is_ok());
        // A draft that nobody takes leaves nothing behind.
        drop(copies.draft().expect("a draft"));
        drop(copies.draft().expect("a draft").finish().expect("whole"));
        assert_eq!(files(&copies), 2, "one list and what is known of it");
    }

    #[test]
    fn what_is_known_may_be_damaged_or_hostile() {
        let dir = tempfile::tempdir().expect("directory");
        let copies = Copies::of(dir.path(), "l");
        copies.keep(&Kept { good: Some(stamp("../../key")), ..Kept::default() }).expect("kept");
        assert!(!name(&stamp("../../key")).contains(['/', '\\']));
        assert!(copies.open(&copies.kept().good.expect("one")).is_err());
        for text in ["", "{", "[]", "{\"good\": 7}"] {
            std::fs::write(copies.directory.join("state.json"), text).expect("written");
            assert_eq!(copies.kept(), Kept::default(), "{text}");
        }
        std::fs::write(copies.directory.join("state.json"), vec![b' '; 1 << 20]).expect("written");
        assert_eq!(copies.kept(), Kept::default());
    }
}
