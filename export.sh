#!/usr/bin/env bash
# Write what the platform takes: the image, and the ensemble as a model for /opt/ml/model.
#
#   ./export.sh [--tag nodulemc] [--resources resources] [--output dist]
#
# Gives <tag>-image.tar.gz and <tag>-model.tar.gz, each with its .sha256 (check: sha256sum -c *.sha256).
set -euo pipefail
cd "$(dirname "$0")"
tag=nodulemc resources=resources output=dist
while [ $# -gt 0 ]; do
  case $1 in
    --tag) tag=$2 ;;
    --resources) resources=$2 ;;
    --output) output=$2 ;;
    *) echo "error: unknown option: $1: use --tag, --resources or --output" >&2; exit 2 ;;
  esac
  shift 2
done
mkdir -p "$output"
name=${tag//[:\/]/-}
gzip=$(command -v pigz || command -v gzip)
docker save "$tag" | "$gzip" -n >"$output/$name-image.tar.gz"
# Sorted names and no times or owners: the same ensemble gives the same archive.
tar --create --sort=name --mtime=@0 --owner=0 --group=0 --numeric-owner --directory "$resources" . \
  | "$gzip" -n >"$output/$name-model.tar.gz"
cd "$output"
for archive in "$name-image.tar.gz" "$name-model.tar.gz"; do
  sha256sum "$archive" | tee "$archive.sha256"
done
