#!/bin/bash
#PBS -N droplets-score
#PBS -l select=1:ncpus=1:mpiprocs=1
#PBS -l place=scatter
#PBS -l walltime=00:30:00
#PBS -j oe
#PBS -W umask=022
# Compares the network with exact droplets from another seed.
# Edit the directives above (add #PBS -A, -q, -l filesystems=) and the lines below that repeat them, then: qsub jobs/pbs/droplets-score.sh
# Or render it for your machine: scimill jobs render --machine YOURS ... -- scimill droplets score network test.h5 --output network/score
# Machine pbs-generic: any cluster with PBS Professional or OpenPBS
# 1 node, 1 rank per node, 1 thread per rank, 0 GPUs per node, 00:30:00

set -euo pipefail

cd "$PBS_O_WORKDIR"
job=${PBS_JOBID%%.*}

export OMP_NUM_THREADS=1
# Ranks write disjoint parts of one file without locks, which many parallel file systems lack.
export HDF5_USE_FILE_LOCKING=FALSE
# Make Horovod use the MPI that starts the ranks, even if it was also built with Gloo.
export HOROVOD_CONTROLLER=mpi HOROVOD_CPU_OPERATIONS=mpi

# Record this script, its environment and its exit code beside the results.
record=$PWD/scimill-jobs/droplets-score-$job
mkdir -p "$record"
[ -f "$0" ] || { echo "scimill: error: save this script to a file, because it may have to start again" >&2; exit 2; }
cp "$0" "$record/job.sh"
(umask 077; env | sort >"$record/environment")  # the environment may hold secrets

run=(mpirun -n 1 -hostfile "$PBS_NODEFILE" --map-by ppr:1:node:PE=1 -x PATH -x OMP_NUM_THREADS -x HDF5_USE_FILE_LOCKING -x HOROVOD_CONTROLLER -x HOROVOD_CPU_OPERATIONS ${LD_LIBRARY_PATH:+-x LD_LIBRARY_PATH} ${PYTHONPATH:+-x PYTHONPATH})
command=(scimill droplets score network test.h5 --output network/score)
run+=("${command[@]}")

status=0
"${run[@]}" || status=$?
echo "$status" >"$record/status"
exit "$status"
