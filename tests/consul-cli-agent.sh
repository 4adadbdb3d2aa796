#!/usr/bin/env bash
# The real Consul command line's commands around the KV against any server that speaks its HTTP API: events, watches, exec,
# snapshots, members, the operator's, the log. A snapshot of the moment is restored: give it a cluster that nobody else writes to.
#
#   tests/consul-cli-agent.sh [ADDRESS...]        default: http://127.0.0.1:8501 http://127.0.0.1:8502
#
# Give the leader and a follower: each address runs the same commands. CONSUL_BIN names the program (default: consul on PATH). The autopilot's
# configuration is set and put back as it was. With REMOVE_PEER=ID that member is removed at the last address (do that to a cluster of your own).
set -euo pipefail

readonly consul=${CONSUL_BIN:-consul}
command -v "$consul" >/dev/null || { echo "consul-cli-agent: no consul program: put it on PATH or name it by CONSUL_BIN" >&2; exit 2; }
[[ $# -gt 0 ]] || set -- http://127.0.0.1:8501 http://127.0.0.1:8502
unset "${!CONSUL_HTTP_@}"
readonly patience=20
checks=0
work=$(mktemp -d)
background=()

finish() {
  local pid
  for pid in "${background[@]}"; do kill "$pid" 2>/dev/null || true; done
  rm -rf "$work"
}
trap finish EXIT

fail() {
  printf 'FAILED %s at %s\n  %s\n' "$1" "$CONSUL_HTTP_ADDR" "$2" >&2
  exit 1
}

# holds WHAT PATTERN COMMAND...: the command succeeds, and its output matches the extended regular expression.
holds() {
  local what=$1 pattern=$2 got
  shift 2
  got=$("$@" 2>&1) || fail "$what" "exit code not 0; it said: $got"
  grep -Eq -- "$pattern" <<<"$got" || fail "$what" "wanted $pattern in: $got"
  checks=$((checks + 1))
}

# refused WHAT PATTERN COMMAND...: the command fails, and its output matches.
refused() {
  local what=$1 pattern=$2 got
  shift 2
  if got=$("$@" 2>&1) || ! grep -Eq -- "$pattern" <<<"$got"; then fail "$what" "wanted a failure that says $pattern; got: $got"; fi
  checks=$((checks + 1))
}

# comes WHAT PATTERN FILE: a line that matches comes into the file in time.
comes() {
  local deadline=$((SECONDS + patience))
  until grep -Eqs -- "$2" "$3"; do
    ((SECONDS < deadline)) || fail "$1" "nothing like $2 within $patience s; there is: $(cat "$3" 2>/dev/null)"
    sleep 0.1
  done
  checks=$((checks + 1))
}

# begin FILE COMMAND...: run a command beside the others, its output in the file.
begin() {
  local file=$1
  shift
  timeout $((patience * 3)) "$@" >"$file" 2>&1 &
  background+=("$!")
}

events() {
  local name=cli-$$-$RANDOM
  begin "$work/watch-$name" "$consul" watch -type=event -name="$name" cat
  comes "watch -type=event begins" '^\[\]' "$work/watch-$name"
  holds "event" '^Event ID: [0-9a-f-]{36}$' "$consul" event -name="$name" "hello world"
  comes "watch -type=event wakes" "\"Name\":\"$name\",\"Payload\":\"aGVsbG8gd29ybGQ=\"" "$work/watch-$name"
  holds "event without a payload" '^Event ID: ' "$consul" event -name="$name"
  comes "watch -type=event shows only what is new" "^\\[\\{[^}]*\"Payload\":null[^}]*\\}\\]" "$work/watch-$name"
  holds "event with filters" '^Event ID: ' "$consul" event -name="$name" -node='^none$' -service=web -tag=t x
  refused "event with a bad filter" 'error parsing regexp: missing closing \)' "$consul" event -name="$name" -node='('
  refused "event that is too long" 'user event exceeds configured limit of 512 bytes' "$consul" event -name="$name" "$(head -c 600 /dev/zero | tr '\0' x)"
}

watches() {
  local key=cli-$$-$RANDOM/key
  begin "$work/watch-key" "$consul" watch -type=key -key="$key" cat
  comes "watch -type=key of a missing key" '^null' "$work/watch-key"
  begin "$work/watch-prefix" "$consul" watch -type=keyprefix -prefix="${key%/key}/" cat
  comes "watch -type=keyprefix of nothing" '^(null|\[\])' "$work/watch-prefix"
  holds "put under two watches" 'Success!' "$consul" kv put "$key" seen
  comes "watch -type=key wakes" "\"Key\":\"$key\",.*\"Value\":\"c2Vlbg==\"" "$work/watch-key"
  comes "watch -type=keyprefix wakes" "\"Key\":\"$key\",.*\"Value\":\"c2Vlbg==\"" "$work/watch-prefix"
  holds "delete under two watches" 'Success!' "$consul" kv delete "$key"
  # Nodes run no commands for others, as agents of Consul don't unless told to: the call is made in order, and nobody answers it.
  holds "exec" '^0 / 0 node\(s\) completed / acknowledged$' "$consul" exec -wait=1s -wait-repl=200ms uptime
  [[ -z $("$consul" kv get -keys rexec/) ]] || fail exec "it left keys: $("$consul" kv get -keys rexec/)"
}

snapshots() {
  local key=cli-$$-$RANDOM/key
  holds "put before a snapshot" 'Success!' "$consul" kv put "$key" before
  holds "snapshot save" 'Saved and verified snapshot to index [0-9]+' "$consul" snapshot save "$work/state.tgz"
  holds "snapshot inspect" '^Index +[0-9]+' "$consul" snapshot inspect "$work/state.tgz"
  holds "put after a snapshot" 'Success!' "$consul" kv put "$key" after
  refused "snapshot restore of what is none" 'failed to|Unexpected response code: (400|500)' "$consul" snapshot restore "$0"
  holds "a refused restore changes nothing" '^after$' "$consul" kv get "$key"
  holds "snapshot restore" 'Restored snapshot' "$consul" snapshot restore "$work/state.tgz"
  holds "get after a restore" '^before$' "$consul" kv get "$key"
  holds "delete after a restore" 'Success!' "$consul" kv delete "$key"
}

catalog() {
  local leader
  holds "members" '^Node +Address +Status' "$consul" members
  holds "members that are alive" ' alive +server +1\.8\.7' "$consul" members
  holds "members -detailed" 'role=consul' "$consul" members -detailed
  holds "members -status=alive -wan" '\.dc1' "$consul" members -wan -status=alive
  holds "info" 'leader_addr = .+:[0-9]+' "$consul" info
  holds "catalog datacenters" '^dc1$' "$consul" catalog datacenters
  holds "catalog nodes" '^Node +ID +Address +DC' "$consul" catalog nodes
  holds "catalog services" '^consul$' "$consul" catalog services
  holds "catalog nodes of a service" ' dc1$' "$consul" catalog nodes -service=consul
  leader=$("$consul" operator raft list-peers | awk '$4 == "leader" { print $1 }')
  holds "rtt" 'Estimated .* rtt: ' "$consul" rtt "$leader" "$leader"
  for type in nodes services checks; do
    begin "$work/watch-$type" "$consul" watch -type="$type" cat
    comes "watch -type=$type" '"consul"|"dc1"|"serfHealth"' "$work/watch-$type"
  done
  begin "$work/watch-service" "$consul" watch -type=service -service=consul cat
  comes "watch -type=service" '"CheckID":"serfHealth"' "$work/watch-service"
  refused "maint" '501' "$consul" maint -enable
  refused "leave" 'stays|member until it is removed' "$consul" leave
}

operator() {
  holds "operator raft list-peers" ' leader +true +3$' "$consul" operator raft list-peers
  refused "remove-peer of nobody, by address" 'address "192\.0\.2\.1:1" was not found in the Raft configuration' \
    "$consul" operator raft remove-peer -address=192.0.2.1:1
  refused "remove-peer of nobody, by id" 'id "none" was not found in the Raft configuration' "$consul" operator raft remove-peer -id=none
  local before
  before=$("$consul" operator autopilot get-config | awk '$1 == "MaxTrailingLogs" { print $3 }')
  holds "autopilot set-config" '^Configuration updated!$' "$consul" operator autopilot set-config -max-trailing-logs=$((before + 1))
  holds "autopilot get-config" "^MaxTrailingLogs = $((before + 1))\$" "$consul" operator autopilot get-config
  holds "autopilot set-config back" '^Configuration updated!$' "$consul" operator autopilot set-config -max-trailing-logs="$before"
  holds "autopilot get-config -stale" "^MaxTrailingLogs = $before\$" "$consul" operator autopilot get-config -stale=false
}

follow_the_log() {
  refused "monitor, a level that is none" 'Unknown log level: bogus' "$consul" monitor -log-level=bogus
  local code=0
  timeout 2 "$consul" monitor -log-level=debug >"$work/monitor" 2>&1 || code=$?
  [[ $code == 124 || $code == 0 ]] || fail monitor "exit code $code; it said: $(cat "$work/monitor")"
  checks=$((checks + 1))
}

for address in "$@"; do
  export CONSUL_HTTP_ADDR=$address
  echo "consul-cli-agent: $("$consul" version | head -n 1) against $address"
  events
  watches
  snapshots
  catalog
  operator
  follow_the_log
done
if [[ -n ${REMOVE_PEER:-} ]]; then
  holds "remove-peer" 'Removed peer with id' "$consul" operator raft remove-peer -id="$REMOVE_PEER"
  if "$consul" operator raft list-peers | grep -q "$REMOVE_PEER"; then fail "remove-peer" "the peer is still there"; fi
fi
echo "consul-cli-agent: $checks checks passed at $# addresses"
