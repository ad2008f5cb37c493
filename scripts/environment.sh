# Makes the virtual environment that the other scripts use; sourced, not run.
# LMRAY_PYTHON names an interpreter (3.11 to 3.13); LMRAY_VENV a folder other than .venv.

cd "$(dirname "${BASH_SOURCE[0]}")/.." || exit 1
venv=${LMRAY_VENV:-.venv}

find_python() {
  local candidate
  for candidate in "${LMRAY_PYTHON:-}" python3.13 python3.12 python3.11 python3 python; do
    if [ -n "$candidate" ] && "$candidate" -c '
import sys, venv, ensurepip
sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' >/dev/null 2>&1; then
      echo "$candidate"
      return
    fi
  done
  echo "error: no Python 3.11, 3.12 or 3.13 with venv found; install one (Debian: apt-get install python3-venv) or set LMRAY_PYTHON" >&2
  return 1
}

# install WHAT: installs this checkout (WHAT is . or .[dev]) unless it was installed from the same files already.
install() {
  local python stamp wanted
  if [ ! -x "$venv/bin/python" ]; then
    python=$(find_python) || exit 1
    echo "making $venv with $("$python" --version)" >&2
    "$python" -m venv "$venv" || exit 1
  fi
  stamp="$venv/.lmray-installed-$(echo "$1" | tr -cd 'a-z')"
  wanted=$(cat pyproject.toml constraints.txt | cksum)
  if [ "$(cat "$stamp" 2>/dev/null)" != "$wanted" ]; then
    echo "installing lmray and what it needs (a few minutes the first time) ..." >&2
    "$venv/bin/python" -m pip install --quiet --disable-pip-version-check \
      --constraint constraints.txt --editable "$1" 2> >(grep -v '^WARNING' >&2) || exit 1
    echo "$wanted" >"$stamp"
  fi
}
