# shellcheck shell=bash
# What start.sh and stop.sh share; sourced by them.
# As the kernel names what runs from there.
dir="$(realpath -m -- "${dir:?the directory of the run}")"

# Whether the process that start.sh noted is the resolver it started: its number may be somebody else's by now.
runs() {
    local pid
    pid="$(cat "$dir/pid" 2>/dev/null)" || return 1
    case "$(readlink "/proc/$pid/exe" 2>/dev/null)" in
    "$dir/staunch" | "$dir/staunch (deleted)") return 0 ;;
    *) return 1 ;;
    esac
}

# Puts back what start.sh replaced. Behind a reboot only where it still says what start.sh wrote: the host may have a
# newer one by then.
put_back() {
    local resolv
    resolv="$(cat "$dir/resolv.path" 2>/dev/null)" || return 0
    if [ ! -e "$dir/boot" ] || cmp -s "$dir/boot" /proc/sys/kernel/random/boot_id || cmp -s "$resolv" "$dir/resolv.ours"; then
        if [ -r "$dir/resolv.link" ]; then
            ln -sf "$(cat "$dir/resolv.link")" "$resolv"
        elif [ -r "$dir/resolv.conf" ]; then
            cat "$dir/resolv.conf" >"$resolv"
        fi
    fi
    rm -f "$dir/boot" "$dir/resolv.link" "$dir/resolv.conf" "$dir/resolv.path" "$dir/resolv.ours"
}
