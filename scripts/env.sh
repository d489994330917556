# shellcheck shell=bash
# Environment for running ranks of the demo and the tests on one machine. Source it; jobs set their own environment.

export PATH="$PWD/.venv/bin:$PATH"
# Open MPI refuses root and more ranks than cores unless told otherwise, and pins threads to one core.
if [ "$(id -u)" = 0 ]; then export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1; fi
export OMPI_MCA_rmaps_base_oversubscribe=1 OMPI_MCA_mpi_yield_when_idle=1 OMPI_MCA_hwloc_base_binding_policy=none
# Ranks of an ordinary user in a container cannot read each other's memory.
export OMPI_MCA_btl_vader_single_copy_mechanism=none
