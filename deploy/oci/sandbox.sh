#!/bin/sh
# Runs one job in a sandbox of its own: an OCI runtime (crun, runc) or podman, a network namespace with one link to this host, a
# resolv.conf that names Staunch, no capability. Announces the session before the job starts and ends it behind it.
#
#     sandbox.sh ID ADDRESS ROOTFS JOB
#
# ID        session and container; letters, digits and `-`, at most 11 of them (it names the link, too)
# ADDRESS   IPv4 address of the sandbox, its own and nobody else's
# ROOTFS    directory with an unpacked image; it is not written to
# JOB       shell script that is run inside by /bin/sh
#
# Once on the host, before any sandbox: `staunch serve` with `interfaces = ["st-*"]`, and
#
#     staunch lockdown apply --interfaces 'st-*' --resolver GATEWAY:53
#
# Every sandbox hangs on a link of its own with one address behind it, so that no source can be forged and no neighbour
# reached; that rule holds for links that are made later.
set -eu

[ $# -eq 4 ] || { sed -n '2,/^set/s/^# \{0,1\}//p' "$0" >&2; exit 2; }
id="$1" address="$2" rootfs="$(cd "$3" && pwd)" job="$4"

gateway="${GATEWAY:-10.77.0.1}"          # where Staunch listens, an address of this host
runtime="${RUNTIME:-crun}"              # crun, runc, podman
runtime_options="${RUNTIME_OPTIONS:-}"   # such as --cgroup-manager=disabled
staunch="${STAUNCH:-staunch}"
kind="${KIND:-batch}"                    # interactive, batch, scheduled
owner="${OWNER:-nobody}"
template="${TEMPLATE:-$(dirname "$0")/config.json}"
prefix="${NETNS_PREFIX:-staunch-}"

case "$id" in
*[!A-Za-z0-9-]* | "" | ????????????*) echo "sandbox: ID is 1 to 11 letters, digits and -" >&2; exit 2 ;;
esac
netns="$prefix$id" link="st-$id"
# The claim on the ID, before the traps: what a running sandbox of the same ID has is not ours to remove.
ip netns add "$netns" || { echo "sandbox: no namespace for '$id', see above; one that runs is left alone" >&2; exit 1; }
bundle="$(mktemp -d)"

# shellcheck disable=SC2086,SC2317 # a list of words; called by the traps
cleanup() {
    trap - EXIT INT TERM
    # It may not have come as far as a container that can be removed.
    [ -z "${run:-}" ] || kill "$run" 2>/dev/null || true
    if [ "$(basename "$runtime")" = podman ]; then
        $runtime rm --force --ignore "$id" >/dev/null 2>&1 || true
    else
        $runtime $runtime_options delete --force "$id" 2>/dev/null || true
    fi
    # By itself the link would go some time after its namespace.
    [ -z "${linked:-}" ] || ip link del "$link" 2>/dev/null || true
    ip netns del "$netns" 2>/dev/null || true
    # Behind the container: whatever still ran had its session to the end.
    if [ "${announced:-}" = yes ] && [ -z "${KEEP_SESSION:-}" ]; then
        "$staunch" session end "$id" >/dev/null || true
    fi
    rm -rf "$bundle"
}
trap cleanup EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

ip link add "$link" type veth peer name eth0 netns "$netns"
linked=yes
# One address on either side; nothing but the gateway is on the link.
echo 1 >"/proc/sys/net/ipv6/conf/$link/disable_ipv6" 2>/dev/null || true
ip link set "$link" up
ip route add "$address/32" dev "$link" ||
    { echo "sandbox: $address is not led to '$id', see above; an address has one sandbox" >&2; exit 1; }
ip netns exec "$netns" sh -euc '
    echo 1 >/proc/sys/net/ipv6/conf/all/disable_ipv6 2>/dev/null || true
    ip link set lo up
    ip addr add "$1/32" dev eth0
    ip link set eth0 up
    ip route add "$2/32" dev eth0
    ip route add default via "$2" dev eth0
' sh "$address" "$gateway"
# The link has no address of its own: it answers for the gateway, and asks as the gateway.
ip addr add "$gateway/32" dev "$link" 2>/dev/null || true

"$staunch" session announce "$id" --address "$address" --type "$kind" --owner "$owner" >/dev/null
announced=yes

printf 'nameserver %s\noptions edns0\n' "$gateway" >"$bundle/resolv.conf"
cp "$job" "$bundle/job"
chmod 0755 "$bundle"
chmod 0644 "$bundle/resolv.conf" "$bundle/job"
sed -e "s,@ROOTFS@,$rootfs,g" -e "s,@BUNDLE@,$bundle,g" -e "s,@NETNS@,$netns,g" "$template" >"$bundle/config.json"

# Not in the foreground: there a shell acts on a signal only when the job is over.
if [ "$(basename "$runtime")" = podman ]; then
    # ROOTFS and JOB as above; the engine adds nothing to them but the network namespace and what is given here.
    # shellcheck disable=SC2086 # a list of words
    $runtime run --rm --name "$id" --network "ns:/run/netns/$netns" --user 1000:1000 --read-only --cap-drop all \
        --security-opt no-new-privileges --pids-limit 0 --tmpfs /tmp:rw,nosuid,nodev,size=64m \
        --volume "$bundle/resolv.conf:/etc/resolv.conf:ro" --volume "$bundle/job:/job:ro" \
        $runtime_options --rootfs "$rootfs" /bin/sh /job </dev/null &
else
    # shellcheck disable=SC2086 # a list of words
    $runtime $runtime_options run --bundle "$bundle" "$id" </dev/null &
fi
run=$! status=0
wait "$run" || status=$?
run=""
exit "$status"
