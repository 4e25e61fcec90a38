//! What the journal still knows of a case: the slow look-up for an operator who asks about an old refusal.
//!
//! Reads segments, newest first, in bounded memory. Needs no index and takes no lock, so it can run while the writer
//! writes; it blocks on the disk and is never for the query path.

use std::io;
use std::path::Path;

use super::handle::Quarantined;
use super::line::{self, Body, Line};
use super::restore::quarantined;
use super::segment::{self, Stretches};
use super::shared::End;
use super::{Error, Record, Store};
use crate::event::{Alert, AlertKind};
use crate::model::{CaseId, SessionId};

/// Most octets of the journal that one look-up reads. Chosen without a source: four times what the default number and
/// size of segments hold, so that only a journal swollen by a dead sink reaches it.
const MOST: u64 = 1 << 30;

/// How records begin in a line that may end a quarantine. Quotes inside a JSON string are escaped, so no text of a
/// record can imitate this.
const ENDS: [&str; 3] =
    ["\"record\":{\"kind\":\"release\"", "\"record\":{\"kind\":\"end\"", "\"record\":{\"kind\":\"quarantine\""];

/// A session was opened again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Released {
    /// Who did it.
    pub by: String,
    /// Why.
    pub note: String,
    /// Bits added to each of its limits with it.
    pub extend: u32,
    /// When, RFC 3339, UTC, milliseconds.
    pub time: String,
}

/// What the journal says of a case. At least an alert or a quarantine is there.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct CaseRecord {
    /// The newest alert of the case; one about the release only where no other is left.
    pub alert: Option<Alert>,
    /// The quarantine that was made under it.
    pub quarantine: Option<Quarantined>,
    /// How that quarantine ended.
    pub release: Option<Released>,
}

impl Store {
    /// Looks a case up in the journal, newest segment first. A case whose segments are retired is not found, unless its
    /// quarantine still stands. Blocks on the disk, up to seconds.
    pub fn case(&self, case: CaseId) -> Result<Option<CaseRecord>, Error> {
        let shared = self.shared();
        look_up(&shared.dir, shared.end(), case).map_err(|error| Error::io("read the journal in", &shared.dir, error))
    }
}

fn look_up(dir: &Path, end: End, case: CaseId) -> io::Result<Option<CaseRecord>> {
    let mut left = MOST;
    let mut found: Option<CaseRecord> = None;
    for number in segment::list(dir)?.into_iter().rev().filter(|number| *number <= end.segment) {
        // What is not durable yet may still be taken back.
        let limit = if number == end.segment { end.offset } else { u64::MAX };
        let (here, octets) = match in_segment(&segment::path(dir, number), limit.min(left), case) {
            Ok(read) => read,
            // Retired since the directory was read.
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => return Err(error),
        };
        match (&mut found, here) {
            (Some(newer), Some(older)) => newer.complete(older),
            (None, here) => found = here,
            (Some(_), None) => {}
        }
        left = left.saturating_sub(octets);
        if left == 0 || found.as_ref().is_some_and(CaseRecord::is_complete) {
            break;
        }
    }
    Ok(found)
}

/// Reads one segment. It says everything of a quarantine that stood when it began or was made in it, since it starts
/// with a copy of what stood: a release is never in a later segment than the newest copy of its quarantine.
fn in_segment(path: &Path, limit: u64, case: CaseId) -> io::Result<(Option<CaseRecord>, u64)> {
    let field = format!("\"case\":\"{case}\"");
    let mut stretches = Stretches::open(path, 0)?;
    stretches.limit(limit);
    let mut found = CaseRecord::default();
    let mut standing = false;
    let mut octets = 0;
    while let Some(stretch) = stretches.next(true)? {
        octets = stretch.offset + stretch.octets.len() as u64;
        let Ok(text) = std::str::from_utf8(&stretch.octets) else { continue };
        // Decoding hashes the line, so most are passed over by their text.
        if (text.contains(&field) || (standing && ENDS.iter().any(|kind| text.contains(kind))))
            && let Ok(line) = line::decode(&stretch.octets)
        {
            found.take(case, line, &mut standing);
        }
    }
    let any = found.alert.is_some() || found.quarantine.is_some();
    Ok((any.then_some(found), octets))
}

impl CaseRecord {
    /// Whether nothing in an older segment could say more.
    fn is_complete(&self) -> bool {
        self.alert.as_ref().is_some_and(|alert| alert.kind != AlertKind::Release)
    }

    /// Adds what an older segment says.
    fn complete(&mut self, older: Self) {
        self.alert = older.alert.or(self.alert.take());
        if self.quarantine.is_none() {
            (self.quarantine, self.release) = (older.quarantine, older.release);
        }
    }

    /// Adds a line; `standing` says whether the quarantine of this case stands so far.
    fn take(&mut self, case: CaseId, line: Line, standing: &mut bool) {
        let Line { time, body: Body::Record(record), .. } = line else { return };
        let record = *record;
        let is_ours = |session: &SessionId| self.quarantine.as_ref().is_some_and(|q| q.session == *session);
        match record {
            Record::Alert { alert }
                if alert.case == case && (alert.kind != AlertKind::Release || self.alert.is_none()) =>
            {
                self.alert = Some(*alert);
            }
            Record::Quarantine { case: of, .. } if of == case => {
                self.quarantine = quarantined(&record, &time);
                self.release = None;
                *standing = true;
            }
            Record::Release { session, by, note, extend } if *standing && is_ours(&session) => {
                self.release = Some(Released { by, note, extend, time });
                *standing = false;
            }
            Record::End { session } | Record::Quarantine { session, .. } if is_ours(&session) => *standing = false,
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::testing::{alert_record, announce, quarantine, release, session};
    use crate::store::{IndexKind, Options};

    fn open(dir: &Path) -> Store {
        open_keeping(dir, 3)
    }

    fn open_keeping(dir: &Path, keep_segments: usize) -> Store {
        let options = Options { index: IndexKind::Memory, segment_octets: 4096, keep_segments, ..Options::default() };
        Store::open(dir, options).unwrap().0
    }

    fn write(store: &Store, records: Vec<Record>) {
        store.append(records).unwrap().wait_blocking().unwrap();
    }

    fn of(n: u32) -> CaseId {
        CaseId::from_random(u64::from(n))
    }

    #[test]
    fn a_case_is_found_with_all_that_became_of_it() {
        let dir = tempfile::tempdir().unwrap();
        let store = open(dir.path());
        assert_eq!(store.case(of(1)).unwrap(), None);
        write(&store, vec![announce(1), quarantine(1), alert_record(1)]);
        write(&store, vec![alert_record(2)]);
        let closed = store.case(of(1)).unwrap().unwrap();
        assert_eq!(closed.quarantine.as_ref().unwrap().session, session(1));
        assert_eq!(closed.alert.as_ref().unwrap().case, of(1));
        assert_eq!(closed.release, None);
        write(&store, vec![release(2), release(1)]);
        assert_eq!(store.case(of(1)).unwrap().unwrap().release.unwrap().by, "op");
        let only = store.case(of(2)).unwrap().unwrap();
        assert_eq!((only.alert.unwrap().id.as_str(), only.quarantine), ("alert-2", None));
        assert_eq!(store.case(of(3)).unwrap(), None);
    }

    #[test]
    fn the_release_of_another_case_is_not_taken_for_ours() {
        let dir = tempfile::tempdir().unwrap();
        let store = open(dir.path());
        let second = Record::Quarantine {
            session: session(1),
            case: of(9),
            reason: crate::model::Reason::Score,
            by: "staunch".into(),
            note: String::new(),
            since: None,
            addresses: Vec::new(),
        };
        write(&store, vec![quarantine(1), Record::End { session: session(1) }, second, release(1)]);
        assert_eq!(store.case(of(1)).unwrap().unwrap().release, None);
        assert!(store.case(of(9)).unwrap().unwrap().release.is_some());
    }

    #[test]
    fn a_standing_quarantine_outlives_its_segment_and_an_old_alert_does_not() {
        let dir = tempfile::tempdir().unwrap();
        let store = open(dir.path());
        write(&store, vec![quarantine(1), alert_record(1), alert_record(2)]);
        let since = store.case(of(1)).unwrap().unwrap().quarantine.unwrap().since;
        for n in 100..200 {
            write(&store, vec![alert_record(n)]);
        }
        assert!(segment::list(dir.path()).unwrap().len() <= 4, "old segments are retired");
        let found = store.case(of(1)).unwrap().unwrap();
        assert_eq!((found.quarantine.unwrap().since, found.alert), (since, None), "copied with its own time");
        assert_eq!(store.case(of(2)).unwrap(), None);
        assert!(store.case(of(199)).unwrap().is_some());
    }

    #[test]
    fn parts_in_several_segments_are_put_together() {
        let dir = tempfile::tempdir().unwrap();
        let store = open_keeping(dir.path(), 100);
        write(&store, vec![quarantine(1), alert_record(1)]);
        for n in 100..120 {
            write(&store, vec![alert_record(n)]);
        }
        let mut released = crate::store::testing::alert(1);
        (released.id, released.kind) = ("released".into(), AlertKind::Release);
        write(&store, vec![release(1), Record::Alert { alert: Box::new(released) }]);
        assert!(segment::list(dir.path()).unwrap().len() > 2, "the first alert is some segments back");
        let found = store.case(of(1)).unwrap().unwrap();
        assert_eq!(found.alert.unwrap().id, "alert-1", "the closing says more than the opening");
        assert!(found.quarantine.is_some() && found.release.is_some());
    }

    #[test]
    fn a_damaged_line_is_passed_over() {
        let dir = tempfile::tempdir().unwrap();
        let store = open(dir.path());
        write(&store, vec![quarantine(1)]);
        write(&store, vec![alert_record(1)]);
        let path = segment::path(dir.path(), 1);
        let text = std::fs::read_to_string(&path).unwrap();
        // In place, so that the writer's open file is the one changed.
        let at = text.find("\"kind\":\"quarantine\",\"session\"").unwrap() as u64;
        use std::os::unix::fs::FileExt as _;
        std::fs::OpenOptions::new().write(true).open(&path).unwrap().write_all_at(&[0xff], at + 20).unwrap();
        let found = store.case(of(1)).unwrap().unwrap();
        assert_eq!((found.quarantine, found.alert.map(|a| a.case)), (None, Some(of(1))));
    }
}
