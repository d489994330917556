#!/usr/bin/env bash
# Kill ranks of a run at many seeded instants, resume it on another number of ranks, and compare the bytes.
# Prints a table; fails if a byte differs, a done block is lost, or anything hangs. Takes ten minutes on two cores.
#
#   scripts/fault_campaign.sh [--kills N] [--clock N] [--seed S]
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
# shellcheck source=scripts/env.sh
. scripts/env.sh
PYTHONPATH=tests${PYTHONPATH:+:$PYTHONPATH} exec python tests/faults/campaign.py "$@"
