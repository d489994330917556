#!/usr/bin/env bash
# Install what is missing, then check and test everything: style, types, scripts, unit, parallel, faults, validation.
#
#   scripts/test.sh [pytest arguments]        for example: scripts/test.sh tests/unit -k config
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

scripts/setup.sh --with-tests
# shellcheck source=scripts/env.sh
. scripts/env.sh

# Thousands of processes start: none but the first shall compile what it imports.
unset PYTHONDONTWRITEBYTECODE

echo "== ruff, mypy, shellcheck"
ruff check .
ruff format --check .
mypy
shellcheck scripts/*.sh tests/hosts/*.sh containers/image/*.sh .ci/run

echo "== pytest"
# Tests that this machine cannot run are listed at the end with the reason; with CI=true they fail (tests/needs.py).
# Many tests wait for a scheduler or a disk, so one per logical processor runs at a time.
exec pytest -n logical --dist loadscope "$@"
