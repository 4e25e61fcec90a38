//! What a case id stands for, from everything that may know of it.

use std::collections::VecDeque;
use std::path::Path;
use std::sync::Arc;

use serde_json::{Value, json};

use super::protocol::{ErrorCode, Response};
use crate::model::CaseId;
use crate::pipeline::Pipeline;
use crate::regular;
use crate::store::CaseRecord;

/// Names told of a case: one stands for all refusals of a session that have a domain and a reason in common.
const NAMES: usize = 10;

/// A case's newest event and the names it stands for, from memory and the event files; the quarantine that stands under it; and what the
/// journal says of it: a quarantine that was lifted is nowhere else, and events are lossy by design.
pub(super) async fn why(pipeline: &Arc<Pipeline>, case: CaseId) -> Result<Value, Response> {
    let mut answer = json!({ "schema": 1 });
    let Found { event, names } = event_of(pipeline, case).await;
    if let Some(event) = event.and_then(|line| serde_json::from_slice::<Value>(&line).ok()) {
        answer["event"] = event;
        answer["names"] = json!(names);
    }
    for session in pipeline.sessions.all() {
        let quarantine = session.inner.lock().quarantine.clone();
        if let Some(quarantine) = quarantine
            && quarantine.case == case
        {
            answer["session"] = json!(session.id());
            answer["quarantine"] = json!(quarantine);
            break;
        }
    }
    let known = answer.as_object().is_some_and(|fields| fields.len() > 1);
    match journalled(pipeline, case).await {
        Ok(Some(found)) => add(&mut answer, found),
        Ok(None) if known => {}
        Ok(None) => {
            let nothing = format!("nothing of case {case} is kept here, neither an event nor an alert");
            return Err(Response::error(ErrorCode::NotFound, nothing));
        }
        // What is known is told all the same.
        Err(error) if known => tracing::warn!(error, "the journal was not asked for a case"),
        Err(error) => return Err(Response::error(ErrorCode::Failed, error)),
    }
    Ok(answer)
}

/// Adds what the journal says; of a quarantine that stands, memory knows as much.
fn add(answer: &mut Value, found: CaseRecord) {
    if let Some(alert) = found.alert {
        answer["alert"] = json!(alert);
    }
    if let Some(q) = found.quarantine.filter(|_| answer["quarantine"].is_null()) {
        answer["session"] = json!(q.session);
        answer["quarantine"] = json!({ "case": q.case, "reason": q.reason, "by": q.by, "note": q.note, "since": q.since, "applied": true });
    }
    if let Some(release) = found.release {
        answer["release"] = json!({
            "by": release.by, "note": release.note, "time": release.time, "extended_bits": release.extend,
        });
    }
}

/// The newest event of a case, and the last names that it stands for.
async fn event_of(pipeline: &Pipeline, case: CaseId) -> Found {
    // Whoever was refused a moment ago may ask before the event is written.
    pipeline.telemetry.caught_up().await;
    let recent = pipeline.telemetry.case(case);
    let live = pipeline.live.load_full();
    let searched = tokio::task::spawn_blocking(move || match &live.event_file {
        Some(file) => find_case(Path::new(file), live.event_files_kept, case),
        None => Found::default(),
    });
    let mut found = searched.await.unwrap_or_default();
    if let Some(newest) = recent {
        // The file may be behind, or take nothing.
        found.take(newest.as_bytes());
    }
    found
}

async fn journalled(pipeline: &Arc<Pipeline>, case: CaseId) -> Result<Option<CaseRecord>, String> {
    let pipeline = pipeline.clone();
    let found = tokio::task::spawn_blocking(move || pipeline.store.case(case)).await;
    found.map_err(|error| error.to_string())?.map_err(|error| error.to_string())
}

/// What events say of a case.
#[derive(Debug, Default)]
struct Found {
    /// The newest event.
    event: Option<Vec<u8>>,
    /// Names that were asked for, each once, the one asked last at the end.
    names: VecDeque<String>,
}

impl Found {
    /// Takes over an event that is newer than all before; what is torn is passed over.
    fn take(&mut self, line: &[u8]) {
        #[derive(serde::Deserialize)]
        struct Asked {
            qname: String,
        }
        let Ok(Asked { qname }) = serde_json::from_slice(line) else { return };
        self.event = Some(line.to_vec());
        self.names.retain(|name| *name != qname);
        if self.names.len() == NAMES {
            self.names.pop_front();
        }
        self.names.push_back(qname);
    }
}

/// What the event file says of `case`, or else the newest of its `kept` rotated predecessors that knows it. A file or a line
/// that cannot be read is passed over.
fn find_case(file: &Path, kept: u32, case: CaseId) -> Found {
    use std::io::BufRead;
    // Quotes inside a JSON string are escaped, so no name can imitate the field.
    let field = format!("\"case\":\"{case}\"");
    let rotated = (1..=kept).map(|n| {
        let mut name = file.as_os_str().to_owned();
        name.push(format!(".{n}"));
        std::path::PathBuf::from(name)
    });
    for path in std::iter::once(file.to_owned()).chain(rotated) {
        // Out of a pipe nothing is to be read that somebody else waits for.
        let Ok(open) = regular::open(&path, u64::MAX) else { continue };
        let mut lines = std::io::BufReader::new(open);
        let (mut line, mut found) = (Vec::new(), Found::default());
        while matches!(lines.read_until(b'\n', &mut line), Ok(1..)) {
            if std::str::from_utf8(&line).is_ok_and(|text| text.contains(&field)) {
                found.take(&line);
            }
            line.clear();
        }
        if found.event.is_some() {
            return found;
        }
    }
    Found::default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_whole_event_of_a_case_is_found_wherever_it_was_rotated_to() {
        let dir = tempfile::tempdir().expect("directory");
        let file = dir.path().join("events.jsonl");
        let case = CaseId::from_random(7);
        let newest = |kept, case| find_case(&file, kept, case).event;
        assert_eq!(newest(40, case), None);
        let line = |n: u32| format!("{{\"qname\":\"n{n}.example\",\"case\":\"{case}\"}}\n");
        // The current file is gone; what is rotated is read all the same.
        let old = [line(1).as_bytes(), line(2).as_bytes(), b"\xff\xfe\n", &line(3).as_bytes()[1..]].concat();
        std::fs::write(dir.path().join("events.jsonl.40"), old).expect("written");
        assert_eq!(newest(40, case).expect("found"), line(2).as_bytes());
        assert_eq!(find_case(&file, 40, case).names, ["n1.example", "n2.example"]);
        assert_eq!(newest(39, case), None, "left from a time when more were kept");
        std::fs::write(&file, line(4)).expect("written");
        assert_eq!(newest(40, case).expect("found"), line(4).as_bytes());
        assert_eq!(newest(40, CaseId::from_random(8)), None);
    }

    #[test]
    fn a_pipe_that_events_go_to_is_left_to_who_reads_it() {
        let dir = tempfile::tempdir().expect("directory");
        let file = dir.path().join("events.pipe");
        let name = std::ffi::CString::new(file.as_os_str().as_encoded_bytes()).expect("a path");
        // SAFETY: the pointer is to a NUL-terminated string.
        assert_eq!(unsafe { libc::mkfifo(name.as_ptr(), 0o600) }, 0);
        let mut pipe = std::fs::File::options().read(true).write(true).open(&file).expect("opens");
        let case = CaseId::from_random(7);
        let line = format!("{{\"qname\":\"a.example\",\"case\":\"{case}\"}}\n");
        std::io::Write::write_all(&mut pipe, line.as_bytes()).expect("written");
        assert_eq!(find_case(&file, 0, case).event, None);
        let mut read = vec![0; line.len()];
        std::io::Read::read_exact(&mut pipe, &mut read).expect("all of it");
        assert_eq!(read, line.as_bytes());
    }
}
