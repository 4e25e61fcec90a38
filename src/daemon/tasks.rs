//! What runs beside questions for as long as the service does, and what is told when some of it fails: a task or a thread that has
//! ended, and questions whose judgement panicked (their stubs heard SERVFAIL, and the service goes on).

use std::collections::HashSet;
use std::future::Future;

use tokio::task::JoinHandle;

use crate::sparing::Sparing;

/// Tasks that are not to end by themselves.
#[derive(Default)]
pub struct Tasks(Vec<(&'static str, JoinHandle<()>)>);

impl Tasks {
    /// Starts one; `what` it does is told where it ends.
    pub fn spawn(&mut self, what: &'static str, task: impl Future<Output = ()> + Send + 'static) {
        self.0.push((what, tokio::spawn(task)));
    }

    /// What those did that have ended since this was last asked.
    pub fn ended(&mut self) -> Vec<&'static str> {
        self.0.extract_if(.., |(_, task)| task.is_finished()).map(|(what, _)| what).collect()
    }

    /// Ends all of them.
    pub fn abort(self) {
        self.0.iter().for_each(|(_, task)| task.abort());
    }
}

/// Threads that are not to end by themselves, by what they do. They are others' to hold and to join.
#[derive(Debug, Default)]
pub struct Threads {
    told: HashSet<String>,
}

impl Threads {
    /// Those of `ended` that were not told yet.
    pub fn fresh(&mut self, ended: impl IntoIterator<Item = String>) -> Vec<String> {
        ended.into_iter().filter(|what| self.told.insert(what.clone())).collect()
    }
}

/// Questions whose judgement panicked, as they are told.
#[derive(Debug, Default)]
pub struct Panics {
    told: u64,
    sparing: Sparing,
}

impl Panics {
    /// How many of `all` were not told yet, where it is time to; `mono` is monotonic milliseconds.
    pub fn look(&mut self, all: u64, mono: u64) -> Option<u64> {
        let fresh = all.saturating_sub(self.told);
        (fresh > 0 && self.sparing.turn(mono).is_some()).then(|| {
            self.told = all;
            fresh
        })
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test]
    async fn a_task_that_panics_is_told_once_and_the_others_go_on() {
        let (mut tasks, (still, alive)) = (Tasks::default(), tokio::sync::oneshot::channel::<()>());
        tasks.spawn("stays", async move {
            let _ = alive.await;
        });
        tasks.spawn("dies", async { panic!("what a mistake in our own code does") });
        let mut ended = Vec::new();
        while ended.is_empty() {
            tokio::time::sleep(Duration::from_millis(1)).await;
            ended = tasks.ended();
        }
        assert_eq!(ended, ["dies"]);
        assert!(tasks.ended().is_empty() && !still.is_closed());
        tasks.abort();
    }

    #[test]
    fn a_thread_that_has_ended_is_told_once() {
        let mut threads = Threads::default();
        let ended = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        assert!(threads.fresh([]).is_empty());
        assert_eq!(threads.fresh(ended(&["events"])), ["events"]);
        assert_eq!(threads.fresh(ended(&["events", "alerts to soc"])), ["alerts to soc"]);
        assert!(threads.fresh(ended(&["alerts to soc", "events"])).is_empty());
    }

    #[test]
    fn panics_are_told_with_their_number_once_a_minute() {
        let mut panics = Panics::default();
        assert_eq!(panics.look(0, 1_000), None);
        assert_eq!(panics.look(2, 2_000), Some(2));
        assert_eq!(panics.look(2, 200_000), None);
        assert_eq!(panics.look(3, 201_000), Some(1));
        assert_eq!((panics.look(9, 202_000), panics.look(9, 261_000)), (None, Some(6)));
    }
}
