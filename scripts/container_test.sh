#!/usr/bin/env bash
# Build the image and test it with a real Docker engine, as Grand-Challenge runs it.
#
# BASE_IMAGE may name another base image (default: the Dockerfile's). Without an engine this says so and is
# skipped, except in CI (CI=true), where it fails. The last line is "N passed, N failed".
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/options.sh
only_help "$@"
if ! docker info >/dev/null 2>&1; then
  [ "${CI:-}" != true ] || fail "no Docker engine answers: DOCKER_HOST=${DOCKER_HOST:-}: start one; CI does not skip this"
  echo "container test: skipped, no Docker engine answers"
  exit 0
fi
scripts/setup.sh all
.venv/bin/python -m pytest -m container test/container
