//! Configuration: one TOML file becomes the settings of every stage, or a list of all its mistakes.
//!
//! Knows the stages; no stage knows it. [`spec`] is the file as written, [`document`] knows where each field stands,
//! [`resolve`] checks and settles, [`Loaded`] is what is in force. Reads files (its own, lists, zones, keys) and, once,
//! the system's resolv.conf; opens no socket and changes nothing but, where it is told to, the compiled tables of lists.
//! Loading runs aside and returns a whole: a reload swaps it in, a mistake leaves the old one in force.

mod document;
mod loaded;
mod problem;
mod resolve;
pub mod spec;

use std::hash::BuildHasher;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

pub use loaded::{
    Admin, Age, AlertSink, AlertSinkKind, AllowRange, Answer, Dnssec, Endpoint, Events, ListReport, Loaded,
    LockdownBasis, LoopbackZone, PackReport, Pins, Policy, Secret, Server, Sinkhole, SinkholeAction, SyslogTarget,
    Upstream,
};
pub use problem::{ConfigError, Warning};
pub use resolve::{OpenList, OpenLists};

use document::Document;
use problem::Problems;

/// Largest configuration file, octets.
const MAX_FILE_OCTETS: u64 = 16 << 20;

/// What a configuration is read against, so that reading can be repeated.
#[derive(Debug, Clone)]
pub struct Environment {
    /// Text of the system's resolv.conf, if there is one.
    pub resolv_conf: Option<String>,
    /// Directory for state, without our own name.
    pub state_home: PathBuf,
    /// The state directory itself, where the command line names one: goes before everything else.
    pub state_dir: Option<PathBuf>,
    /// Milliseconds since the Unix epoch: what "expired" is measured by.
    pub wall: u64,
    /// Keys the fingerprints of lists, unless compiled tables are kept, which have a key of their own.
    pub entropy: [u8; 24],
    /// Whether compiled tables of lists are kept in the state directory, and found there again.
    pub keep_tables: bool,
    /// Whether the file is only looked at: what another machine or the service's unit alone may have (a group, credentials) is
    /// then told of and not refused.
    pub checking: bool,
}

/// Where state lies when nobody says otherwise: `staunch` in the XDG state directory.
pub fn default_state_dir() -> PathBuf {
    Environment::system().state_home.join("staunch")
}

impl Environment {
    /// This machine, now.
    pub fn system() -> Self {
        let variable = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
        let state_home = variable("XDG_STATE_HOME")
            // The base directory specification says that a relative one is to be ignored.
            .filter(|path| path.is_absolute())
            .or_else(|| variable("HOME").map(|home| home.join(".local/state")))
            .unwrap_or_else(|| PathBuf::from("/var/lib"));
        let wall = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64);
        // The standard library's hasher is keyed by the system's randomness.
        let hasher = std::hash::RandomState::new();
        let mut entropy = [0; 24];
        for (i, word) in entropy.chunks_exact_mut(8).enumerate() {
            word.copy_from_slice(&hasher.hash_one(i).to_le_bytes());
        }
        Self {
            resolv_conf: std::fs::read_to_string("/etc/resolv.conf").ok(),
            state_home,
            state_dir: None,
            wall,
            entropy,
            keep_tables: false,
            checking: false,
        }
    }
}

/// Reads the configuration at `path` and everything it names.
///
/// # Errors
/// Every mistake that can be told at once, in the order of lines.
pub fn load(path: &Path) -> Result<(Loaded, Vec<Warning>), Vec<ConfigError>> {
    load_in(path, &Environment::system())
}

/// As [`load`], for those who look at a file and do not run by it.
///
/// # Errors
/// As [`load`].
pub fn look_at(path: &Path) -> Result<(Loaded, Vec<Warning>), Vec<ConfigError>> {
    load_in(path, &Environment { checking: true, ..Environment::system() })
}

/// As [`load`], against a given environment.
///
/// # Errors
/// As [`load`].
pub fn load_in(path: &Path, environment: &Environment) -> Result<(Loaded, Vec<Warning>), Vec<ConfigError>> {
    load_text(path, &text_of(path)?, environment)
}

/// Opens the lists of the configuration at `path`, to be read line by line; all else in it is passed over.
///
/// # Errors
/// Where nothing of the configuration can be read.
pub fn open_lists(path: &Path, environment: &Environment) -> Result<OpenLists, Vec<ConfigError>> {
    let (file, text) = (path.display().to_string(), text_of(path)?);
    let document = Document::parse(&file, &text).map_err(|error| vec![error])?;
    let mut problems = Problems::new(&file, Some(&document));
    let spec = document.decode(&mut problems);
    let (ids, open) = resolve::open_lists(&spec, path, environment, &mut problems);
    let (mut unread, _) = problems.into_parts();
    unread.retain(|error| error.field.is_empty() || error.field.starts_with("list"));
    Ok(OpenLists { ids, open, unread })
}

/// Reads of the configuration at `path` what the enforcer runs by, and nothing that it names; `socket` goes before the file's.
///
/// # Errors
/// As [`load`], of what is read.
pub fn load_enforcer(
    path: &Path,
    socket: Option<PathBuf>,
) -> Result<(crate::enforce::remote::Settings, Vec<Warning>), Vec<ConfigError>> {
    let (file, text) = (path.display().to_string(), text_of(path)?);
    let document = Document::parse(&file, &text).map_err(|error| vec![error])?;
    let mut problems = Problems::new(&file, Some(&document));
    let spec = document.decode(&mut problems);
    let settings = resolve::enforcer(&spec, path, socket, &Environment::system(), &mut problems);
    let (mut errors, mut warnings) = problems.into_parts();
    // A rule that does not load must not keep the enforcer from coming back to a resolver that runs by the file before.
    let concerns = |field: &str| ["", "version", "enforce", "policy"].contains(&field.split('.').next().unwrap_or(""));
    errors.retain(|error| concerns(&error.field));
    warnings.retain(|warning| concerns(&warning.field));
    if errors.is_empty() { Ok((settings, warnings)) } else { Err(errors) }
}

/// Reads of the configuration at `path` what the lockdown is made from, and nothing that it names: at boot there are no
/// credentials of the service yet, and perhaps no file system with its lists, and what cannot be read must leave nothing open.
///
/// # Errors
/// As [`load`], of what is read. A section that nobody knows is a mistake too: it may be a misspelt one of those.
pub fn load_lockdown(path: &Path) -> Result<LockdownBasis, Vec<ConfigError>> {
    let (file, text) = (path.display().to_string(), text_of(path)?);
    let document = Document::parse(&file, &text).map_err(|error| vec![error])?;
    let mut problems = Problems::new(&file, Some(&document));
    let spec = document.decode(&mut problems);
    let basis = resolve::lockdown(&spec, path, &Environment::system(), &mut problems);
    let (mut errors, _) = problems.into_parts();
    let passed_over = |field: &str| {
        let section = field.split(['.', '[']).next().unwrap_or_default();
        let needed = ["version", "server", "policy", "enforce", "session"].contains(&section);
        !needed && document::is_section(section)
    };
    errors.retain(|error| !passed_over(&error.field));
    if errors.is_empty() { Ok(basis) } else { Err(errors) }
}

/// The text of a configuration file.
fn text_of(path: &Path) -> Result<String, Vec<ConfigError>> {
    let unreadable = |problem: String| {
        vec![ConfigError {
            file: path.display().to_string(),
            line: 0,
            field: String::new(),
            problem,
            remedy: "check the path and its permissions".into(),
        }]
    };
    let octets = crate::regular::read(path, MAX_FILE_OCTETS).map_err(|e| unreadable(format!("cannot be read: {e}")))?;
    String::from_utf8(octets).map_err(|error| {
        let valid = error.utf8_error().valid_up_to();
        let line = 1 + error.as_bytes().iter().take(valid).filter(|b| **b == b'\n').count() as u32;
        vec![ConfigError {
            file: path.display().to_string(),
            line,
            field: String::new(),
            problem: "not UTF-8".into(),
            remedy: "save the file as UTF-8".into(),
        }]
    })
}

/// As [`load_in`], with the file's text at hand; `path` names it, and other files are relative to it.
///
/// # Errors
/// As [`load`].
pub fn load_text(
    path: &Path,
    text: &str,
    environment: &Environment,
) -> Result<(Loaded, Vec<Warning>), Vec<ConfigError>> {
    let file = path.display().to_string();
    let document = Document::parse(&file, text).map_err(|error| vec![error])?;
    let mut problems = Problems::new(&file, Some(&document));
    let spec = document.decode(&mut problems);
    let loaded = resolve::resolve(&spec, Some(path), environment, &mut problems);
    let (errors, warnings) = problems.into_parts();
    match loaded {
        Some(loaded) if errors.is_empty() => Ok((Loaded { text: Some(text.into()), ..loaded }, warnings)),
        _ => Err(errors),
    }
}

/// Settings for serving without a file: UDP and TCP on 127.0.0.1:5300, the upstreams of `resolv_conf`, monitor mode,
/// a dry-run of the packet filter, state in the XDG state directory, the shipped lists. What is assumed is in
/// [`Loaded::assumptions`].
pub fn defaults(resolv_conf: &str) -> Loaded {
    defaults_in(&Environment { resolv_conf: Some(resolv_conf.into()), ..Environment::system() })
}

/// As [`defaults`], against a given environment.
pub fn defaults_in(environment: &Environment) -> Loaded {
    let mut problems = Problems::new("", None);
    // Every default is within its limits and the shipped lists read, which a test holds; what the environment can get
    // wrong (no upstream, a long path) becomes an assumption and no mistake.
    let mut loaded = resolve::resolve(&spec::V1::default(), None, environment, &mut problems)
        .expect("defaults are free of mistakes in every environment");
    let listen: Vec<_> = loaded.listen.addresses.iter().map(|address| address.to_string()).collect();
    loaded.assumptions.insert(0, format!("No configuration file: serving UDP and TCP on {}.", listen.join(", ")));
    loaded
}
