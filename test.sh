#!/usr/bin/env bash
# Set up, lint and test.
#
#   ./test.sh [--slow] [PYTEST OPTIONS]    --slow adds the tests that take more than a minute
set -euo pipefail
cd "$(dirname "$0")"
. scripts/options.sh
selection="not slow and not container"
case ${1:-} in
  -h | --help) show_help "${0##*/}" ;;
  --slow) selection="not container"; shift ;;
esac
scripts/setup.sh all
.venv/bin/ruff check .
.venv/bin/ruff format --check .
.venv/bin/python -m pytest -m "$selection" "$@"
