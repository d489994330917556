#!/bin/bash
# First stage of every image (%post of "build"): install scimill with its set-up, then keep only what it needs to run.
#
#   containers/image/build.sh openmpi|mpich
set -euo pipefail
trap 'echo "build.sh: line $LINENO failed" >&2' ERR
cd "$(dirname "${BASH_SOURCE[0]}")/.."
mpi=$1

export DEBIAN_FRONTEND=noninteractive
apt-get update -qq
apt-get install -y -qq --no-install-recommends python3-dev python3-venv ca-certificates patchelf >/dev/null
export SCIMILL_MPI=$mpi
touch README.md  # setup.cfg names it, but the image should not depend on it
export UV_COMPILE_BYTECODE=1  # a read-only image cannot do it later
scripts/setup.sh --copy --torch "${SCIMILL_TORCH:-cpu}"
cat scripts/locks/*.txt | sha256sum | cut -c1-16 >locks

# What writes the SBOM, in an environment of its own; final.sh removes it.
python3 -m venv sbom
sbom/bin/pip install -q --no-deps --require-hashes -r scripts/locks/sbom.txt
cp -r scripts/locks sbom/locks

# ---- remove what only building needs --------------------------------------------------------------------------------

site=$(echo .venv/lib/python3*/site-packages)
.venv/bin/python -m compileall -q "$site"/scimill
.venv/bin/pip uninstall -q -y cython pkgconfig wheel uv
.venv/bin/pip uninstall -q -y pip
rm -rf "$site"/torch/include "$site"/torch/test "$site"/torch/share
# Tests of other packages. torch/bin holds test programs and a compiler besides the one program that torch runs.
find "$site" -depth -type d -name tests -not -path '*/torch/*' -exec rm -rf {} +
find "$site"/torch/bin -type f -not -name torch_shm_manager -delete
find .venv -name '*.a' -delete
# Wheels built on a host look for libraries in the folders of its Python, too.
find "$site"/h5py "$site"/horovod -name '*.so' -exec patchelf --shrink-rpath {} +
strip --strip-unneeded "$site"/torch/lib/libtorch_cpu.so "$site"/llvmlite/binding/libllvmlite.so  # 110 MB of symbols

# ---- list the Debian packages needed to run: linked libraries, the MPI's launcher, Python ------------------------------

{
  case $mpi in openmpi) echo openmpi-bin ;; *) echo "$mpi" ;; esac
  echo python3
  find "$site" -name '*.so*' -type f -exec ldd {} + 2>/dev/null | awk '$2 == "=>" && $3 ~ "^/" { print $3 }' | sort -u |
    while read -r library; do dpkg -S "*/${library##*/}" 2>/dev/null | cut -d: -f1 | head -n 1 || true; done
} | sort -u >packages
rm -rf build jobs scripts src setup.cfg pyproject.toml README.md
