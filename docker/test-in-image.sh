#!/usr/bin/env bash
# Run the tests that need no containers and are not slow on the Python of the image, beside the host's own: docker/test-in-image.sh
# The environment is kept in a named volume (kvorum-test-environment), so that a second run is quick. Where Debian's
# mirror answers, Redis and curl are installed for the tests that use them; otherwise those are skipped, and say so.
set -euo pipefail
cd "$(dirname "$0")/.."
readonly image=${BASE_IMAGE:-python:3.13-slim-trixie}
docker image inspect "$image" >/dev/null 2>&1 || timeout 300 docker pull --quiet "$image" >/dev/null 2>&1 || docker/base-image.sh python

# The engine switches IPv6 off in a container, even on loopback, where some tests use it.
docker run --rm --init --volume "$PWD:/checkout:ro" --volume kvorum-test-environment:/environment --tmpfs /tmp:exec,size=2g \
  --sysctl net.ipv6.conf.lo.disable_ipv6=0 --env PYTHONDONTWRITEBYTECODE=1 "$image" sh -euc '
    if ! (apt-get -qq update && DEBIAN_FRONTEND=noninteractive apt-get -qq install --yes --no-install-recommends redis-server curl) >/dev/null 2>&1; then
      echo "redis-server and curl can not be installed in the container"
    fi
    mkdir /copy
    cd /checkout
    cp -r raft service tests docker docs benchmarks pyproject.toml README.md LICENSE requirements*.lock Makefile docker-compose.yml /copy/
    cd /copy
    tests/setup-venv.sh /environment
    exec /environment/bin/python tests/run_all.py --without-docker --without-slow'
