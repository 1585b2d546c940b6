#!/usr/bin/env bash
# Write what Grand-Challenge takes: the image, and the ensemble as a model for /opt/ml/model.
#
#   ./export.sh [--tag nodulemc] [--base-image IMAGE] [--resources resources] [--output dist]
#
# Gives <tag>-image.tar.gz and <tag>-model.tar.gz, each with its .sha256 (check: sha256sum -c *.sha256).
# The image is built where it is missing. --resources takes another ensemble folder.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
. "$here/scripts/options.sh"
tag=nodulemc resources=$here/resources output=$here/dist build_options=()
while [ $# -gt 0 ]; do
  case $1 in
    -h | --help) show_help "$here/${0##*/}" ;;
    --tag) need_value "$@"; tag=$2 ;;
    --base-image) need_value "$@"; build_options=(--base-image "$2") ;;
    --resources) need_value "$@"; resources=$2 ;;
    --output) need_value "$@"; output=$2 ;;
    *) unknown_option "$1" ;;
  esac
  shift 2
done
[ -f "$resources/ensemble.json" ] || fail "no ensemble.json: $resources: give an ensemble folder"
make_folder "$output"
docker image inspect "$tag" >/dev/null 2>&1 || "$here/build.sh" --tag "$tag" ${build_options[@]+"${build_options[@]}"}
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
