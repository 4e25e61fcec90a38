//! `staunch evaluate`: files and options in, a report out.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context as _;

use crate::config::{self, ConfigError, Environment};
use crate::daemon::build;
use crate::evaluate::corpus::Corpus;
use crate::evaluate::replay::Settings;
use crate::evaluate::true_bits::TrueBits;
use crate::evaluate::{self, Options, Report, plot};
use crate::lists::RuleSet;
use crate::model::{Mode, SessionType};
use crate::pipeline::Live;
use crate::policy::UnknownSource;

/// The words of the verb.
#[derive(Debug, clap::Args)]
pub struct Words {
    /// Labelled logs, or directories of them: JSON lines, plain or gzip.
    #[arg(required = true, value_name = "CORPUS")]
    corpus: Vec<PathBuf>,
    /// Judge by this policy, applied whatever its mode [default: the built-in one].
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Compare with this policy; repeat for more.
    #[arg(long, value_name = "FILE")]
    also: Vec<PathBuf>,
    /// What the sessions are: interactive, batch, scheduled or unannounced.
    #[arg(long = "type", default_value = "interactive", value_parser = kind, value_name = "TYPE")]
    kind: SessionType,
    /// How long an answer stays at hand.
    #[arg(long, default_value_t = evaluate::DEFAULT_FLOOR.as_secs(), value_name = "SECONDS")]
    floor: u64,
    /// What a forwarded query of a scheme truly carries: lines of the form "tool" = bits, TOML or JSON. For other tools
    /// five bits a character of the payload part are counted.
    #[arg(long, value_name = "FILE")]
    true_bits: Option<PathBuf>,
    /// Draw leak against false alarms over thresholds into this SVG file.
    #[arg(long, value_name = "FILE", conflicts_with = "quick")]
    plot: Option<PathBuf>,
    /// The policy as it is, without leaving out signals and moving thresholds.
    #[arg(long)]
    quick: bool,
}

/// Why there is no report.
pub enum Failure {
    /// A configuration does not load.
    Config(Vec<ConfigError>),
    /// Anything else.
    Other(anyhow::Error),
}

impl<E: Into<anyhow::Error>> From<E> for Failure {
    fn from(error: E) -> Self {
        Self::Other(error.into())
    }
}

/// Reads, replays, draws.
pub fn run(words: Words) -> Result<Report, Failure> {
    let true_bits = words.true_bits.as_deref().map(TrueBits::read).transpose()?.unwrap_or_default();
    let mut policy = policy(words.config.as_deref())?;
    let mut others = Vec::new();
    if let Some(without) = without_packs(words.config.as_deref())? {
        others.push(("the same policy without packs".into(), without));
    }
    for file in &words.also {
        others.push((file.display().to_string(), self::policy(Some(file))?));
    }
    let corpus = Corpus::read(&words.corpus)?;
    let settings = Settings { kind: words.kind, floor: Duration::from_secs(words.floor) };
    let options =
        Options { config: words.config.as_ref().map(|file| file.display().to_string()), quick: words.quick, true_bits };
    let report = evaluate::run(&corpus, &mut policy, &mut others, settings, &options)?;
    if let Some(file) = &words.plot {
        let drawn = plot::leak_against_false_alarms(&report.sweep);
        std::fs::write(file, drawn).with_context(|| format!("{}: cannot be written", file.display()))?;
    }
    Ok(report)
}

/// A configuration for judging; without a file the built-in one, enforced, with a profile for sources that nobody
/// announced.
fn policy(file: Option<&Path>) -> Result<Live, Failure> {
    // The same keys of fingerprints in every run, so that two runs agree to the last figure.
    let environment = Environment { entropy: *b"the same keys every time", checking: true, ..Environment::system() };
    let loaded = match file {
        Some(file) => {
            let (loaded, warnings) = config::load_in(file, &environment).map_err(Failure::Config)?;
            warnings.iter().for_each(|warning| eprintln!("warning: {warning}"));
            loaded
        }
        None => {
            let mut loaded = config::defaults_in(&environment);
            loaded.policy.mode = Mode::Enforce;
            loaded.policy.unknown_source = UnknownSource::Profile;
            loaded
        }
    };
    Ok(build::judged_by(loaded)?)
}

/// The same configuration with its packs switched off; `None` where it has none.
fn without_packs(file: Option<&Path>) -> Result<Option<Live>, Failure> {
    let mut live = policy(file)?;
    let lists = &mut live.policy.lists;
    if lists.packs.rules().is_empty() {
        return Ok(None);
    }
    lists.packs = RuleSet::compile(Vec::new(), *lists.rules.key());
    Ok(Some(live))
}

fn kind(text: &str) -> Result<SessionType, String> {
    match text {
        "unannounced" => Ok(SessionType::Unannounced),
        other => {
            super::args::session_type(other).map_err(|_| "use interactive, batch, scheduled or unannounced".into())
        }
    }
}
