//! Lists that are fetched: where from, how often, and which change is too much.

use std::time::Duration;

use super::Context;
use super::lists::Surveyed;
use crate::config::document::Path;
use crate::config::spec;
use crate::feed::{self, Copies, Kept, Stamp};
use crate::lists::{Day, survey};

/// Largest fetched list, MiB.
const MAX_MIB: u32 = 1024;

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
        let found = [good, before].into_iter().flatten().find_map(|stamp| usable_copy(&copies, &stamp, written));
        if found.is_none() {
            let problem = if never { "not fetched yet" } else { "its copies are damaged" };
            let remedy = "it is fetched while the service runs; until then nothing is denied by it";
            self.problems.warn(&path.key("url"), problem, remedy);
        }
        found
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

/// A copy whose octets are still those that were fetched.
fn usable_copy(copies: &Copies, stamp: &Stamp, written: &spec::List) -> Option<Surveyed> {
    let mut file = copies.open(stamp).ok()?;
    let found = survey(&mut file, written.format).ok()?;
    if crate::store::hex(&found.digest) != stamp.sha256 {
        tracing::warn!(list = written.id, "a copy of a list is damaged; the one before it is used");
        return None;
    }
    Some((Box::new(file), found))
}
