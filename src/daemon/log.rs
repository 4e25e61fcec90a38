//! The service's own log, on standard error.
//!
//! Whoever logs waits for nobody: lines go to a thread that writes them. Where nobody reads, or nothing can be written, lines
//! are dropped and counted, and the service goes on.

use std::io::{self, IsTerminal, Write};
use std::sync::OnceLock;

use tracing_appender::non_blocking::{ErrorCounter, NonBlockingBuilder, WorkerGuard};
use tracing_subscriber::EnvFilter;

/// Lines that may wait to be written.
const LINES: usize = 4096;

/// Lines of the libraries that are of use without being asked for.
const USUAL: &str = "info,hickory_server=warn,hickory_proto=warn,hickory_resolver=warn,hickory_net=warn";

static DROPPED: OnceLock<ErrorCounter> = OnceLock::new();

/// Begins to log what `STAUNCH_LOG` asks for; what waits is written, for a second at most, when the guard is dropped. A second
/// start in one process keeps the first one's log.
pub(super) fn start() -> WorkerGuard {
    let filter = EnvFilter::try_from_env("STAUNCH_LOG").unwrap_or_else(|_| EnvFilter::new(USUAL));
    let colours = io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
    let builder = NonBlockingBuilder::default().lossy(true).buffered_lines_limit(LINES).thread_name("log");
    let (writer, guard) = builder.finish(io::stderr());
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
    guard
}

/// Lines that nobody has read in time.
pub(super) fn dropped() -> u64 {
    DROPPED.get().map_or(0, |dropped| dropped.dropped_lines() as u64)
}

/// Says something at the start, in words and not as a line of the log.
pub(super) fn say(text: &dyn std::fmt::Display) {
    // Whether anybody hears it makes no difference.
    let _ = writeln!(io::stderr(), "staunch: {text}");
}
