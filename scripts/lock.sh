#!/usr/bin/env bash
# Resolve what setup.cfg and pyproject.toml ask for, and write all versions with their hashes to scripts/locks.
#
#   scripts/lock.sh [--check] [--upgrade | --upgrade-package NAME]
#
#   --check      write nothing; fail if what is asked for no longer resolves to the locked versions
#   --upgrade    choose the newest versions; without it, locked versions stay if they still fit
#
# A lock holds for all platforms and Pythons from 3.11 on. It needs uv, which scripts/setup.sh installs.
# torch-cpu.txt is written by hand: PyTorch keeps its wheels for CPUs in an index of its own. Take its version from
# scimill.txt, and the hashes from that index.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

PATH=$PWD/.venv/bin:$PATH
check=0 options=()
while [ $# -gt 0 ]; do
  case $1 in
    --check) check=1 ;;
    --upgrade) options+=("$1") ;;
    --upgrade-package) options+=("$1" "${2:?needs a name}"); shift ;;
    -h | --help) sed -n '2,11s/^# \{0,1\}//p' scripts/lock.sh; exit 0 ;;
    *) echo "lock.sh: unknown option $1 (see --help)" >&2; exit 2 ;;
  esac
  shift
done

folder=scripts/locks
if [ "$check" = 1 ]; then
  folder=$(mktemp -d)
  trap 'rm -r "$folder"' EXIT
  cp scripts/locks/*.txt "$folder"
fi

lock() { # name, what it holds
  local name=$1
  shift
  uv pip compile -q --no-config --universal --python-version 3.11 --generate-hashes --no-annotate "${options[@]}" \
    --custom-compile-command scripts/lock.sh --output-file "$folder/$name.txt" "$@"
}

lock scimill setup.cfg --all-extras --group horovod --group build
lock tests --group test --group references --constraint "$folder/scimill.txt"
lock uv --group uv
for name in tensorflow sbom; do lock $name --group $name; done
for name in peers hw2d smartredis; do lock $name --no-deps --group $name; done

# Hashes are left out: new files may be added to a release.
versions() { cd "$1" && grep -H '^[a-z0-9]' ./*.txt; }
if [ "$check" = 1 ] && ! diff <(versions scripts/locks) <(versions "$folder") >&2; then
  echo "lock.sh: the locks are not what setup.cfg and pyproject.toml resolve to; run scripts/lock.sh" >&2
  exit 1
fi
