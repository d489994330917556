#!/usr/bin/env bash
# Install what is missing, then check and test everything: style, types, scripts, unit, parallel, faults, validation.
#
#   scripts/test.sh [pytest arguments]        for example: scripts/test.sh tests/unit -k config
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

scripts/setup.sh --with-tests
# shellcheck source=scripts/env.sh
. scripts/env.sh

echo "== ruff, mypy, shellcheck"
ruff check .
ruff format --check .
mypy
shellcheck scripts/*.sh containers/image/*.sh .ci/run

echo "== pytest"
# A test that is skipped has not been run: tests/conftest.py makes it a failure.
# Many tests wait, for a scheduler or a disk: as many run side by side as there are processors.
exec pytest -n logical --dist loadscope "$@"
