//! Lists that ship with the product, compiled in.

/// How a configuration names them: `builtin:<name>`.
pub const PREFIX: &str = "builtin:";

/// A shipped list, in the domains format, each entry with its source and the day it was reviewed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Builtin {
    /// Its name; also the list's id where the configuration names none.
    pub name: &'static str,
    /// The file.
    pub text: &'static str,
}

/// All of them.
pub const BUILTIN: [Builtin; 2] = [
    Builtin { name: "doh-resolvers", text: include_str!("../../blocklists/doh-resolvers.txt") },
    Builtin { name: "tunnel-services", text: include_str!("../../blocklists/tunnel-services.txt") },
];

/// The list that `path` names, if it starts with [`PREFIX`] and there is one.
pub fn builtin(path: &str) -> Option<Builtin> {
    let name = path.strip_prefix(PREFIX)?;
    BUILTIN.into_iter().find(|list| list.name == name)
}

/// Policy packs that ship with the product, in the format of [`super::pack`].
pub const PACKS: [Builtin; 1] =
    [Builtin { name: "look-alikes", text: include_str!("../../blocklists/look-alikes.toml") }];

/// The pack that `path` names, if it starts with [`PREFIX`] and there is one.
pub fn builtin_pack(path: &str) -> Option<Builtin> {
    let name = path.strip_prefix(PREFIX)?;
    PACKS.into_iter().find(|pack| pack.name == name)
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use staunch_scoring::NameBuf;

    use super::*;
    use crate::lists::hash::test_key;
    use crate::lists::{Day, EntryNote, Format, ListInfo, compile_texts, parse};

    #[test]
    fn every_shipped_entry_reads_and_has_its_source_and_day() {
        for (list, least) in BUILTIN.into_iter().zip([60, 60]) {
            let mut names = HashSet::new();
            let report = parse(list.text.as_bytes(), Format::Domains, None, |entry| {
                assert!(
                    EntryNote::parse(entry.comment).is_some_and(|n| !n.what.is_empty()),
                    "{}:{}",
                    list.name,
                    entry.line
                );
                assert!(names.insert(entry.name.to_owned()), "{}:{}: twice", list.name, entry.line);
                Ok(())
            })
            .expect(list.name);
            assert_eq!(report.skipped, 0, "{}: {:?}", list.name, report.first_skipped);
            assert!(report.entries >= least, "{}: {} entries", list.name, report.entries);
            for head in ["# Licence:", "# Source:", "# Reviewed:"] {
                assert!(list.text.lines().take(20).any(|line| line.starts_with(head)), "{}: no `{head}`", list.name);
            }
            // An entry below another of the same list says nothing new.
            for name in &names {
                let wider = name.as_ref().ancestors().skip(1).map(|a| a.to_owned()).find(|a| names.contains(a));
                let wider = wider.filter(|w| !list.text.contains(&format!("\n={w} ")));
                assert_eq!(wider, None, "{}: {name} is covered already", list.name);
            }
        }
    }

    #[test]
    fn shipped_lists_deny_what_they_should_and_no_more() {
        let texts = BUILTIN.map(|list| {
            let info = ListInfo {
                id: list.name.into(),
                file: format!("{PREFIX}{}", list.name).into(),
                source: None,
                category: None,
                reviewed: None,
            };
            (info, list.text.as_bytes(), Some(Format::Domains))
        });
        let table = compile_texts(test_key(), Day(20_500), &texts).expect("compiles");
        let denied =
            |name: &str| table.look_up(NameBuf::from_text(name).expect("name").as_ref()).map(|m| m.list.id.clone());
        for name in
            ["dns.google", "mozilla.cloudflare-dns.com", "one.one.one.one", "abc123.dns.nextdns.io", "dns.quad9.net"]
        {
            assert_eq!(denied(name).as_deref(), Some("doh-resolvers"), "{name}");
        }
        for name in
            ["x.oast.fun", "a.b.oastify.com", "f00.trycloudflare.com", "x.ngrok-free.app", "abc.m.pipedream.net"]
        {
            assert_eq!(denied(name).as_deref(), Some("tunnel-services"), "{name}");
        }
        for name in [
            "google",
            "google.com",
            "www.google.com",
            "cloudflare.com",
            "quad9.net",
            "www.opendns.com",
            "nextdns.io",
            "pipedream.com",
            "api.pipedream.com",
            "github.com",
            "raw.githubusercontent.com",
            "pages.dev",
            "workers.dev",
            "one.one",
            "example.com",
            "microsoft.com",
            "mullvad.net",
            "controld.com",
            "ts.net",
        ] {
            assert_eq!(denied(name), None, "{name}");
        }
        assert_eq!(builtin("builtin:doh-resolvers").map(|b| b.name), Some("doh-resolvers"));
        assert_eq!(builtin("builtin:other"), None);
        assert_eq!(builtin("doh-resolvers"), None);
    }
}
