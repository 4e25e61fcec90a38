//! Learned thresholds: when they apply, how rare a false alarm is to be, and how far they may move.

use staunch_scoring::Params;

use super::Context;
use super::sessions::profile_name;
use crate::config::document::Path;
use crate::learn::{Config, Place, Source, WIDEST};
use crate::lists::ScopeSet;

impl Context<'_, '_> {
    pub(super) fn learn(&mut self) -> Config {
        let (section, spec, built_in) = (Path::of("learn"), &self.spec.learn, Config::default());
        let shipped = f64::from(Params::default().sinkhole);
        let (below, above) = (f64::from(WIDEST.0), f64::from(WIDEST.1));
        let sinkhole_min = self.within(&section, "sinkhole_min", spec.sinkhole_min, shipped - below, shipped);
        let sinkhole_max = self.within(&section, "sinkhole_max", spec.sinkhole_max, shipped, shipped + above);
        let min_sessions = self.within(&section, "min_sessions", spec.min_sessions, 1, 1 << 32);
        let min_pairs = self.within(&section, "min_pairs", spec.min_pairs, 1, 1 << 32);
        let smaller =
            [("min_sessions", min_sessions, built_in.min_sessions), ("min_pairs", min_pairs, built_in.min_pairs)];
        for (field, written, usual) in smaller {
            if spec.thresholds == Source::Learned && written < usual {
                self.problems.warn(
                    &section.key(field),
                    format!("thresholds are learned from as little as {written}"),
                    format!("with fewer than {usual} a single session weighs much; leave it out to have that"),
                );
            }
        }
        if spec.types.as_ref().is_some_and(Vec::is_empty) {
            let remedy = "name at least one type, leave it out to have all, or write thresholds = \"off\"";
            self.problems.error(&section.key("types"), "no type is named", remedy);
        }
        Config {
            thresholds: spec.thresholds,
            types: spec.types.clone().unwrap_or(built_in.types),
            min_sessions,
            min_pairs,
            pairs_per_alarm: self.within(&section, "pairs_per_alarm", spec.pairs_per_alarm, 100, 1 << 32),
            pairs_per_watch: self.within(&section, "pairs_per_watch", spec.pairs_per_watch, 2, 1 << 32),
            sinkhole_min: sinkhole_min as f32,
            sinkhole_max: sinkhole_max as f32,
            written: self.written_thresholds(),
            place: Place {
                file: self.problems.file().to_owned(),
                line: self.problems.line(&section.key("thresholds")),
            },
        }
    }

    /// Profiles for which a threshold stands in the file, for the type or for the phase.
    fn written_thresholds(&self) -> ScopeSet {
        let names = self
            .spec
            .profile
            .iter()
            .filter(|(_, profile)| profile.params.watch.is_some() || profile.params.sinkhole.is_some());
        // A name that is none is told where profiles are read.
        names
            .filter_map(|(name, _)| profile_name(name))
            .fold(ScopeSet::NONE, |set, (kind, phase)| set.with(kind, phase))
    }
}
