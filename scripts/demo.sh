#!/usr/bin/env bash
# Demo: generate droplets on two ranks into one file, verify it, and draw it.
#
#   scripts/demo.sh [DIRECTORY]               default: demo-output
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

scripts/setup.sh
# shellcheck source=scripts/env.sh
. scripts/env.sh

output=${1:-demo-output}
mkdir -p "$output"
started=$SECONDS

step() { printf '\n== %s\n' "$*"; }

step "generate 2 million droplets on two ranks into one HDF5 file"
mpirun -n 2 scimill droplets generate "$output/droplets.h5" --count 2e6 --seed 2026 --overwrite \
  --weird "$output/weird.xlsx" --weird-rows 5000

step "verify every byte"
mpirun -n 2 scimill verify "$output/droplets.h5"

step "draw data and results"
scimill droplets plot "$output/droplets.h5" --output "$output/pictures"
scimill droplets solve --radius 2e-6 --salinity 1e-16 --relative-humidity 1.02 --time 10 --rows 8 \
  --plot "$output/pictures/one-droplet.png"

step "results, after $((SECONDS - started)) s"
cat <<TXT
  $output/droplets.h5      the sample: 9 fields of 2 million float32, weird droplets, ledger, provenance
  $output/weird.xlsx       weird droplets: counts of all, and a sheet of examples per class
  $output/pictures/*.png   inputs, outcomes, weird droplets, trajectories

  Inspect the file:        .venv/bin/scimill inspect $output/droplets.h5
  Read it in Python:       h5py.File("$output/droplets.h5")["radius"][:]
TXT
