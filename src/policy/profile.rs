//! Profiles: what a kind of session may do, by type and phase.

use staunch_scoring::{Bits, Budgets, Params};

use crate::lists::Scope;
use crate::model::{Phase, Qtype, SessionType};
use crate::ports::Ports;

/// What becomes of names that no rule names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Unlisted {
    /// They are scored, and answered within the ledger.
    Score,
    /// They are refused.
    Refuse,
}

/// What one kind of session may do.
#[derive(Debug, Clone, PartialEq)]
pub struct Profile {
    /// As in the configuration: `batch`, `batch.build`.
    pub name: String,
    /// What becomes of names that no rule names.
    pub unlisted: Unlisted,
    /// Types answered, ascending; all others get NODATA with a reason.
    pub qtypes: Vec<Qtype>,
    /// Limits of the ledger.
    pub budgets: Budgets,
    /// Thresholds of the score.
    pub params: Params,
    /// What a session may tell by names that packs know, over all of them; zero to be without packs.
    pub pack_session: Bits,
    /// What is opened of the addresses of an answer.
    pub ports: Ports,
    /// How much may go out to an address that only unlisted names lead to.
    pub volume: Volume,
}

/// How much may go out to one address over a session's life, octets of IP packets.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Volume {
    /// From here an event tells of it.
    pub warn: Option<u64>,
    /// From here nothing more goes out.
    pub cut: Option<u64>,
}

/// What a session may tell by names of packs where the profile does not say: 9 KiB, room for the heaviest honest
/// patterns that were measured (400 file-hash look-ups take 68,220 bits, a mail gateway with 1,200 block-list look-ups
/// 66,226), and no more for fifty entries than for one. Desktops stay below 14,000.
const PACK_SESSION: Bits = Bits::whole(73_728);

/// What may have gone out to one unlisted address before it is told: a form or a question fits many times over, an archive of
/// source code does not. Chosen without a source.
const VOLUME_WARNED: u64 = 1 << 20;

/// What a session that nobody answers for may send to one unlisted address: the acknowledgements of a download of some
/// 900 MiB, an upload of 16 MiB. Chosen without a source.
const VOLUME_UNANNOUNCED: u64 = 16 << 20;

impl Profile {
    /// Types that ordinary programs ask for. NULL, KEY, private-use types and transfers are never among them. Ascending.
    pub const ORDINARY_TYPES: [Qtype; 17] = [
        Qtype::A,
        Qtype::NS,
        Qtype::CNAME,
        Qtype::SOA,
        Qtype::PTR,
        Qtype::MX,
        Qtype::TXT,
        Qtype::AAAA,
        Qtype::SRV,
        Qtype::NAPTR,
        Qtype::DS,
        Qtype::SSHFP,
        Qtype::DNSKEY,
        Qtype::TLSA,
        Qtype::SVCB,
        Qtype::HTTPS,
        Qtype::CAA,
    ];

    /// Types for a session that nobody answers for: what finding and reaching a host takes. Ascending.
    pub const HOST_TYPES: [Qtype; 6] = [Qtype::A, Qtype::PTR, Qtype::AAAA, Qtype::SRV, Qtype::SVCB, Qtype::HTTPS];

    /// The profile of a type that the configuration does not mention.
    pub fn built_in(kind: SessionType) -> Self {
        let whole = Budgets::default();
        let half = |bits: Bits| Bits::from_steps(bits.steps() / 2);
        let (budgets, qtypes) = match kind {
            // Nobody answers for such a session: it gets half of what others may tell.
            SessionType::Unannounced => (
                Budgets {
                    tenant_soft: half(whole.tenant_soft),
                    tenant: half(whole.tenant),
                    icann: half(whole.icann),
                    session: half(whole.session),
                    ..whole
                },
                Self::HOST_TYPES.to_vec(),
            ),
            // A person who browses meets hundreds of domains, and notices what is odd; desktops in the benign traces
            // spend up to 20,000 bits in a session.
            SessionType::Interactive => {
                (Budgets { session: Bits::whole(32_768), ..whole }, Self::ORDINARY_TYPES.to_vec())
            }
            SessionType::Batch | SessionType::Scheduled => (whole, Self::ORDINARY_TYPES.to_vec()),
        };
        let pack_session = match kind {
            SessionType::Unannounced => half(PACK_SESSION),
            SessionType::Interactive | SessionType::Batch | SessionType::Scheduled => PACK_SESSION,
        };
        Self {
            name: kind.as_str().into(),
            unlisted: Unlisted::Score,
            qtypes,
            budgets,
            params: Params::default(),
            pack_session,
            ports: Ports::web(),
            volume: Volume {
                warn: Some(VOLUME_WARNED),
                cut: (kind == SessionType::Unannounced).then_some(VOLUME_UNANNOUNCED),
            },
        }
    }

    /// Whether packs say anything here: only of names that would be scored.
    pub fn has_packs(&self) -> bool {
        self.unlisted == Unlisted::Score && self.pack_session > Bits::ZERO
    }

    /// Whether a type is answered.
    pub fn answers(&self, qtype: Qtype) -> bool {
        self.qtypes.binary_search(&qtype).is_ok()
    }
}

/// A profile for every kind of session: that of its type and phase, else that of its type.
#[derive(Debug, Clone, PartialEq)]
pub struct Profiles {
    all: Vec<Profile>,
    by_scope: [u8; Scope::COUNT],
}

const TYPES: [SessionType; 4] =
    [SessionType::Interactive, SessionType::Batch, SessionType::Scheduled, SessionType::Unannounced];
const PHASES: [Phase; 3] = [Phase::Fetch, Phase::Build, Phase::Run];

impl Profiles {
    /// Asks `written` for every type and every phase of it; what is not written comes from the type's profile, and that
    /// from the built-in one, each handed over as the base.
    pub fn build(mut written: impl FnMut(SessionType, Option<Phase>, &Profile) -> Option<Profile>) -> Self {
        let mut all = Vec::new();
        let mut by_scope = [0; Scope::COUNT];
        for kind in TYPES {
            let built_in = Profile::built_in(kind);
            let base = written(kind, None, &built_in).unwrap_or(built_in);
            // At most sixteen are ever pushed.
            let base_at = all.len() as u8;
            all.push(base.clone());
            by_scope[Scope::of(kind, None).index()] = base_at;
            for phase in PHASES {
                by_scope[Scope::of(kind, Some(phase)).index()] = match written(kind, Some(phase), &base) {
                    Some(profile) => {
                        all.push(profile);
                        all.len() as u8 - 1
                    }
                    None => base_at,
                };
            }
        }
        Self { all, by_scope }
    }

    /// The same profiles, each kind of session with the thresholds that `params` has for it, where it has any.
    #[must_use]
    pub fn with_params(&self, params: impl Fn(SessionType, Option<Phase>) -> Option<Params>) -> Self {
        let (mut all, mut by_scope) = (Vec::with_capacity(Scope::COUNT), [0; Scope::COUNT]);
        for kind in TYPES {
            for phase in std::iter::once(None).chain(PHASES.map(Some)) {
                let mut profile = self.of(kind, phase).clone();
                profile.params = params(kind, phase).unwrap_or(profile.params);
                // Sixteen are pushed.
                by_scope[Scope::of(kind, phase).index()] = all.len() as u8;
                all.push(profile);
            }
        }
        Self { all, by_scope }
    }

    /// The profile of a session.
    pub fn of(&self, kind: SessionType, phase: Option<Phase>) -> &Profile {
        // Every scope was given the index of a profile that was pushed.
        &self.all[self.by_scope[Scope::of(kind, phase).index()] as usize]
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = &Profile> {
        self.all.iter()
    }
}

impl Default for Profiles {
    fn default() -> Self {
        Self::build(|_, _, _| None)
    }
}
