#!/usr/bin/env bash
# Build the image.
#
#   ./build.sh [--tag nodulemc] [--base-image IMAGE] [--api-method exec|invoke] [-- DOCKER BUILD OPTIONS]
set -euo pipefail
cd "$(dirname "$0")"
. scripts/options.sh
tag=nodulemc method=exec options=()
while [ $# -gt 0 ]; do
  case $1 in
    -h | --help) show_help "${0##*/}" ;;
    --tag) need_value "$@"; tag=$2; shift ;;
    --base-image) need_value "$@"; options+=(--build-arg "BASE_IMAGE=$2"); shift ;;
    --api-method) need_value "$@"; method=$2; shift ;;
    --) shift; options+=("$@"); break ;;
    *) unknown_option "$1" ;;
  esac
  shift
done
case $method in
  exec | invoke) ;;
  *) fail "unknown calling convention: --api-method $method: use exec or invoke" ;;
esac
revision=$(git describe --always --dirty --abbrev=40 --exclude='*' 2>/dev/null || echo unknown)
# The manifest names every seed's SHA-256, so its own stands for the whole model.
model=$(sha256sum resources/ensemble.json | cut -d' ' -f1)
docker build --tag "$tag" --build-arg "API_METHOD=$method" --build-arg "REVISION=$revision" \
  --build-arg "MODEL_SHA256=$model" \
  ${options[@]+"${options[@]}"} .
