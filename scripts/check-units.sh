#!/bin/sh
# The gate on the systemd units: they are understood, and each is as narrow as it says. Starts nothing.
set -eu
cd "$(dirname "$0")/../deploy/systemd"

if ! command -v systemd-analyze >/dev/null 2>&1; then
    echo "check-units: systemd-analyze is not installed: scripts/setup.sh" >&2
    exit 1
fi

# Exposure at most, in tenths (systemd-analyze security: 0 is best, 100 worst). What is left over stands in each unit.
security() { # security UNIT TENTHS
    report="$(systemd-analyze security --offline=true --no-pager --threshold="$2" "./$1")" || {
        printf '%s\n' "$report" | grep -v '^✓' >&2
        echo "check-units: $1 is above $2 tenths" >&2
        exit 1
    }
    printf '%s\n' "$report" | sed -n 's/^→ /check-units: /p'
}
security staunch.service 15
security staunch-enforcer.service 20
security staunch-lockdown.service 30
security staunch-lockdown-again.service 15
security staunch-lockdown-stays.service 15

# Unknown directives and sections are told by `verify`, which ends with success all the same where they are only ignored:
# so nothing may be said. The binary need not be installed here.
copy="$(mktemp -d)"
trap 'rm -rf "$copy"' EXIT
for unit in *.service *.socket; do
    sed 's,/usr/bin/staunch,/bin/true,g' "$unit" >"$copy/$unit"
done
said="$(SYSTEMD_UNIT_PATH="$copy:" systemd-analyze verify --man=no "$copy"/*.service "$copy"/*.socket 2>&1)" || true
if [ -n "$said" ]; then
    printf '%s\n' "$said" >&2
    exit 1
fi
echo "check-units: all units are understood"
