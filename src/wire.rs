//! The strict parser of what stubs send, total on any octets.

use staunch_scoring::QName;

use crate::model::Qtype;

/// A well-formed query of the kind we answer.
#[derive(Debug, Clone, Copy)]
pub struct Query<'p> {
    /// The client's message id.
    pub id: u16,
    /// Recursion desired (RFC 1035 section 4.1.1).
    pub recursion_desired: bool,
    /// Checking disabled (RFC 4035 section 3.2.2).
    pub checking_disabled: bool,
    /// Authentic data wanted (RFC 6840 section 5.7).
    pub authentic_data: bool,
    /// The name, folded.
    pub qname: QName,
    /// The type.
    pub qtype: Qtype,
    /// The question section as the client spelled it, for the echo.
    pub question: &'p [u8],
    /// EDNS, if the query had it.
    pub edns: Option<Edns>,
}

/// What we keep of a client's OPT record (RFC 6891). Its options are never kept, let alone forwarded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Edns {
    /// Largest datagram the client takes, at least 512.
    pub udp_payload: u16,
    /// DNSSEC OK (RFC 3225).
    pub dnssec_ok: bool,
}

/// What becomes of a packet.
#[derive(Debug, Clone, Copy)]
pub enum Parsed<'p> {
    /// A query to judge.
    Query(Query<'p>),
    /// Answered at once with this response code and an otherwise empty message (RFC 8906).
    Reject(Reject),
    /// Not answered: shorter than a header, or a response.
    Drop,
}

/// An immediate error answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reject {
    /// The client's message id.
    pub id: u16,
    /// Opcode to echo.
    pub opcode: u8,
    /// RD to echo.
    pub recursion_desired: bool,
    /// Response code, extended (RFC 6895 section 2.3): FORMERR 1, NOTIMP 4, REFUSED 5, BADVERS 16.
    pub rcode: u16,
    /// Whether to send an OPT record.
    pub edns: bool,
}
