#!/bin/sh
# Builds the static binary that the container image holds, for the tests that run it. Says where it cannot be built.
set -eu
cd "$(dirname "$0")/.."

target="$(uname -m)-unknown-linux-musl"
# One of an earlier tree would be tested in place of this one.
rm -f "${CARGO_TARGET_DIR:-target}/$target/debug/staunch"
if ! said="$(rustup target add "$target" 2>&1)"; then
    echo "SKIPPED: no standard library for $target: $(printf '%s\n' "$said" | tail -n 1)"
    exit 0
fi
if ! command -v musl-gcc >/dev/null 2>&1; then
    echo "SKIPPED: musl-gcc is not installed: scripts/setup.sh"
    exit 0
fi
"${CARGO:-cargo}" build --locked --target "$target" --bin staunch
