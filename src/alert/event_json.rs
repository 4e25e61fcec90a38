//! Alerts as JSON in pure ASCII, so that nothing in them can act on a terminal, a log viewer or a line reader.

use std::fmt::Write as _;

use serde::Serialize;

use crate::event::{Alert, AlertKind};

/// Kind as in records and message ids.
pub(super) fn kind(kind: AlertKind) -> &'static str {
    match kind {
        AlertKind::Quarantine => "quarantine",
        AlertKind::WouldQuarantine => "would-quarantine",
        AlertKind::Release => "release",
        AlertKind::Degraded => "degraded",
        AlertKind::VolumeSpent => "volume-spent",
    }
}

/// The alert itself, one line without a newline.
pub(super) fn alert(alert: &Alert) -> serde_json::Result<String> {
    ascii(alert)
}

#[derive(Serialize)]
struct CloudEvent<'a> {
    specversion: &'static str,
    id: &'a str,
    source: &'a str,
    #[serde(rename = "type")]
    kind: String,
    subject: &'a str,
    time: &'a str,
    datacontenttype: &'static str,
    data: &'a Alert,
}

/// In a CloudEvents 1.0 envelope, structured form.
pub(super) fn cloud_event(alert: &Alert, source: &str) -> serde_json::Result<String> {
    ascii(&CloudEvent {
        specversion: "1.0",
        id: &alert.id,
        source,
        kind: format!("staunch.alert.{}", kind(alert.kind)),
        subject: alert.session.as_str(),
        time: &alert.time,
        datacontenttype: "application/json",
        data: alert,
    })
}

/// JSON in which everything but printable ASCII is escaped. Outside strings JSON is ASCII anyway, so that replacing
/// characters one by one is sound.
fn ascii(value: &impl Serialize) -> serde_json::Result<String> {
    let text = serde_json::to_string(value)?;
    if text.bytes().all(|b| (b' '..=b'~').contains(&b)) {
        return Ok(text);
    }
    let mut out = String::with_capacity(text.len() + 64);
    for c in text.chars() {
        if (' '..='~').contains(&c) {
            out.push(c);
        } else {
            for unit in c.encode_utf16(&mut [0; 2]) {
                // Writing to a string cannot fail.
                let _ = write!(out, "\\u{unit:04x}");
            }
        }
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::testing;

    #[test]
    fn hostile_text_stays_text() {
        let mut hostile = testing::alert(1);
        hostile.summary = "a\u{7f}b\u{1b}[2J\r\n\u{2028}\u{202e}\u{9b}\u{1f600}\"\\".into();
        let text = alert(&hostile).unwrap();
        assert!(text.bytes().all(|b| (b' '..=b'~').contains(&b)), "{text}");
        assert_eq!(serde_json::from_str::<Alert>(&text).unwrap(), hostile);
        let event: serde_json::Value = serde_json::from_str(&cloud_event(&hostile, "/x").unwrap()).unwrap();
        assert_eq!(event["specversion"], "1.0");
        assert_eq!(event["type"], "staunch.alert.quarantine");
        assert_eq!((&event["id"], &event["data"]["id"]), (&"alert-1".into(), &"alert-1".into()));
    }
}
