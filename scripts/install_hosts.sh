#!/usr/bin/env bash
# Fetch the programs that tests/hosts runs in its guests: user-mode Linux, an NFS server and clients, sshd, sshfs.
#
#   scripts/install_hosts.sh              needs root, or sudo without a password, and apt
#
# Unpacks Debian's packages into .venv/hosts, which only the guests see. It installs nothing on this machine, so it
# starts no service here. Does nothing if they are there already.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

case ${1:-} in
  "") ;;
  -h | --help) sed -n '2,7s/^# \{0,1\}//p' "$0"; exit 0 ;;
  *) echo "install_hosts.sh: unknown option $1 (see --help)" >&2; exit 2 ;;
esac

say() { printf 'install_hosts: %s\n' "$*" >&2; }

packages=(user-mode-linux kmod nfs-kernel-server nfs-common rpcbind openssh-server sshfs)
root=.venv/hosts stamp=.venv/.done-hosts
wanted="${packages[*]} $(sha256sum <scripts/install_hosts.sh)"
if [ "$(cat "$stamp" 2>/dev/null)" = "$wanted" ]; then exit 0; fi

command -v apt-get >/dev/null || { say "note: no apt-get, so no hosts for tests/hosts"; exit 3; }
as_root=()
[ "$(id -u)" = 0 ] || as_root=(sudo -n)
work=$(mktemp -d)
trap '"${as_root[@]}" rm -rf "$work"' EXIT

# Download the packages, and what they need beyond this system's own.
say "fetching user-mode Linux, NFS, sshd and sshfs for the guests of tests/hosts (43 MB)"
apt() { "${as_root[@]}" apt-get -qq -o DPkg::Lock::Timeout=300 -o APT::Sandbox::User=root "$@"; }
mkdir -p "$work/archives/partial"
download() { apt -o "Dir::Cache::archives=$work/archives" install --download-only --reinstall --no-install-recommends -y "${packages[@]}"; }
download >/dev/null 2>&1 || { apt update && download >/dev/null; } || { say "note: apt-get could not download ${packages[*]}"; exit 3; }

# The guests lay this folder over this system's root, where /bin, /lib and /sbin are links into /usr.
rm -rf "$stamp" "$root"
mkdir -p "$root"/usr/{bin,lib,sbin}
for name in bin lib sbin; do ln -s "usr/$name" "$root/$name"; done
for package in "$work"/archives/*.deb; do
  dpkg-deb --fsys-tarfile "$package" | tar -x --keep-directory-symlink --no-same-owner -C "$root"
done
for name in bin lib sbin; do rm "$root/$name"; done
echo "$wanted" >"$stamp"
say "ready: $root has $(du -sh "$root" | cut -f1)"
