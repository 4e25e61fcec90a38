//! Answers: what of an upstream's response may be shown, cached and pinned.

use std::net::IpAddr;

/// A vetted answer, ready to be sent: everything behind the question section, in wire form.
///
/// Compression pointers in `body` point into the question at offset 12 or into the body itself, so it can be appended
/// to any header and question of the same name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WireAnswer {
    /// Response code (0..=15).
    pub rcode: u8,
    /// Authentic data (RFC 4035 section 3.2.3), as the upstream said and only if nothing was taken out.
    pub authentic_data: bool,
    /// Records in the answer section.
    pub answers: u16,
    /// Records in the authority section (a SOA for negative answers, else nothing).
    pub authorities: u16,
    /// Answer and authority section.
    pub body: Box<[u8]>,
    /// Offsets in `body` of each record's TTL field.
    pub ttl_at: Box<[u16]>,
    /// Smallest TTL, seconds: how long this may be kept and shown.
    pub ttl: u32,
    /// Addresses a session may reach because of this answer.
    pub pins: Box<[IpAddr]>,
}
