#!/bin/bash
# %test of every image: generate on one and on two ranks, verify every byte, and sum with Horovod.
#
#   containers/image/test.sh openmpi|mpich
set -euo pipefail
# shellcheck source=containers/image/environment.sh
. /opt/scimill/image/environment.sh

export HOME PYTHONDONTWRITEBYTECODE=1
HOME=$(mktemp -d)
trap 'rm -rf "$HOME"' EXIT
cd "$HOME"
# This machine may have fewer cores than ranks.
export OMPI_MCA_rmaps_base_oversubscribe=1 OMPI_MCA_mpi_yield_when_idle=1 OMP_NUM_THREADS=1

scimill doctor
blocks=(--count 5000 --block-size 1000 --seed 8)  # some for each rank
scimill droplets generate one.h5 "${blocks[@]}"
mpirun -n 2 scimill droplets generate two.h5 "${blocks[@]}"
mpirun -n 2 scimill verify two.h5
python - <<'PY'
import h5py
with h5py.File("one.h5") as one, h5py.File("two.h5") as two:
    assert (one["blocks"]["crc32c"] == two["blocks"]["crc32c"]).all(), "the bytes differ on two ranks"
PY
mpirun -n 2 python -c 'import torch, horovod.torch as hvd
hvd.init()
total = hvd.allreduce(torch.tensor([1.0 + hvd.rank()]), op=hvd.Sum)
assert hvd.size() == 2 and total.item() == 3.0, (hvd.size(), total)'

# A stand-in for a site's MPI: a library of the same name, found first. Everything must use it instead of the image's.
test_exchange() {
  mkdir site
  cp -L /usr/lib/*-linux-gnu/libmpi.so.12 site/
  LD_LIBRARY_PATH=$HOME/site python - <<'PY'
import re
import mpi4py.MPI, h5py, horovod.torch as hvd
hvd.init()
used = set(re.findall(r"/\S*/libmpi(?:ch)?\.so\S*", open("/proc/self/maps").read()))
assert len(used) == 1 and used.pop().endswith("/site/libmpi.so.12"), f"loaded: {used}"
PY
}
[ "$1" != mpich ] || test_exchange
echo "image: all tests passed"
