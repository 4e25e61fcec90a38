//! The `staunch` binary.

use clap::Parser;

fn main() -> std::process::ExitCode {
    #[cfg(target_env = "musl")]
    allocator::give_back();
    let exit = staunch::cli::run(staunch::cli::Args::parse());
    std::process::ExitCode::from(exit as u8)
}

/// What a question needs is often taken by one thread and given back by another: the listener's, the slow path's, the journal's.
/// musl's allocator has one lock for all of them.
#[cfg(target_env = "musl")]
mod allocator {
    #[global_allocator]
    static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

    /// `mi_option_purge_delay`, which the bindings do not name.
    const PURGE_DELAY: libmimalloc_sys::mi_option_t = 15;

    /// Has what is not used given back at once, unless `MIMALLOC_PURGE_DELAY` says otherwise: an idle process frees nothing more,
    /// by which the allocator would be reminded of what only the start has needed.
    pub(super) fn give_back() {
        // SAFETY: the option exists, and there is no other thread yet.
        unsafe { libmimalloc_sys::mi_option_set_default(PURGE_DELAY, 0) };
    }
}
