//! The service's own log, on standard error.
//!
//! Whoever logs waits for nobody: lines go to a thread that writes them. Where nobody reads, or nothing can be written, lines
//! are dropped and counted, and the service goes on.

use std::io::{self, IsTerminal, Write};
use std::sync::OnceLock;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;

use tracing_appender::non_blocking::{ErrorCounter, NonBlockingBuilder, WorkerGuard};
use tracing_subscriber::EnvFilter;

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

/// Begins to log what `STAUNCH_LOG` asks for. A second start in one process keeps the first one's log.
pub(super) fn start() -> Guard {
    let filter = EnvFilter::try_from_env("STAUNCH_LOG").unwrap_or_else(|_| EnvFilter::new(USUAL));
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
