//! The `staunch` binary.

use clap::Parser;

/// What a question needs is often taken by one thread and given back by another: the listener's, the slow path's, the
/// journal's. The allocators of C libraries pay for that with locks; musl's, which the container image would have, with one
/// for all threads.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// `mi_option_purge_delay`, which the bindings do not name.
const PURGE_DELAY: libmimalloc_sys::mi_option_t = 15;

fn main() -> std::process::ExitCode {
    // What is not used goes back at once. Otherwise what only the start has needed stays: an idle process frees nothing more, and
    // it is by that that the allocator is reminded. `MIMALLOC_PURGE_DELAY` says otherwise.
    // SAFETY: the option exists, and there is no other thread yet.
    unsafe { libmimalloc_sys::mi_option_set_default(PURGE_DELAY, 0) };
    let exit = staunch::cli::run(staunch::cli::Args::parse());
    std::process::ExitCode::from(exit as u8)
}

#[cfg(test)]
mod tests {
    use super::PURGE_DELAY;

    #[test]
    fn the_option_is_the_one_that_is_meant() {
        // SAFETY: nothing but a look at a number.
        let milliseconds = unsafe { libmimalloc_sys::mi_option_get(PURGE_DELAY) };
        assert_eq!(milliseconds, 1000, "what it is unless it is set");
    }
}
