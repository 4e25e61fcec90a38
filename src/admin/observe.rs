//! Events as they come, for who looks on.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::{AsyncWriteExt, Interest};
use tokio::net::unix::OwnedWriteHalf;
use tokio::sync::broadcast;

use super::protocol::Response;
use super::serve::{Admin, send};
use crate::clock;
use crate::telemetry::HELD;

/// How often is looked whether an observer is still there: one who sees few events would not be missed otherwise.
const LOOK: Duration = Duration::from_secs(2);

/// Which events an observer wants.
pub(super) struct Wanted {
    /// Of this session alone.
    pub(super) session: Option<String>,
    /// Refusals alone.
    pub(super) refused: bool,
}

impl Wanted {
    fn accepts(&self, line: &str) -> bool {
        if self.session.is_none() && !self.refused {
            return true;
        }
        let Ok(event) = serde_json::from_str::<Value>(line) else { return false };
        // What the rebinding guard has taken out of an answer is a refusal too, if of an address and not of a name; so is a
        // volume that is spent, and a question that is not answered for a reason of our own. Other notices refuse nothing.
        let refused = match event["notice"].as_str() {
            Some(notice) => notice == "volume-spent",
            None => event["would"] != "answer" || event["reason"].is_string() || event.get("withheld").is_some(),
        };
        self.session.as_ref().is_none_or(|session| event["session"] == **session) && (!self.refused || refused)
    }
}

/// Writes the last events, then others as they come, until the client is gone.
pub(super) async fn observe(
    write: &mut OwnedWriteHalf,
    admin: &Admin,
    last: usize,
    follow: bool,
    wanted: &Wanted,
) -> std::io::Result<()> {
    let telemetry = &admin.pipeline.telemetry;
    // What verdicts that stand have answered so far is an event too.
    admin.pipeline.settle_standing(clock::now(), true);
    telemetry.caught_up().await;
    let (held, mut tap) = telemetry.follow();
    // Whoever looks for more than is held in memory is told where the rest is.
    let (all, log) = (held.len() < HELD, admin.pipeline.live.load().event_file.clone());
    let newest: Vec<_> = held.into_iter().filter(|line| wanted.accepts(line)).collect();
    let told = json!({ "schema": 1, "held": HELD, "all": all, "matching": newest.len(), "log": log });
    send(write, &Response::Ok(told)).await?;
    for line in newest.iter().skip(newest.len().saturating_sub(last)) {
        write.write_all(line.as_bytes()).await?;
        write.write_all(b"\n").await?;
    }
    if !follow {
        return Ok(());
    }
    let mut look = tokio::time::interval(LOOK);
    look.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        let heard = tokio::select! {
            heard = tap.recv() => heard,
            _ = look.tick() => {
                if write.ready(Interest::WRITABLE).await?.is_write_closed() {
                    return Ok(());
                }
                continue;
            }
        };
        match heard {
            Ok(line) if !wanted.accepts(&line) => {}
            Ok(line) => {
                write.write_all(line.as_bytes()).await?;
                write.write_all(b"\n").await?;
            }
            Err(broadcast::error::RecvError::Lagged(lost)) => {
                write.write_all(format!("{{\"lost\":{lost}}}\n").as_bytes()).await?;
            }
            Err(broadcast::error::RecvError::Closed) => return Ok(()),
        }
    }
}
