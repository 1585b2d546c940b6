#!/usr/bin/env bash
# Set up, lint and test. Arguments go to pytest; --slow adds the tests that take more than a minute.
set -euo pipefail
cd "$(dirname "$0")"
select=(-m "not slow and not container")
arguments=()
for argument in "$@"; do
  if [ "$argument" = --slow ]; then select=(-m "not container"); else arguments+=("$argument"); fi
done
scripts/setup.sh all
.venv/bin/ruff check .
.venv/bin/ruff format --check .
.venv/bin/python -m pytest "${select[@]}" "${arguments[@]}"
