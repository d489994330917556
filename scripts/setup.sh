#!/usr/bin/env bash
# Install scimill and its dependencies into .venv. Running it again takes a second if nothing has changed.
#
#   scripts/setup.sh [--with-tests] [--with-benchmarks] [--with-smartredis] [--without-horovod] [--serial-hdf5] [--copy]
#
#   --with-tests        also linters, gfortran, apptainer, Slurm, and another MPI and a serial HDF5 for the tests
#   --with-benchmarks   also the packages that the benchmarks compare with, and gfortran
#   --with-smartredis   also SmartRedis, for turbulence with a model in a Redis database (Python 3.11)
#   --without-horovod   no Horovod (and no torch): generation only
#   --serial-hdf5       plain h5py from its wheel: one rank only, nothing to compile
#   --copy              install a copy of scimill instead of a link to these sources; for images
#
# Environment: PYTHON (interpreter, >= 3.11), HDF5_DIR (parallel HDF5), SCIMILL_CACHE (where built wheels are kept),
# SCIMILL_MPI (Debian's MPI to install: openmpi or mpich), HOROVOD_* (how to build Horovod).
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

with_tests=0 with_benchmarks=0 smartredis=0 horovod=1 parallel=1 link=(-e)
for option in "$@"; do
  case $option in
    --with-tests) with_tests=1 smartredis=1 ;;
    --with-benchmarks) with_benchmarks=1 ;;
    --with-smartredis) smartredis=1 ;;
    --without-horovod) horovod=0 ;;
    --serial-hdf5) parallel=0 ;;
    --copy) link=() ;;
    -h | --help) sed -n '2,14s/^# \{0,1\}//p' "$0"; exit 0 ;;
    *) echo "setup.sh: unknown option $option (see --help)" >&2; exit 2 ;;
  esac
done

say() { printf 'setup: %s\n' "$*" >&2; }
fail() { printf 'setup: %s\n' "$@" >&2; exit 3; }

# ---- the system: a compiler, an MPI, a parallel HDF5 -------------------------------------------------------------

# Name of the MPI that mpicc compiles for: openmpi or mpich.
mpi_family() { if mpicc -show 2>/dev/null | grep -q openmpi; then echo openmpi; else echo mpich; fi; }

# Print the directory of a parallel HDF5 that h5py can be built with; fail if there is none.
find_hdf5() {
  local prefix
  for prefix in "${HDF5_DIR:-}" "${HDF5_ROOT:-}" "$(h5pcc_prefix)" "/usr/lib/$(uname -m)-linux-gnu/hdf5/$(mpi_family)"; do
    [ -n "$prefix" ] && grep -qs '^#define H5_HAVE_PARALLEL 1' "$prefix"/include/H5pubconf*.h && { echo "$prefix"; return; }
  done
  return 1
}

h5pcc_prefix() {
  command -v h5pcc >/dev/null && h5pcc -showconfig 2>/dev/null | sed -n 's/.*Installation point: *//p'
  return 0
}

# List what is missing: the compilers that Horovod needs, an MPI, and (unless --serial-hdf5) a parallel HDF5.
missing() {
  command -v mpicc >/dev/null || echo MPI
  command -v c++ >/dev/null || echo c++
  [ "$horovod" = 0 ] || command -v cmake >/dev/null || echo cmake
  [ "$with_tests$with_benchmarks" = 00 ] || command -v gfortran >/dev/null || echo gfortran
  [ "$parallel" = 0 ] || find_hdf5 >/dev/null || echo "parallel HDF5"
}

install_with_apt() {
  local as_root=()
  [ "$(id -u)" = 0 ] || as_root=(sudo -n)
  local mpi=${SCIMILL_MPI:-openmpi} packages
  packages=(build-essential cmake gfortran pkg-config "lib$mpi-dev" "libhdf5-$mpi-dev")
  case $mpi in openmpi) packages+=(openmpi-bin) ;; *) packages+=("$mpi") ;; esac
  say "installing Debian's packages (still missing: $(missing | paste -sd, | sed 's/,/, /g'))"
  "${as_root[@]}" apt-get update -qq &&
    DEBIAN_FRONTEND=noninteractive "${as_root[@]}" apt-get install -y -qq --no-install-recommends \
      "${packages[@]}" >/dev/null
}

may_install() { command -v apt-get >/dev/null && { [ "$(id -u)" = 0 ] || sudo -n true 2>/dev/null; }; }

if [ -n "$(missing)" ] && may_install; then
  install_with_apt || fail "apt-get failed; see its message above."
fi
if [ -n "$(missing)" ]; then
  fail "not found: $(missing | paste -sd, | sed 's/,/, /g')." \
    "On a cluster, load modules first, for example: module load openmpi hdf5-parallel cmake" \
    "On Debian or Ubuntu: sudo apt-get install build-essential cmake gfortran openmpi-bin libopenmpi-dev libhdf5-openmpi-dev" \
    "If parallel HDF5 is elsewhere: export HDF5_DIR=/its/prefix. Without it: scripts/setup.sh --serial-hdf5 (one rank)."
fi

# Tests of jobs start their own Slurm, tests of traces run strace, tests of clones make an XFS; other tests need none.
has_test_programs() {
  local program
  for program in munged slurmctld slurmd sbatch strace mkfs.xfs; do PATH=$PATH:/usr/sbin command -v "$program" >/dev/null || return; done
}

install_test_programs() {
  local as_root=() packages=(munge slurmctld slurmd slurm-client strace xfsprogs)
  [ "$(id -u)" = 0 ] || as_root=(sudo -n)
  say "installing Slurm, strace and xfsprogs, for the tests"
  { "${as_root[@]}" apt-get update -qq &&
    DEBIAN_FRONTEND=noninteractive "${as_root[@]}" apt-get install -y -qq --no-install-recommends "${packages[@]}" >/dev/null; } ||
    say "note: apt-get could not install ${packages[*]}"
}

if [ "$with_tests" = 1 ] && ! has_test_programs; then
  ! may_install || install_test_programs
  has_test_programs || say "note: no Slurm (munged, slurmctld, slurmd, sbatch), strace or mkfs.xfs: tests that run them will fail"
fi

# ---- the environment ---------------------------------------------------------------------------------------------

python=${PYTHON:-python3}
"$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' ||
  fail "Python 3.11 or newer is needed; $python is $("$python" -V 2>&1). Choose another: PYTHON=/path/to/python3.12 scripts/setup.sh"

hdf5=none
[ "$parallel" = 0 ] || hdf5=$(find_hdf5)
mpi="$(mpi_family): $(mpicc -show 2>&1)"
wheels=${SCIMILL_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/scimill}/wheels

# Print the requirements of "core" and of extras (setup.cfg), and of dependency groups (pyproject.toml), by name.
requirements() {
  "$python" - "$@" <<'PY'
import configparser, pathlib, sys, tomllib
cfg = configparser.ConfigParser(); cfg.read("setup.cfg")
found = {"core": cfg["options"]["install_requires"], **cfg["options.extras_require"]}
found = {name: text.split("\n") for name, text in found.items()}
found |= tomllib.loads(pathlib.Path("pyproject.toml").read_text())["dependency-groups"]
for name in sys.argv[1:]:
    print("\n".join(filter(None, found[name])))
PY
}

pin() { requirements core training | grep "^$1=="; }

# All that a built wheel depends on. A wheel works with every Python of its tag on every system of this release and C
# library: so images can use wheels built here, and the other way round.
build_identity() {
  printf '%s\n' "$mpi" "$hdf5"
  "$python" -c 'import os, sysconfig; print(sysconfig.get_config_var("SOABI"), os.confstr("CS_GNU_LIBC_VERSION"))'
  sed -n '/^ID=/p; /^VERSION_ID=/p' /etc/os-release
  env | grep '^HOROVOD_' | LC_ALL=C sort || true
  requirements core training | grep -E '^(h5py|horovod|mpi4py|numpy|torch)=='
  requirements build
}

# An environment can be reused if all this is the same, and also the interpreter and this script.
identity=$({ build_identity; "$python" -VV; cat setup.cfg pyproject.toml scripts/setup.sh; } | sha256sum | cut -c1-16)

# Build a wheel once for this identity, then install it.
built() { # name, environment assignments...
  local name=$1 store
  store=$wheels/$(build_identity | sha256sum | cut -c1-16)
  shift
  if ! compgen -G "$store/$name-*.whl" >/dev/null; then
    say "building $name (takes some minutes, once)"
    mkdir -p "$store"
    local log="$store/$name.log"
    env "$@" .venv/bin/pip wheel -q --no-deps --no-build-isolation --no-cache-dir --no-binary="$name" \
      -w "$store" "$(pin "$name")" >"$log" 2>&1 || { tail -n 25 "$log" >&2; fail "building $name failed; the full log is $log"; }
  fi
  .venv/bin/pip install -q --no-deps --force-reinstall "$store/$name"-*.whl
}

install_core() {
  local groups=(core build atoms bench turbulence sky) torch_wanted='^$'
  [ "$horovod" = 0 ] || { groups+=(training); torch_wanted='^torch=='; }
  [ -x .venv/bin/python ] || "$python" -m venv .venv
  say "installing Python packages"
  # torch first: packages that depend on it must not choose its version.
  requirements "${groups[@]}" | { grep "$torch_wanted" || true; } | xargs -r .venv/bin/pip install -q
  requirements "${groups[@]}" | grep -v -e '^h5py==' -e '^horovod==' -e '^torch==' | xargs .venv/bin/pip install -q
  if [ "$parallel" = 1 ]; then
    built h5py CC=mpicc CFLAGS=-g0 HDF5_MPI=ON "HDF5_DIR=$hdf5"
  else
    .venv/bin/pip install -q --no-deps --force-reinstall "$(pin h5py)"
  fi
  [ "$horovod" = 0 ] || install_horovod
  .venv/bin/pip install -q --no-deps --no-build-isolation "${link[@]}" .
}

# Horovod asks for C++14, torch for C++17: the last -std on the command line wins. -g0 keeps the compile small.
install_horovod() {
  local wrapper
  wrapper=$(mktemp -d)/c++17
  printf '#!/bin/sh\nexec c++ "$@" -std=c++17 -g0\n' >"$wrapper"
  chmod 755 "$wrapper"
  built horovod HOROVOD_WITH_PYTORCH=1 HOROVOD_WITHOUT_TENSORFLOW=1 HOROVOD_WITHOUT_MXNET=1 HOROVOD_WITH_MPI=1 \
    HOROVOD_WITH_GLOO=1 HOROVOD_WITHOUT_NVTX=1 CMAKE_POLICY_VERSION_MINIMUM=3.5 MAKEFLAGS="-j$(nproc)" CXX="$wrapper"
}

install_tests() {
  say "installing linters and the packages to compare with"
  requirements test references | xargs .venv/bin/pip install -q
  requirements peers | while read -r peer; do
    .venv/bin/pip install -q --no-deps --upgrade --target ".venv/peers/${peer%%==*}" "$peer"
  done
}

install_benchmarks() {
  say "installing packages to compare benchmarks with; hw2d and its dependencies go into a separate directory"
  requirements references | xargs .venv/bin/pip install -q
  requirements hw2d | xargs .venv/bin/pip install -q --no-deps --upgrade --target .venv/peers/hw2d
}

install_tensorflow() {
  say "installing TensorFlow in a separate directory, for the test that reads TFRecord files with it"
  requirements tensorflow | xargs .venv/bin/pip install -q --no-warn-conflicts --target .venv/peers/tensorflow
}

install_smartredis() {
  say "installing SmartRedis and its numpy in a separate directory"
  requirements smartredis | xargs .venv/bin/pip install -q --no-deps --upgrade --target .venv/smartredis
}

# A step is done if its stamp holds the current identity.
step() { # name, options that matter, function
  local stamp=.venv/.done-$1
  [ "$(cat "$stamp" 2>/dev/null)" = "$identity $2" ] && return
  "$3"
  echo "$identity $2" >"$stamp"
}

started=$SECONDS
step core "horovod=$horovod parallel=$parallel${link[*]:+ link}" install_core
[ "$with_tests" = 0 ] || step tests "" install_tests
[ "$with_tests" = 0 ] || step tensorflow "" install_tensorflow
[ "$with_benchmarks" = 0 ] || step benchmarks "" install_benchmarks
[ "$smartredis" = 0 ] || step smartredis "" install_smartredis
# The tests build images. If apptainer cannot be installed, the failing tests say what is missing.
if [ "$with_tests" = 1 ] && may_install; then scripts/install_apptainer.sh; fi
say "ready in $((SECONDS - started)) s: .venv with $(mpi_family) ($(command -v mpicc || true)) and HDF5 $hdf5"
command -v mpirun >/dev/null || command -v srun >/dev/null || say "note: neither mpirun nor srun is on PATH"
