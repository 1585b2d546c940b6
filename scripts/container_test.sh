#!/usr/bin/env bash
# Build the image and test it with a real Docker engine, as the platform runs it.
#
# BASE_IMAGE may name another base image (default: the Dockerfile's). Without an engine this says so and is
# skipped, except in CI (CI=true), where it fails.
set -euo pipefail
cd "$(dirname "$0")/.."
if ! docker info >/dev/null 2>&1; then
  echo "container test: no Docker engine answers"
  if [ "${CI:-}" = true ]; then exit 1; fi
  exit 0
fi
scripts/setup.sh all
.venv/bin/python -m pytest -m container test/container
