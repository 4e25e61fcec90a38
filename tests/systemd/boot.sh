#!/bin/sh
# Boots a systemd of its own from this machine's programs, with the shipped units and nothing else, and becomes it.
# Run by tests/units.rs in namespaces of its own for processes, mounts, cgroups and hosts' names: boot.sh ROOT BINARY UNITS ETC
set -eu
root="$1" binary="$2" units="$3" etc="$4"

mount --make-rprivate /
mount -t tmpfs -o mode=0755 tmpfs "$root"
cd "$root"
mkdir -p usr/bin usr/sbin usr/lib usr/share etc/systemd/system etc/staunch run proc sys dev tmp var/lib root
for dir in bin sbin lib lib64; do ln -s "usr/$dir" "$dir"; done
for dir in sbin lib lib64; do
    [ -d "/usr/$dir" ] || continue
    mkdir -p "usr/$dir"
    mount --bind "/usr/$dir" "usr/$dir"
    mount -o remount,bind,ro "usr/$dir"
done
cp "$binary" usr/bin/staunch
for tool in systemctl journalctl; do cp "$(command -v "$tool")" usr/bin/; done
cp /etc/passwd /etc/group /etc/ld.so.cache etc/
printf 'passwd: files\ngroup: files\nhosts: files\n' >etc/nsswitch.conf
echo 0123456789abcdef0123456789abcdef >etc/machine-id
printf '[Manager]\nDefaultTimeoutStopSec=20\n' >etc/systemd/system.conf

mount -t proc proc proc
mount --bind proc/sys proc/sys
mount -o remount,bind,ro proc/sys
mount -t sysfs -o ro sysfs sys
# A hierarchy of its own: the one that is named systemd, where the machine has it, else the unified one.
if grep -q '^0::' /proc/self/cgroup && ! grep -q name=systemd /proc/self/cgroup; then
    mount -t cgroup2 cgroup2 sys/fs/cgroup
else
    mount -t tmpfs tmpfs sys/fs/cgroup
    mkdir sys/fs/cgroup/systemd
    mount -t cgroup -o none,name=systemd cgroup sys/fs/cgroup/systemd
fi
mount -t tmpfs -o mode=0755 tmpfs dev
for node in null zero full random urandom tty; do
    : >"dev/$node"
    mount --bind "/dev/$node" "dev/$node"
done
mkdir dev/shm dev/pts
mount -t devpts -o newinstance,ptmxmode=0666 devpts dev/pts
ln -s pts/ptmx dev/ptmx
mount -t tmpfs -o mode=0755 tmpfs run
mount -t tmpfs -o mode=1777 tmpfs tmp

# What the units are ordered by, and the journal. Nothing of the distribution's own units, which would set up the machine.
target() { # target NAME [LINE...]
    unit="etc/systemd/system/$1.target"
    shift
    printf '[Unit]\nDescription=x\nDefaultDependencies=no\n' >"$unit"
    for line in "$@"; do echo "$line" >>"$unit"; done
}
for name in shutdown umount local-fs network-pre network-online nss-lookup sockets; do target "$name"; done
target sysinit 'Wants=systemd-journald.service' 'After=systemd-journald.service'
target basic 'Requires=sysinit.target sockets.target' 'After=sysinit.target sockets.target'
target multi-user 'Requires=basic.target' 'After=basic.target'
ln -s multi-user.target etc/systemd/system/default.target
for unit in systemd-journald.service systemd-journald.socket systemd-journald-dev-log.socket; do
    cp "/usr/lib/systemd/system/$unit" etc/systemd/system/
done

cp "$units"/*.service "$units"/*.socket etc/systemd/system/
cp -r "$etc/." etc/
export SYSTEMD_UNIT_PATH=/etc/systemd/system container=oci
SYSTEMD_OFFLINE=1 chroot . /usr/bin/systemctl enable staunch.service staunch-enforcer.service staunch-lockdown.service
# Not chroot: inside one the kernel makes no namespaces of users (PrivateUsers).
mkdir old
pivot_root . old
cd /
/old/usr/bin/umount -l /old
exec /lib/systemd/systemd --system --log-target=journal --show-status=0 </dev/null
