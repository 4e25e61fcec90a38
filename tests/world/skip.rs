//! A test that cannot do its work on this machine says so where everybody reads it.

#![allow(dead_code, reason = "each test program uses a part")]

use std::io::Write;

/// Says why. Past the test runner, which keeps to itself what a test has printed that passes.
pub fn skipped(why: impl std::fmt::Display) {
    let thread = std::thread::current();
    let _ = writeln!(std::io::stderr(), "SKIPPED: {}: {why}", thread.name().unwrap_or("a test"));
}

/// The same for what every machine has that is to run all of them: there it is a failure (`STAUNCH_REQUIRE_PRIVILEGE=1`).
pub fn lacking(what: impl std::fmt::Display) {
    assert!(std::env::var("STAUNCH_REQUIRE_PRIVILEGE").as_deref() != Ok("1"), "required here: {what}");
    skipped(what);
}
