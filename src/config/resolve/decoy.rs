//! When a random sibling is asked in place of a suspicious name.

use staunch_scoring::Bits;

use super::Context;
use crate::config::document::Path;
use crate::decoy::Config;

impl Context<'_, '_> {
    pub(super) fn decoy(&mut self) -> Config {
        let section = Path::of("decoy");
        let decoy = self.spec.decoy.clone();
        Config {
            enabled: decoy.enabled,
            score: self.within(&section, "score", decoy.score, 0.0, 12.0) as f32,
            bits: Bits::ceil_from(self.within(&section, "bits", decoy.bits, 1.0, 2048.0)),
            parent_bits: Bits::ceil_from(self.within(&section, "parent_bits", decoy.parent_bits, 0.0, 256.0)),
            per_session_hour: self.within(&section, "per_session_hour", decoy.per_session_hour, 1, 1024),
        }
    }
}
