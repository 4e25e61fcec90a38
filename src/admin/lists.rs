//! Orders of operators about lists that are fetched.

use serde_json::{Value, json};

use super::protocol::{ErrorCode, Response};
use crate::event::{Notice, NoticeKind};
use crate::feed::{Feeds, OrderError};
use crate::model::Now;
use crate::pipeline::Pipeline;
use crate::telemetry::rfc3339;

/// Least of a digest that says which version was looked at, hex digits.
const LEAST_DIGEST: usize = 8;

fn feeds(pipeline: &Pipeline) -> Result<&Feeds, Response> {
    pipeline.feeds.get().ok_or_else(|| Response::error(ErrorCode::Failed, "lists are not fetched yet"))
}

fn refused(error: &OrderError) -> Response {
    let code = match error {
        OrderError::Unknown(_) | OrderError::NothingHeld(_) => ErrorCode::NotFound,
        OrderError::Another(_) | OrderError::NoRoom(_) => ErrorCode::Conflict,
        OrderError::Disk(_) => ErrorCode::Failed,
    };
    Response::error(code, error.to_string())
}

/// Has lists fetched at once.
pub(super) fn fetch(pipeline: &Pipeline, list: Option<&str>) -> Result<Value, Response> {
    let ordered = feeds(pipeline)?.fetch(list).map_err(|error| refused(&error))?;
    Ok(json!({ "schema": 1, "ordered": ordered }))
}

/// Lets a version in that a gate holds, on the record.
pub(super) fn accept(
    pipeline: &Pipeline,
    list: &str,
    sha256: &str,
    by: &str,
    reason: &str,
    now: Now,
) -> Result<Value, Response> {
    if sha256.len() < LEAST_DIGEST {
        let what = format!("say which version: at least {LEAST_DIGEST} digits of its sha256");
        return Err(Response::error(ErrorCode::BadRequest, what));
    }
    let version = feeds(pipeline)?.accept(list, sha256, by, reason).map_err(|error| refused(&error))?;
    let text = format!(
        "A version of list {list} with {} entries ({}) was let in by {by}: {reason}.",
        version.entries, version.sha256
    );
    tracing::info!("{text}");
    pipeline.telemetry.notice(Notice::new(NoticeKind::ListAccepted, rfc3339(now.wall.shown), text));
    Ok(json!({ "schema": 1, "list": list, "version": version }))
}
