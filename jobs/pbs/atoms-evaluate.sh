#!/bin/bash
#PBS -N atoms-evaluate
#PBS -l select=1:ncpus=2:mpiprocs=2
#PBS -l place=scatter
#PBS -l walltime=01:00:00
#PBS -j oe
#PBS -W umask=022
# Evaluates the structures that a selection does not use, with any ASE calculator.
# Edit the directives above (add #PBS -A, -q, -l filesystems=) and the lines below that repeat them, then: qsub jobs/pbs/atoms-evaluate.sh
# Or render it for your machine: scimill jobs render --machine YOURS ... -- scimill atoms evaluate database first --calculator emt
# Machine pbs-generic: any cluster with PBS Professional or OpenPBS
# 1 node, 2 ranks per node, 1 thread per rank, 0 GPUs per node, 01:00:00

set -euo pipefail
link=1

cd "$PBS_O_WORKDIR"
job=${PBS_JOBID%%.*}

export OMP_NUM_THREADS=1
# Ranks write disjoint parts of one file without locks, which many parallel file systems lack.
export HDF5_USE_FILE_LOCKING=FALSE
# Make Horovod use the MPI that starts the ranks, even if it was also built with Gloo.
export HOROVOD_CONTROLLER=mpi HOROVOD_CPU_OPERATIONS=mpi

# Record this script, its environment and its exit code beside the results.
record=$PWD/scimill-jobs/atoms-evaluate-$job
mkdir -p "$record"
[ -f "$0" ] || { echo "scimill: error: save this script to a file, because it may have to start again" >&2; exit 2; }
cp "$0" "$record/job.sh"
(umask 077; env | sort >"$record/environment")  # the environment may hold secrets

run=(mpirun -n 2 -hostfile "$PBS_NODEFILE" --map-by ppr:2:node:PE=1 -x PATH -x OMP_NUM_THREADS -x HDF5_USE_FILE_LOCKING -x HOROVOD_CONTROLLER -x HOROVOD_CPU_OPERATIONS ${LD_LIBRARY_PATH:+-x LD_LIBRARY_PATH} ${PYTHONPATH:+-x PYTHONPATH})
command=(scimill atoms evaluate database first --calculator emt)
"${command[@]}" --print-config >"$record/config.yaml" 2>/dev/null || true  # the command itself reports errors
run+=("${command[@]}")

# The command stops a minute before the walltime, with exit code 75, and resumes in the next job.
remaining=$((3600 - SECONDS))
run+=(--resume --walltime "${remaining}s")

status=0
"${run[@]}" || status=$?
echo "$status" >"$record/status"
if [ "$status" = 75 ] && [ "$link" -lt 20 ]; then
  echo "scimill: link $link of at most 20 has stopped; submitting the next one" >&2
  next=$(scimill jobs next "$record/job.sh")
  job=$(qsub "$next")
  echo "scimill: the next link is job ${job%%;*}" >&2
  status=0
fi
exit "$status"
