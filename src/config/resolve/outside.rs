//! The packet filter in another process's hands: the enforcer, or a hook command.

use std::time::Duration;

use super::Context;
use crate::config::document::Path;
use crate::enforce::remote::{self, Peers};
use crate::enforce::{BackendKind, Config, Outside};
use crate::local_socket::number_in;

/// Most words of a hook command.
const HOOK_WORDS_MAX: usize = 64;

impl Context<'_, '_> {
    pub(super) fn outside(&mut self, backend: BackendKind) -> Outside {
        let section = Path::of("enforce");
        let enforce = self.spec.enforce.clone();
        let path = section.key("enforcer_socket");
        if let Some(socket) = &enforce.enforcer_socket {
            // The kernel's limit for the path of a unix socket (unix(7)), its NUL included.
            if !socket.starts_with('/') || socket.contains('\0') || socket.len() >= 108 {
                let problem = format!("`{}` is not the path of a socket", socket.escape_debug());
                let remedy =
                    format!("use an absolute path of at most 107 octets, for example {}", remote::DEFAULT_SOCKET);
                self.problems.error(&path, problem, remedy);
            } else if backend != BackendKind::Nft {
                self.problems.error(
                    &path,
                    "an enforcer without backend = \"nft\" has nothing to enforce",
                    "set enforce.backend = \"nft\", or remove it",
                );
            }
        }
        for (field, name, what) in
            [("enforcer_group", &enforce.enforcer_group, "group"), ("resolver_user", &enforce.resolver_user, "user")]
        {
            if let Some(name) = name
                && (name.is_empty() || name.len() > 64 || name.contains([':', '/', '\0', '\n']))
            {
                let problem = format!("`{}` is not a {what}", name.escape_debug());
                let remedy = format!("name a {what} of this machine or its number, or leave it out");
                self.problems.error(&section.key(field), problem, remedy);
            } else if let Some(name) = name
                && self.environment.checking
                && number_in(if what == "user" { "/etc/passwd" } else { "/etc/group" }, name).is_none()
            {
                let problem = format!("this machine has no {what} `{name}`: the enforcer would not start here");
                self.problems.warn(&section.key(field), problem, "make it where the enforcer runs, or name another");
            }
        }
        let path = section.key("hook");
        match (backend, enforce.hook.as_slice()) {
            (BackendKind::Hook, []) => self.problems.error(
                &path,
                "no command for backend = \"hook\"",
                "name it and its arguments, for example hook = [\"/usr/local/libexec/staunch-hook\"]",
            ),
            (BackendKind::Hook, [program, ..]) if !program.starts_with('/') => {
                let problem = format!("`{}` is not an absolute path", program.escape_debug());
                self.problems.error(&path.at(0), problem, "write the whole path: nothing is looked up for it");
            }
            (BackendKind::Hook, words) if words.len() > HOOK_WORDS_MAX || words.iter().any(|w| w.contains('\0')) => {
                self.problems.error(
                    &path,
                    format!("more than {HOOK_WORDS_MAX} words, or one with a NUL"),
                    "put what is long into a file that the command reads",
                );
            }
            (BackendKind::Hook, [program, ..]) => self.runnable(&path.at(0), program),
            (_, []) => {}
            (_, [..]) => self.problems.error(
                &path,
                "a hook without backend = \"hook\" is never run",
                "set enforce.backend = \"hook\", or remove it",
            ),
        }
        let deadline = self.within(&section, "hook_deadline_ms", enforce.hook_deadline_ms, 10, 60_000);
        Outside {
            enforcer: enforce.enforcer_socket.map(Into::into),
            hook: enforce.hook,
            hook_deadline: Duration::from_millis(deadline),
        }
    }

    /// What the enforcer runs by, from the same file. `socket` is what the command line says of it.
    pub(super) fn enforcer(&mut self, enforce: Config, socket: Option<std::path::PathBuf>) -> remote::Settings {
        let section = Path::of("enforce");
        if !matches!(enforce.backend, BackendKind::Nft | BackendKind::DryRun) {
            self.problems.error(
                &section.key("backend"),
                "an enforcer has no packet filter to change here",
                "set enforce.backend = \"nft\"",
            );
        }
        let socket = socket.or_else(|| enforce.outside.enforcer.clone()).unwrap_or_else(|| {
            self.problems.error(
                &section.key("enforcer_socket"),
                "no socket to listen on",
                format!(
                    "set enforce.enforcer_socket = \"{}\": the resolver finds the enforcer by it",
                    remote::DEFAULT_SOCKET
                ),
            );
            remote::DEFAULT_SOCKET.into()
        });
        let peers = match &self.spec.enforce.resolver_user {
            None => Peers::usual(),
            Some(user) => remote::user_id(user).map(Peers::only).unwrap_or_else(|| {
                let problem = format!("this machine has no user `{}`", user.escape_debug());
                let remedy = "make it, or name the user that the resolver runs as";
                self.problems.error(&section.key("resolver_user"), problem, remedy);
                Peers::usual()
            }),
        };
        remote::Settings { enforce, socket, group: self.spec.enforce.enforcer_group.clone(), peers }
    }
}
