//! The packet filter is made to hold what a policy and its sessions need: at start, and where a reload waits for it.

use std::time::Duration;

use anyhow::{Context as _, bail};

use crate::clock;
use crate::enforce::Active;
use crate::lists::Action;
use crate::model::{Mode, Now};
use crate::pipeline::{Cause, Live, Pipeline, class_of, is_guarded};
use crate::store::{CLOSED_WITHIN, Recovered};

/// For all that was ordered of the packet filter: loading a hundred thousand leases takes longer than one pin may.
pub(super) const RECONCILED: Duration = Duration::from_secs(10);

/// Whether leases of before this process were made by what is in force now: by the same policy, of which nothing that opens has
/// ended since the journal was last written to. What ended shortly before that may not have been closed any more. Where lines
/// of the journal are gone, one of them may have named another policy, or ended a session whose address is another's by now.
pub(super) fn is_same(recovered: &Recovered, live: &Live, now: Now) -> bool {
    let since = recovered.written.min(now.wall.earliest()).saturating_sub(CLOSED_WITHIN);
    let ended = |end: u64| end > since && end <= now.wall.latest();
    recovered.policy.as_deref() == Some(&*live.digest)
        && !recovered.damage.lacks_records()
        && recovered.grants_ended.is_none_or(|end| end <= since)
        && !live.policy.lists.rules.iter().any(|rule| rule.action == Action::Allow && ended(rule.expires))
        && !live.ranges.iter().any(|range| ended(range.expires))
}

/// Makes the packet filter hold exactly what the sessions need. `same_policy`: whether leases of before were made under the
/// policy that is in force now; if not, they are closed, since by which names they were made is not known.
pub(super) async fn reconcile(pipeline: &Pipeline, same_policy: bool) -> anyhow::Result<()> {
    let live = pipeline.live.load_full();
    if !live.enforcing {
        return Ok(());
    }
    let now = clock::now();
    if let Some(ticket) = pipeline.open_ranges(&live, now) {
        ticket.wait(RECONCILED).await.context("written ranges could not be opened")?;
    }
    pipeline.note_older_grants();
    let mut active = Vec::new();
    for session in pipeline.sessions.all() {
        let context = session.context();
        let guard = is_guarded(&live, &context).then(|| class_of(&context));
        let mut inner = session.inner.lock();
        let quarantined = inner.is_closed();
        inner.told = guard.filter(|_| !quarantined).map(|class| pipeline.told(class));
        inner.unknown_leases = true;
        active.extend(context.announcement.addresses.iter().map(|a| Active { session: *a, guard, quarantined }));
    }
    let ticket = pipeline.enforcer.reconcile(active)?;
    ticket.wait(RECONCILED).await.context("the packet filter could not be reconciled")?;
    if !same_policy {
        pipeline.tighten_all(Cause::Policy, now);
        // Where very much is closed the first pins would wait for longer than they may.
        pipeline.enforcer.caught_up(RECONCILED).await.context("leases of another policy could not be closed")?;
    }
    if live.policy.mode != Mode::Monitor && !pipeline.enforcer.healthy() {
        bail!("the packet filter is not healthy, and mode {:?} needs it", live.policy.mode);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::daemon::{Start, build};
    use crate::model::Wall;
    use crate::store::Damage;

    #[test]
    fn what_ended_while_the_service_was_down_makes_it_another_policy() {
        let dir = tempfile::tempdir().expect("directory");
        let rule = |id: &str, action: &str, expires: &str| {
            format!(
                "[[rule]]\nid = \"{id}\"\naction = \"{action}\"\nnames = [\"{id}.example\"]\nowner = \"o\"\n\
                 reason = \"r\"\nreview_by = \"2090-01-01\"\nexpires = \"{expires}\"\n"
            )
        };
        let rules = [rule("opens", "allow", "2098-01-01"), rule("denies", "deny", "2097-01-01")].concat();
        let file = dir.path().join("staunch.toml");
        std::fs::write(&file, format!("version = 1\n{rules}")).expect("configuration");
        let start = Start { config: Some(file), state_dir: Some(dir.path().join("state")), socket: None };
        let live = build::judged_by(build::load(&start).expect("a configuration")).expect("in force");
        let is_same = |written, grants_ended, now| {
            let policy = Some(live.digest.clone());
            let recovered = Recovered { policy, written, grants_ended, ..Recovered::default() };
            is_same(&recovered, &live, Now { mono: 0, wall: Wall::at(now) })
        };
        // Ended shortly before the last line, or since: it may not have been closed.
        let (written, now) = (10_000_000, 20_000_000);
        for (ended, same) in
            [(None, true), (Some(written - CLOSED_WITHIN), true), (Some(written - 1), false), (Some(now), false)]
        {
            assert_eq!(is_same(written, ended, now), same, "{ended:?}");
        }
        let end = |id: &str| live.policy.lists.rules.iter().find(|rule| *rule.id == *id).expect("as written").expires;
        let (opens, denies) = (end("opens"), end("denies"));
        for (written, now, same) in [
            (denies - 1, denies + 1, true),
            (opens - 1_000_000, opens - 1, true),
            (opens - 1_000_000, opens, false),
            (opens + CLOSED_WITHIN - 1, opens + 1_000_000, false),
            (opens + CLOSED_WITHIN, opens + 1_000_000, true),
        ] {
            assert_eq!(is_same(written, None, now), same, "{written} {now}");
        }
        let short = Damage { journal_short: true, ..Damage::default() };
        let torn = Damage { partial_call: true, ..Damage::default() };
        for (damage, same) in [(short, false), (torn, true)] {
            let policy = Some(live.digest.clone());
            let recovered = Recovered { policy, written, damage, ..Recovered::default() };
            let now = Now { mono: 0, wall: Wall::at(written) };
            assert_eq!(super::is_same(&recovered, &live, now), same, "{:?}", recovered.damage);
        }
        assert!(!super::is_same(&Recovered::default(), &live, Now { mono: 0, wall: Wall::at(now) }), "another policy");
    }
}
