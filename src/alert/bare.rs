//! An alert without what a sandbox can have chosen of it, for a receiver that refuses it with that.
//!
//! Names stand in an alert as they were asked, and what inspects a request on its way (a web application firewall) may refuse it
//! for one. Alerts go out in order, so whoever chooses such a name would keep all later ones from being heard.

use super::Failure;
use crate::event::Alert;

/// The alert with the same id, time and case, and who it is about; without domain, names and words.
pub(super) fn of(alert: &Alert, failure: &Failure) -> Alert {
    let summary = format!(
        "An alert about session {}. Its receiver did not take it as it is ({failure}), so domain, names and words are left out; \
         what `actions` names tells them.",
        alert.session
    );
    Alert { summary, tenant: String::new(), samples: Vec::new(), ..alert.clone() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::testing;

    #[test]
    fn nothing_of_it_is_of_a_sandboxs_choice() {
        let alert = testing::alert(1);
        let alert = Alert {
            summary: "poison".into(),
            tenant: "poison.example".into(),
            samples: vec!["poison.example".into()],
            ..alert
        };
        let bare = of(&alert, &Failure::Refused(403));
        assert!(!serde_json::to_string(&bare).unwrap().contains("poison") && bare.summary.contains("403"), "{bare:?}");
        assert_eq!((&bare.id, bare.case, &bare.actions), (&alert.id, alert.case, &alert.actions));
    }
}
