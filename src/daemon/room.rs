//! Caches give room back before the kernel kills for want of memory: looked at once a second, beside all that answers.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use tokio::time::MissedTickBehavior;

use super::give_back;
use crate::clock;
use crate::memory::{Change, Group, Pressure, Reading};
use crate::pipeline::Pipeline;
use crate::sparing::Sparing;

/// Between two looks.
const EVERY: Duration = Duration::from_secs(1);

/// What the last look found, and what came of all of them.
#[derive(Debug, Default)]
pub struct Counters {
    /// What the process may hold, octets; 0 without a limit.
    pub limit: AtomicU64,
    /// What it holds of that, octets.
    pub held: AtomicU64,
    /// Times that the cache was given less room.
    pub shrunk: AtomicU64,
}

/// Keeps the answer cache within what memory allows. Never returns. The other caches are bounded at a few MiB together, so
/// there is nothing to be had from them.
pub async fn keep(pipeline: Arc<Pipeline>, counters: Arc<Counters>) {
    let Some(group) = Group::own() else {
        tracing::debug!("no control group counts memory here");
        return std::future::pending().await;
    };
    let mut room = Some(Room {
        pressure: Pressure::new(pipeline.cache.room()),
        pipeline,
        group,
        counters,
        sparing: Sparing::new(),
    });
    let mut looks = tokio::time::interval(EVERY);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        looks.tick().await;
        let Some(mut looked) = room.take() else { return };
        // It reads files, and what it gives back may be many megabytes.
        let look = tokio::task::spawn_blocking(move || {
            looked.look();
            looked
        });
        // A panic there ends this task, which is told.
        room = look.await.ok();
    }
}

struct Room {
    pipeline: Arc<Pipeline>,
    group: Group,
    pressure: Pressure,
    counters: Arc<Counters>,
    sparing: Sparing,
}

impl Room {
    fn look(&mut self) {
        let reading = self.group.read();
        let Reading { limit, held } = reading.unwrap_or(Reading { limit: 0, held: 0 });
        self.counters.limit.store(limit, Relaxed);
        self.counters.held.store(held, Relaxed);
        let Some(reading) = reading else { return };
        let cache = &self.pipeline.cache;
        let weight = cache.weight();
        let change = self.pressure.look(reading, weight);
        match change {
            Some(Change::Shrink(room)) => {
                self.counters.shrunk.fetch_add(1, Relaxed);
                cache.set_room(room);
                // Otherwise it would be kept for answers to come, and count as held.
                give_back();
            }
            Some(Change::Grow(room)) => {
                cache.set_room(room);
                tracing::info!(room, "memory is not short any more; the cache of answers may hold more again");
            }
            None => {}
        }
        let is_short = matches!(change, Some(Change::Shrink(_))) || Pressure::is_short(reading);
        if is_short && let Some(kept_back) = self.sparing.turn(clock::now().mono) {
            tracing::warn!(
                limit,
                held,
                cache = weight,
                room = self.pressure.room(),
                kept_back,
                "memory is short, so the cache of answers gets less room; raise the limit of the control group, or lower \
                 answer.cache_entries, [limits] or what lists name"
            );
        }
    }
}
