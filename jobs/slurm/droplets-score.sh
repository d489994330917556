#!/bin/bash
#SBATCH --job-name=droplets-score
#SBATCH --nodes=1
#SBATCH --ntasks-per-node=1
#SBATCH --cpus-per-task=1
#SBATCH --time=00:30:00
#SBATCH --open-mode=append
#SBATCH --output=%x-%j.log
# Compares the network with exact droplets from another seed.
# Edit the directives above (add #SBATCH --account=, --partition=) and the lines below that repeat them, then: sbatch jobs/slurm/droplets-score.sh
# Or render it for your machine: scimill jobs render --machine YOURS ... -- scimill droplets score network test.h5 --output network/score
# Machine slurm-generic: any cluster with Slurm
# 1 node, 1 rank per node, 1 thread per rank, 0 GPUs per node, 00:30:00

set -euo pipefail

cd "$SLURM_SUBMIT_DIR"
job=$SLURM_JOB_ID

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

run=(srun --ntasks=1 --ntasks-per-node=1 --cpus-per-task=1 --mpi=pmix)
command=(scimill droplets score network test.h5 --output network/score)
run+=("${command[@]}")

status=0
"${run[@]}" || status=$?
echo "$status" >"$record/status"
exit "$status"
