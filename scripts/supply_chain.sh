#!/usr/bin/env bash
# What the image is made of, and what is known against it.
#
#   scripts/supply_chain.sh [--output dist]
#
# Writes sbom.json (CycloneDX, from requirements.lock) and asks the PyPI advisory database about each version; needs
# a package index and pypi.org. Exit code 1 where a vulnerability is known or a version could not be asked about.
# The base image is not in it; its maker's SBOM is.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/options.sh
output=dist
while [ $# -gt 0 ]; do
  case $1 in
    -h | --help) show_help "scripts/${0##*/}" ;;
    --output) need_value "$@"; output=$2; shift ;;
    *) unknown_option "$1" ;;
  esac
  shift
done
make_folder "$output"
tools=$(mktemp -d)
trap 'rm -rf "$tools"' EXIT
python3 -m venv "$tools/venv"
"$tools/venv/bin/pip" install -q --disable-pip-version-check cyclonedx-bom pip-audit
"$tools/venv/bin/cyclonedx-py" requirements --output-reproducible --of JSON -o "$output/sbom.json" requirements.lock
echo "written: $output/sbom.json"
"$tools/venv/bin/pip-audit" --strict --require-hashes --disable-pip -r requirements.lock
