#!/usr/bin/env bash
# The same environment with test dependencies, then ruff, pyrefly and pytest (which gets the arguments).
# LMRAY_TEST_DATA names a folder of real text; without it the tests on real text are skipped.
set -euo pipefail
if [ -n "${LMRAY_TEST_DATA:-}" ]; then
  LMRAY_TEST_DATA=$(realpath "$LMRAY_TEST_DATA")
  export LMRAY_TEST_DATA
fi
source "$(dirname "${BASH_SOURCE[0]}")/environment.sh"
install '.[dev]'
"$venv/bin/ruff" format --check .
"$venv/bin/ruff" check .
"$venv/bin/pyrefly" check
exec "$venv/bin/python" -m pytest "$@"
