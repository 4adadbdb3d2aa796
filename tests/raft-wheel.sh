#!/usr/bin/env bash
# Run the tests of raft/ that are not slow against its wheel alone: tests/raft-wheel.sh VIRTUAL_ENVIRONMENT
# Into a fresh environment go the wheel with its extras and the test tools, nothing of the service; the tests are
# copied away, so that the checkout's raft/ cannot be what they import.
set -euo pipefail
cd "$(dirname "$0")/.."
readonly environment=${1:?usage: tests/raft-wheel.sh VIRTUAL_ENVIRONMENT}
export PIP_DISABLE_PIP_VERSION_CHECK=1
unset PYTHONPATH

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
# The build writes into its source folder, so it gets a copy of that as well.
cp -r raft "$work/source"
"$environment/bin/pip" wheel --quiet --no-deps --no-build-isolation --wheel-dir "$work/wheels" "$work/source"
wheel=$(echo "$work"/wheels/kvorum_raft-*.whl)
if "$environment/bin/python" -m zipfile --list "$wheel" | grep -q "^service/"; then
  echo "raft-wheel: the wheel of raft/ holds files of service/" >&2
  exit 1
fi

"$environment/bin/python" -m venv "$work/venv"
grep -oE '^[a-z0-9-]+==[^ ;\\]+' requirements-dev.lock >"$work/constraints.txt"
"$work/venv/bin/pip" install --quiet --constraint "$work/constraints.txt" "${wheel}[sqlite,http]" pytest pytest-timeout pytest-xdist hypothesis uvloop
mkdir -p "$work/run/tests"
cp -r tests/raft "$work/run/tests/"
if [[ -f tests/conftest.py ]]; then cp tests/conftest.py "$work/run/tests/"; fi
cp pyproject.toml "$work/run/"
cd "$work/run"
origin=$("$work/venv/bin/python" -c 'import raft; print(raft.__file__)')
[[ $origin == "$work/venv/"* ]] || { echo "raft-wheel: raft is imported from $origin" >&2; exit 1; }
echo "raft-wheel: $(basename "$wheel"), $("$work/venv/bin/python" --version)"
"$work/venv/bin/python" -m pytest --quiet -n auto -m "not slow" tests/raft
