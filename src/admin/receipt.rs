//! What the daemon signs of the doctor's findings, with what it knows itself.

use serde_json::json;

use super::protocol::{ErrorCode, Response};
use crate::doctor::Report;
use crate::doctor::receipt::Receipt;
use crate::identity::NodeKey;
use crate::model::Now;
use crate::pipeline::Pipeline;
use crate::telemetry::rfc3339;

/// The signed receipt of a report.
pub(super) fn sign(pipeline: &Pipeline, node: &NodeKey, report: Report, now: Now) -> Result<String, Response> {
    if !report.is_sane() {
        let what = "the report is not one that this release would make";
        return Err(Response::error(ErrorCode::BadRequest, what));
    }
    let live = pipeline.live.load();
    let receipt = Receipt {
        schema: 1,
        time: rfc3339(now.wall.shown),
        node: node.kid().into(),
        version: env!("CARGO_PKG_VERSION").into(),
        mode: json!(live.policy.mode).as_str().unwrap_or_default().into(),
        policy: live.digest.clone(),
        readiness: pipeline.readiness(now),
        report,
    };
    receipt.sign(node).map_err(|error| Response::error(ErrorCode::Failed, error.to_string()))
}
