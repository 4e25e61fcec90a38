//! Zones that have a trust anchor are asked for their keys again and again (RFC 5011 section 2.3), and what was learned of
//! them outlives the process.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use staunch_scoring::NameBuf;
use tokio::time::Instant;

use crate::clock;
use crate::feed::{read_small, write_whole};
use crate::partition::Partition;
use crate::pipeline::Pipeline;
use crate::validate::{KeyState, Need, Rollover, Validator};

/// In the state directory.
const FILE: &str = "trust-anchors";
/// Most octets of it: 256 zones, 32 keys each, 800 octets a key.
const MAX_OCTETS: u64 = 8 << 20;
/// How often is looked whether something is due, or a reload has put another validator in force.
const TURN: Duration = Duration::from_secs(60);
/// From one try to the next where no upstream answered (RFC 5011 section 2.3 has an hour at least).
const RETRY: Duration = Duration::from_secs(3600);

/// What was learned by earlier runs. A file that is damaged counts for nothing: what is configured is trusted as it is, and
/// the next look learns again what is still to be seen.
pub fn load(state_dir: &Path) -> Rollover {
    let path = state_dir.join(FILE);
    let octets = match read_small(&path, MAX_OCTETS) {
        Ok(octets) => octets,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Rollover::default(),
        Err(error) => {
            tracing::error!(%error, path = %path.display(), "trust anchors cannot be read; the configured ones count alone");
            return Rollover::default();
        }
    };
    Rollover::read(&String::from_utf8_lossy(&octets)).unwrap_or_else(|error| {
        tracing::error!(%error, path = %path.display(), "trust anchors are damaged; the configured ones count alone");
        Rollover::default()
    })
}

/// Looks at every zone's keys when it is time. Never returns where answers are validated, which a reload does not change.
pub async fn keep(pipeline: Arc<Pipeline>, state_dir: PathBuf) {
    if pipeline.live.load().validator.is_none() {
        return std::future::pending().await;
    }
    // Read where keys are first followed, which a reload may have begun.
    let mut known = None;
    let mut due: Vec<(NameBuf, Instant)> = Vec::new();
    loop {
        let live = pipeline.live.load_full();
        if let Some(validator) = live.validator.as_ref().filter(|validator| validator.follows()) {
            let zones = validator.trust_points();
            let known = known.get_or_insert_with(|| Rollover::clone(&validator.rollover()));
            // A reload has read the file, which may have been written since.
            if *validator.rollover() != *known {
                pipeline.trust_keys(known);
            }
            due.retain(|(zone, at)| zones.contains(zone) && Instant::now() < *at);
            for zone in zones {
                if !due.iter().any(|(waits, _)| *waits == zone) {
                    let next = look(&pipeline, validator, known, &zone, &state_dir).await;
                    due.push((zone, Instant::now() + next));
                }
            }
        }
        // Not kept from going while nothing is due.
        drop(live);
        tokio::time::sleep(TURN).await;
    }
}

/// Looks at one zone's keys; how long until the next look.
async fn look(
    pipeline: &Pipeline,
    validator: &Validator,
    known: &mut Rollover,
    zone: &NameBuf,
    state_dir: &Path,
) -> Duration {
    let until = Instant::now() + pipeline.forwarder.total_timeout();
    let reply = match pipeline.forwarder.look_up_keys(&Need::keys(zone.as_ref()), Partition::ALL, until).await {
        Ok(reply) => reply,
        Err(error) => {
            tracing::debug!(%error, %zone, "a trust point's keys could not be looked up");
            return RETRY;
        }
    };
    let look = validator.look(known, zone.as_ref(), &reply.wire, clock::now());
    reply.kept();
    for tag in &look.crowded {
        tracing::warn!(
            "trust anchors: key {tag} of {zone} is new, and finds no room among those that are known already"
        );
    }
    if look.changes.is_empty() {
        return look.next;
    }
    for change in &look.changes {
        tracing::warn!("trust anchors: {change}");
        if change.state == Some(KeyState::Revoked) {
            pipeline.degraded(&format!("trust anchors: {change}"), clock::now());
        }
    }
    pipeline.trust_keys(known);
    let (path, text) = (state_dir.join(FILE), known.to_string());
    let written = tokio::task::spawn_blocking(move || write_whole(&path, text.as_bytes())).await;
    if let Err(error) = written.map_err(io::Error::other).and_then(|written| written) {
        tracing::error!(%error, "trust anchors are not on disk; a restart learns them anew");
    }
    look.next
}
