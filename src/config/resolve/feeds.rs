//! Lists that are fetched: where from, how often, and which change is too much.

use std::time::Duration;

use super::Context;
use super::lists::Surveyed;
use crate::config::document::Path;
use crate::config::spec;
use crate::feed::{self, Copies, Kept, Stamp};
use crate::lists::{Day, ListError, survey};

/// Largest fetched list, MiB.
const MAX_MIB: u32 = 1024;
/// What follows where there is no copy.
const UNTIL_FETCHED: &str = "it is fetched while the service runs; until then nothing is denied by it";

impl Context<'_, '_> {
    /// A list that is fetched: notes where from, and gives its last good copy. Without one the list is empty until there
    /// is, which is told.
    pub(super) fn fetched(
        &mut self,
        path: &Path,
        written: &spec::List,
        url: &str,
        day: Option<Day>,
        feeds: &mut feed::Config,
    ) -> Option<Surveyed> {
        if !written.path.is_empty() {
            let problem = "both a path and a url";
            self.problems.error(&path.key("path"), problem, "keep the one that the list is to come from");
        }
        let good_url = self.list_url(&path.key("url"), url);
        let source = feed::Source {
            id: written.id.clone(),
            url: url.to_owned(),
            format: written.format,
            day,
            refresh: Duration::from_secs(
                3600 * u64::from(self.within(path, "refresh_hours", written.refresh_hours.unwrap_or(24), 1, 720)),
            ),
            timeout: Duration::from_secs(
                self.within(path, "timeout_seconds", written.timeout_seconds.unwrap_or(120), 1, 3600).into(),
            ),
            max_octets: u64::from(self.within(path, "max_mib", written.max_mib.unwrap_or(256), 1, MAX_MIB)) << 20,
            max_growth: self.within(path, "max_growth", written.max_growth.unwrap_or(2.0), 1.0, 1e6),
            min_share: self.within(path, "min_share", written.min_share.unwrap_or(0.5), 0.0, 1.0),
            denies: !written.is_age(),
            problem: None,
        };
        // What makes no path makes no directory either; the id was told of already.
        let usable =
            !written.id.is_empty() && written.id.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b));
        if !good_url || !usable {
            return None;
        }
        let copies = Copies::of(&feeds.state_dir, &written.id);
        feeds.sources.push(source);
        let Kept { good, before, .. } = copies.kept();
        let never = good.is_none() && before.is_none();
        let best = good.as_ref().map(|good| good.sha256.clone());
        let stamps = [before, good].into_iter().flatten().collect();
        let found = Spare { id: written.id.clone(), copies, stamps }.next();
        let path = path.key("url");
        match &found {
            None => {
                let problem = if never { "not fetched yet" } else { "its copies are damaged" };
                if let Some(source) = feeds.sources.last_mut().filter(|_| !never) {
                    source.problem = Some(problem.into());
                }
                self.problems.warn(&path, problem, UNTIL_FETCHED);
            }
            Some(found) if best.is_some_and(|best| best != crate::store::hex(&found.survey.digest)) => {
                let problem = "its last good copy is damaged";
                if let Some(source) = feeds.sources.last_mut() {
                    source.problem = Some(problem.into());
                }
                self.problems.warn(&path, problem, "the one before it stands in for it until the list is fetched anew");
            }
            Some(found) if written.format.is_some_and(|format| format != found.survey.format) => {
                let problem = format!("the copy at hand is written as {}", found.survey.format.as_str());
                let remedy =
                    "it is in force as such until the list is fetched anew, which is done while the service runs";
                self.problems.warn(&path, problem, remedy);
            }
            Some(_) => {}
        }
        found
    }

    /// The copy before one that cannot be used, if there is one; it is told.
    pub(super) fn step_back(
        &mut self,
        path: &Path,
        spare: Spare,
        error: &ListError,
        feeds: &mut feed::Config,
    ) -> Option<Surveyed> {
        let problem = format!("its last good copy cannot be used: {error}");
        spare.source(feeds, |source| {
            source.problem.get_or_insert(problem.clone());
        });
        let before = spare.next();
        let remedy = if before.is_some() { "the one before it stands in for it" } else { UNTIL_FETCHED };
        self.problems.warn(path, problem, remedy);
        before
    }

    fn list_url(&mut self, path: &Path, url: &str) -> bool {
        let parsed = url.parse::<ureq::http::Uri>().ok();
        let host = parsed.as_ref().and_then(|uri| uri.host()).unwrap_or_default();
        let address = host.trim_matches(['[', ']']).parse::<std::net::IpAddr>().is_ok();
        let scheme = parsed.as_ref().and_then(|uri| uri.scheme_str());
        let login = parsed.as_ref().and_then(|uri| uri.authority()).is_some_and(|to| to.as_str().contains('@'));
        let problem = match scheme {
            Some("https" | "http") if host.is_empty() || login => "is no URL of a host",
            Some("https") => return true,
            Some("http") if address => return true,
            Some("http") => "is http to a name, which anybody on the way can answer",
            _ => "is not an https URL",
        };
        let problem = format!("`{}` {problem}", url.escape_debug());
        self.problems.error(path, problem, "write https://host/path; http only to an address of your own, as written");
        false
    }
}

/// Copies of a fetched list that were not looked at yet.
pub(super) struct Spare {
    id: String,
    copies: Copies,
    /// The best one last.
    stamps: Vec<Stamp>,
}

impl Spare {
    /// The best copy whose octets are still those that were fetched, as it was read when it was: whatever is written of the
    /// list by now is of what comes next.
    fn next(mut self) -> Option<Surveyed> {
        while let Some(stamp) = self.stamps.pop() {
            let Ok(mut octets) = self.copies.open(&stamp) else { continue };
            let Ok(survey) = survey(&mut octets, Some(stamp.format)) else { continue };
            if crate::store::hex(&survey.digest) == stamp.sha256 {
                let file = feed::shown_url(&stamp.url).to_owned();
                return Some(Surveyed { octets: Box::new(octets), survey, file, spare: Some(self) });
            }
            tracing::warn!(list = self.id, "a copy of a list is damaged; the one before it is used");
        }
        None
    }

    /// Says something of where the list is fetched from.
    pub(super) fn source(&self, feeds: &mut feed::Config, say: impl FnOnce(&mut feed::Source)) {
        if let Some(source) = feeds.sources.iter_mut().find(|source| source.id == self.id) {
            say(source);
        }
    }
}
