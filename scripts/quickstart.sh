#!/usr/bin/env bash
# From nothing to a sweep report: makes .venv, installs lmray, runs `lmray quickstart` with the arguments given.
set -euo pipefail
here=$PWD
source "$(dirname "${BASH_SOURCE[0]}")/environment.sh"
install .
lmray=$PWD/$venv/bin/lmray
cd "$here"
exec "$lmray" quickstart "$@"
