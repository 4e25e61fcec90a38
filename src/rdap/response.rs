//! What a registry says of a domain: the events of RFC 9083 section 4.5 that tell its age.
//!
//! Pure, and total on any octets. Members this does not know are passed over (RFC 9083 section 2.1); of those it knows,
//! one that makes no sense spoils only itself, except that an answer for another object is none at all.

use jiff::Timestamp;
use jiff::civil::{Date, DateTime};
use jiff::tz::TimeZone;
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::Value;
use staunch_scoring::{NameBuf, NameRef};

/// Most octets of an answer that are read. Those of registries have one to thirty thousand.
pub const MAX_OCTETS: u64 = 256 * 1024;
/// Events looked at; objects have fewer than ten.
const MAX_EVENTS: usize = 256;
/// How far a date may lie ahead before it is taken for a mistake, milliseconds: a day, for zones and clocks.
const AHEAD_MS: u64 = 86_400_000;

/// Why octets say nothing of a domain's age.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ResponseError {
    /// Not a JSON object.
    #[error("not a JSON object")]
    NotJson,
    /// An RDAP error document, or an object that is no domain.
    #[error("not a domain object")]
    NotADomain,
    /// The object is another domain's.
    #[error("the answer is for another domain")]
    OtherDomain,
}

/// The members that matter. The others are read past without being kept.
#[derive(Deserialize)]
struct Object {
    #[serde(rename = "objectClassName")]
    class: Option<Value>,
    #[serde(rename = "ldhName")]
    name: Option<Value>,
    #[serde(rename = "errorCode")]
    error: Option<IgnoredAny>,
    events: Option<Value>,
}

/// When `domain` was last registered, Unix milliseconds: the latest `registration` or `reregistration` event that does
/// not lie ahead of `now`. `None` where the registry does not say. Other events (last changed, expiration, transfer)
/// say nothing of who holds the name since when.
///
/// # Errors
/// [`ResponseError`] where the octets are no answer about `domain`.
pub fn registered(octets: &[u8], domain: NameRef<'_>, now: u64) -> Result<Option<u64>, ResponseError> {
    let object: Object = serde_json::from_slice(octets).map_err(|_| ResponseError::NotJson)?;
    if object.error.is_some() || object.class.as_ref().is_some_and(|class| class != "domain") {
        return Err(ResponseError::NotADomain);
    }
    // Some registries leave out the name; one that is there must be the one asked for.
    if let Some(name) = object.name.as_ref().and_then(Value::as_str)
        && NameBuf::from_text(name).map_or(true, |name| name.as_ref() != domain)
    {
        return Err(ResponseError::OtherDomain);
    }
    if object.class.is_none() && object.events.is_none() {
        return Err(ResponseError::NotADomain);
    }
    let events = object.events.as_ref().and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    Ok(events.iter().take(MAX_EVENTS).filter_map(event).filter(|at| *at <= now.saturating_add(AHEAD_MS)).max())
}

/// The time of an event that counts.
fn event(event: &Value) -> Option<u64> {
    let action = event.get("eventAction")?.as_str()?;
    if !["registration", "reregistration"].iter().any(|counts| action.eq_ignore_ascii_case(counts)) {
        return None;
    }
    date(event.get("eventDate")?.as_str()?.trim())
}

/// RFC 3339, and what registries write instead: without an offset (taken as UTC), or a day alone. Days before 1970
/// count as 1970.
fn date(text: &str) -> Option<u64> {
    let utc = |date: DateTime| date.to_zoned(TimeZone::UTC).ok().map(|zoned| zoned.timestamp());
    let at = text
        .parse::<Timestamp>()
        .ok()
        .or_else(|| text.parse::<DateTime>().ok().and_then(utc))
        .or_else(|| text.parse::<Date>().ok().and_then(|day| utc(day.into())))?;
    Some(u64::try_from(at.as_millisecond()).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(text: &str) -> u64 {
        text.parse::<Timestamp>().unwrap().as_millisecond() as u64
    }

    fn read(text: &str) -> Result<Option<u64>, ResponseError> {
        let domain = NameBuf::from_text("shop.example").unwrap();
        registered(text.as_bytes(), domain.as_ref(), at("2026-11-21T00:00:00Z"))
    }

    fn events(list: &[(&str, &str)]) -> String {
        let list: Vec<String> =
            list.iter().map(|(action, date)| format!(r#"{{"eventAction":"{action}","eventDate":"{date}"}}"#)).collect();
        format!(r#"{{"objectClassName":"domain","ldhName":"SHOP.EXAMPLE.","events":[{}]}}"#, list.join(","))
    }

    #[test]
    fn the_latest_of_registration_and_reregistration_counts_and_nothing_else() {
        let full = [
            ("registration", "2001-05-04T03:02:01Z"),
            ("last changed", "2026-11-20T00:00:00Z"),
            ("expiration", "2027-05-04T03:02:01Z"),
            ("transfer", "2026-10-01T00:00:00Z"),
        ];
        assert_eq!(read(&events(&full)), Ok(Some(at("2001-05-04T03:02:01Z"))));
        let again = [&full[..], &[("reregistration", "2026-11-19T12:00:00+02:00")]].concat();
        assert_eq!(read(&events(&again)), Ok(Some(at("2026-11-19T10:00:00Z"))));
        let reversed: Vec<_> = again.iter().rev().copied().collect();
        assert_eq!(read(&events(&reversed)), read(&events(&again)), "in any order");
        assert_eq!(read(&events(&full[1..])), Ok(None), "a registry that does not say");
        assert_eq!(read(r#"{"objectClassName":"domain"}"#), Ok(None));
    }

    #[test]
    fn dates_as_registries_write_them() {
        for (written, expected) in [
            ("2001-05-04T03:02:01.123Z", Some("2001-05-04T03:02:01.123Z")),
            ("2001-05-04t03:02:01z", Some("2001-05-04T03:02:01Z")),
            ("2001-05-04T03:02:01-05:00", Some("2001-05-04T08:02:01Z")),
            ("2001-05-04T03:02:01", Some("2001-05-04T03:02:01Z")),
            ("2001-05-04 03:02:01", Some("2001-05-04T03:02:01Z")),
            (" 2001-05-04 ", Some("2001-05-04T00:00:00Z")),
            ("1969-07-20T00:00:00Z", Some("1970-01-01T00:00:00Z")),
            ("2026-11-21T23:00:00Z", Some("2026-11-21T23:00:00Z")),
            ("2026-11-23T00:00:00Z", None), // ahead: a mistake
            ("yesterday", None),
            ("", None),
        ] {
            assert_eq!(read(&events(&[("registration", written)])), Ok(expected.map(at)), "{written}");
        }
    }

    #[test]
    fn unknown_and_odd_members_are_passed_over() {
        let text = r#"{"rdapConformance":["rdap_level_0",7],"objectClassName":"domain","ldhName":null,
            "entities":[{"vcardArray":["vcard",[[]]]}],"secureDNS":{"delegationSigned":true},
            "events":[7,null,{"eventAction":9},{"eventAction":"registration"},{"eventAction":"registration","eventDate":5},
            {"eventAction":"Registration","eventDate":"2020-01-01T00:00:00Z","eventActor":"x","links":[]}]}"#;
        assert_eq!(read(text), Ok(Some(at("2020-01-01T00:00:00Z"))));
        assert_eq!(read(r#"{"objectClassName":"domain","events":{"eventAction":"registration"}}"#), Ok(None));
    }

    #[test]
    fn an_answer_for_something_else_is_none() {
        for (text, error) in [
            ("", ResponseError::NotJson),
            ("<html>busy</html>", ResponseError::NotJson),
            ("[]", ResponseError::NotJson),
            ("{\"events\":[", ResponseError::NotJson),
            ("{}", ResponseError::NotADomain),
            (r#"{"objectClassName":"entity","events":[]}"#, ResponseError::NotADomain),
            (r#"{"errorCode":404,"title":"none","events":[]}"#, ResponseError::NotADomain),
            (r#"{"objectClassName":"domain","ldhName":"other.example","events":[]}"#, ResponseError::OtherDomain),
            (r#"{"objectClassName":"domain","ldhName":"..","events":[]}"#, ResponseError::OtherDomain),
        ] {
            assert_eq!(read(text), Err(error), "{text}");
        }
        let deep = "{\"events\":".to_owned() + &"[".repeat(100_000);
        assert_eq!(read(&deep), Err(ResponseError::NotJson), "nesting is bounded");
    }

    proptest! {
        #[test]
        fn is_total(octets in proptest::collection::vec(any::<u8>(), 0..300), cut in 0usize..400, flip in 0usize..400) {
            let domain = NameBuf::from_text("shop.example").unwrap();
            let _ = registered(&octets, domain.as_ref(), 0);
            let mut whole = events(&[("registration", "2001-05-04T03:02:01Z"), ("transfer", "2002-01-01")]).into_bytes();
            if let Some(octet) = whole.get_mut(flip) {
                *octet ^= 0x11;
            }
            whole.truncate(cut);
            let _ = registered(&whole, domain.as_ref(), 0);
        }
    }
}
