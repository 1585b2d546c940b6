#!/usr/bin/env bash
# Make .venv with the pinned requirements and this package; a set-up that is already there is left alone.
#
#   scripts/setup.sh runtime    what inference needs
#   scripts/setup.sh all        that and everything the tests need
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/options.sh
level=${1:-}
case $level in
  runtime | all) ;;
  -h | --help) show_help "scripts/${0##*/}" ;;
  -*) unknown_option "$level" ;;
  *) fail "no such level '$level': ${0##*/}: give runtime or all" ;;
esac

# Whether a Python can be used, and has a module.
suits() {
  "$1" -c "import $2, sys; sys.exit(not (3, 10) <= sys.version_info[:2] < (3, 15))" 2>/dev/null
}

find_python() {
  for name in python3 python3.14 python3.13 python3.12 python3.11 python3.10; do
    # Debian splits ensurepip off; a Python without it cannot make a virtual environment.
    if suits "$name" ensurepip; then
      echo "$name"
      return
    fi
  done
  fail "no Python 3.10 to 3.14 with the venv module: PATH: install one (Debian: python3 and python3-venv)"
}

# An environment keeps its Python, whichever PATH names first today. One without pip was interrupted while it was made.
python=.venv/bin/python
suits "$python" pip || python=$(find_python)
# What pyproject.toml says to linters and pytest installs nothing.
installed=$(awk '/^\[/ { kept = !/^\[+tool\./ || /^\[tool\.setuptools/ } kept' pyproject.toml)
stamp=$({ echo "$PWD" "$installed"; "$python" --version; cat requirements.txt setup.py; } | sha256sum | cut -d' ' -f1)
done_file=.venv/set-up
if [ -f "$done_file" ] && grep -qx "$stamp all" "$done_file"; then exit 0; fi
if [ "$level" = runtime ] && [ -f "$done_file" ] && grep -qx "$stamp runtime" "$done_file"; then exit 0; fi

echo "set-up: .venv with $("$python" --version), this takes a few minutes the first time"
rm -f "$done_file"
[ "$python" = .venv/bin/python ] || "$python" -m venv --clear .venv
# Old pips build source packages through setup.py, with a page of warnings, unless told otherwise.
pip=(.venv/bin/python -m pip --disable-pip-version-check -q install --use-pep517)
"${pip[@]}" -r requirements.txt
if [ "$level" = all ]; then
  "${pip[@]}" -c requirements.txt -e '.[all]'
else
  "${pip[@]}" --no-deps -e .
fi
echo "$stamp $level" >"$done_file"
