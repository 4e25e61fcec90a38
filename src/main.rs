//! The `staunch` binary.

use clap::Parser;

fn main() -> std::process::ExitCode {
    let exit = staunch::cli::run(staunch::cli::Args::parse());
    std::process::ExitCode::from(exit as u8)
}
