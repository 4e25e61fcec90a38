//! A policy zone of primaries, for tests.

use staunch_scoring::NameBuf;

use super::{Primaries, Primary, Source, ZoneConfig};
use crate::model::Ede;
use crate::rpz::{Override, Settings};

/// What is written of primaries at these servers.
pub(super) fn primaries(servers: Vec<Primary>) -> Primaries {
    Primaries { servers, tsig: None, required: false, keep_expired: true, lenient: false, max_octets: 1 << 20 }
}

/// Zone `rpz.test` of these primaries.
pub(super) fn zone(primaries: Primaries) -> ZoneConfig {
    let settings = Settings {
        id: "rpz.test".into(),
        policy: Override::Given,
        log: true,
        trusted: false,
        max_ttl: 60,
        ede: Ede::Blocked,
    };
    let name = NameBuf::from_text("rpz.test").expect("a name");
    ZoneConfig { name, settings, source: Source::Primaries(primaries) }
}
