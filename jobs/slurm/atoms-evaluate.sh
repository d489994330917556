#!/bin/bash
#SBATCH --job-name=atoms-evaluate
#SBATCH --nodes=1
#SBATCH --ntasks-per-node=2
#SBATCH --cpus-per-task=1
#SBATCH --time=01:00:00
#SBATCH --output=%x-%j.log
#SBATCH --signal=USR2@90
# Evaluates what a selection does not use, with any calculator of ASE.
# Edit the directives above (add #SBATCH --account=, --partition=) and what repeats them below, then: sbatch jobs/slurm/atoms-evaluate.sh
# Or let it be written for your machine: scimill jobs render --machine YOURS ... -- scimill atoms evaluate database first --calculator emt
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
record=$PWD/scimill-jobs/atoms-evaluate-$job
mkdir -p "$record"
[ -f "$0" ] || { echo "scimill: error: write this script to a file, it must be able to start again" >&2; exit 2; }
cp "$0" "$record/job.sh"
(umask 077; env | sort >"$record/environment")  # it may hold secrets

run=(srun --ntasks=2 --ntasks-per-node=2 --cpus-per-task=1 --mpi=pmix)
command=(scimill atoms evaluate database first --calculator emt)
"${command[@]}" --print-config >"$record/config.yaml" 2>/dev/null || true  # what is wrong, the command itself tells
run+=("${command[@]}")

# The command ends itself a minute before the walltime, with exit code 75, and goes on in the next job.
# Slurm tells the end of the job, which may be another than was asked for; before 22.05 it does not.
remaining=$((${SLURM_JOB_END_TIME:-0} ? SLURM_JOB_END_TIME - $(date +%s) : 3600 - SECONDS))
run+=(--resume --walltime "${remaining}s")

status=0
"${run[@]}" || status=$?
echo "$status" >"$record/status"

link=${SCIMILL_LINK:-1}
if [ "$status" = 75 ] && [ "$link" -lt 20 ]; then
  echo "scimill: link $link of at most 20 has stopped; submitting the next" >&2
  export SCIMILL_LINK=$((link + 1))
  next=$(sbatch --parsable "$record/job.sh")
  next=${next%%;*}
  echo "scimill: the next is job $next" >&2
  status=0
fi
exit "$status"
