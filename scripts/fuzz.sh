#!/bin/sh
# Runs each fuzz target for a bounded time, from its seeds and from what earlier runs have gathered in fuzz/corpus.
#
#     fuzz.sh [SECONDS [TARGET...]]
#
# Ends at the first input that does not hold, and says where it lies: put it into harness/seeds/TARGET under a name that says
# what it was, and from then on every test run goes through it.
set -eu
cd "$(dirname "$0")/.."

seconds="${1:-30}"
[ $# -eq 0 ] || shift
cargo="${CARGO:-cargo}"
if ! "$cargo" fuzz --version >/dev/null 2>&1; then
    echo "fuzz: cargo-fuzz is installed first"
    "$cargo" install --locked --quiet cargo-fuzz
fi
# shellcheck disable=SC2046 # a list of words
[ $# -gt 0 ] || set -- $("$cargo" fuzz list --fuzz-dir fuzz)
log="$(mktemp)"
trap 'rm -f "$log"' EXIT
# Said, because it takes minutes from nothing.
echo "fuzz: the targets are built"
if ! "$cargo" fuzz build --fuzz-dir fuzz --sanitizer none >"$log" 2>&1; then
    tail -n 40 "$log"
    exit 1
fi

for target in "$@"; do
    # The largest that is of use there: a message, a file of some hundred lines.
    case "$target" in
    query) most=600 ;;
    answer | tree | frames) most=4096 ;;
    journal) most=64 ;;
    *) most=2048 ;;
    esac
    mkdir -p "fuzz/corpus/$target"
    # Without a sanitizer a stable toolchain is enough, and there is little unsafe code for one to watch.
    if ! "$cargo" fuzz run --fuzz-dir fuzz --sanitizer none "$target" "fuzz/corpus/$target" "harness/seeds/$target" -- \
        -max_total_time="$seconds" -max_len="$most" -timeout=20 -rss_limit_mb=2048 -print_final_stats=1 >"$log" 2>&1; then
        tail -n 40 "$log"
        echo "fuzz: $target does not hold"
        exit 1
    fi
    runs="$(sed -n 's/^stat::number_of_executed_units: *//p' "$log")"
    printf 'fuzz: %s holds: %s inputs in %s s, %s kept\n' "$target" "$runs" "$seconds" "$(find "fuzz/corpus/$target" -type f | wc -l)"
done
