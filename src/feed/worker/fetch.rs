//! One fetch, and what becomes of what it brings.

use std::io::Seek;

use super::Shared;
use crate::clock;
use crate::feed::client::{Client, Failure, Fetched};
use crate::feed::copies::{Copies, Kept, Stamp};
use crate::feed::gate::{Judged, judge};
use crate::feed::told::Outcome;
use crate::feed::{Config, Source};
use crate::lists::{MAX_NAMES, inspect, survey};
use crate::store::hex;

/// What came of a fetch: how it ended, and what is wrong.
pub(super) type Ended = (Outcome, Option<String>);

/// `None` where the list is not fetched from there any more by the time there is an answer: nothing of it is kept.
pub(super) fn fetch(shared: &Shared, client: &Client, copies: &Copies, source: &Source) -> Option<Ended> {
    match try_fetch(shared, client, copies, source) {
        Ok(result) => result,
        Err(failure) => Some((Outcome::Failed, Some(failure.to_string()))),
    }
}

fn try_fetch(shared: &Shared, client: &Client, copies: &Copies, source: &Source) -> Result<Option<Ended>, Failure> {
    let kept = copies.kept();
    // What the server is told we have must be here whole. A version that waits counts: it need not be sent again.
    let newest = [&kept.held, &kept.good].into_iter().flatten().find(|stamp| stamp.is_of(source));
    let known = newest.filter(|stamp| is_whole(copies, stamp));
    let mut draft = copies.draft().map_err(Failure::Disk)?;
    let now = clock::now().wall.shown;
    let (etag, last_modified) = match client.fetch(&source.url, known, source.timeout, source.max_octets, &mut draft)? {
        Fetched::Unchanged => {
            let _disk = shared.disk.lock();
            if !shared.asks(source) {
                return Ok(None);
            }
            let mut kept = copies.kept();
            kept.checked = now;
            // By the limits of today, and not of the day on which it came.
            let ended = match kept.held.take().filter(|held| held.is_of(source)) {
                None => (Outcome::Unchanged, None),
                Some(held) => {
                    kept.held = Some(held.clone());
                    settle(shared, source, &mut kept, held)
                }
            };
            copies.keep(&kept).map_err(Failure::Disk)?;
            return Ok(Some(ended));
        }
        Fetched::Body { etag, last_modified } => (etag, last_modified),
    };
    let (mut draft, sha256, octets) = draft.finish().map_err(Failure::Disk)?;
    draft.file.rewind().map_err(Failure::Disk)?;
    let found = match survey(&draft.file, source.format) {
        Ok(found) => found,
        Err(error) => return Ok(Some((Outcome::Refused, Some(error.to_string())))),
    };
    draft.file.rewind().map_err(Failure::Disk)?;
    let report = match inspect(&draft.file, found.format, source.day) {
        Ok(report) => report,
        Err(error) => return Ok(Some((Outcome::Refused, Some(error.to_string())))),
    };
    let stamp = Stamp {
        url: source.url.clone(),
        sha256,
        octets,
        entries: report.entries,
        format: found.format,
        given: source.format.is_some(),
        most: found.most,
        lines: found.lines,
        etag,
        last_modified,
        fetched: now,
        held_for: None,
        accepted: None,
    };
    let _disk = shared.disk.lock();
    if !shared.asks(source) {
        return Ok(None);
    }
    let mut kept = copies.kept();
    let ended = settle(shared, source, &mut kept, stamp.clone());
    if ended.0 != Outcome::Refused {
        copies.adopt(draft, &stamp).map_err(Failure::Disk)?;
        kept.checked = now;
        copies.keep(&kept).map_err(Failure::Disk)?;
    }
    Ok(Some(ended))
}

/// Gives a version its place among those kept; one that is refused has none.
fn settle(shared: &Shared, source: &Source, kept: &mut Kept, mut stamp: Stamp) -> Ended {
    let good = kept.good.as_ref().map(|good| good.entries);
    match judge(good, stamp.entries, source.max_growth, source.min_share) {
        Judged::Refused(why) => (Outcome::Refused, Some(why.to_owned())),
        Judged::Held(why) => {
            stamp.held_for = Some(why.clone());
            kept.held = Some(stamp);
            (Outcome::Held, Some(why))
        }
        Judged::Good => {
            let config = shared.inner.lock().config.clone();
            if !has_room(&config, source, &stamp) {
                return (
                    Outcome::Refused,
                    Some(format!("with it, all lists are more than fits ({MAX_NAMES} entries)")),
                );
            }
            let same = kept.good.as_ref().is_some_and(|good| good.sha256 == stamp.sha256);
            let is_read_as = |good: &Stamp| (&good.url, good.format) == (&stamp.url, stamp.format);
            // Where the copy was damaged another is in force, and this one has to be put there.
            let unchanged = same && source.problem.is_none() && kept.good.as_ref().is_some_and(is_read_as);
            let old = kept.good.replace(stamp);
            if !same {
                kept.before = old;
            }
            kept.held = None;
            (if unchanged { Outcome::Unchanged } else { Outcome::Fetched }, None)
        }
    }
}

/// Whether what waits is within the limits of today.
pub(super) fn is_within(source: &Source, kept: &Kept, held: &Stamp) -> bool {
    let good = kept.good.as_ref().map(|good| good.entries);
    held.is_of(source) && judge(good, held.entries, source.max_growth, source.min_share) == Judged::Good
}

/// Whether a copy finds room beside the good ones of all other lists: what would not fit must not become good.
pub(super) fn has_room(config: &Config, source: &Source, stamp: &Stamp) -> bool {
    let mut room = config.own;
    for other in config.sources.iter().filter(|other| other.denies && other.id != source.id) {
        if let Some(good) = Copies::of(&config.state_dir, &other.id).kept().good {
            good.take(&mut room);
        }
    }
    !source.denies || stamp.take(&mut room)
}

fn is_whole(copies: &Copies, stamp: &Stamp) -> bool {
    let found = copies.open(stamp).ok().and_then(|mut file| survey(&mut file, Some(stamp.format)).ok());
    found.is_some_and(|found| hex(&found.digest) == stamp.sha256)
}
