#!/usr/bin/env bash
# Score test/input with the packaged ensemble and show the result.
#
#   ./test_run.sh                                      in .venv, which is made where it is missing
#   ./test_run.sh --docker [--tag T] [--base-image I]  in the image, as the platform runs it
#
# On a machine without a GPU, PIP_EXTRA_INDEX_URL=https://download.pytorch.org/whl/cpu avoids CUDA packages.
set -euo pipefail
cd "$(dirname "$0")"
docker=false tag=nodulemc build_options=()
while [ $# -gt 0 ]; do
  case $1 in
    --docker) docker=true ;;
    --tag) tag=$2; shift ;;
    --base-image) build_options+=(--base-image "$2"); shift ;;
    *) echo "error: unknown option: $1: use --docker, --tag or --base-image" >&2; exit 2 ;;
  esac
  shift
done
output=test/output
result=$output/lung-nodule-malginancy-likelihoods.json
mkdir -p "$output"

if $docker; then
  docker image inspect "$tag" >/dev/null 2>&1 || ./build.sh --tag "$tag" "${build_options[@]}"
  gpus=()
  if docker info --format '{{.Runtimes}}' | grep -q nvidia; then gpus=(--gpus all); fi
  # The platform's user owns the output folder; here that is whoever runs this.
  docker run --rm "${gpus[@]}" --network none --read-only --tmpfs /tmp --cap-drop ALL --user "$(id -u):$(id -g)" \
    -v "$PWD/test/input:/input:ro" -v "$PWD/$output:/output" "$tag"
  docker run --rm --network none --read-only --entrypoint python -v "$PWD/$output:/output:ro" "$tag" \
    -m nodulemc.show /output/lung-nodule-malginancy-likelihoods.json
else
  scripts/setup.sh runtime
  .venv/bin/python inference.py --input test/input --output "$output"
  .venv/bin/python -m nodulemc.show "$result"
fi
echo "written: $result"
