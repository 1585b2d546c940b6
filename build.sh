#!/usr/bin/env bash
# Build the image.
#
#   ./build.sh [--tag nodulemc] [--base-image IMAGE] [--api-method exec|invoke] [-- DOCKER BUILD OPTIONS]
set -euo pipefail
cd "$(dirname "$0")"
tag=nodulemc options=()
while [ $# -gt 0 ]; do
  case $1 in
    --tag) tag=$2; shift ;;
    --base-image) options+=(--build-arg "BASE_IMAGE=$2"); shift ;;
    --api-method) options+=(--build-arg "API_METHOD=$2"); shift ;;
    --) shift; options+=("$@"); break ;;
    *) echo "error: unknown option: $1: use --tag, --base-image, --api-method or --" >&2; exit 2 ;;
  esac
  shift
done
revision=$(git describe --always --dirty --abbrev=40 --exclude='*' 2>/dev/null || echo unknown)
docker build --tag "$tag" --build-arg "REVISION=$revision" "${options[@]}" .
