#!/bin/sh
# Installs the peers and their load generator; does nothing where they are there.
set -eu
PATH="$PATH:/usr/sbin:/sbin"
missing=""
need() { # need COMMAND PACKAGE
    command -v "$1" >/dev/null 2>&1 || missing="$missing $2"
}
need dnsperf dnsperf
need unbound unbound
need dnsdist dnsdist
need pdns_recursor pdns-recursor
need kresd knot-resolver
need named bind9
need dnsmasq dnsmasq-base
need knotd knot
need nft nftables
need ip iproute2
# shellcheck disable=SC2086 # a list of words
set -- $missing
[ $# -gt 0 ] || exit 0
if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null 2>&1; then
    echo "peers: not installed: $*; as root on Debian: apt-get install $*" >&2
    exit 0 # a peer that is not there is left out, and the run says so
fi
# No server that comes with a package may start by itself: they want port 53.
policy=/usr/sbin/policy-rc.d
if [ ! -e "$policy" ]; then
    trap 'rm -f "$policy"' EXIT
    printf '#!/bin/sh\nexit 101\n' >"$policy"
    chmod 755 "$policy"
fi
export DEBIAN_FRONTEND=noninteractive
apt-get update -qq
apt-get install -y -qq --no-install-recommends "$@" >/dev/null
