#!/usr/bin/env bash
# Build an image, test it, and print its size and the time it took.
#
#   scripts/build_image.sh [--definition FILE.def] [--output FILE.sif] [--base BASE] [apptainer's options for build]
#
#   --definition   the definition file                default: containers/scimill.def
#   --output       the image file                     default: named like the definition, in this directory
#   --base         docker (default); debootstrap: this machine's Debian release, from apt's own sources, made once;
#                  or the path of a base image or directory
#
# All other options go to "apptainer build": --fakeroot if you are not root, --build-arg from=..., --force.
#
# Environment: SCIMILL_CACHE (built wheels, bases), PIP_* and *_proxy (pass into the build), HOROVOD_* (how to build
# Horovod). All versions are those of scripts/locks. The torch for CPUs is the one that pip finds on this machine, if
# PIP_EXTRA_INDEX_URL or PIP_FIND_LINKS names an index or directory with one; otherwise that of PyTorch's own index.
# Exit codes: 0 done, 1 the build or its test failed, 2 wrong arguments, 3 something is missing, 4 no place to write.
set -euo pipefail
here=$PWD
cd "$(dirname "${BASH_SOURCE[0]}")/.."

say() { printf 'build_image: %s\n' "$*" >&2; }
fail() { # exit code, lines
  local code=$1
  shift
  printf 'build_image: %s\n' "$@" >&2
  exit "$code"
}

definition=containers/scimill.def output='' base=docker options=()
absolute_in() { case $2 in /*) echo "$2" ;; *) echo "$1/$2" ;; esac; }
absolute() { absolute_in "$here" "$1"; }
value() { [ "$2" -gt 1 ] || fail 2 "$1 needs a value (see --help)"; }
while [ $# -gt 0 ]; do
  case $1 in
    --definition) value "$1" $#; definition=$(absolute "$2"); shift 2 ;;
    --output) value "$1" $#; output=$(absolute "$2"); shift 2 ;;
    --base) value "$1" $#; base=$2; shift 2 ;;
    -h | --help) sed -n '2,17s/^# \{0,1\}//p' scripts/build_image.sh; exit 0 ;;
    *) options+=("$1"); shift ;;
  esac
done
name=$(basename "${definition%.def}")
output=${output:-$here/$name.sif}
part=$output.$$.part  # unique, so that two builds at once do not collide
cache=${SCIMILL_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/scimill}

# ---- checks before anything is built ---------------------------------------------------------------------------------

given() { case " ${options[*]} " in *" $1 "*) ;; *) return 1 ;; esac; }

[ -r "$definition" ] || fail 3 "no such definition: $definition" "allowed: $(echo containers/*.def)"
command -v apptainer >/dev/null || fail 3 "apptainer is missing." \
  "On a cluster: module load apptainer. On your own machine: scripts/install_apptainer.sh"
[ ! -d "$output" ] || fail 2 "$output is a directory; give --output a file name"
[ ! -e "$output" ] || given --force || given -F || fail 2 "$output already exists" "do: remove it, choose another --output, or use --force"
{ [ -d "$(dirname "$output")" ] && [ -w "$(dirname "$output")" ]; } || fail 4 "cannot write to $(dirname "$output")"
mkdir -p "$cache"/{bases,torch,wheels} 2>/dev/null && [ -w "$cache" ] || fail 4 "cannot write to the cache $cache" \
  "do: choose another one with 3 GB free: SCIMILL_CACHE=/a/directory"
[ "$(id -u)" = 0 ] || given --fakeroot || fail 2 "only root can build without --fakeroot" "do: scripts/build_image.sh --fakeroot"

# A failed build leaves its tree behind: use a separate directory, and remove it.
APPTAINER_TMPDIR=$(mktemp -d -p "${APPTAINER_TMPDIR:-${TMPDIR:-/tmp}}") || fail 4 "cannot write to ${APPTAINER_TMPDIR:-${TMPDIR:-/tmp}}"
export APPTAINER_TMPDIR
trap 'rm -f "$part"; rm -rf --one-file-system "$APPTAINER_TMPDIR"' EXIT

# ---- the base ----------------------------------------------------------------------------------------------------------

# apt's sources for this release and its updates only.
apt_sources() {
  # shellcheck disable=SC2016
  apt-get indextargets --format 'deb $(REPO_URI) $(RELEASE) $(COMPONENT)' 'Created-By: Packages' |
    awk -v release="$1" '$3 == release || $3 == release "-updates" || $3 == release "-security"' | sort -u
}

# This machine's Debian release as an image.
debootstrap_base() {
  local release sources work image
  command -v debootstrap >/dev/null || fail 3 "debootstrap is missing" "do: apt-get install debootstrap"
  # shellcheck source=/dev/null
  release=$(. /etc/os-release && echo "${VERSION_CODENAME:-}")
  sources=$(apt_sources "$release")
  [ -n "$sources" ] || fail 3 "apt has no source for ${release:-this system}; --base debootstrap needs Debian"
  image=$cache/bases/$release-$(dpkg --print-architecture)-$(sha256sum <<<"$sources" | cut -c1-8).sif
  if [ ! -r "$image" ]; then
    say "making a base of $release (half a minute, once)"
    work=$APPTAINER_TMPDIR/base
    mkdir "$work"
    cat >"$work/base.def" <<DEF
Bootstrap: debootstrap
OSVersion: $release
MirrorURL: $(awk -v release="$release" '$3 == release { print $2; exit }' <<<"$sources")
Include: ca-certificates

%post
    cat >/etc/apt/sources.list <<'LIST'
$sources
LIST
    apt-get clean
    rm -rf /var/lib/apt/lists/*
DEF
    apptainer build "${rootless[@]}" "${squash[@]}" "$work/base.sif" "$work/base.def" >"$work/log" 2>&1 ||
      { tail -n 20 "$work/log" >&2; fail 1 "making the base failed; see its log above"; }
    mv "$work/base.sif" "$image.$$.part"
    mv "$image.$$.part" "$image"
  fi
  echo "$image"
}

# ---- settings of pip in the build -----------------------------------------------------------------------------------------

# Fetch the wheel of torch that pip finds here, for the Python of the base; nothing if pip here finds none for CPUs.
fetch_torch() {
  local torch
  torch=$(sed -n 's/^\(torch==[^ ]*\).*/\1/p' scripts/locks/torch-cpu.txt)
  compgen -G "$cache/torch/torch-${torch#torch==}-*.whl" >/dev/null && return
  case "${PIP_EXTRA_INDEX_URL:-}${PIP_FIND_LINKS:-}${PIP_INDEX_URL:-}$(python3 -m pip config list 2>/dev/null | grep -E 'index-url|find-links')" in
    "") return ;;
  esac
  say "fetching $torch with this machine's pip"
  python3 -m pip download -q --no-deps --only-binary=:all: --python-version 3.11 -d "$cache/torch" "$torch" ||
    say "this machine's pip finds no $torch; the build will try itself"
}

# Environment for the build, which sees neither this machine's environment nor its files outside the cache.
build_environment() {
  local certificates=${PIP_CERT:-${SSL_CERT_FILE:-/etc/ssl/certs/ca-certificates.crt}}
  printf '%s ' SCIMILL_CACHE=/mnt PIP_CACHE_DIR=/mnt/pip PIP_DISABLE_PIP_VERSION_CHECK=1
  # The image with torch for GPUs must not find the one for CPUs.
  [[ $name = *cuda* ]] || printf '%s ' PIP_FIND_LINKS=/mnt/torch
  if [ -r "$certificates" ]; then
    cat "$certificates" >"$cache/certificates.pem"
    printf '%s ' PIP_CERT=/mnt/certificates.pem
  fi
  # Files of this machine do not exist in the build.
  env | grep -E '^(PIP_(INDEX_URL|EXTRA_INDEX_URL|TRUSTED_HOST|DEFAULT_TIMEOUT|RETRIES)|HOROVOD_[A-Z0-9_]+|(https?|no)_proxy)=' |
    grep -v 'file:' | while IFS='=' read -r variable text; do printf '%s=%q ' "$variable" "$text"; done || true
}

rootless=() squash=(--mksquashfs-args "-comp zstd -Xcompression-level 3")
given --fakeroot && rootless=(--fakeroot)
from=()
case $base in
  docker) ;;
  debootstrap) base=$(debootstrap_base) ;;
  *)
    base=$(absolute "$base")
    [ -e "$base" ] || fail 3 "no such base image: $base" "allowed: docker, debootstrap, or an image's path" ;;
esac
[[ $name = *cuda* ]] || fetch_torch

# ---- build, test, report -----------------------------------------------------------------------------------------------

started=$SECONDS
git=$(git describe --always --dirty --abbrev=12 2>/dev/null || echo unknown)
# An image keeps its definition with all arguments: no path and no setting of this machine may be among them.
work=$APPTAINER_TMPDIR/sources
mkdir "$work"
ln -s "$PWD"/* "$work"
if [ "$base" != docker ]; then
  ln -s "$base" "$work"
  from=(--build-arg agent=localimage --build-arg "from=$(basename "$base")")
fi
mkdir -m 700 "$APPTAINER_TMPDIR/settings"
echo "export $(build_environment)" >"$APPTAINER_TMPDIR/settings/environment"
definition=$(absolute_in "$PWD" "$definition")
# A definition need not have all of these arguments.
(cd "$work" && apptainer build --force --notest --warn-unused-build-args "${squash[@]}" --bind "$cache:/mnt" \
  --bind "$APPTAINER_TMPDIR/settings:/srv" "${from[@]}" --build-arg "git=$git" "${options[@]}" \
  "$part" "$definition") || fail 1 "building $name failed; see apptainer's message above"
built=$SECONDS
# Without FUSE, an ordinary user cannot mount an image but can unpack it.
unpack=()
[ "$(id -u)" = 0 ] || [ -w /dev/fuse ] || unpack=(--unsquash --userns)
apptainer test "${unpack[@]}" "$part" || fail 1 "$name was built, but its test failed: the image is not kept"
mv -f "$part" "$output"
say "$output: $(($(stat -c %s "$output") / 1000000)) MB, built in $((built - started)) s, tested in $((SECONDS - built)) s"
