//! Reasons that a reply gives beside its response code.

/// Info codes of Extended DNS Errors that we send (RFC 8914 section 4).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u16)]
pub enum Ede {
    /// 0: anything else; the text says what.
    Other = 0,
    /// 1: the zone's algorithms cannot be checked here, so it counts as unsigned.
    UnsupportedDnskeyAlgorithm = 1,
    /// 2: nor can the digests that vouch for its keys.
    UnsupportedDsDigestType = 2,
    /// 3: the answer is older than its TTL.
    StaleAnswer = 3,
    /// 4: the answer was forged (a sinkhole address).
    ForgedAnswer = 4,
    /// 5: whether the answer is authentic cannot be found out.
    DnssecIndeterminate = 5,
    /// 6: the answer is not as it was signed.
    DnssecBogus = 6,
    /// 7: no signature is within its time any more.
    SignatureExpired = 7,
    /// 8: no signature is within its time yet.
    SignatureNotYetValid = 8,
    /// 9: no key fits what vouches for it.
    DnskeyMissing = 9,
    /// 10: a signature that must be there is not.
    RrsigsMissing = 10,
    /// 11: none of the zone's keys is marked as one. Only as an upstream says it.
    NoZoneKeyBitSet = 11,
    /// 12: the proof that something is not there is not.
    NsecMissing = 12,
    /// 13: what failed a moment ago was not tried again. Only as an upstream says it.
    CachedError = 13,
    /// 14: not ready to serve.
    NotReady = 14,
    /// 15: refused by the operator's security policy.
    Blocked = 15,
    /// 17: refused by a policy the client's owner asked for.
    Filtered = 17,
    /// 18: this client may not ask.
    Prohibited = 18,
    /// 19: the name did not exist, and that is older than its TTL.
    StaleNxDomainAnswer = 19,
    /// 22: no upstream could be reached.
    NoReachableAuthority = 22,
    /// 23: an upstream could be reached but the exchange failed.
    NetworkError = 23,
    /// 24: what the zone's servers say is not usable. Only as an upstream says it.
    InvalidData = 24,
    /// 25: a signature ends before it begins. Only as an upstream says it.
    SignatureExpiredBeforeValid = 25,
    /// 27: the zone's hashes are more work than anybody should do, so it counts as unsigned (RFC 9276 section 3.2).
    UnsupportedNsec3Iterations = 27,
}

impl Ede {
    /// The code of a number, of those that we send.
    pub fn from_code(code: u16) -> Option<Self> {
        let all = [
            Self::Other,
            Self::UnsupportedDnskeyAlgorithm,
            Self::UnsupportedDsDigestType,
            Self::StaleAnswer,
            Self::ForgedAnswer,
            Self::DnssecIndeterminate,
            Self::DnssecBogus,
            Self::SignatureExpired,
            Self::SignatureNotYetValid,
            Self::DnskeyMissing,
            Self::RrsigsMissing,
            Self::NoZoneKeyBitSet,
            Self::NsecMissing,
            Self::CachedError,
            Self::NotReady,
            Self::Blocked,
            Self::Filtered,
            Self::Prohibited,
            Self::StaleNxDomainAnswer,
            Self::NoReachableAuthority,
            Self::NetworkError,
            Self::InvalidData,
            Self::SignatureExpiredBeforeValid,
            Self::UnsupportedNsec3Iterations,
        ];
        all.into_iter().find(|ede| *ede as u16 == code)
    }

    /// Whether it says why a name could not be resolved. The others say what was done to an answer, or whose policy refuses it,
    /// which of our replies is our own word alone.
    pub fn is_of_resolution(self) -> bool {
        matches!(
            self,
            Self::UnsupportedDnskeyAlgorithm
                | Self::UnsupportedDsDigestType
                | Self::DnssecIndeterminate
                | Self::DnssecBogus
                | Self::SignatureExpired
                | Self::SignatureNotYetValid
                | Self::DnskeyMissing
                | Self::RrsigsMissing
                | Self::NoZoneKeyBitSet
                | Self::NsecMissing
                | Self::CachedError
                | Self::NotReady
                | Self::NoReachableAuthority
                | Self::NetworkError
                | Self::InvalidData
                | Self::SignatureExpiredBeforeValid
                | Self::UnsupportedNsec3Iterations
        )
    }
}
