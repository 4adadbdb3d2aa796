#!/usr/bin/env bash
# Refresh the three lock files from pyproject.toml: tests/lock.sh VIRTUAL_ENVIRONMENT
#   requirements.lock        what a node runs with
#   requirements-dev.lock    that, with the tools of the tests
#   requirements-build.lock  what makes the wheels
# Hashes of every file, for every supported Python and platform, and no address of an index.
set -euo pipefail
cd "$(dirname "$0")/.."
readonly environment=${1:?usage: tests/lock.sh VIRTUAL_ENVIRONMENT}
export UV_PYTHON=$environment/bin/python
uv=$(command -v uv || echo "$environment/bin/uv")
[[ -x $uv ]] || "$environment/bin/pip" install --quiet uv

lock() {
  "$uv" pip compile --quiet --upgrade --universal --python-version 3.11 --generate-hashes --no-header --no-emit-package kvorum-raft "$@"
}
lock pyproject.toml --output-file requirements.lock
# The first file is a constraint of the second: what is tested is what runs.
lock pyproject.toml --group dev --constraint requirements.lock --output-file requirements-dev.lock
printf 'setuptools>=77\n' | lock - --no-annotate --output-file requirements-build.lock
git --no-pager diff --stat -- 'requirements*.lock'
