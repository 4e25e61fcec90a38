#!/bin/sh
# Installs what the tests and the demo run: packet filter, namespaces, real tunnel tools, stock clients.
# Debian and its kin; does nothing where everything is there, and says what is missing where it may not install.
set -eu

PATH="$PATH:/usr/sbin:/sbin"
missing=""
need() { # need COMMAND PACKAGE
    command -v "$1" >/dev/null 2>&1 || missing="$missing $2"
}
need nft nftables
need ip iproute2
need iodine iodine
need ifconfig net-tools # iodine calls it
need dns2tcpc dns2tcp
need dns2tcpd dns2tcp
need conntrack conntrack
need dig dnsutils
need nsupdate dnsutils
need curl curl
need python3 python3
need node nodejs
need go golang-go
need busybox busybox-static
need musl-gcc musl-tools
need cc gcc
need c++ g++ # libFuzzer
need valgrind valgrind
need dnsmasq dnsmasq-base # a peer of the benchmark of leases
need systemd-analyze systemd # the gate on units, and the systemd that the tests boot for themselves
need crun crun
need shellcheck shellcheck
need setcap libcap2-bin
need strace strace # system calls that fail
need faketime faketime # a wall clock that is set
need setpriv util-linux
need unbound unbound
need named bind9
need dnssec-signzone bind9-utils

# shellcheck disable=SC2086,SC2046 # a list of words
set -- $(printf '%s\n' $missing | sort -u)
[ $# -gt 0 ] || exit 0

if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null 2>&1; then
    echo "setup: not installed: $*" >&2
    echo "setup: as root on Debian: apt-get install $*" >&2
    exit 0 # what needs them is skipped and says so
fi
echo "setup: installing $*"
export DEBIAN_FRONTEND=noninteractive
# No server that comes with a package may start by itself: they want port 53.
policy=/usr/sbin/policy-rc.d
if [ ! -e "$policy" ]; then
    trap 'rm -f "$policy"' EXIT
    printf '#!/bin/sh\nexit 101\n' >"$policy"
    chmod 755 "$policy"
fi
apt-get update -qq
apt-get install -y -qq --no-install-recommends "$@" >/dev/null
