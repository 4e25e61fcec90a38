//! The file sink: JSON lines, each synced before the alert counts as delivered.

use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{FileExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::PathBuf;

use super::{Failure, Sink, event_json};
use crate::event::Alert;

/// See the module.
pub(super) struct FileSink {
    path: PathBuf,
    file: Option<File>,
}

impl FileSink {
    pub(super) fn new(path: PathBuf) -> Self {
        Self { path, file: None }
    }

    /// The file at the path now: a rotated one is left behind.
    fn current(&mut self) -> io::Result<&mut File> {
        let same = |file: &File| -> io::Result<bool> {
            let (ours, there) = (file.metadata()?, std::fs::metadata(&self.path)?);
            Ok((ours.dev(), ours.ino()) == (there.dev(), there.ino()))
        };
        let file = match self.file.take() {
            Some(file) if same(&file).unwrap_or(false) => file,
            _ => self.open()?,
        };
        Ok(self.file.insert(file))
    }

    fn open(&self) -> io::Result<File> {
        let mut options = OpenOptions::new();
        options.read(true).append(true).create(true).mode(0o600).custom_flags(libc::O_NONBLOCK);
        let mut file = options.open(&self.path)?;
        let metadata = file.metadata()?;
        // Nothing that is written to a pipe or a device is ever on a disk.
        if !metadata.is_file() {
            return Err(io::Error::other("not a regular file"));
        }
        // A line torn by a crash must not swallow the next one.
        let len = metadata.len();
        let mut last = [b'\n'];
        if len > 0 {
            file.read_exact_at(&mut last, len - 1)?;
        }
        if last != *b"\n" {
            file.write_all(b"\n")?;
        }
        Ok(file)
    }
}

impl Sink for FileSink {
    fn deliver(&mut self, alert: &Alert) -> Result<(), Failure> {
        let mut line = event_json::alert(alert).map_err(io::Error::other)?;
        line.push('\n');
        let file = self.current()?;
        let before = file.metadata()?.len();
        let written = file.write_all(line.as_bytes()).and_then(|()| file.sync_data());
        if written.is_err() {
            // Take a part of a line back; if that fails as well, reopening ends it with a newline.
            let _ = file.set_len(before);
            self.file = None;
        }
        Ok(written?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::testing;

    #[test]
    fn lines_survive_rotation_and_a_torn_end() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("alerts.jsonl");
        std::fs::write(&path, "{\"torn").unwrap();
        let mut sink = FileSink::new(path.clone());
        sink.deliver(&testing::alert(1)).unwrap();
        sink.deliver(&testing::alert(2)).unwrap();
        let old = dir.path().join("alerts.jsonl.1");
        std::fs::rename(&path, &old).unwrap();
        sink.deliver(&testing::alert(3)).unwrap();
        let ids = |path| {
            let text = std::fs::read_to_string(path).unwrap();
            let alerts = text.lines().filter_map(|line| serde_json::from_str::<Alert>(line).ok());
            alerts.map(|a| a.id).collect::<Vec<_>>()
        };
        assert_eq!(ids(&old), ["alert-1", "alert-2"]);
        assert_eq!(ids(&path), ["alert-3"]);
        std::fs::remove_dir_all(dir.path()).unwrap();
        assert!(sink.deliver(&testing::alert(4)).is_err());
    }

    #[test]
    fn a_pipe_is_no_file_and_gets_no_alert() {
        use std::io::Read as _;
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("alerts.pipe");
        let name = std::ffi::CString::new(path.as_os_str().as_encoded_bytes()).unwrap();
        // SAFETY: the pointer is to a NUL-terminated string.
        assert_eq!(unsafe { libc::mkfifo(name.as_ptr(), 0o600) }, 0);
        let mut reader = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(&path).unwrap();
        let mut sink = FileSink::new(path);
        for n in 0..3 {
            assert!(sink.deliver(&testing::alert(n)).is_err());
        }
        assert_eq!(reader.read(&mut [0; 1]).unwrap(), 0, "what is tried again is not written again");
    }
}
