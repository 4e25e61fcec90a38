//! The service's own log, on standard error.
//!
//! Whoever logs waits for nobody: lines go to a thread that writes them. Where nobody reads, or nothing can be written, lines
//! are dropped and counted, and the service goes on.

use std::ffi::OsStr;
use std::io::{self, IsTerminal, Write};
use std::sync::OnceLock;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;

use tracing_appender::non_blocking::{ErrorCounter, NonBlockingBuilder, WorkerGuard};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::LevelFilter;

/// Lines that may wait to be written.
const LINES: usize = 4096;

/// Lines of the libraries that are of use without being asked for.
const USUAL: &str = "info,hickory_server=warn,hickory_proto=warn,hickory_resolver=warn,hickory_net=warn";

static DROPPED: OnceLock<ErrorCounter> = OnceLock::new();
static UNWRITTEN: AtomicU64 = AtomicU64::new(0);

/// Writes what waits, for a second at most, when it is dropped.
pub(super) struct Guard(Option<WorkerGuard>);

impl Drop for Guard {
    fn drop(&mut self) {
        // To somebody who does not read, the library would say on standard output that it had to give up, and wait.
        if let Some(guard) = self.0.take()
            && dropped() > 0
        {
            Box::leak(Box::new(guard));
        }
    }
}

/// Standard error; what it does not take is counted and is no error.
struct Lines(io::Stderr);

impl Write for Lines {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        if self.0.write_all(line).is_err() {
            UNWRITTEN.fetch_add(1, Relaxed);
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        let _ = self.0.flush();
        Ok(())
    }
}

/// What to log, and what of the variable is not as somebody may have meant it.
fn filter(asked: Option<&OsStr>) -> (EnvFilter, Option<String>) {
    let usual = || EnvFilter::new(USUAL);
    let Some(asked) = asked.filter(|asked| !asked.is_empty()) else { return (usual(), None) };
    let forms = "use off, error, warn, info, debug or trace, or a list such as info,staunch::forward=debug";
    let shown = asked.to_string_lossy().escape_debug().to_string();
    let read = asked.to_str().ok_or_else(|| "it is not UTF-8".to_owned());
    match read.and_then(|text| EnvFilter::try_new(text).map_err(|error| error.to_string())) {
        Err(error) => (usual(), Some(format!("STAUNCH_LOG is ignored, `{shown}` is not understood: {error}; {forms}"))),
        Ok(filter) => {
            let is_level = |word: &str| word.parse::<LevelFilter>().is_ok();
            let is_odd = |word: &&str| !word.contains(['=', '[', ':']) && !word.is_empty() && !is_level(word);
            let words = asked.to_str().unwrap_or_default().split(',').map(str::trim);
            let odd = words.filter(|word| *word != "staunch").find(is_odd);
            let told = odd.map(|word| {
                let word = word.escape_debug();
                format!("STAUNCH_LOG: `{word}` is no level, so it is taken for the name of a module to log; {forms}")
            });
            (filter, told)
        }
    }
}

/// Begins to log what `STAUNCH_LOG` asks for. A second start in one process keeps the first one's log.
pub(super) fn start() -> Guard {
    let (filter, mistaken) = filter(std::env::var_os("STAUNCH_LOG").as_deref());
    if let Some(mistaken) = mistaken {
        // Not as a line of the log, which may be of nothing now.
        say(&format!("warning: {mistaken}"));
    }
    let colours = io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
    let builder = NonBlockingBuilder::default().lossy(true).buffered_lines_limit(LINES).thread_name("log");
    let (writer, guard) = builder.finish(Lines(io::stderr()));
    let dropped = writer.error_counter();
    let begun = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(writer)
        .with_ansi(colours)
        .with_target(false)
        // It would tell of a line that cannot be written by writing a line.
        .log_internal_errors(false)
        .try_init();
    if begun.is_ok() {
        let _ = DROPPED.set(dropped);
    }
    Guard(Some(guard))
}

/// Lines that nobody has read in time, or that could not be written.
pub(super) fn dropped() -> u64 {
    UNWRITTEN.load(Relaxed) + DROPPED.get().map_or(0, |dropped| dropped.dropped_lines() as u64)
}

/// Says something at the start, in words and not as a line of the log.
pub(super) fn say(text: &dyn std::fmt::Display) {
    // Whether anybody hears it makes no difference.
    let _ = writeln!(io::stderr(), "staunch: {text}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_asked_of_the_log_and_not_understood_is_told() {
        for (asked, told) in [
            ("", None),
            ("debug", None),
            ("off", None),
            ("warn,staunch::forward=trace", None),
            ("staunch", None),
            ("debgu", Some("`debgu` is no level")),
            ("staunch=loud", Some("is ignored")),
            ("a=b=c", Some("is ignored")),
        ] {
            let (_, mistaken) = filter(Some(OsStr::new(asked)));
            assert_eq!(mistaken.is_some(), told.is_some(), "{asked}: {mistaken:?}");
            assert!(told.is_none_or(|told| mistaken.is_some_and(|text| text.contains(told))), "{asked}");
        }
        assert_eq!(filter(Some(OsStr::new("nonsense=loud"))).0.to_string(), filter(None).0.to_string());
    }
}
