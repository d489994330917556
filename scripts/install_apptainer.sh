#!/usr/bin/env bash
# Install apptainer, which builds and runs images. Does nothing if a working apptainer is installed.
#
#   scripts/install_apptainer.sh              needs root, or sudo without a password
#
# Uses the distribution's package if there is one. Debian 12 has none: there apptainer comes from Debian's development
# suite (sid), with its own C library beside the system's, which is not changed. The mirror is apt's own.
set -euo pipefail

case ${1:-} in
  "") ;;
  -h | --help) sed -n '2,7s/^# \{0,1\}//p' "$0"; exit 0 ;;
  *) echo "install_apptainer.sh: unknown option $1 (see --help)" >&2; exit 2 ;;
esac

say() { printf 'install_apptainer: %s\n' "$*" >&2; }
fail() { printf 'install_apptainer: %s\n' "$@" >&2; exit 3; }

# run-singularity starts an image that is called as a command.
if apptainer --version >/dev/null 2>&1 && command -v run-singularity >/dev/null; then exit 0; fi

if [ "$(id -u)" != 0 ]; then
  sudo -n true 2>/dev/null || fail "apptainer is missing, and only root may install it." \
    "On a cluster: module load apptainer. On your own machine: sudo scripts/install_apptainer.sh"
  exec sudo -n "$0"
fi

apt() { DEBIAN_FRONTEND=noninteractive apt-get -qq -o DPkg::Lock::Timeout=300 "$@"; }

# The mirror that apt uses for this release.
mirror() {
  # shellcheck disable=SC2016
  apt-get indextargets --format '$(RELEASE) $(REPO_URI)' 'Created-By: Packages' |
    awk -v release="$VERSION_CODENAME" '$1 == release { print $2; exit }'
}

# Fetch and unpack apptainer and its C library; apt checks the signatures and keeps separate package lists.
fetch() { # directory
  local key=/usr/share/keyrings/debian-archive-keyring.gpg own
  mkdir -p "$1"/lists/partial
  echo "deb [signed-by=$key] $(mirror) sid main" >"$1/sources.list"
  own=(-o "Dir::Etc::SourceList=$1/sources.list" -o Dir::Etc::SourceParts=- -o "Dir::State::Lists=$1/lists"
    -o "Dir::Cache::pkgcache=$1/pkgcache.bin" -o "Dir::Cache::srcpkgcache=$1/srcpkgcache.bin" -o APT::Sandbox::User=root)
  apt "${own[@]}" update
  (cd "$1" && apt "${own[@]}" download apptainer/sid libc6/sid)
  for package in apptainer libc6; do dpkg-deb -x "$1/$package"_*.deb "$1/$package"; done
}

# Sid's apptainer uses a newer C library in its own directory; nothing else on the system uses it.
install_for_debian_12() {
  local work machine private=/opt/apptainer-glibc
  machine=$(dpkg-architecture -qDEB_HOST_MULTIARCH 2>/dev/null || echo "$(uname -m)-linux-gnu")
  apt update
  apt install -y --no-install-recommends debootstrap squashfs-tools squashfuse uidmap patchelf libseccomp2 \
    ca-certificates >/dev/null
  work=$(mktemp -d)
  fetch "$work"
  # DT_RPATH, not DT_RUNPATH: apptainer sets LD_LIBRARY_PATH for its children, which must not take precedence.
  for program in bin/apptainer "lib/$machine/apptainer/bin/starter"; do
    patchelf --set-interpreter "$private/$(basename "$(compgen -G "$work/libc6/usr/lib/$machine/ld-linux-*.so.*")")" \
      --force-rpath --set-rpath "$private" "$work/apptainer/usr/$program"
  done
  mkdir -p "$private" /var/lib/apptainer/mnt/{session,source}
  cp -a "$work/libc6/usr/lib/$machine/." "$private"
  cp -a "$work/apptainer/etc/apptainer" /etc/
  cp -a "$work/apptainer/usr/lib/$machine/apptainer" "/usr/lib/$machine/"
  cp -a "$work/apptainer/usr/bin/apptainer" /usr/bin/apptainer.real
  cp -a "$work/apptainer/usr/bin/run-singularity.apptainer" /usr/bin/run-singularity
  write_wrapper
  rm -r "$work"
}

# If root lacks a capability, apptainer must not request it: it would refuse to start anything.
write_wrapper() {
  cat >/usr/bin/apptainer <<'SH'
#!/bin/sh
# CAP_SYS_RESOURCE is bit 24. A build starts /usr/bin/apptainer again without its variables, so set them here.
capabilities=$(sed -n 's/^CapPrm:[[:space:]]*//p' /proc/self/status)
if [ "$(id -u)" = 0 ] && [ $((0x$capabilities >> 24 & 1)) = 0 ]; then
  export APPTAINER_DROP_CAPS="${APPTAINER_DROP_CAPS:-CAP_SYS_RESOURCE}"
fi
exec /usr/bin/apptainer.real "$@"
SH
  chmod 755 /usr/bin/apptainer
  ln -sf apptainer /usr/bin/singularity
}

# shellcheck source=/dev/null
. /etc/os-release
if command -v dnf >/dev/null; then
  dnf install -q -y apptainer || fail "dnf has no apptainer: enable EPEL, or ask your administrator."
elif ! command -v apt-get >/dev/null; then
  fail "this script supports only apt and dnf; install apptainer with your own package manager."
elif apt-cache show apptainer >/dev/null 2>&1; then
  apt install -y --no-install-recommends apptainer debootstrap squashfs-tools uidmap >/dev/null
elif [ "$ID-${VERSION_ID:-}" = debian-12 ]; then
  say "installing apptainer from sid (Debian 12 has no package)"
  install_for_debian_12
else
  fail "apt has no apptainer; see apptainer's installation guide for ${PRETTY_NAME:-this system}."
fi
apptainer --version >/dev/null 2>&1 || fail "apptainer was installed but does not run: $(apptainer --version 2>&1 | head -n 1)"
say "ready: $(apptainer --version)"
