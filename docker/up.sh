#!/usr/bin/env bash
# Start three nodes in containers and return when all of them are healthy: docker/up.sh [OPTION OF compose up...]
#
# A base image that is missing is pulled; where no registry answers, docker/base-image.sh makes it. With the
# profile `cache` (COMPOSE_PROFILES=cache, in the environment or in .env) Redis is started and used as well.
set -euo pipefail
cd "$(dirname "$0")/.."

readonly pull_seconds_max=300
readonly healthy_seconds_max=${HEALTHY_SECONDS_MAX:-120}

say() { printf 'up: %s\n' "$*" >&2; }
fail() { say "$*"; exit 1; }

# setting NAME DEFAULT: what Compose would take for NAME, from the environment or from .env.
setting() {
  local kept=
  if [[ -f .env ]]; then kept=$(sed -n "s/^$1=//p" .env | tail -n 1); fi
  printf '%s\n' "${!1:-${kept:-$2}}"
}

# need_image IMAGE NAME: have IMAGE in the engine's store; NAME is what docker/base-image.sh calls it.
need_image() {
  docker image inspect "$1" >/dev/null 2>&1 && return
  say "pulling $1"
  if timeout "$pull_seconds_max" docker pull --quiet "$1" >/dev/null 2>&1; then return; fi
  say "no image registry answers for $1"
  docker/base-image.sh "$2"
}

# Names of the containers that are not healthy, each with what the engine says of it.
unhealthy() {
  docker inspect --format '{{.Name}} {{.State.Status}}/{{if .State.Health}}{{.State.Health.Status}}{{end}}' "${containers[@]}" |
    awk '$2 != "running/healthy" { sub("^/", "", $1); print $1 " is " $2 }'
}

docker version >/dev/null 2>&1 || fail "no Docker engine answers (docker version fails): start it, or add yourself to its group"
BASE_IMAGE=$(setting BASE_IMAGE python:3.13-slim-trixie)
REDIS_IMAGE=$(setting REDIS_IMAGE redis:8.0)
export BASE_IMAGE REDIS_IMAGE
services=(node1 node2 node3)
need_image "$BASE_IMAGE" python
if [[ ,$(setting COMPOSE_PROFILES ''), == *,cache,* ]]; then
  need_image "$REDIS_IMAGE" redis
  services+=(redis)
  KVORUM_REDIS_URL=$(setting KVORUM_REDIS_URL redis://redis:6379/0)
  export KVORUM_REDIS_URL
fi

docker/compose.sh up --detach --build "$@"
containers=()
for service in "${services[@]}"; do containers+=("$(docker/compose.sh ps -q "$service")"); done
deadline=$((SECONDS + healthy_seconds_max))
while waiting=$(unhealthy) && [[ -n $waiting ]]; do
  if ((SECONDS >= deadline)); then
    docker/compose.sh logs --tail=20 >&2 || true
    fail "not healthy after $healthy_seconds_max s: ${waiting//$'\n'/, }"
  fi
  sleep 0.5
done

port=$(docker/compose.sh port node1 8500)
say "healthy: ${services[*]}"
cat <<END
The cluster answers at
END
for service in node1 node2 node3; do printf '  http://%s   %s\n' "$(docker/compose.sh port "$service" 8500)" "$service"; done
cat <<END
Try:
  curl -X PUT --data 'hello' http://$port/v1/kv/greeting
  curl http://$port/v1/kv/greeting?raw
make logs follows the nodes, make down stops them and keeps their data.
END
