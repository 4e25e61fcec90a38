//! Orders of operators about temporary allowances: given, shown, taken back.

use std::sync::Arc;

use serde_json::{Value, json};

use super::protocol::{ErrorCode, Response};
use super::serve::{durable, gone, in_step, require};
use crate::clock;
use crate::lists::{MAX_GRANTS, RuleForm, TooManyGrants};
use crate::model::{CaseId, Now};
use crate::pipeline::Pipeline;
use crate::ports::Ports;
use crate::store::{self, Grant};

/// Longest temporary allowance: a week. Something meant to last longer is a rule with an owner and a review date.
pub(crate) const LONGEST_GRANT: u64 = 7 * 24 * 3600;

/// Puts a grant in force once it is on disk; its id is given here. The same name for the same sessions is one grant: given
/// again it takes over what is said of it, and keeps the later end, so that nobody cuts another's time short unawares.
pub(super) async fn allow(pipeline: &Arc<Pipeline>, mut grant: Grant, now: Now) -> Result<Value, Response> {
    require("reason", &grant.reason)?;
    require("owner", &grant.owner)?;
    let bad = |text: String| Response::error(ErrorCode::BadRequest, text);
    let form = RuleForm::parse(&grant.name).map_err(|error| bad(format!("{error}; {}", error.remedy())))?;
    if !grant.ports.is_empty()
        && let Err(error) = Ports::read(&grant.ports)
    {
        return Err(bad(format!("{error}: {}", error.remedy())));
    }
    let lasts = grant.until.saturating_sub(grant.from);
    if lasts == 0 || lasts > LONGEST_GRANT * 1000 {
        return Err(bad("an allowance lasts from a second to seven days; write a rule for more".into()));
    }
    let of = match &grant.session {
        Some(id) => Some(pipeline.sessions.by_id(id).ok_or_else(|| gone(id))?),
        None => None,
    };
    // One behind the other: what is taken back is not given again by who began before that.
    let _turn = pipeline.granting.lock().await;
    let before = pipeline.grant_before(&form, grant.session.as_ref(), now);
    match &before {
        Some(before) => {
            grant.id.clone_from(&before.id);
            // The clock may have been set back since.
            grant.until = grant.until.max(before.until.min(grant.from + LONGEST_GRANT * 1000));
        }
        None if pipeline.live.load().grants.load().len() >= MAX_GRANTS => {
            return Err(Response::error(ErrorCode::Failed, TooManyGrants.to_string()));
        }
        None => {
            let id = CaseId::from_random(pipeline.hash((&grant.name, grant.from, grant.until))).to_string();
            grant.id = format!("g{}", &id[1..9]);
        }
    }
    // On disk before it opens anything: what nobody could know of after a crash is not done at all.
    record(pipeline, store::Record::Grant { grant: grant.clone() }).await.map_err(|error| {
        let what = format!("nothing was allowed, since it could not be recorded: {error}");
        Response::error(ErrorCode::Failed, what)
    })?;
    let (giving, given) = (pipeline.clone(), grant.clone());
    // Aside: where it opens fewer ports than before, every session may have to be looked at.
    let given = tokio::task::spawn_blocking(move || giving.grant(given, now)).await;
    let given = given.map_err(|error| error.to_string()).flatten();
    given.map_err(|error| Response::error(ErrorCode::Failed, error))?;
    if let Some(of) = of
        && pipeline.sessions.by_id(of.id()).is_none_or(|now| !Arc::ptr_eq(&of, &now))
    {
        // It has ended meanwhile, and its grants with it; another of its name has none.
        pipeline.withdraw(&grant.id, "staunch", "its session has ended", now);
        return Err(gone(of.id()));
    }
    let session = grant.session.as_ref().map(tracing::field::display);
    let until = crate::telemetry::rfc3339(grant.until);
    tracing::info!(grant = grant.id, name = grant.name, session, owner = grant.owner, until, "a name is allowed");
    let narrows = before.as_ref().is_some_and(|before| before.ports != grant.ports);
    let told = json!({ "schema": 1, "grant": grant, "before": before });
    // What it opens is ordered with the answers; of what it closes the packet filter has to hear.
    Ok(if narrows { in_step(pipeline, told).await } else { told })
}

async fn record(pipeline: &Pipeline, record: store::Record) -> Result<(), store::Error> {
    pipeline.store.append(vec![record])?.await?;
    Ok(())
}

/// Takes a grant back; what it opened is closed by the time that this is answered, or the answer says that it is not.
pub(super) async fn withdraw(
    pipeline: &Arc<Pipeline>,
    id: &str,
    by: &str,
    reason: &str,
    now: Now,
) -> Result<Value, Response> {
    require("reason", reason)?;
    require("by", by)?;
    let _turn = pipeline.granting.lock().await;
    let (grant, commit) = pipeline.withdraw(id, by, reason, now).ok_or_else(|| {
        let what = format!("no grant `{id}` is in force; `staunch grant list` names all");
        Response::error(ErrorCode::NotFound, what)
    })?;
    let closing = pipeline.clone();
    // Aside: a grant for all of them has every session looked at.
    let closed = tokio::task::spawn_blocking(move || closing.close_ended(clock::now())).await;
    closed.map_err(|error| Response::error(ErrorCode::Failed, error.to_string()))?;
    durable(commit).await?;
    Ok(in_step(pipeline, json!({ "schema": 1, "withdrawn": grant })).await)
}

/// Where a grant decides what is explained, what is on record of it.
pub(super) fn name_grant(pipeline: &Pipeline, told: &mut Value, now: Now) {
    // A rule of this id would name its line.
    if told["rule"]["line"] == 0
        && let Some(grant) = told["rule"]["id"].as_str().and_then(|id| pipeline.grant_by_id(id, now))
    {
        told["grant"] = json!(grant);
    }
}
