#!/bin/bash
#SBATCH --job-name=verify
#SBATCH --nodes=1
#SBATCH --ntasks-per-node=2
#SBATCH --cpus-per-task=1
#SBATCH --time=01:00:00
#SBATCH --output=%x-%j.log
# Checks every byte of a store.
# Edit the directives above (add #SBATCH --account=, --partition=) and what repeats them below, then: sbatch jobs/slurm/verify.sh
# Or let it be written for your machine: scimill jobs render --machine YOURS ... -- scimill verify droplets.h5
# Machine slurm-generic: any cluster with Slurm
# 1 node(s), 2 rank(s) per node, 1 thread(s) per rank, 0 GPU(s) per node, 01:00:00

set -euo pipefail

cd "$SLURM_SUBMIT_DIR"
job=$SLURM_JOB_ID

export OMP_NUM_THREADS=1
# Ranks lock nothing of the one file that they write, and parallel file systems often have no locks.
export HDF5_USE_FILE_LOCKING=FALSE
# Horovod is to use the MPI that starts the ranks, where it was built with Gloo too.
export HOROVOD_CONTROLLER=mpi HOROVOD_CPU_OPERATIONS=mpi

# What ran: this very script, its environment and its output, next to the results.
record=$PWD/scimill-jobs/verify-$job
mkdir -p "$record"
[ -f "$0" ] || { echo "scimill: error: write this script to a file, it must be able to start again" >&2; exit 2; }
cp "$0" "$record/job.sh"
(umask 077; env | sort >"$record/environment")  # it may hold secrets

run=(srun --ntasks=2 --ntasks-per-node=2 --cpus-per-task=1 --mpi=pmix)
command=(scimill verify droplets.h5)
run+=("${command[@]}")

status=0
"${run[@]}" || status=$?
echo "$status" >"$record/status"
exit "$status"
