#!/bin/bash
#SBATCH --job-name=droplets-sweep
#SBATCH --nodes=1
#SBATCH --ntasks-per-node=1
#SBATCH --cpus-per-task=1
#SBATCH --time=01:00:00
#SBATCH --array=0-7
#SBATCH --open-mode=append
#SBATCH --output=%x-%A_%a.log
#SBATCH --signal=USR2@60
# Runs the trials of a sweep, one job per trial; the sweep file holds lists and ranges of parameters.
# Edit the directives above (add #SBATCH --account=, --partition=) and the lines below that repeat them, then: sbatch jobs/slurm/droplets-sweep.sh
# Or render it for your machine: scimill jobs render --machine YOURS ... -- scimill droplets train droplets.h5 --output trials --preset small --epochs 6 --sweep jobs/sweeps/droplets.yaml
# Machine slurm-generic: any cluster with Slurm
# 1 node, 1 rank per node, 1 thread per rank, 0 GPUs per node, 01:00:00

set -euo pipefail
link=1

cd "$SLURM_SUBMIT_DIR"
job=$SLURM_JOB_ID

export OMP_NUM_THREADS=1
# Ranks write disjoint parts of one file without locks, which many parallel file systems lack.
export HDF5_USE_FILE_LOCKING=FALSE
# Make Horovod use the MPI that starts the ranks, even if it was also built with Gloo.
export HOROVOD_CONTROLLER=mpi HOROVOD_CPU_OPERATIONS=mpi
# Index of this job in its array; the first variable is set where no scheduler sets one.
index=${SCIMILL_ARRAY_INDEX:-${SLURM_ARRAY_TASK_ID:-${PBS_ARRAY_INDEX:?}}}
export SCIMILL_ARRAY_INDEX=$index

# Record this script, its environment and its exit code beside the results.
record=$PWD/scimill-jobs/droplets-sweep-$job
mkdir -p "$record"
[ -f "$0" ] || { echo "scimill: error: save this script to a file, because it may have to start again" >&2; exit 2; }
cp "$0" "$record/job.sh"
(umask 077; env | sort >"$record/environment")  # the environment may hold secrets

run=(srun --ntasks=1 --ntasks-per-node=1 --cpus-per-task=1 --mpi=pmix)
command=(scimill droplets train droplets.h5 --output trials --preset small --epochs 6 --sweep jobs/sweeps/droplets.yaml)
"${command[@]}" --print-config >"$record/config.yaml" 2>/dev/null || true  # the command itself reports errors
run+=("${command[@]}")

# The command stops a minute before the walltime, with exit code 75, and resumes in the next job.
# Slurm 22.05 and later report the end of the job, which may differ from the request.
remaining=$((${SLURM_JOB_END_TIME:-0} ? SLURM_JOB_END_TIME - $(date +%s) : 3600 - SECONDS))
run+=(--resume --walltime "${remaining}s")

status=0
"${run[@]}" || status=$?
echo "$status" >"$record/status"
if [ "$status" = 75 ] && [ "$link" -lt 20 ]; then
  echo "scimill: link $link of at most 20 has stopped; submitting the next one" >&2
  next=$(scimill jobs next "$record/job.sh")
  job=$(sbatch --parsable "$next")
  echo "scimill: the next link is job ${job%%;*}" >&2
  status=0
fi
exit "$status"
