//! What is said of lists: which are in force, what was read of them, how fetching goes, who has a name.

use serde::Serialize;
use serde_json::{Value, json};
use staunch_scoring::NameRef;

use super::{Live, Pipeline};
use crate::config::ListReport;
use crate::lists::{Day, DenyTable};

/// What lists say of a name that one of them denies.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Listed {
    /// What the list's names are, by the operator's word.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub category: Option<String>,
    /// Who publishes the list.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
    /// When a person last looked at the list.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reviewed: Option<Day>,
    /// The first day on which the tables of this deployment had the entry's name.
    pub since: Day,
    /// Every list whose entry for it is as wide.
    pub lists: Vec<String>,
}

impl Listed {
    /// Of a name that `list` denies.
    pub(super) fn of(table: &DenyTable, name: NameRef<'_>, list: &str) -> Option<Self> {
        let found = table.look_up(name).filter(|found| &*found.list.id == list)?;
        Some(Self {
            category: found.list.category.clone(),
            source: found.list.source.clone(),
            reviewed: found.list.reviewed,
            since: found.since,
            lists: table.named_by(&found).map(|list| list.id.to_string()).collect(),
        })
    }
}

/// Sums over all lists in force, for one look.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct ListSums {
    /// Lists, fetched or not.
    pub lists: usize,
    /// Distinct names denied.
    pub names: usize,
    /// Octets of the table.
    pub octets: usize,
    /// Lines passed over.
    pub skipped: u64,
    /// Lists that are fetched.
    pub fetched: usize,
    /// Of them, without any good copy.
    pub missing: usize,
    /// Of them, whose last fetch failed, or whose good copy is not in force.
    pub failing: usize,
    /// Of them, with a version that waits.
    pub held: usize,
}

impl Live {
    fn list_reports(&self) -> &[ListReport] {
        &self.list_reports
    }
}

impl Pipeline {
    /// Sums over all lists.
    pub fn list_sums(&self) -> ListSums {
        let live = self.live.load();
        let deny = &live.policy.lists.deny;
        let standing = self.feeds.get().map(crate::feed::Feeds::standing).unwrap_or_default();
        let count = |of: fn(&crate::feed::Standing) -> bool| standing.iter().filter(|s| of(s)).count();
        ListSums {
            lists: live.list_reports().len(),
            names: deny.len(),
            octets: deny.octets(),
            skipped: live.list_reports().iter().map(|list| u64::from(list.report.skipped)).sum(),
            fetched: standing.len(),
            missing: count(|s| s.good.is_none()),
            failing: count(|s| s.failures > 0 || s.unused.is_some()),
            held: count(|s| s.held.is_some()),
        }
    }

    /// Every list in full.
    pub fn show_lists(&self) -> Value {
        let live = self.live.load();
        let standing = self.feeds.get().map(crate::feed::Feeds::standing).unwrap_or_default();
        json!({
            "schema": 1,
            "sums": self.list_sums(),
            "lists": live.list_reports(),
            "fetched": standing,
        })
    }
}
