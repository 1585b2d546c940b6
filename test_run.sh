#!/usr/bin/env bash
# Score test/input with the packaged ensemble and show the result.
#
#   ./test_run.sh                                      in .venv, which is made where it is missing
#   ./test_run.sh --docker [--tag T] [--base-image I]  in the image, as Grand-Challenge runs it
#
# The image is built where it is missing, or with --base-image.
# On a machine without a GPU, PIP_EXTRA_INDEX_URL=https://download.pytorch.org/whl/cpu avoids CUDA packages.
set -euo pipefail
cd "$(dirname "$0")"
. scripts/options.sh
docker=false tag=nodulemc build_options=()
while [ $# -gt 0 ]; do
  case $1 in
    -h | --help) show_help "${0##*/}" ;;
    --docker) docker=true ;;
    --tag) need_value "$@"; tag=$2; shift ;;
    --base-image) need_value "$@"; build_options=(--base-image "$2"); shift ;;
    *) unknown_option "$1" ;;
  esac
  shift
done
output=build/test_run
result=$output/lung-nodule-malginancy-likelihoods.json
make_folder "$output"

if $docker; then
  if [ ${#build_options[@]} -gt 0 ]; then
    ./build.sh --tag "$tag" "${build_options[@]}"
  elif ! docker image inspect "$tag" >/dev/null 2>&1; then
    ./build.sh --tag "$tag"
  fi
  restrictions=(--rm --network none --read-only --tmpfs /tmp --cap-drop ALL)
  # The container's user is another one than this script's, with a rootless engine as well.
  chmod a+rwx "$output"
  chmod -R a+rX test/input
  options=(-v "$PWD/test/input:/input:ro" -v "$PWD/$output:/output")
  if docker info --format '{{.Runtimes}}' | grep nvidia >/dev/null; then options+=(--gpus all); fi
  docker run "${restrictions[@]}" "${options[@]}" "$tag"
  docker run "${restrictions[@]}" --entrypoint python -v "$PWD/$result:/result.json:ro" "$tag" \
    -m nodulemc.grand_challenge.show /result.json
else
  scripts/setup.sh runtime
  .venv/bin/python inference.py --input test/input --output "$output"
  .venv/bin/python -m nodulemc.grand_challenge.show "$result"
fi
echo "written: $result"
