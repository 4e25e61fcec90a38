//! How an exchange can fail, and what the client is told of it.

use std::fmt;
use std::net::SocketAddr;

use super::edns::{EXTENDED_ERROR, Opt};
use crate::model::Ede;

/// How a try at an upstream failed. Closed set: also a metric label.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum FailKind {
    /// No fitting response in time.
    Timeout,
    /// The network said that it cannot be reached.
    Unreachable,
    /// The TCP exchange broke off.
    Broken,
    /// The response is not a whole message.
    Mangled,
    /// SERVFAIL.
    ServFail,
    /// REFUSED.
    Refused,
    /// FORMERR, without EDNS too.
    FormErr,
    /// Another response code that is no answer.
    BadRcode,
    /// It names other servers instead of asking them.
    Referral,
    /// Known to be down; not asked.
    Down,
    /// We could not open a socket; says nothing about the upstream.
    Local,
    /// TLS: the certificate is for another name.
    TlsName,
    /// TLS: the certificate is not of a root that is trusted, or is not sound.
    TlsUntrusted,
    /// TLS: the certificate is not valid at this time.
    TlsExpired,
    /// TLS: the server's key is none of the pinned ones.
    TlsPin,
    /// TLS: no handshake, for another reason.
    TlsFailed,
}

impl FailKind {
    /// Every kind.
    pub const ALL: [Self; 16] = [
        Self::Timeout,
        Self::Unreachable,
        Self::Broken,
        Self::Mangled,
        Self::ServFail,
        Self::Refused,
        Self::FormErr,
        Self::BadRcode,
        Self::Referral,
        Self::Down,
        Self::Local,
        Self::TlsName,
        Self::TlsUntrusted,
        Self::TlsExpired,
        Self::TlsPin,
        Self::TlsFailed,
    ];

    /// As in records, labels and EDE text.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Timeout => "timeout",
            Self::Unreachable => "unreachable",
            Self::Broken => "broken",
            Self::Mangled => "mangled",
            Self::ServFail => "servfail",
            Self::Refused => "refused",
            Self::FormErr => "formerr",
            Self::BadRcode => "bad-rcode",
            Self::Referral => "referral",
            Self::Down => "down",
            Self::Local => "local",
            Self::TlsName => "tls-wrong-name",
            Self::TlsUntrusted => "tls-untrusted",
            Self::TlsExpired => "tls-expired",
            Self::TlsPin => "tls-wrong-key",
            Self::TlsFailed => "tls-failed",
        }
    }

    /// Whether the upstream sent anything that is its own. Whoever fails to prove who it is sent nothing.
    pub(super) fn answered(self) -> bool {
        !matches!(self, Self::Timeout | Self::Unreachable | Self::Down | Self::Local) && !self.is_tls()
    }

    /// Whether the upstream sent a whole response, which is no answer.
    fn responded(self) -> bool {
        matches!(self, Self::ServFail | Self::Refused | Self::FormErr | Self::BadRcode | Self::Referral)
    }

    /// Whether TLS stood in the way: no question was sent.
    pub fn is_tls(self) -> bool {
        matches!(self, Self::TlsName | Self::TlsUntrusted | Self::TlsExpired | Self::TlsPin | Self::TlsFailed)
    }
}

/// How a try failed, and why, where the upstream has said so.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Fault {
    pub(super) kind: FailKind,
    pub(super) said: Option<Ede>,
}

impl From<FailKind> for Fault {
    fn from(kind: FailKind) -> Self {
        Self { kind, said: None }
    }
}

impl Fault {
    /// A response that is none, with the reason that it gives. Of that only the code is taken: its text is for whoever the
    /// upstream likes to tell something.
    pub(super) fn told(kind: FailKind, response: &[u8]) -> Self {
        let code = Opt::of(response).and_then(|opt| opt.option(EXTENDED_ERROR)?.first_chunk::<2>().copied());
        let said = code.and_then(|code| Ede::from_code(u16::from_be_bytes(code)));
        Self { kind, said: said.filter(|ede| ede.is_of_resolution()) }
    }
}

/// One failed try.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Failed {
    /// Where.
    pub upstream: SocketAddr,
    /// How.
    pub kind: FailKind,
    /// Why, as the upstream says (RFC 8914).
    pub said: Option<Ede>,
}

/// Why there is no response. The client gets SERVFAIL with [`ForwardError::ede`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ForwardError {
    /// Too many exchanges at once.
    #[error("too many upstream exchanges at once")]
    Busy,
    /// Every upstream is known to be down; nothing was sent.
    #[error("every upstream is down: {}", list(.0))]
    AllDown(Vec<Failed>),
    /// Every try failed, in this order.
    #[error("every upstream failed: {}", list(.0))]
    Failed(Vec<Failed>),
    /// There is no answer when the one who asked must have one; the exchange may go on for others.
    #[error("no upstream answered in time: {}", list(.0))]
    Late(Vec<SocketAddr>),
    /// The task of the exchange ended without a word.
    #[error("the exchange was given up")]
    Abandoned,
}

impl fmt::Display for Failed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.upstream, self.kind.as_str())
    }
}

fn list<T: fmt::Display>(items: &[T]) -> String {
    items.iter().map(T::to_string).collect::<Vec<_>>().join(", ")
}

impl ForwardError {
    /// Whether something may have been sent.
    pub fn has_left(&self) -> bool {
        match self {
            Self::Failed(tries) => {
                let stayed = |kind: FailKind| matches!(kind, FailKind::Down | FailKind::Local) || kind.is_tls();
                tries.iter().any(|failed| !stayed(failed.kind))
            }
            Self::Abandoned | Self::Late(_) => true,
            Self::Busy | Self::AllDown(_) => false,
        }
    }

    /// Info code and text (RFC 8914): the first reason that an upstream gave; 0 if one responded and gave none, 23 if one was
    /// reached but the exchange came to nothing, or it is not who it should be, 22 if no upstream said anything.
    pub fn ede(&self) -> (Ede, String) {
        let code = match self {
            Self::AllDown(tries) | Self::Failed(tries) => Self::code_of(tries),
            Self::Late(_) => Ede::NoReachableAuthority,
            Self::Busy | Self::Abandoned => Ede::Other,
        };
        (code, self.to_string())
    }

    fn code_of(tries: &[Failed]) -> Ede {
        let any = |is: fn(FailKind) -> bool| tries.iter().any(|failed| is(failed.kind));
        if let Some(said) = tries.iter().find_map(|failed| failed.said) {
            said
        } else if any(FailKind::responded) {
            Ede::Other
        } else if any(|kind| kind.answered() || kind.is_tls()) {
            Ede::NetworkError
        } else if !tries.is_empty() && tries.iter().all(|failed| failed.kind == FailKind::Local) {
            Ede::Other
        } else {
            Ede::NoReachableAuthority
        }
    }
}
