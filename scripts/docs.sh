#!/usr/bin/env bash
# Build the documentation site into site/; a warning, such as a link that leads nowhere, is an error.
#
# Needs a package index the first time only.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/options.sh
only_help "$@"
if ! .venv/bin/python -c "import material, mkdocstrings_handlers.python" 2>/dev/null; then
  scripts/setup.sh runtime
  .venv/bin/python -m pip --disable-pip-version-check -q install -c requirements.txt -e '.[docs]'
fi
# Material for MkDocs announces its successor on each run.
NO_MKDOCS_2_WARNING=1 .venv/bin/mkdocs build --strict
