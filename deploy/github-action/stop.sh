#!/usr/bin/env bash
# Tells what was refused, ends what start.sh started, and puts back what it replaced. Run as root.
set -euo pipefail

dir="${STAUNCH_DIR:-/var/lib/staunch-runner}"
if [ ! -r "$dir/pid" ]; then
    echo "::error::staunch: it does not run (nothing in $dir)" >&2
    exit 1
fi
# shellcheck source=deploy/github-action/common.sh
. "$(dirname "$0")/common.sh"
summary="${GITHUB_STEP_SUMMARY:-/dev/stdout}"

status=0
if ! refused="$("$dir/staunch" --socket "$dir/state/admin.sock" observe --refused --last 200)"; then
    # Somebody has ended it: what came after was not judged, and could not be asked either while the lock stood.
    echo "::error::staunch: it was ended before this step" >&2
    status=1
fi
{
    echo "### Staunch: names refused, or that enforce mode would refuse"
    echo
    if [ "$status" != 0 ]; then
        echo "Not known: the resolver was ended before this step, and what it had refused cannot be asked any more."
    elif [ -n "$refused" ]; then
        # Indented, so that no name is read as markup.
        printf '%s\n' "$refused" | sed 's/^/    /'
    else
        echo "None on record among the newest 1,024 decisions."
    fi
} >>"$summary"

nft delete table inet staunch_runner 2>/dev/null || true
put_back
if runs; then kill "$(cat "$dir/pid")" 2>/dev/null || true; fi
for _ in $(seq 100); do
    runs || break
    sleep 0.1
done
# Copies for a step that uploads them. The state beside them holds the node's key and stays closed, or the next start would
# refuse it.
install -d -m 0755 "$dir/events"
for file in "$dir/log" "$dir/state"/events.jsonl*; do
    if [ -f "$file" ] && [ ! -L "$file" ]; then install -m 0644 "$file" "$dir/events/"; fi
done
rm -f "$dir/pid"
exit "$status"
