#!/bin/sh
# Makes a base for the images where no registry can be reached: Debian 12 with its Python 3.11, from Debian's own packages.
#   images/base/build.sh FILE.tar      (as root; needs debootstrap; for the architecture of this machine)
# It is `docker import`ed and given as BASE. The official slim Python, which the Dockerfiles name, is the base of releases.
set -eu
[ $# -eq 1 ] || { echo "usage: $0 FILE.tar" >&2; exit 2; }
out=$1
[ "$(id -u)" -eq 0 ] || { echo "$0: debootstrap must be root: run it as root" >&2; exit 1; }
command -v debootstrap >/dev/null || { echo "$0: no debootstrap: apt-get install debootstrap" >&2; exit 1; }

mkdir -p "$(dirname "$out")"
work=$(mktemp -d "$(dirname "$out")/base.XXXXXX")
trap 'rm -rf "$work"' EXIT
trap 'exit 1' HUP INT TERM
if ! debootstrap --variant=minbase --include=ca-certificates,python3,python3-venv bookworm "$work/root" >"$work/log" 2>&1; then
    tail -n 20 "$work/log" "$work/root/debootstrap/debootstrap.log" >&2 2>/dev/null || true
    echo "$0: debootstrap failed, see above; it needs Debian's package mirror" >&2
    exit 1
fi
# what nobody reads in a container; licences stay
find "$work/root/usr/share/doc" -type f ! -name copyright -delete
rm -rf "$work/root/usr/share/man" "$work/root/usr/share/info" "$work/root/usr/share/locale" \
    "$work/root/var/cache/apt" "$work/root/var/cache/debconf" "$work/root/var/lib/apt/lists"
mkdir -p "$work/root/var/cache/apt/archives/partial" "$work/root/var/cache/debconf" "$work/root/var/lib/apt/lists/partial"
# devices, /proc and /sys come from the runtime; this machine's name and resolver are its own
rm -f "$work/root/etc/hostname" "$work/root/etc/resolv.conf"
tar --create --file "$work/base.tar" --numeric-owner --sort=name --directory "$work/root" \
    --exclude='./dev/*' --exclude='./proc/*' --exclude='./sys/*' .
mv "$work/base.tar" "$out"
