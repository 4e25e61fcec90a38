//! What an upstream is known to do with datagrams: whether it keeps the letter case of a question, and its cookie
//! (RFC 7873).
//!
//! Knows no socket and no clock. Both are learned from our own trials ([`super::greet`]), never from a session's question:
//! until then, and where a trial says that it is not so, questions leave in lower case and without a cookie. What looks
//! otherwise in a session's question is a doubt: that question turns to TCP, and the upstream is tried anew.

use std::net::IpAddr;

use parking_lot::Mutex;

use super::edns::{COOKIE, Opt};

/// Length of the client's part (RFC 7873 section 4).
const CLIENT: usize = 8;
/// Longest cookie: the client's part and 32 octets of the server.
const LONGEST: usize = CLIENT + 32;
/// Least length of a server's part.
const LEAST_SERVER: usize = 8;

/// A cookie as sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Cookie {
    octets: [u8; LONGEST],
    len: usize,
}

impl Cookie {
    /// Data of the option.
    pub(super) fn octets(&self) -> &[u8] {
        &self.octets[..self.len]
    }

    /// What `response` says to it.
    pub(super) fn reply(&self, opt: Option<&Opt<'_>>) -> Reply {
        let Some(data) = opt.and_then(|opt| opt.option(COOKIE)) else { return Reply::None };
        let server = data.len().saturating_sub(CLIENT);
        let is_ours = data.get(..CLIENT) == self.octets.get(..CLIENT);
        match data.get(CLIENT..) {
            Some(_) if is_ours && server == 0 => Reply::None,
            Some(_) if is_ours && (LEAST_SERVER..=LONGEST - CLIENT).contains(&server) => {
                let mut cookie = Self { octets: [0; LONGEST], len: data.len() };
                cookie.octets[..data.len()].copy_from_slice(data);
                Reply::Server(cookie)
            }
            _ => Reply::Foreign,
        }
    }
}

/// What a response says to a cookie.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reply {
    /// Our part is in it, and the server's, to be sent from now on.
    Server(Cookie),
    /// No cookie, or none of the server.
    None,
    /// Another client's part, or no cookie by its form: not from whom we asked (RFC 7873 section 5.3).
    Foreign,
}

/// What is known of one upstream.
#[derive(Debug, Default)]
pub(super) struct Manner {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    keeps_case: Option<bool>,
    has_cookies: Option<bool>,
    /// From which of our addresses, and what is sent to it. Another address gets another cookie (RFC 9018 section 3), so
    /// that a cookie does not say that both are one host.
    cookie: Option<(IpAddr, Cookie)>,
}

impl Manner {
    /// Whether it keeps letter case; `None` as long as nothing is known.
    pub(super) fn keeps_case(&self) -> Option<bool> {
        self.state.lock().keeps_case
    }

    /// Whether it has cookies; `None` as long as nothing is known.
    pub(super) fn has_cookies(&self) -> Option<bool> {
        self.state.lock().has_cookies
    }

    /// Notes what trials have shown. `true` if it is news.
    pub(super) fn learn_case(&self, keeps: bool) -> bool {
        self.state.lock().keeps_case.replace(keeps) != Some(keeps)
    }

    /// Notes what trials have shown. `true` if it is news.
    pub(super) fn learn_cookies(&self, has: bool) -> bool {
        self.state.lock().has_cookies.replace(has) != Some(has)
    }

    /// The cookie of a session's question sent from `local`; `None` where the upstream has none.
    pub(super) fn cookie(&self, local: IpAddr) -> Option<Cookie> {
        if self.state.lock().has_cookies != Some(true) { None } else { self.trial_cookie(local) }
    }

    /// The cookie of a trial sent from `local`; `None` where there is no randomness.
    pub(super) fn trial_cookie(&self, local: IpAddr) -> Option<Cookie> {
        let mut state = self.state.lock();
        if let Some((_, cookie)) = state.cookie.filter(|(from, _)| *from == local) {
            return Some(cookie);
        }
        let mut cookie = Cookie { octets: [0; LONGEST], len: CLIENT };
        getrandom::fill(&mut cookie.octets[..CLIENT]).ok()?;
        state.cookie = Some((local, cookie));
        Some(cookie)
    }

    /// Keeps the server's part that came in answer to `sent`.
    pub(super) fn keep(&self, sent: &Cookie, new: Cookie) {
        let mut state = self.state.lock();
        if let Some((_, cookie)) =
            state.cookie.as_mut().filter(|(_, cookie)| cookie.octets[..CLIENT] == sent.octets[..CLIENT])
        {
            *cookie = new;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HERE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 1));
    const THERE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 2));

    /// A message that holds nothing but an OPT record with this option.
    fn with_cookie(data: &[u8]) -> Vec<u8> {
        let mut out = vec![0, 1, 0x81, 0x80, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 41, 4, 208, 0, 0, 0, 0];
        out.extend((data.len() as u16 + 4).to_be_bytes());
        out.extend([0, 10]);
        out.extend((data.len() as u16).to_be_bytes());
        out.extend(data);
        out
    }

    fn reply(cookie: &Cookie, data: &[u8]) -> Reply {
        cookie.reply(Opt::of(&with_cookie(data)).as_ref())
    }

    #[test]
    fn nothing_is_sent_before_a_trial_has_shown_that_it_is_understood() {
        let manner = Manner::default();
        assert_eq!((manner.keeps_case(), manner.has_cookies(), manner.cookie(HERE)), (None, None, None));
        let trial = manner.trial_cookie(HERE).expect("randomness");
        assert_eq!(trial.octets().len(), 8);
        assert!(manner.learn_cookies(true) && !manner.learn_cookies(true));
        assert_eq!(manner.cookie(HERE), Some(trial));
        assert!(manner.learn_cookies(false));
        assert_eq!(manner.cookie(HERE), None);
        assert!(manner.learn_case(true) && !manner.learn_case(true) && manner.learn_case(false));
    }

    #[test]
    fn the_servers_part_is_sent_back_and_belongs_to_one_of_our_addresses() {
        let manner = Manner::default();
        manner.learn_cookies(true);
        let first = manner.cookie(HERE).expect("randomness");
        let whole = [first.octets(), b"server's"].concat();
        let Reply::Server(new) = reply(&first, &whole) else { panic!("a server's cookie") };
        manner.keep(&first, new);
        assert_eq!(manner.cookie(HERE).expect("kept").octets(), whole);
        let other = manner.cookie(THERE).expect("randomness");
        assert!(other.octets().len() == 8 && other.octets() != first.octets());
        manner.keep(&first, new);
        assert_eq!(manner.cookie(THERE), Some(other), "an answer to the old address changes nothing");
    }

    #[test]
    fn another_clients_cookie_or_a_misshapen_one_is_foreign() {
        let cookie = Manner::default().trial_cookie(HERE).expect("randomness");
        let ours = cookie.octets();
        let mut other = ours.to_vec();
        other[0] ^= 1;
        for (data, expected) in [
            (ours.to_vec(), Reply::None),
            (other.clone(), Reply::Foreign),
            ([&other[..], b"server's"].concat(), Reply::Foreign),
            (ours[..7].to_vec(), Reply::Foreign),
            (Vec::new(), Reply::Foreign),
            ([ours, b"short"].concat(), Reply::Foreign),
            ([ours, &[7; 33]].concat(), Reply::Foreign),
        ] {
            assert_eq!(reply(&cookie, &data), expected, "{data:?}");
        }
        assert!(matches!(reply(&cookie, &[ours, &[7; 32]].concat()), Reply::Server(_)));
        assert_eq!(cookie.reply(None), Reply::None);
    }
}
