#!/usr/bin/env bash
# Build the image.
#
#   ./build.sh [--tag nodulemc] [--base-image IMAGE] [--api-method exec|invoke] [-- DOCKER BUILD OPTIONS]
set -euo pipefail
cd "$(dirname "$0")"
tag=nodulemc method=exec options=()
while [ $# -gt 0 ]; do
  case $1 in
    --tag) tag=${2:?--tag needs a value}; shift ;;
    --base-image) options+=(--build-arg "BASE_IMAGE=${2:?--base-image needs a value}"); shift ;;
    --api-method) method=${2:?--api-method needs a value}; shift ;;
    --) shift; options+=("$@"); break ;;
    *) echo "error: unknown option: $1: use --tag, --base-image, --api-method or --" >&2; exit 2 ;;
  esac
  shift
done
case $method in
  exec | invoke) ;;
  *) echo "error: unknown calling convention: --api-method $method: use exec or invoke" >&2; exit 2 ;;
esac
revision=$(git describe --always --dirty --abbrev=40 --exclude='*' 2>/dev/null || echo unknown)
# The manifest names every seed's SHA-256, so its own stands for the whole model.
model=$(sha256sum resources/ensemble.json | cut -d' ' -f1)
docker build --tag "$tag" --build-arg "API_METHOD=$method" --build-arg "REVISION=$revision" \
  --build-arg "MODEL_SHA256=$model" \
  ${options[@]+"${options[@]}"} .
