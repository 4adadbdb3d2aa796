#!/usr/bin/env bash
# Run the Compose that this machine has, from the top of the repository: docker/compose.sh ARGUMENT...
# COMPOSE chooses one ("docker compose" or "docker-compose"); otherwise version 2 is taken before 1.29.
set -euo pipefail
cd "$(dirname "$0")/.."

if [[ -n ${COMPOSE:-} ]]; then
  read -ra compose <<<"$COMPOSE"
elif docker compose version >/dev/null 2>&1; then
  compose=(docker compose)
elif command -v docker-compose >/dev/null; then
  compose=(docker-compose)
else
  echo "compose: neither 'docker compose' nor 'docker-compose' is installed" >&2
  exit 1
fi
exec "${compose[@]}" "$@"
