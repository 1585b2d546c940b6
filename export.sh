#!/usr/bin/env bash
# Write what the platform takes: the image, and the ensemble as a model for /opt/ml/model.
#
#   ./export.sh [--tag nodulemc] [--base-image IMAGE] [--resources resources] [--output dist]
#
# Gives <tag>-image.tar.gz and <tag>-model.tar.gz, each with its .sha256 (check: sha256sum -c *.sha256).
# The image is built where it is missing. --resources takes another ensemble folder.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
tag=nodulemc resources=$here/resources output=$here/dist build_options=()
while [ $# -gt 0 ]; do
  case $1 in
    --tag) tag=${2:?--tag needs a value} ;;
    --base-image) build_options=(--base-image "${2:?--base-image needs a value}") ;;
    --resources) resources=${2:?--resources needs a value} ;;
    --output) output=${2:?--output needs a value} ;;
    *) echo "error: unknown option: $1: use --tag, --base-image, --resources or --output" >&2; exit 2 ;;
  esac
  shift 2
done
if [ ! -f "$resources/ensemble.json" ]; then
  echo "error: no ensemble.json: $resources: give an ensemble folder" >&2
  exit 2
fi
docker image inspect "$tag" >/dev/null 2>&1 || "$here/build.sh" --tag "$tag" ${build_options[@]+"${build_options[@]}"}
mkdir -p "$output"
name=${tag//[:\/]/-}
# Most of it is compiled code, which slower compression hardly shrinks further.
docker save "$tag" | "$(command -v pigz || echo gzip)" -n --fast >"$output/$name-image.tar.gz"
# Sorted names, one mode, no times or owners: the same ensemble gives the same archive.
tar --create --sort=name --mtime=@0 --owner=0 --group=0 --numeric-owner --mode=u=rwX,go=rX \
  --directory "$resources" . | gzip -n >"$output/$name-model.tar.gz"
cd "$output"
for archive in "$name-image.tar.gz" "$name-model.tar.gz"; do
  sha256sum "$archive" | tee "$archive.sha256"
done
