#!/usr/bin/env bash
# Starts Staunch for the steps that follow, as an ordinary user with one capability; points resolv.conf at it; refuses
# questions to other servers. Run as root; stop.sh undoes it.
set -euo pipefail

fail() {
    echo "::error::staunch: $*" >&2
    exit 1
}

binary="${STAUNCH_BINARY:?the path of the binary}"
mode="${STAUNCH_MODE:-monitor}"
address="${STAUNCH_ADDRESS:-127.0.0.1}"
resolv="${STAUNCH_RESOLV_CONF:-/etc/resolv.conf}"
dir="${STAUNCH_DIR:-/var/lib/staunch-runner}"
user=65532 # nobody else's: the lock lets this user alone ask upstreams

case "$mode" in
monitor | enforce) ;;
*) fail "mode is monitor or enforce, not '$mode'" ;;
esac
[ "$(id -u)" = 0 ] || fail "needs root: sudo is what the action calls it with"
[ -x "$binary" ] || fail "'$binary' is not an executable file"
# shellcheck source=deploy/github-action/common.sh
. "$(dirname "$0")/common.sh"
! runs || fail "it runs already, see $dir"
# One that was killed, or went with a reboot, left its traces: what it replaced is what stands here.
put_back
rm -f "$dir/pid"
nft delete table inet staunch_runner 2>/dev/null || true

upstream="${STAUNCH_UPSTREAM:-}"
if [ -z "$upstream" ]; then
    # The stub of systemd-resolved names its own servers elsewhere.
    source="$resolv"
    if grep -qs '^nameserver 127\.0\.0\.53' "$resolv" && [ -r /run/systemd/resolve/resolv.conf ]; then
        source=/run/systemd/resolve/resolv.conf
    fi
    upstream="$(awk '$1 == "nameserver" { printf "%s%s", sep, $2; sep = "," }' "$source")"
fi
[ -n "$upstream" ] || fail "no upstream is known; give one with \`upstream\`"
# A resolver on the runner would be kept from asking anybody. Docker's, 127.0.0.11, asks from elsewhere.
if [ "${STAUNCH_LOCK:-true}" = true ] && printf '%s' "$upstream" | tr -d '[:space:]' | tr ',' '\n' |
    grep -Evx '127\.0\.0\.11(:53)?' | grep -Eq '^(127\.|\[?::1(\]|$))'; then
    fail "upstream $upstream is on this runner, and the lock would let it ask nobody; give the servers behind it with \`upstream\`," \
        "or \`lock: false\`"
fi
servers="$(printf '%s' "$upstream" | awk -v RS=, '{ gsub(/[[:space:]"\\]/, ""); printf "%s\"%s\"", sep, $0; sep = ", " }')"

install -d -m 0755 "$dir"
# Of an earlier run: its events would be taken for this one's, and the session would begin with what that one's has spent, or
# closed.
rm -rf "$dir/events" "$dir/state"
install -d -m 0700 -o "$user" -g "$user" "$dir/state"
# The steps run as users that may not write here: what they ask for is refused by what stands here.
install -m 0755 "$binary" "$dir/staunch"
{
    cat <<EOC
version = 1
[server]
listen = ["$address:53"]
metrics = "off"
[policy]
mode = "$mode"
[upstream]
servers = [$servers]
[enforce]
backend = "$([ "$mode" = enforce ] && echo dry-run || echo off)"
[[session]]
id = "job"
addresses = ["$address"]
type = "batch"
phase = "build"
EOC
    if [ -n "${STAUNCH_RULES:-}" ]; then cat "$STAUNCH_RULES"; fi
} >"$dir/staunch.toml"
"$dir/staunch" check "$dir/staunch.toml" || fail "the configuration does not load, see above"

# One capability, for port 53, and none to be had.
setpriv --reuid "$user" --regid "$user" --clear-groups --no-new-privs \
    --bounding-set -all,+net_bind_service --inh-caps -all,+net_bind_service --ambient-caps -all,+net_bind_service \
    "$dir/staunch" serve --config "$dir/staunch.toml" --state-dir "$dir/state" </dev/null >"$dir/log" 2>&1 &
pid=$!
undo() {
    kill "$pid" 2>/dev/null || true
    rm -f "$dir/pid"
    tail -n 20 "$dir/log" >&2
    fail "$1"
}
for _ in $(seq 150); do
    kill -0 "$pid" 2>/dev/null || undo "it did not become ready"
    if "$dir/staunch" --socket "$dir/state/admin.sock" healthcheck --address "$address:53" >/dev/null 2>&1; then
        ready=yes
        break
    fi
    sleep 0.2
done
[ "${ready:-}" = yes ] || undo "it did not become ready"
echo "$pid" >"$dir/pid"

# First what may fail: resolv.conf is still the runner's own then.
if [ "${STAUNCH_LOCK:-true}" = true ]; then
    nft -f - <<EOC || undo "questions to other servers cannot be refused, see nft's words above; \`lock: false\` goes without"
table inet staunch_runner
delete table inet staunch_runner
table inet staunch_runner {
    chain ask {
        meta skuid $user accept
        meta l4proto tcp reject with tcp reset
        reject with icmpx admin-prohibited
    }
    # From this host, and from containers behind it.
    chain output {
        type filter hook output priority filter - 1; policy accept;
        ip daddr $address udp dport 53 accept
        ip daddr $address tcp dport 53 accept
        meta l4proto { tcp, udp } th dport { 53, 853, 5353, 5355 } jump ask
    }
    chain forward {
        type filter hook forward priority filter - 1; policy accept;
        meta l4proto { tcp, udp } th dport { 53, 853, 5353, 5355 } jump ask
    }
}
EOC
fi

# Where the lock stands and resolv.conf still names another server, nobody could ask anything.
trap '{ nft delete table inet staunch_runner; put_back; } 2>/dev/null || true; undo "$resolv cannot be replaced"' ERR
cat /proc/sys/kernel/random/boot_id >"$dir/boot"
# What stood there comes back with stop.sh. A link is replaced, or systemd-resolved would write to what it points at.
printf '%s\n' "$resolv" >"$dir/resolv.path"
if [ -L "$resolv" ]; then
    readlink "$resolv" >"$dir/resolv.link"
    rm "$resolv"
else
    cp "$resolv" "$dir/resolv.conf"
fi
printf 'nameserver %s\noptions edns0\n' "$address" | tee "$dir/resolv.ours" >"$resolv"
trap - ERR

[ -z "${GITHUB_OUTPUT:-}" ] || echo "events=$dir/events" >>"$GITHUB_OUTPUT"
echo "staunch: names are judged in $mode mode (process $pid, $dir)"
