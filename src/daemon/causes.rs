//! An error and its causes in one line, for people, with what helps.

use std::io::ErrorKind;

use crate::listen;

/// What went wrong, outermost first. A cause that the error above it has told already is not told again.
pub fn in_words(error: &anyhow::Error) -> String {
    let mut words = String::new();
    for cause in error.chain().map(ToString::to_string) {
        if words.is_empty() {
            words = cause;
        } else if !words.contains(&cause) {
            words = format!("{words}: {cause}");
        }
    }
    words
}

/// Why nothing is listened on, with what helps.
pub(super) fn cannot_listen(error: listen::Error) -> anyhow::Error {
    let helps = match &error {
        listen::Error::Bind { address, source, .. } => match source.kind() {
            ErrorKind::PermissionDenied if address.port() < 1024 => {
                "could not listen; a port below 1024 takes CAP_NET_BIND_SERVICE (AmbientCapabilities= in a unit, or `setcap \
                 cap_net_bind_service=ep` for the binary), or sockets that a supervisor hands over"
            }
            ErrorKind::AddrInUse => "could not listen; another resolver holds the address",
            ErrorKind::AddrNotAvailable => "could not listen; no interface of this machine has the address",
            _ => "could not listen",
        },
        _ => "could not listen",
    };
    anyhow::Error::new(error).context(helps)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::enforce::Error;
    use crate::model::Transport;

    #[test]
    fn a_cause_is_told_once() {
        let denied = || std::io::Error::from_raw_os_error(libc::EPERM);
        let words = "Operation not permitted (os error 1)";
        let kernel = Error::Kernel { doing: "look for the table", source: denied(), words: String::new() };
        let error = anyhow::Error::new(kernel).context("enforcement cannot be had");
        assert_eq!(in_words(&error), format!("enforcement cannot be had: look for the table: {words}"));
        let error = anyhow::Error::new(denied()).context("metrics page");
        assert_eq!(in_words(&error), format!("metrics page: {words}"), "and one that nobody has told is");
    }

    #[test]
    fn what_keeps_a_port_from_being_had_is_told_with_what_helps() {
        for (errno, port, told) in [
            (libc::EACCES, 53, "CAP_NET_BIND_SERVICE"),
            (libc::EADDRINUSE, 53, "another resolver"),
            (libc::EADDRNOTAVAIL, 53, "no interface"),
            (libc::EACCES, 5300, "could not listen: cannot listen on"),
        ] {
            let source = std::io::Error::from_raw_os_error(errno);
            let address = ([192, 0, 2, 1], port).into();
            let words = in_words(&cannot_listen(listen::Error::Bind { address, transport: Transport::Udp, source }));
            assert!(words.contains(told), "{words}");
            assert_eq!(words.contains("another resolver"), errno == libc::EADDRINUSE, "{words}");
        }
    }
}
