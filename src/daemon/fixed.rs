//! Settings that are taken at start. A reload that changes one of them is refused whole: half a configuration in force would not
//! be the one whose digest is reported.

use sha2::{Digest, Sha256};

use crate::config::{AlertSink, AlertSinkKind, Loaded};
use crate::store::hex;

/// Each by its name in the file, and what it is.
pub(super) fn fixed(loaded: &Loaded) -> Vec<(&'static str, String)> {
    let (listen, upstream) = (&loaded.listen, &loaded.upstream);
    // Without its zones, which are a section of their own.
    let servers = crate::config::Upstream { zones: Vec::new(), ..upstream.clone() };
    vec![
        ("[server] listen", format!("{:?}", listen.addresses)),
        ("[server] workers", format!("{:?}", listen.workers)),
        ("[server] state_dir", format!("{:?}", loaded.state_dir)),
        ("[server] admin_socket", format!("{:?}", loaded.admin.socket)),
        ("[server] admin_group", format!("{:?}", loaded.admin.group)),
        ("[server] metrics", format!("{:?}", loaded.metrics)),
        ("[server] notify_listen", format!("{:?}", loaded.notify_listen)),
        ("[limits] queue", format!("{:?}", listen.queue)),
        ("[limits] in_flight", format!("{:?}", listen.in_flight)),
        ("[limits] tcp_connections", format!("{:?}", listen.tcp_connections)),
        ("[limits] tcp_per_source", format!("{:?}", listen.tcp_per_source)),
        ("[limits] tcp_idle_seconds", format!("{:?}", listen.tcp_idle)),
        ("[limits] sessions", format!("{:?}", loaded.max_sessions)),
        ("[upstream]", format!("{servers:?}")),
        ("[[forward]]", format!("{:?}", upstream.zones)),
        ("[dnssec] validate", format!("{:?}", loaded.dnssec.validate)),
        ("[answer] cache_entries", format!("{:?}", loaded.answer.cache_entries)),
        (
            "[enforce], or policy.mode or unknown_source where they decide who is guarded",
            format!("{:?}", loaded.enforce),
        ),
        ("[age] rdap", format!("{:?}", loaded.age.rdap.is_some())),
        ("[events]", format!("{:?}", loaded.events)),
        ("[[alert]]", receivers(&loaded.alerts)),
    ]
}

/// Receivers of alerts, and a digest of each key: what is shown of a key does not tell it from another.
fn receivers(alerts: &[AlertSink]) -> String {
    let keys = alerts.iter().filter_map(|sink| match &sink.kind {
        AlertSinkKind::Webhook { secret, .. } => Some(hex(&Sha256::digest(secret.as_ref()?.expose()))),
        AlertSinkKind::Syslog { .. } | AlertSinkKind::File { .. } => None,
    });
    format!("{alerts:?} {:?}", keys.collect::<Vec<_>>())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::daemon::{Start, build};

    #[test]
    fn the_one_setting_that_a_reload_cannot_change_is_named_and_no_other() {
        let dir = tempfile::tempdir().expect("directory");
        let load = |server: &str, more: &str| {
            let file = dir.path().join("staunch.toml");
            let text = format!("version = 1\n[server]\n{server}\n[upstream]\nservers = [\"192.0.2.53\"]\n{more}\n");
            std::fs::write(&file, text).expect("configuration");
            let start = Start { config: Some(file), state_dir: Some(dir.path().join("state")), socket: None };
            fixed(&build::load(&start).expect("loads"))
        };
        let before = load("", "");
        let forward = "[[forward]]\nzone = \"corp.example\"\nservers = [\"192.0.2.54\"]\nowner = \"o\"\nreason = \"r\"\nreview_by = \"2099-01-01\"";
        for (server, more, name) in [
            ("listen = [\"127.0.0.1:5399\"]", "", "[server] listen"),
            ("workers = 3", "", "[server] workers"),
            ("admin_group = \"4711\"", "", "[server] admin_group"),
            ("", "[limits]\nqueue = 99", "[limits] queue"),
            ("", "[limits]\ntcp_idle_seconds = 9", "[limits] tcp_idle_seconds"),
            ("", "[limits]\nsessions = 99", "[limits] sessions"),
            ("", forward, "[[forward]]"),
        ] {
            let after = load(server, more);
            let changed: Vec<_> = after.iter().filter(|s| !before.contains(s)).map(|(name, _)| *name).collect();
            assert_eq!(changed, [name]);
        }
        let key = dir.path().join("hmac.key");
        let webhook =
            "[[alert]]\nname = \"soc\"\nkind = \"webhook\"\nurl = \"https://soc.example/\"\nsecret_file = \"hmac.key\"";
        let with_key = |octets: &str| {
            std::fs::write(&key, octets).expect("written");
            load("", webhook)
        };
        let (old, new) = (with_key("0123456789abcdef-old"), with_key("0123456789abcdef-new"));
        assert_eq!(old, with_key("0123456789abcdef-old\n"), "the control");
        let changed: Vec<_> = new.iter().filter(|setting| !old.contains(setting)).map(|(name, _)| *name).collect();
        assert_eq!(changed, ["[[alert]]"], "a key that was rolled");
        assert!(!format!("{old:?}").contains("0123456789abcdef"));
        let root = dir.path().join("root.pem");
        let with_root = || {
            std::fs::write(&root, crate::forward::certs_for_test::Root::new().pem).expect("written");
            load("", &format!("{webhook}\nca_file = \"root.pem\""))
        };
        let (old, new) = (with_root(), with_root());
        let changed: Vec<_> = new.iter().filter(|setting| !old.contains(setting)).map(|(name, _)| *name).collect();
        assert_eq!(changed, ["[[alert]]"], "another root under the same name");
    }
}
