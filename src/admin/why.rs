//! What a case id stands for, from everything that may know of it.

use std::path::Path;
use std::sync::Arc;

use serde_json::{Value, json};

use super::protocol::{ErrorCode, Response};
use crate::model::CaseId;
use crate::pipeline::Pipeline;
use crate::store::CaseRecord;

/// A case's event from memory, else from the event files, newest first; the quarantine that stands under it; and what the
/// journal says of it: a quarantine that was lifted is nowhere else, and events are lossy by design.
pub(super) async fn why(pipeline: &Arc<Pipeline>, case: CaseId) -> Result<Value, Response> {
    let mut answer = json!({ "schema": 1 });
    if let Some(event) = event_of(pipeline, case).await {
        answer["event"] = event;
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

async fn event_of(pipeline: &Pipeline, case: CaseId) -> Option<Value> {
    let line = match pipeline.telemetry.case(case) {
        Some(line) => line.as_bytes().to_vec(),
        None => {
            let live = pipeline.live.load_full();
            tokio::task::spawn_blocking(move || {
                find_case(Path::new(live.event_file.as_ref()?), live.event_files_kept, case)
            })
            .await
            .ok()??
        }
    };
    serde_json::from_slice(&line).ok()
}

async fn journalled(pipeline: &Arc<Pipeline>, case: CaseId) -> Result<Option<CaseRecord>, String> {
    let pipeline = pipeline.clone();
    let found = tokio::task::spawn_blocking(move || pipeline.store.case(case)).await;
    found.map_err(|error| error.to_string())?.map_err(|error| error.to_string())
}

/// The newest event of `case` in the event file or its `kept` rotated predecessors. A file or a line that cannot be read is
/// passed over.
fn find_case(file: &Path, kept: u32, case: CaseId) -> Option<Vec<u8>> {
    use std::io::BufRead;
    // Quotes inside a JSON string are escaped, so no name can imitate the field.
    let field = format!("\"case\":\"{case}\"");
    let rotated = (1..=kept).map(|n| {
        let mut name = file.as_os_str().to_owned();
        name.push(format!(".{n}"));
        std::path::PathBuf::from(name)
    });
    for path in std::iter::once(file.to_owned()).chain(rotated) {
        let Ok(open) = std::fs::File::open(&path) else { continue };
        let mut lines = std::io::BufReader::new(open);
        let (mut line, mut found) = (Vec::new(), None);
        while matches!(lines.read_until(b'\n', &mut line), Ok(1..)) {
            let has_field = std::str::from_utf8(&line).is_ok_and(|text| text.contains(&field));
            // A torn line may hold the field as well.
            if has_field && serde_json::from_slice::<serde::de::IgnoredAny>(&line).is_ok() {
                found = Some(std::mem::take(&mut line));
            }
            line.clear();
        }
        if found.is_some() {
            return found;
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_whole_event_of_a_case_is_found_wherever_it_was_rotated_to() {
        let dir = tempfile::tempdir().expect("directory");
        let file = dir.path().join("events.jsonl");
        let case = CaseId::from_random(7);
        assert_eq!(find_case(&file, 40, case), None);
        let line = |n: u32| format!("{{\"n\":{n},\"case\":\"{case}\"}}\n");
        // The current file is gone; what is rotated is read all the same.
        let old = [line(1).as_bytes(), line(2).as_bytes(), b"\xff\xfe\n", &line(3).as_bytes()[1..]].concat();
        std::fs::write(dir.path().join("events.jsonl.40"), old).expect("written");
        assert_eq!(find_case(&file, 40, case).expect("found"), line(2).as_bytes());
        assert_eq!(find_case(&file, 39, case), None, "left from a time when more were kept");
        std::fs::write(&file, line(4)).expect("written");
        assert_eq!(find_case(&file, 40, case).expect("found"), line(4).as_bytes());
        assert_eq!(find_case(&file, 40, CaseId::from_random(8)), None);
    }
}
