#!/usr/bin/env bash
# The real Consul command line against any server that speaks its HTTP API.
#
#   tests/consul-cli.sh [ADDRESS...]        default: http://127.0.0.1:8501 http://127.0.0.1:8502
#
# Give the leader and a follower: each address runs the same commands, unchanged, and a value written at one is read at
# the next. CONSUL_BIN names the program (default: consul on PATH). Keys live under a prefix that is deleted at the end.
set -euo pipefail

readonly consul=${CONSUL_BIN:-consul}
command -v "$consul" >/dev/null || { echo "consul-cli: no consul program: put it on PATH or name it by CONSUL_BIN" >&2; exit 2; }
[[ $# -gt 0 ]] || set -- http://127.0.0.1:8501 http://127.0.0.1:8502
readonly first=$1
readonly prefix=consul-cli/$$-$RANDOM
unset "${!CONSUL_HTTP_@}"
checks=0
work=$(mktemp -d)

finish() {
  CONSUL_HTTP_ADDR=$first "$consul" kv delete -recurse "$prefix/" >/dev/null 2>&1 || true
  rm -rf "$work"
}
trap finish EXIT

# expect WHAT WANTED COMMAND...: the command succeeds and its output is WANTED.
expect() {
  local what=$1 wanted=$2 got
  shift 2
  if ! got=$("$@" 2>&1); then
    printf 'FAILED %s at %s: exit code not 0\n  said: %s\n' "$what" "$CONSUL_HTTP_ADDR" "$got" >&2
    exit 1
  fi
  if [[ $got != "$wanted" ]]; then
    printf 'FAILED %s at %s\n  wanted: %q\n  got:    %q\n' "$what" "$CONSUL_HTTP_ADDR" "$wanted" "$got" >&2
    exit 1
  fi
  checks=$((checks + 1))
}

# refused WHAT PATTERN COMMAND...: the command fails, and its output holds PATTERN.
refused() {
  local what=$1 pattern=$2 got
  shift 2
  if got=$("$@" 2>&1) || [[ $got != *"$pattern"* ]]; then
    printf 'FAILED %s at %s: wanted a failure that says %q\n  got: %s\n' "$what" "$CONSUL_HTTP_ADDR" "$pattern" "$got" >&2
    exit 1
  fi
  checks=$((checks + 1))
}

modify_index() { "$consul" kv get -detailed "$1" | awk '$1 == "ModifyIndex" { print $2 }'; }

put_and_get() {
  local key=$base/single
  expect "put" "Success! Data written to: $key" "$consul" kv put "$key" "a value with spaces, ünïcode and \"quotes\""
  expect "get" "a value with spaces, ünïcode and \"quotes\"" "$consul" kv get "$key"
  expect "put with flags" "Success! Data written to: $key" "$consul" kv put -flags=42 "$key" flagged
  expect "get -detailed" "Flags 42" sh -c "'$consul' kv get -detailed '$key' | awk '\$1 == \"Flags\" { print \$1, \$2 }'"
  head -c 100000 /dev/urandom | base64 >"$work/file"
  expect "put @file" "Success! Data written to: $base/file" "$consul" kv put "$base/file" "@$work/file"
  expect "get of a file" "$(cat "$work/file")" "$consul" kv get "$base/file"
  expect "put from standard input" "Success! Data written to: $base/stdin" sh -c "printf piped | '$consul' kv put '$base/stdin' -"
  expect "get from standard input's" piped "$consul" kv get "$base/stdin"
  expect "put of an empty value" "Success! Data written to: $base/empty" "$consul" kv put "$base/empty"
  expect "get of an empty value" "" "$consul" kv get "$base/empty"
  refused "get of a missing key" "No key exists at: $base/missing" "$consul" kv get "$base/missing"
}

lists() {
  local name
  for name in a b/c b/d e; do expect "put $name" "Success! Data written to: $base/tree/$name" "$consul" kv put "$base/tree/$name" "value of $name"; done
  expect "get -recurse" "$(printf '%s\n' "$base/tree/a:value of a" "$base/tree/b/c:value of b/c" "$base/tree/b/d:value of b/d" "$base/tree/e:value of e")" \
    "$consul" kv get -recurse "$base/tree/"
  expect "get -keys" "$(printf '%s\n' "$base/tree/a" "$base/tree/b/" "$base/tree/e")" "$consul" kv get -keys "$base/tree/"
  expect "get -keys -separator=''" "$(printf '%s\n' "$base/tree/a" "$base/tree/b/c" "$base/tree/b/d" "$base/tree/e")" \
    "$consul" kv get -keys -separator= "$base/tree/"
  expect "get -recurse of nothing" "" "$consul" kv get -recurse "$base/nothing/"
}

compare_and_set() {
  local key=$base/cas index
  expect "put before -cas" "Success! Data written to: $key" "$consul" kv put "$key" first
  index=$(modify_index "$key")
  expect "put -cas, right index" "Success! Data written to: $key" "$consul" kv put -cas -modify-index="$index" "$key" second
  refused "put -cas, old index" "Did not write to $key: CAS failed" "$consul" kv put -cas -modify-index="$index" "$key" third
  expect "get after -cas" second "$consul" kv get "$key"
  refused "delete -cas, old index" "Did not delete key $key: CAS failed" "$consul" kv delete -cas -modify-index="$index" "$key"
  index=$(modify_index "$key")
  expect "delete -cas, right index" "Success! Deleted key: $key" "$consul" kv delete -cas -modify-index="$index" "$key"
  refused "get after delete -cas" "No key exists at: $key" "$consul" kv get "$key"
}

export_and_import() {
  "$consul" kv export "$base/tree/" >"$work/export.json"
  expect "export holds" 4 grep -c '"key"' "$work/export.json"
  "$consul" kv get -recurse "$base/tree/" >"$work/before"
  expect "delete -recurse" "Success! Deleted keys with prefix: $base/tree/" "$consul" kv delete -recurse "$base/tree/"
  expect "get after delete -recurse" "" "$consul" kv get -recurse "$base/tree/"
  expect "import" "$(printf 'Imported: %s\n' "$base/tree/a" "$base/tree/b/c" "$base/tree/b/d" "$base/tree/e")" "$consul" kv import "@$work/export.json"
  expect "get -recurse after import" "$(cat "$work/before")" "$consul" kv get -recurse "$base/tree/"
  "$consul" kv export "$base/tree/" >"$work/again.json"
  expect "export after import" "" diff "$work/export.json" "$work/again.json"
  expect "delete of one key" "Success! Deleted key: $base/tree/a" "$consul" kv delete "$base/tree/a"
  refused "get of the deleted key" "No key exists at: $base/tree/a" "$consul" kv get "$base/tree/a"
}

# contend HOLDERS: three contenders for a lock that so many may hold run a command that notes when it begins and ends.
contend() {
  local holders=$1 contender
  local -a running=()
  : >"$work/turns"
  for contender in 1 2 3; do
    "$consul" lock -n="$holders" "$base/lock-$holders" "echo + >>'$work/turns'; sleep 0.2; echo - >>'$work/turns'" >"$work/lock-$contender" 2>&1 &
    running+=("$!")
  done
  for contender in "${running[@]}"; do wait "$contender"; done
  awk -v allowed="$holders" '
    $1 == "+" { turns++; now++ } $1 == "-" { now-- } now > most { most = now }
    END { print turns " turns, " (most <= allowed ? "never more" : most) " at once" }' "$work/turns"
}

locks() {
  expect "lock" "held" "$consul" lock "$base/held" "echo held"
  expect "nothing left of a lock" "" "$consul" kv get -recurse "$base/held"
  expect "lock, three contenders" "3 turns, never more at once" contend 1
  expect "lock -n=2, three contenders" "3 turns, never more at once" contend 2
}

peers() {
  expect "list-peers heads" "Node ID Address State Voter RaftProtocol" sh -c "'$consul' operator raft list-peers | awk 'NR == 1 { \$1 = \$1; print }'"
  expect "list-peers -stale=true agrees" "$("$consul" operator raft list-peers)" "$consul" operator raft list-peers -stale=true
  "$consul" operator raft list-peers >"$work/peers"
  expect "one leader" 1 grep -cw leader "$work/peers"
  cat "$work/peers"
}

for address in "$@"; do
  export CONSUL_HTTP_ADDR=$address
  base=$prefix/${address##*:}
  echo "consul-cli: $("$consul" version | head -n 1) against $address"
  put_and_get
  lists
  compare_and_set
  export_and_import
  locks
  peers
  if [[ -n ${previous:-} ]]; then
    expect "written at $previous" "value of b/c" "$consul" kv get "$prefix/${previous##*:}/tree/b/c"
  fi
  previous=$address
done
expect "delete -recurse of everything" "Success! Deleted keys with prefix: $prefix/" "$consul" kv delete -recurse "$prefix/"
echo "consul-cli: $checks checks passed at $# addresses"
