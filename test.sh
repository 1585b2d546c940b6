#!/usr/bin/env bash
# Set up, lint and test.
#
#   ./test.sh [--slow] [PYTEST OPTIONS]    --slow adds the tests that take more than a minute
set -euo pipefail
cd "$(dirname "$0")"
selection="not slow and not container"
if [ "${1:-}" = --slow ]; then
  selection="not container"
  shift
fi
scripts/setup.sh all
.venv/bin/ruff check .
.venv/bin/ruff format --check .
.venv/bin/python -m pytest -m "$selection" "$@"
