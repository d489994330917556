#!/bin/bash
# flux: --job-name=sky-train-gpus
# flux: --nodes=1
# flux: --nslots=1
# flux: --cores-per-slot=32
# flux: --gpus-per-slot=4
# flux: --time-limit=3600s
# flux: --output=sky-train-gpus-{{id}}.log
# Trains two networks to agree on pairs, on GPUs, with one rank per GPU.
# Edit the directives above (add # flux: --bank=, --queue=) and the lines below that repeat them, then: flux batch jobs/flux/sky-train-gpus.sh
# Or render it for your machine: scimill jobs render --machine YOURS ... -- scimill sky train sky.h5 --output run --preset published --device cuda
# Machine flux-generic: any cluster with Flux
# 1 node, 4 ranks per node, 8 threads per rank, 4 GPUs per node, 01:00:00

set -euo pipefail
link=1

# Flux starts a job in the directory of its submission, with its environment. Not every locale has the ƒ of its ids.
export FLUX_F58_FORCE_ASCII=1
job=$(flux job id --to=f58plain "$(flux getattr jobid)")
umask 022

export OMP_NUM_THREADS=8
# Ranks write disjoint parts of one file without locks, which many parallel file systems lack.
export HDF5_USE_FILE_LOCKING=FALSE
# Make Horovod use the MPI that starts the ranks, even if it was also built with Gloo.
export HOROVOD_CONTROLLER=mpi HOROVOD_CPU_OPERATIONS=mpi

# Record this script, its environment and its exit code beside the results.
record=$PWD/scimill-jobs/sky-train-gpus-$job
mkdir -p "$record"
[ -f "$0" ] || { echo "scimill: error: save this script to a file, because it may have to start again" >&2; exit 2; }
cp "$0" "$record/job.sh"
(umask 077; env | sort >"$record/environment")  # the environment may hold secrets

run=(flux run --nodes=1 --ntasks=4 --cores-per-task=8 --gpus-per-task=1 -o gpu-affinity=per-task bash -c "umask 022; exec \"\$@\"" umask)
# Each rank sees one GPU: of a whole node the nearest to its cores, of a part the next that the scheduler gave.
# The shell of each rank expands these variables.
# shellcheck disable=SC2016
run+=(bash -c 'rank=${PMI_LOCAL_RANK:-${SLURM_LOCALID:-${OMPI_COMM_WORLD_LOCAL_RANK:-0}}}
  given=(${CUDA_VISIBLE_DEVICES//,/ })
  gpus=(0 1 2 3)
  gpu=${gpus[rank % 4]}
  case ${#given[@]} in
    0) ;;
    4) gpu=${given[gpu]} ;;
    *) gpu=${given[rank % ${#given[@]}]} ;;
  esac
  export CUDA_VISIBLE_DEVICES="$gpu"
  exec "$@"' affinity)
command=(scimill sky train sky.h5 --output run --preset published --device cuda)
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
