#!/bin/bash
# flux: --job-name=bench-generate
# flux: --nodes=1
# flux: --nslots=1
# flux: --cores-per-slot=2
# flux: --time-limit=3600s
# flux: --output=bench-generate-{{id}}.log
# Generates the dataset of a storage benchmark with an exact size; imseg and dlrm work in the same way.
# Edit the directives above (add # flux: --bank=, --queue=) and the lines below that repeat them, then: flux batch jobs/flux/bench-generate.sh
# Or render it for your machine: scimill jobs render --machine YOURS ... -- scimill bench generate bert data --size 100GiB
# Machine flux-generic: any cluster with Flux
# 1 node, 2 ranks per node, 1 thread per rank, 0 GPUs per node, 01:00:00

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

# Record this script, its environment and its exit code beside the results.
record=$PWD/scimill-jobs/bench-generate-$job
mkdir -p "$record"
[ -f "$0" ] || { echo "scimill: error: save this script to a file, because it may have to start again" >&2; exit 2; }
cp "$0" "$record/job.sh"
(umask 077; env | sort >"$record/environment")  # the environment may hold secrets

run=(flux run --nodes=1 --ntasks=2 --cores-per-task=1 bash -c "umask 022; exec \"\$@\"" umask)
command=(scimill bench generate bert data --size 100GiB)
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
