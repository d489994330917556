#!/bin/bash
# flux: --job-name=droplets-sweep
# flux: --nodes=1
# flux: --nslots=1
# flux: --cores-per-slot=1
# flux: --time-limit=3600s
# flux: --output=droplets-sweep-{{id}}.log
# Runs the trials of a sweep, one job per trial; the sweep file holds lists and ranges of parameters.
# Flux has no arrays: submit it once per index, with flux batch --env SCIMILL_ARRAY_INDEX=0 ...
# Edit the directives above (add # flux: --bank=, --queue=) and the lines below that repeat them, then: flux batch jobs/flux/droplets-sweep.sh
# Or render it for your machine: scimill jobs render --machine YOURS ... -- scimill droplets train droplets.h5 --output trials --preset small --epochs 6 --sweep jobs/sweeps/droplets.yaml
# Machine flux-generic: any cluster with Flux
# 1 node, 1 rank per node, 1 thread per rank, 0 GPUs per node, 01:00:00

set -euo pipefail
link=1

# Flux starts a job in the directory of its submission, with its environment. Not every locale has the ƒ of its ids.
export FLUX_F58_FORCE_ASCII=1
job=$(flux job id --to=f58plain "$(flux getattr jobid)")
umask 022

export OMP_NUM_THREADS=1
# Ranks write disjoint parts of one file without locks, which many parallel file systems lack.
export HDF5_USE_FILE_LOCKING=FALSE
# Make Horovod use the MPI that starts the ranks, even if it was also built with Gloo.
export HOROVOD_CONTROLLER=mpi HOROVOD_CPU_OPERATIONS=mpi
# Index of this job in its array; the first variable is set where no scheduler sets one.
index=${SCIMILL_ARRAY_INDEX:?Flux has no arrays; submit one job per index: flux batch --env SCIMILL_ARRAY_INDEX=0 job.sh}
export SCIMILL_ARRAY_INDEX=$index

# Record this script, its environment and its exit code beside the results.
record=$PWD/scimill-jobs/droplets-sweep-$job
mkdir -p "$record"
[ -f "$0" ] || { echo "scimill: error: save this script to a file, because it may have to start again" >&2; exit 2; }
cp "$0" "$record/job.sh"
(umask 077; env | sort >"$record/environment")  # the environment may hold secrets

run=(flux run --nodes=1 --ntasks=1 --cores-per-task=1 bash -c "umask 022; exec \"\$@\"" umask)
command=(scimill droplets train droplets.h5 --output trials --preset small --epochs 6 --sweep jobs/sweeps/droplets.yaml)
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
  job=$(flux --parent batch "$next")
  echo "scimill: the next link is job ${job%%;*}" >&2
  status=0
fi
exit "$status"
