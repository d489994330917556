#!/bin/bash
# Last stage of every image (%post of "final"): the packages needed to run, and the labels.
#
#   containers/image/final.sh openmpi|mpich
set -euo pipefail
trap 'echo "final.sh: line $LINENO failed" >&2' ERR
cd "$(dirname "${BASH_SOURCE[0]}")/.."

export DEBIAN_FRONTEND=noninteractive
apt-get update -qq
xargs apt-get install -y -qq --no-install-recommends <packages >/dev/null

# Sites replace libmpi.so.12, the common name of all MPICHs, with their own. Debian uses another name: change it to the
# common one in every library that needs it, or a job would run with two MPIs.
use_common_name() {
  local own=libmpich.so.12 common=libmpi.so.12 library
  apt-get install -y -qq --no-install-recommends patchelf >/dev/null
  find /usr/lib/*-linux-gnu /opt/scimill/.venv -type f -name '*.so*' | while read -r library; do
    if patchelf --print-needed "$library" 2>/dev/null | grep -qx "$own"; then
      patchelf --replace-needed "$own" "$common" "$library"
    fi
  done
  find /usr/lib/*-linux-gnu -type f -name "$own.*" -exec patchelf --set-soname "$common" {} +
  ldconfig
  apt-get purge -y -qq --auto-remove patchelf >/dev/null
}
[ "$1" != mpich ] || use_common_name

.venv/bin/python image/licences.py >LICENCES.txt
sbom/bin/python image/sbom.py >sbom.cdx.json
rm -rf sbom
apt-get clean
rm -rf /var/lib/apt/lists/* /usr/share/doc/* /usr/share/man/* /usr/share/locale/* /var/cache/debconf/*-old

find /usr /opt -xdev -type f -perm /6000 -exec chmod a-s {} +  # a job needs no program that runs as another user

python=.venv/bin/python
version() { "$python" -c "import importlib.metadata as m, sys; print(m.version(sys.argv[1]))" "$1"; }
{
  # shellcheck source=/dev/null
  echo "system $(. /etc/os-release && echo "$PRETTY_NAME"), $(dpkg-query -W | sha256sum | cut -c1-16)"
  echo "locks $(cat locks)"
  for package in scimill torch horovod h5py mpi4py; do echo "$package $(version "$package")"; done
  echo "python $("$python" -c 'import platform; print(platform.python_version())')"
  echo "hdf5 $("$python" -c 'import h5py; print(h5py.version.hdf5_version)')"
  echo "mpi $("$python" -c 'from mpi4py import MPI; print(*MPI.Get_library_version().splitlines()[0].replace(",", " ").split()[:3])')"
} >>"${APPTAINER_LABELS:-$SINGULARITY_LABELS}"
