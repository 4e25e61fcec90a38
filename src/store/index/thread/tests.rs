//! The index, its thread and what a disk can do to it.

use std::sync::mpsc::sync_channel;

use parking_lot::Mutex;

use super::*;
use crate::store::testing::quarantine;

/// Notes what is asked of it.
#[derive(Default)]
struct Asked {
    batches: Vec<Vec<Op>>,
    flushes: usize,
}

struct Recording(Arc<Mutex<Asked>>);

impl StateStore for Recording {
    fn apply(&mut self, batch: Vec<Op>) -> Result<(), IndexError> {
        if !batch.is_empty() {
            self.0.lock().batches.push(batch);
        }
        Ok(())
    }

    fn get(&self, _: Tree, _: &[u8]) -> Result<Option<Vec<u8>>, IndexError> {
        Ok(None)
    }

    fn scan(&self, _: Tree, _: &[u8], _: &mut super::super::Visit<'_>) -> Result<(), IndexError> {
        Ok(())
    }

    fn flush(&mut self) -> Result<(), IndexError> {
        self.0.lock().flushes += 1;
        Ok(())
    }

    fn size_on_disk(&self) -> u64 {
        0
    }
}

fn put(value: u64) -> Message {
    let ops = vec![Op::Put(Tree::Session, b"one".to_vec(), value.to_be_bytes().to_vec())];
    Message::Apply { ops, applied: Some(value) }
}

#[test]
fn changes_wait_for_one_another_and_the_last_one_is_applied() {
    let asked = Arc::new(Mutex::new(Asked::default()));
    let (sender, messages) = sync_channel(10_000);
    let (dirty, pending, counters) = (false, Pending::default(), Arc::new(Counters::default()));
    let store: Box<dyn StateStore> = Box::new(Recording(asked.clone()));
    let marker = PathBuf::from("/nonexistent/failed");
    let seen = None;
    let mut run = Run { store: Some(store), dirty, applied: None, pending, seen, counters, marker };
    let thread = thread::spawn(move || run.until_shutdown(&messages));
    for value in 0..5_000 {
        sender.send(put(value)).expect("it runs");
    }
    // Nobody wakes it, and it is durable all the same.
    let begun = Instant::now();
    while asked.lock().flushes == 0 {
        assert!(begun.elapsed() < Duration::from_secs(60));
        thread::sleep(Duration::from_millis(5));
    }
    let batches = asked.lock().batches.len();
    sender.send(put(5_000)).expect("it runs");
    // What is reconciled stands behind what came before it.
    let entry = Entry { seq: 1, time: String::new(), record: quarantine(1) };
    sender.send(Message::Reconcile { live: vec![entry], applied: 6_000 }).expect("it runs");
    sender.send(Message::Shutdown).expect("it runs");
    thread.thread().unpark();
    thread.join().expect("ends");
    let asked = asked.lock();
    // Each round is the changes and the sequence they reach.
    assert!(batches <= 2 * (1 + begun.elapsed().as_secs() as usize), "{batches} batches of 5,000 changes");
    let of = |value: u64| {
        asked
            .batches
            .iter()
            .position(|batch| batch.contains(&Op::Put(Tree::Session, b"one".to_vec(), value.to_be_bytes().to_vec())))
    };
    let reconciled =
        asked.batches.iter().position(|batch| batch.iter().any(|op| matches!(op, Op::Put(Tree::Quarantine, ..))));
    assert!(of(4_999).is_some() && of(5_000) < reconciled, "{:?} {reconciled:?}", of(5_000));
    let applied = asked.batches.last().expect("some");
    assert_eq!(*applied, [Op::Put(Tree::Meta, META_APPLIED.to_vec(), 6_000u64.to_be_bytes().to_vec())]);
}

fn os_error(code: i32) -> IndexError {
    IndexError::Io(Arc::new(io::Error::from_raw_os_error(code)))
}

/// Names in a directory, sorted.
fn names(dir: &Path) -> Vec<String> {
    let entries = fs::read_dir(dir).expect("lists");
    let mut names: Vec<_> =
        entries.map(|entry| entry.expect("entry").file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

#[test]
fn an_index_that_the_disk_does_not_give_stays_where_it_is() {
    let dir = tempfile::tempdir().expect("directory");
    for name in ["index", "index.damaged-1", "index.damaged-2", "index.damaged-3", "index.damaged-4"] {
        fs::create_dir(dir.path().join(name)).expect("directory");
    }
    fs::write(dir.path().join("index/db"), "all that was learned").expect("written");
    let before = names(dir.path());
    for code in [libc::ENOSPC, libc::EDQUOT, libc::EACCES, libc::EROFS, libc::EMFILE, libc::EIO, libc::ENOMEM] {
        let opened = open_with(dir.path(), 9, move || Err(os_error(code))).expect("goes on");
        assert!(opened.failed && opened.damage.is_none(), "{code}");
        assert_eq!(names(dir.path()), before, "{code}");
    }
    assert_eq!(fs::read(dir.path().join("index/db")).expect("there"), b"all that was learned");

    // What says that the contents are no good: put aside, and the oldest of many goes.
    let bad = || Err(IndexError::Io(Arc::new(io::ErrorKind::UnexpectedEof.into())));
    let opened = open_with(dir.path(), 9, bad).expect("goes on");
    let aside = opened.damage.and_then(|damage| damage.aside);
    assert_eq!((opened.failed, aside.as_deref()), (true, Some("index.damaged-9")));
    assert_eq!(names(dir.path()), ["index.damaged-3", "index.damaged-4", "index.damaged-9"]);
}

/// Fails at the first change.
struct Failing(IndexError);

impl StateStore for Failing {
    fn apply(&mut self, _: Vec<Op>) -> Result<(), IndexError> {
        Err(self.0.clone())
    }

    fn get(&self, _: Tree, _: &[u8]) -> Result<Option<Vec<u8>>, IndexError> {
        Ok(None)
    }

    fn scan(&self, _: Tree, _: &[u8], _: &mut super::super::Visit<'_>) -> Result<(), IndexError> {
        Ok(())
    }

    fn flush(&mut self) -> Result<(), IndexError> {
        Ok(())
    }

    fn size_on_disk(&self) -> u64 {
        0
    }
}

#[test]
fn an_index_is_built_anew_for_what_it_holds_and_not_for_a_disk_that_is_full() {
    let dir = tempfile::tempdir().expect("directory");
    let marker = dir.path().join(FAILED);
    for (error, built_anew) in [(os_error(libc::ENOSPC), false), (IndexError::Damaged("page 7".into()), true)] {
        let (sender, messages) = sync_channel(8);
        let (pending, counters, marker) = (Pending::default(), Arc::new(Counters::default()), marker.clone());
        let store: Option<Box<dyn StateStore>> = Some(Box::new(Failing(error)));
        let status = counters.clone();
        let mut run = Run { store, dirty: false, applied: None, pending, seen: None, counters, marker };
        for message in [put(1), Message::Shutdown] {
            sender.send(message).expect("there is room");
        }
        run.until_shutdown(&messages);
        assert!(run.store.is_none() && status.status().index_failed);
        assert_eq!(run.marker.exists(), built_anew);
    }
}
