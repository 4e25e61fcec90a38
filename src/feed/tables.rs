//! Compiled tables of deny lists, in a directory of our own.
//!
//! A table's name is the digest of what it was made of, so a table for another configuration can be built beside the one
//! in force (`staunch lists build`) and is found when that configuration is loaded. It is written aside and renamed and
//! never changed after; a mapping of one that was removed stays whole. Losing the directory costs time and the days since
//! which names are listed, nothing else.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use super::files::{aside, is_private, private_directory, read_small, write_whole};
use crate::lists::{DenyTable, HashKey, ImageError};

/// Tables that are kept: the one in force and those before it.
const KEPT: usize = 3;
/// Octets of a key.
const KEY: usize = 24;

/// See the module.
#[derive(Debug, Clone)]
pub struct Tables {
    directory: PathBuf,
}

impl Tables {
    /// The directory below the state directory; made where it is not there.
    ///
    /// # Errors
    /// As the system says.
    pub fn open(state_dir: &Path) -> io::Result<Self> {
        let directory = super::directory(state_dir);
        private_directory(&directory)?;
        Ok(Self { directory })
    }

    /// The key of all tables of this deployment, made of `fresh` where there is none yet. Whoever knows it can make names
    /// that are taken for listed ones, so it stays in the directory.
    ///
    /// # Errors
    /// As the system says.
    pub fn key(&self, fresh: [u8; KEY]) -> io::Result<[u8; KEY]> {
        let path = self.directory.join("key");
        let known = || read_small(&path, KEY as u64).ok().and_then(|octets| octets.try_into().ok());
        if let Some(key) = known() {
            return Ok(key);
        }
        write_whole(&path, &fresh)?;
        known().ok_or_else(|| io::Error::other("the key of the tables was not kept"))
    }

    /// The table that was made of `inputs` under `key`, if it is there.
    ///
    /// # Errors
    /// Where it is there and cannot be used.
    pub fn find(&self, inputs: &[u8; 32], key: &HashKey) -> Option<Result<DenyTable, ImageError>> {
        let path = self.path(inputs);
        let file = match File::open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return None,
            Err(error) => return Some(Err(error.into())),
        };
        let mapped = is_private(&file, &self.directory);
        Some(DenyTable::open(file, mapped).and_then(|(table, of)| {
            if of == *inputs && table.key() == key { Ok(table) } else { Err(ImageError::Other) }
        }))
    }

    /// The newest table that can be used: what it knows of since when names are listed is taken over.
    pub fn newest(&self) -> Option<DenyTable> {
        let (_, path) = self.all().ok()?.into_iter().next_back()?;
        let file = File::open(path).ok()?;
        let mapped = is_private(&file, &self.directory);
        DenyTable::open(file, mapped).ok().map(|(table, _)| table)
    }

    /// Writes a table, to be found from now on. Older ones than the last few are removed.
    ///
    /// # Errors
    /// Where it cannot be written.
    pub fn keep(&self, table: &DenyTable, inputs: &[u8; 32]) -> io::Result<()> {
        let path = self.path(inputs);
        let (file, new) = aside(&path)?;
        let mut out = BufWriter::new(file);
        let written = table.write(inputs, &mut out).and_then(|()| out.flush());
        // Not synced: a file that a crash has cut short fails its checksum and is made anew.
        if let Err(error) = written.and_then(|()| std::fs::rename(&new, &path)) {
            let _ = std::fs::remove_file(&new);
            return Err(error);
        }
        self.prune();
        Ok(())
    }

    fn path(&self, inputs: &[u8; 32]) -> PathBuf {
        let name: String = inputs.iter().take(16).map(|octet| format!("{octet:02x}")).collect();
        self.directory.join(format!("deny-{name}.table"))
    }

    /// All tables, the oldest first.
    fn all(&self) -> io::Result<Vec<(SystemTime, PathBuf)>> {
        let mut found = Vec::new();
        for entry in std::fs::read_dir(&self.directory)? {
            let entry = entry?;
            let name = entry.file_name();
            if name.as_bytes().starts_with(b"deny-") && name.as_bytes().ends_with(b".table") {
                found.push((entry.metadata()?.modified()?, entry.path()));
            }
        }
        found.sort();
        Ok(found)
    }

    fn prune(&self) {
        let Ok(all) = self.all() else { return };
        for (_, path) in all.iter().take(all.len().saturating_sub(KEPT)) {
            let _ = std::fs::remove_file(path);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use staunch_scoring::NameBuf;

    use super::*;
    use crate::lists::{Day, ListInfo, compile_texts};

    fn table(key: HashKey, text: &str) -> DenyTable {
        let info = ListInfo { id: "l".into(), file: "l.txt".into(), source: None, category: None, reviewed: None };
        compile_texts(key, Day(20_500), &[(info, text.as_bytes(), None)]).expect("compiles")
    }

    #[test]
    fn a_table_is_kept_found_again_and_refused_when_damaged() {
        let dir = tempfile::tempdir().expect("directory");
        let tables = Tables::open(dir.path()).expect("opens");
        let octets = tables.key([3; 24]).expect("a key");
        assert_eq!(tables.key([4; 24]).expect("the same"), octets);
        let key = HashKey::from_random(octets);
        assert!(tables.find(&[1; 32], &key).is_none());
        tables.keep(&table(key, "bad.example\n"), &[1; 32]).expect("kept");
        let kept = tables.find(&[1; 32], &key).expect("there").expect("a table");
        let name = NameBuf::from_text("www.bad.example").expect("name");
        assert!(kept.look_up(name.as_ref()).is_some());
        assert!(tables.find(&[1; 32], &key).expect("there").is_ok());
        assert!(tables.find(&[1; 32], &HashKey::from_random([9; 24])).expect("there").is_err(), "under another key");
        let path = tables.path(&[1; 32]);
        let mode = std::fs::metadata(&path).expect("file").permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let mut octets = std::fs::read(&path).expect("octets");
        octets[4100] ^= 1;
        std::fs::write(&path, &octets).expect("damaged");
        assert!(matches!(tables.find(&[1; 32], &key), Some(Err(ImageError::Damaged(_)))));
        std::fs::write(&path, &octets[..octets.len() - 7]).expect("cut");
        assert!(matches!(tables.find(&[1; 32], &key), Some(Err(ImageError::Damaged(_)))));
    }

    #[test]
    fn a_table_that_others_may_write_is_copied() {
        let dir = tempfile::tempdir().expect("directory");
        let tables = Tables::open(dir.path()).expect("opens");
        let key = HashKey::from_random([3; 24]);
        tables.keep(&table(key, "bad.example\n"), &[1; 32]).expect("kept");
        let path = tables.path(&[1; 32]);
        let file = || File::open(&path).expect("opens");
        assert!(is_private(&file(), &tables.directory));
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o666)).expect("mode");
        assert!(!is_private(&file(), &tables.directory));
        let copied = tables.find(&[1; 32], &key).expect("there").expect("a table");
        // Cut short under our feet: what was copied does not mind.
        std::fs::write(&path, b"").expect("cut");
        let name = NameBuf::from_text("bad.example").expect("name");
        assert!(copied.look_up(name.as_ref()).is_some());
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o600)).expect("mode");
        std::fs::set_permissions(&tables.directory, PermissionsExt::from_mode(0o777)).expect("mode");
        assert!(!is_private(&file(), &tables.directory));
    }

    #[test]
    fn what_the_superuser_builds_belongs_to_the_service() {
        use std::os::unix::fs::{MetadataExt, chown};
        let dir = tempfile::tempdir().expect("directory");
        // SAFETY: no arguments, no failures.
        let (own, own_group) = unsafe { (libc::geteuid(), libc::getegid()) };
        let superuser = own == 0;
        let (owner, group) = if superuser { (4711, 4712) } else { (own, own_group) };
        if superuser {
            chown(dir.path(), Some(owner), Some(group)).expect("given away");
        }
        let tables = Tables::open(dir.path()).expect("opens");
        let key = HashKey::from_random(tables.key([3; 24]).expect("a key"));
        tables.keep(&table(key, "bad.example\n"), &[1; 32]).expect("kept");
        let key = tables.directory.join("key");
        for path in [&tables.directory, &tables.path(&[1; 32]), &key] {
            let metadata = std::fs::metadata(path).expect("there");
            assert_eq!((metadata.uid(), metadata.gid()), (owner, group), "{}", path.display());
        }
    }

    #[test]
    fn a_removed_table_stays_whole_while_it_is_mapped_and_old_ones_go() {
        let dir = tempfile::tempdir().expect("directory");
        let tables = Tables::open(dir.path()).expect("opens");
        let key = HashKey::from_random([3; 24]);
        tables.keep(&table(key, "bad.example\n"), &[1; 32]).expect("kept");
        let first = tables.find(&[1; 32], &key).expect("there").expect("a table");
        for inputs in 2..8 {
            tables.keep(&table(key, "other.example\n"), &[inputs; 32]).expect("kept");
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
        assert_eq!(tables.all().expect("listed").len(), KEPT);
        assert!(tables.find(&[1; 32], &key).is_none(), "its file is gone");
        let name = NameBuf::from_text("bad.example").expect("name");
        assert!(first.look_up(name.as_ref()).is_some());
        assert!(tables.newest().expect("one").look_up(name.as_ref()).is_none());
    }
}
