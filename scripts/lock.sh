#!/usr/bin/env bash
# Write the lock files: every version and SHA-256 of what is installed, for Python 3.10 to 3.14.
#
#   requirements.lock       the image, from requirements.txt; without torch, which the base image brings
#   requirements-test.lock  everything that development and the tests need, with PyPI's torch
#
# Use: python -m pip install --require-hashes -r requirements-test.lock
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/options.sh
only_help "$@"
tool=$(mktemp -d)
trap 'rm -rf "$tool"' EXIT
python3 -m venv "$tool/venv"
"$tool/venv/bin/pip" install -q uv==0.13.9
compile() { "$tool/venv/bin/uv" pip compile -q --universal --python-version 3.10 --generate-hashes --no-header --no-annotate "$@"; }
grep -v '^torch==' requirements.txt >"$tool/image.in"
compile -o requirements.lock "$tool/image.in"
compile -o requirements-test.lock --extra all -c requirements.txt pyproject.toml
