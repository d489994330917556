#!/usr/bin/env bash
# Install scimill and its dependencies into .venv. Running it again takes no time if nothing has changed.
#
#   scripts/setup.sh [--torch auto|cpu|cuda|none] [--without-horovod] [--serial-hdf5] [--copy]
#                    [--with-tests] [--with-benchmarks] [--with-smartredis] [--download DIR | --wheels DIR]
#
#   --torch             auto (default): cuda where there is an NVIDIA GPU, else cpu. none: no training
#   --without-horovod   training runs on one process only
#   --serial-hdf5       plain h5py from its wheel: one rank only, nothing to compile
#   --download DIR      also fetch all that this set-up installs into a folder, for a machine without a network
#   --wheels DIR        install from such a folder; it needs the same Python, processor and options
#   --copy              install a copy of scimill instead of a link to these sources; for images
#   --with-tests        also linters, gfortran, apptainer, Slurm, guests for tests/hosts, another MPI and a serial HDF5 for the tests
#   --with-benchmarks   also the packages that the benchmarks compare with, and gfortran
#   --with-smartredis   also SmartRedis, for turbulence with a model in a Redis database (Python 3.11)
#
# Versions and hashes are those of scripts/locks. uv installs them, or pip where uv cannot be had.
#
# Environment: PYTHON (interpreter, >= 3.11), HDF5_DIR (parallel HDF5), SCIMILL_CACHE (where downloads and built wheels
# are kept), SCIMILL_MPI (Debian's MPI to install: openmpi or mpich), HOROVOD_* (how to build Horovod), and the settings
# of pip: PIP_INDEX_URL, PIP_EXTRA_INDEX_URL, PIP_FIND_LINKS, PIP_CERT, or its configuration files.
set -euo pipefail
here=$PWD
cd "$(dirname "${BASH_SOURCE[0]}")/.."

with_tests=0 with_benchmarks=0 smartredis=0 torch=auto horovod=1 parallel=1 chosen=0 wheels='' download='' link=(-e)
while [ $# -gt 0 ]; do
  case $1 in
    --with-tests) with_tests=1 ;;
    --with-benchmarks) with_benchmarks=1 ;;
    --with-smartredis) smartredis=1 ;;
    --torch | --wheels | --download)
      [ $# -gt 1 ] || { echo "setup.sh: $1 needs a value (see --help)" >&2; exit 2; }
      case $1 in --torch) torch=$2 chosen=1 ;; --wheels) wheels=$2 ;; --download) download=$2 ;; esac
      shift ;;
    --without-horovod) horovod=0 chosen=1 ;;
    --serial-hdf5) parallel=0 chosen=1 ;;
    --copy) link=() ;;
    -h | --help) sed -n '2,23s/^# \{0,1\}//p' scripts/setup.sh; exit 0 ;;
    *) echo "setup.sh: unknown option $1 (see --help)" >&2; exit 2 ;;
  esac
  shift
done
# Without a choice, the one of the last set-up here: demo.sh and test.sh make none.
if [ "$chosen" = 0 ] && [ -r .venv/.choice ]; then read -r torch horovod parallel <.venv/.choice; fi
case $torch in
  auto) torch=cpu; if nvidia-smi -L >/dev/null 2>&1; then torch=cuda; fi ;;
  cpu | cuda) ;;
  none) horovod=0 ;;
  *) echo "setup.sh: --torch $torch; allowed: auto, cpu, cuda, none" >&2; exit 2 ;;
esac
absolute() { case $1 in "" | /*) echo "$1" ;; *) echo "$here/$1" ;; esac; }
wheels=$(absolute "$wheels") download=$(absolute "$download")
[ -z "$wheels" ] || [ -d "$wheels" ] || { echo "setup.sh: no such folder: $wheels" >&2; exit 2; }
if [ -n "$wheels$download" ] && [ "$with_tests$with_benchmarks$smartredis" != 000 ]; then
  echo "setup.sh: --download and --wheels are for scimill itself, not for --with-…" >&2
  exit 2
fi

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
  [ "$parallel$horovod" = 00 ] || command -v mpicc >/dev/null || echo MPI
  [ "$parallel$horovod" = 00 ] || command -v c++ >/dev/null || echo c++
  [ "$horovod" = 0 ] || command -v cmake >/dev/null || echo cmake
  [ "$with_tests$with_benchmarks" = 00 ] || command -v gfortran >/dev/null || echo gfortran
  [ "$parallel" = 0 ] || find_hdf5 >/dev/null || echo "parallel HDF5"
}

install_with_apt() {
  local as_root=()
  [ "$(id -u)" = 0 ] || as_root=(sudo -n)
  local mpi=${SCIMILL_MPI:-openmpi} packages
  packages=(build-essential cmake gfortran pkg-config python3-dev python3-venv "lib$mpi-dev" "libhdf5-$mpi-dev")
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
    "If parallel HDF5 is elsewhere: export HDF5_DIR=/its/prefix. Without it: scripts/setup.sh --serial-hdf5 --without-horovod (one rank)."
fi

# Tests of jobs start their own Slurm, tests of traces run strace, tests of clones make an XFS; other tests need none.
has_test_programs() {
  local program
  for program in munged slurmctld slurmd sbatch strace mkfs.xfs ip ssh; do PATH=$PATH:/usr/sbin command -v "$program" >/dev/null || return; done
}

install_test_programs() {
  local as_root=() packages=(munge slurmctld slurmd slurm-client strace xfsprogs iproute2 openssh-client)
  [ "$(id -u)" = 0 ] || as_root=(sudo -n)
  say "installing Slurm, strace, xfsprogs, iproute2 and an ssh client, for the tests"
  { "${as_root[@]}" apt-get update -qq &&
    DEBIAN_FRONTEND=noninteractive "${as_root[@]}" apt-get install -y -qq --no-install-recommends "${packages[@]}" >/dev/null; } ||
    say "note: apt-get could not install ${packages[*]}"
}

if [ "$with_tests" = 1 ] && ! has_test_programs; then
  ! may_install || install_test_programs
  has_test_programs || say "note: no Slurm (munged, slurmctld, slurmd, sbatch), strace, mkfs.xfs, ip or ssh: tests that run them will fail"
fi

# ---- the environment ---------------------------------------------------------------------------------------------

# One call, for a version manager's python takes a tenth of a second to start.
python=${PYTHON:-python3}
{ read -r executable; read -r abi; read -r version; } < <("$python" -c '
import os, sys, sysconfig
print(sys.executable, " ".join(map(str, (sysconfig.get_config_var("SOABI"), os.confstr("CS_GNU_LIBC_VERSION")))), sys.version.split("[")[0], sep="\n")') || true
case $version in
  3.1[1-9]*) python=$executable ;;
  *) fail "Python 3.11 or newer is needed; $python is ${version:-not found}. Choose another: PYTHON=/path/to/python3.12 scripts/setup.sh" ;;
esac

# The tests use SmartRedis where it has wheels.
[[ $with_tests = 0 || $abi != cpython-311-* ]] || smartredis=1

hdf5=none
[ "$parallel" = 0 ] || hdf5=$(find_hdf5)
mpi="$(mpi_family): $(mpicc -show 2>/dev/null)"
cache=${SCIMILL_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/scimill}
locks=scripts/locks

# Print those entries of locks whose names match a regular expression; with "-v" first, the others.
entries() { # [-v] names, locks
  local others=0
  [ "$1" != -v ] || { others=1; shift; }
  local names=$1
  shift
  awk -v names="^($names)\$" -v others=$others '
    /^[a-z0-9]/ { split($1, name, "=="); wanted = (name[1] ~ names) != others }
    wanted && !/^#/' "${@/#/$locks/}"
}

# Print a setting of pip, from where pip looks first; several values with a space between.
setting() { # name, pip's list of settings
  local section
  for section in :env: install global; do
    sed -n "s/^$section\.$1='\(.*\)'\$/\1/p" <<<"$2" | grep . && break
  done | sed 's/\\n/ /g; s/^ *//' || true
}

# Take the settings of pip for uv. Without uv, pip does the same in ten times the time.
prepared=0
prepare_installer() {
  [ "$prepared" = 0 ] || return 0
  prepared=1
  uv_options=(--no-config --python .venv)
  local settings links
  settings=$(.venv/bin/pip config list)
  links=$(setting find-links "$settings")
  export UV_CACHE_DIR=${UV_CACHE_DIR:-$cache/uv} SSL_CERT_FILE
  export UV_DEFAULT_INDEX=${UV_DEFAULT_INDEX:-$(setting index-url "$settings")} UV_INDEX=${UV_INDEX:-$(setting extra-index-url "$settings")}
  export UV_FIND_LINKS=${UV_FIND_LINKS:-${links// /,}} UV_INSECURE_HOST=${UV_INSECURE_HOST:-$(setting trusted-host "$settings")}
  export UV_INDEX_STRATEGY=${UV_INDEX_STRATEGY:-unsafe-best-match}  # as pip does; hashes make it safe
  SSL_CERT_FILE=${SSL_CERT_FILE:-$(setting cert "$settings")}
  [ -n "$SSL_CERT_FILE" ] || unset SSL_CERT_FILE
  if [ -n "$wheels" ]; then
    uv_options+=(--no-index --find-links "$wheels")
    export PIP_NO_INDEX=1 PIP_FIND_LINKS=file://${wheels// /%20} PIP_CONFIG_FILE=/dev/null
    unset UV_INDEX UV_DEFAULT_INDEX UV_FIND_LINKS PIP_EXTRA_INDEX_URL
  fi
  command -v uv >/dev/null || .venv/bin/pip install -q --require-hashes -r "$locks/uv.txt" ||
    say "note: no uv; pip installs, which takes longer"
}

# Install entries of locks, read from standard input; they are complete, so nothing is resolved.
install() { # options
  local list
  list=$(mktemp)
  cat >"$list"
  if [ ! -s "$list" ]; then :
  elif command -v uv >/dev/null; then uv pip install -q "${uv_options[@]}" --no-deps --require-hashes "$@" -r "$list"
  else .venv/bin/pip install -q --no-deps --require-hashes "$@" -r "$list"; fi || fail "installing failed; see the message above"
  rm "$list"
}

# Install a built wheel, or these sources.
install_local() {
  if command -v uv >/dev/null; then uv pip install -q "${uv_options[@]}" --no-deps --no-build-isolation --reinstall "$@"
  else .venv/bin/pip install -q --no-deps --no-build-isolation --force-reinstall "$@"; fi
}

# All that a built wheel depends on. A wheel works with every Python of its tag on every system of this release and C
# library: so images can use wheels built here, and the other way round.
build_identity() {
  printf '%s\n' "$mpi" "$hdf5" "torch $torch" "$abi"
  sed -n '/^ID=/p; /^VERSION_ID=/p' /etc/os-release
  env | grep '^HOROVOD_' | LC_ALL=C sort || true
  entries 'h5py|horovod|mpi4py|numpy|torch|cython|setuptools' scimill.txt | grep '=='
}

# An environment can be reused if all this is the same, and also the interpreter and this script.
identity=$({ build_identity; echo "$version"; cat setup.cfg pyproject.toml scripts/setup.sh "$locks"/*.txt; } | sha256sum | cut -c1-16)

# Build a wheel once for this identity, then install it.
built() { # name, environment assignments...
  local name=$1 store
  store=$cache/wheels/$(build_identity | sha256sum | cut -c1-16)
  shift
  if ! compgen -G "$store/$name-*.whl" >/dev/null; then
    say "building $name (takes some minutes, once)"
    mkdir -p "$store"
    local log="$store/$name.log"
    entries "$name" scimill.txt >"$store/$name.txt"
    env "$@" .venv/bin/pip wheel -q --no-deps --no-build-isolation --no-cache-dir --no-binary="$name" --require-hashes \
      -w "$store" -r "$store/$name.txt" >"$log" 2>&1 || { tail -n 25 "$log" >&2; fail "building $name failed; the full log is $log"; }
  fi
  install_local "$store/$name"-*.whl
}

BUILT='h5py|horovod' TORCH='torch' CUDA='triton|nvidia-.*|cuda-.*' ONNX='onnx|onnxscript|onnx-ir'
case $torch in
  cpu) what="for CPUs, 0.2 GB to download" ;;
  cuda) what="for NVIDIA GPUs, 2.7 GB to download" ;;
  none) what="none" ;;
esac

# Print what this set-up installs but does not build.
wanted() {
  case $torch in
    cuda) entries -v "$BUILT" scimill.txt | sed 's/^torch==/torch===/' ;;  # not a build for CPUs
    cpu) entries -v "$BUILT|$TORCH|$CUDA" scimill.txt ;;
    none) entries -v "$BUILT|$TORCH|$CUDA|$ONNX" scimill.txt ;;
  esac
  [ "$parallel" = 1 ] || entries h5py scimill.txt
}

install_core() {
  say "PyTorch: $what (to choose: --torch cpu|cuda|none)"
  [ -x .venv/bin/pip ] || "$python" -m venv .venv || fail "$python cannot make an environment" \
    "On Debian and Ubuntu: sudo apt-get install python3-venv"
  local theirs
  theirs=$(.venv/bin/python -c 'import sysconfig; print(sysconfig.get_config_var("SOABI"))')
  [ "$theirs" = "${abi%% *}" ] || fail ".venv is for ${theirs}, not for ${abi%% *}" \
    "do: rm -r .venv, or choose its Python: PYTHON=/path/to/python scripts/setup.sh"
  prepare_installer
  # Of these there are several builds of one version; the one of an earlier choice must not stay.
  .venv/bin/pip uninstall -q -y torch horovod h5py 2>/dev/null
  say "installing Python packages"
  wanted | install
  [ "$torch" != cpu ] || install_torch_for_cpus
  [ "$parallel" = 0 ] || built h5py CC=mpicc CFLAGS=-g0 HDF5_MPI=ON "HDF5_DIR=$hdf5"
  [ "$horovod" = 0 ] || install_horovod
  install_local "${link[@]}" .
}

NO_CPU_TORCH=("pip finds no torch for CPUs"
  "do: set PIP_EXTRA_INDEX_URL to PyTorch's index for CPUs (see its web page), or use --torch cuda or none")

# Search the indexes of pip's settings, then PyTorch's own, which uv knows.
install_torch_for_cpus() {
  (entries torch torch-cpu.txt | install) 2>/dev/null && return
  command -v uv >/dev/null || fail "${NO_CPU_TORCH[@]}"
  entries torch torch-cpu.txt | install --torch-backend cpu
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

download_all() {
  local list
  list=$(mktemp)
  fetch() { cat >"$list"; [ ! -s "$list" ] || .venv/bin/pip download -q --no-deps --require-hashes -d "$download" -r "$list" "$@"; }
  { wanted; entries uv uv.txt; } | fetch
  [ "$torch" != cpu ] || entries torch torch-cpu.txt | fetch || fail "${NO_CPU_TORCH[@]}"
  [ "$parallel" = 0 ] || entries h5py scimill.txt | fetch --no-build-isolation --no-binary h5py
  [ "$horovod" = 0 ] || entries horovod scimill.txt | fetch --no-build-isolation
  rm "$list"
  say "$download has $(du -sh "$download" | cut -f1); copy it, and these sources, then: scripts/setup.sh --wheels DIR"
}

install_tests() {
  say "installing linters and the packages to compare with"
  entries -v "$BUILT|$TORCH|$CUDA" tests.txt | install
  local peer
  rm -rf .venv/peers/mpich .venv/peers/h5py
  for peer in mpich h5py; do entries "$peer" peers.txt | install --target ".venv/peers/$peer"; done
}

install_tensorflow() {
  say "installing TensorFlow in a separate directory, for the test that reads TFRecord files with it"
  rm -rf .venv/peers/tensorflow
  entries '.*' tensorflow.txt | install --target .venv/peers/tensorflow
}

install_benchmarks() {
  say "installing packages to compare benchmarks with; hw2d and its dependencies go into a separate directory"
  entries 'crc32c|protobuf|pillow' tests.txt | install
  rm -rf .venv/peers/hw2d
  entries '.*' hw2d.txt | install --target .venv/peers/hw2d
}

install_smartredis() {
  say "installing SmartRedis and its numpy in a separate directory"
  rm -rf .venv/smartredis
  entries '.*' smartredis.txt | install --target .venv/smartredis
}

# A step is done if its stamp holds the current identity.
step() { # name, options that matter, function
  local stamp=.venv/.done-$1
  [ "$(cat "$stamp" 2>/dev/null)" = "$identity $2" ] && return
  rm -f "$stamp"
  [ ! -x .venv/bin/pip ] || prepare_installer
  "$3"
  echo "$identity $2" >"$stamp"
}

started=$SECONDS
PATH=$PWD/.venv/bin:$PATH
step core "torch=$torch horovod=$horovod parallel=$parallel${link[*]:+ link}" install_core
echo "$torch $horovod $parallel" >.venv/.choice
[ "$with_tests" = 0 ] || step tests "" install_tests
[ "$with_tests" = 0 ] || step tensorflow "" install_tensorflow
[ "$with_benchmarks" = 0 ] || step benchmarks "" install_benchmarks
[ "$smartredis" = 0 ] || step smartredis "" install_smartredis
if [ -n "$download" ]; then prepare_installer; download_all; fi
# The tests build images. If apptainer cannot be installed, the failing tests say what is missing.
if [ "$with_tests" = 1 ] && may_install; then scripts/install_apptainer.sh; fi
# Tests of two hosts boot guests. If their programs cannot be fetched, these tests are listed as not run.
if [ "$with_tests" = 1 ] && may_install; then scripts/install_hosts.sh || true; fi
say "ready in $((SECONDS - started)) s: .venv with $(mpi_family) ($(command -v mpicc || true)) and HDF5 $hdf5"
command -v mpirun >/dev/null || command -v srun >/dev/null || say "note: neither mpirun nor srun is on PATH"
