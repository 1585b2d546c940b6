#!/usr/bin/env bash
# Set up, lint, check types and test, on up to four cores.
#
#   ./test.sh [--quick | --slow] [--coverage] [PYTEST OPTIONS]
#
#   --quick     an answer in less than a minute: leaves out what is marked heavy
#   --slow      adds the tests that take more than a minute
#   --coverage  also shows how many lines and branches of the package are run, and writes build/coverage/index.html
set -euo pipefail
cd "$(dirname "$0")"
. scripts/options.sh
selection="not slow and not container"
coverage=()
while [ $# -gt 0 ]; do
  case $1 in
    -h | --help) show_help "${0##*/}" ;;
    --quick) selection="$selection and not heavy" ;;
    --slow) selection="not container" ;;
    --coverage) coverage=(--cov --cov-report=term --cov-report=html) ;;
    *) break ;;
  esac
  shift
done
scripts/setup.sh all
.venv/bin/ruff check .
.venv/bin/ruff format --check .
.venv/bin/mypy
# A process of tests a core, each with one thread: threads of several would wait for each other.
export OMP_NUM_THREADS=1
.venv/bin/python -m pytest -m "$selection" -n logical --maxprocesses 4 --dist loadfile --no-loadscope-reorder \
  ${coverage[@]+"${coverage[@]}"} "$@"
