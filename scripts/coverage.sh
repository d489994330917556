#!/usr/bin/env bash
# Measure which lines and branches of the store, of the ranks and of files the tests reach; fail unless all.
#
#   scripts/coverage.sh [pytest arguments]        without arguments: the tests that reach them
#
# What is measured is in setup.cfg. scripts/setup.sh --with-tests installs all that it takes.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
# shellcheck source=scripts/env.sh
. scripts/env.sh
unset PYTHONDONTWRITEBYTECODE

# The record of a process whose files may not grow cannot be written.
[ $# -gt 0 ] || set -- tests/unit/store tests/unit/test_{claim,files,report}.py tests/parallel/store \
  tests/parallel/test_{endings,world}.py tests/faults/test_{calls,disk}.py \
  --deselect tests/faults/test_disk.py::test_a_limit_of_file_sizes_is_reported

records=$(mktemp -d)
trap 'rm -r "$records"' EXIT
export COVERAGE_FILE=$records/coverage
# A failing test is reported, but what was reached is shown all the same.
status=0
coverage run -m pytest -n logical --dist loadscope "$@" || status=$?
coverage combine --quiet
coverage report
exit $status
