#!/usr/bin/env bash
# Make the virtual environment with exactly the locked packages: tests/setup-venv.sh DIRECTORY
# PYTHON names the interpreter; otherwise the first of python3, 3.13, 3.12 and 3.11 that fits is taken.
set -euo pipefail
cd "$(dirname "$0")/.."
readonly directory=${1:?usage: tests/setup-venv.sh DIRECTORY}

fits() {
  "$1" -c 'import sys, venv, ensurepip; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 14))' >/dev/null 2>&1
}

if [[ ! -x $directory/bin/python ]]; then
  found=
  for candidate in ${PYTHON:-python3 python3.13 python3.12 python3.11}; do
    if fits "$candidate"; then
      found=$candidate
      break
    fi
  done
  if [[ -z $found ]]; then
    echo "setup: no Python 3.11 to 3.13 with venv and ensurepip (tried: ${PYTHON:-python3 python3.13 python3.12 python3.11})." >&2
    echo "setup: on Debian and Ubuntu: apt-get install python3-venv; elsewhere name one: make setup PYTHON=/path/to/python3.13" >&2
    exit 1
  fi
  echo "setup: $("$found" --version) in $directory" >&2
  "$found" -m venv "$directory"
fi

export PIP_DISABLE_PIP_VERSION_CHECK=1
"$directory/bin/pip" install --quiet --require-hashes --requirement requirements-build.lock
"$directory/bin/pip" install --quiet --require-hashes --requirement requirements-dev.lock
"$directory/bin/pip" install --quiet --no-deps --no-build-isolation --editable ./raft --editable .
