#!/usr/bin/env bash
# Make the virtual environment with exactly the locked packages: tests/setup-venv.sh DIRECTORY
# PYTHON names the interpreter; otherwise the first that fits is taken of the distribution's python3, and python3, 3.13, 3.12 and 3.11 on PATH.
# Distributions build theirs with optimization by profile, pyenv does not unless told to: everything here takes half as long again with such a one.
set -euo pipefail
cd "$(dirname "$0")/.."
readonly directory=${1:?usage: tests/setup-venv.sh DIRECTORY}

fits() {
  "$1" -c 'import sys, venv, ensurepip; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 14))' >/dev/null 2>&1
}

readonly candidates=${PYTHON:-/usr/bin/python3 python3 python3.13 python3.12 python3.11}

if [[ ! -x $directory/bin/python ]]; then
  found=
  for candidate in $candidates; do
    if fits "$candidate"; then
      found=$candidate
      break
    fi
  done
  if [[ -z $found ]]; then
    echo "setup: no Python 3.11 to 3.13 with venv and ensurepip (tried: $candidates)." >&2
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
