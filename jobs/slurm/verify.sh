#!/bin/bash
#SBATCH --job-name=verify
#SBATCH --nodes=1
#SBATCH --ntasks-per-node=2
#SBATCH --cpus-per-task=1
#SBATCH --time=01:00:00
#SBATCH --open-mode=append
#SBATCH --output=%x-%j.log
# Checks every byte of a store.
# Edit the directives above (add #SBATCH --account=, --partition=) and the lines below that repeat them, then: sbatch jobs/slurm/verify.sh
# Or render it for your machine: scimill jobs render --machine YOURS ... -- scimill verify droplets.h5
# Machine slurm-generic: any cluster with Slurm
# 1 node, 2 ranks per node, 1 thread per rank, 0 GPUs per node, 01:00:00

set -euo pipefail

cd "$SLURM_SUBMIT_DIR"
job=$SLURM_JOB_ID

export OMP_NUM_THREADS=1
# Ranks write disjoint parts of one file without locks, which many parallel file systems lack.
export HDF5_USE_FILE_LOCKING=FALSE
# Make Horovod use the MPI that starts the ranks, even if it was also built with Gloo.
export HOROVOD_CONTROLLER=mpi HOROVOD_CPU_OPERATIONS=mpi

# Record this script, its environment and its exit code beside the results.
record=$PWD/scimill-jobs/verify-$job
mkdir -p "$record"
[ -f "$0" ] || { echo "scimill: error: save this script to a file, because it may have to start again" >&2; exit 2; }
cp "$0" "$record/job.sh"
(umask 077; env | sort >"$record/environment")  # the environment may hold secrets

run=(srun --ntasks=2 --ntasks-per-node=2 --cpus-per-task=1 --mpi=pmix)
command=(scimill verify droplets.h5)
run+=("${command[@]}")

status=0
"${run[@]}" || status=$?
echo "$status" >"$record/status"
exit "$status"
