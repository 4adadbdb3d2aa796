#!/usr/bin/env bash
# The real Consul command line's `acl` commands against a server that has its ACL on and denies by default.
#
#   CONSUL_HTTP_TOKEN=MANAGEMENT tests/consul-cli-acl.sh [ADDRESS...]        default: http://127.0.0.1:8501 http://127.0.0.1:8502
#
# Without a token the first address is bootstrapped (a cluster allows that once). Give the leader and a follower: each address runs the same commands
# and takes back what it made. CONSUL_BIN names the program (default: consul on PATH).
set -euo pipefail

readonly consul=${CONSUL_BIN:-consul}
command -v "$consul" >/dev/null || { echo "consul-cli-acl: no consul program: put it on PATH or name it by CONSUL_BIN" >&2; exit 2; }
[[ $# -gt 0 ]] || set -- http://127.0.0.1:8501 http://127.0.0.1:8502
management=${CONSUL_HTTP_TOKEN:-}
unset "${!CONSUL_HTTP_@}"
checks=0

fail() {
  printf 'FAILED %s at %s\n  %s\n' "$1" "$CONSUL_HTTP_ADDR" "$2" >&2
  exit 1
}

# holds WHAT PATTERN COMMAND...: the command succeeds, and its output matches the extended regular expression. The output stays in $got.
holds() {
  local what=$1 pattern=$2
  shift 2
  got=$("$@" 2>&1) || fail "$what" "exit code not 0; it said: $got"
  grep -Eq -- "$pattern" <<<"$got" || fail "$what" "wanted $pattern in: $got"
  checks=$((checks + 1))
}

# refused WHAT PATTERN COMMAND...: the command fails, and its output matches.
refused() {
  local what=$1 pattern=$2
  shift 2
  if got=$("$@" 2>&1) || ! grep -Eq -- "$pattern" <<<"$got"; then fail "$what" "wanted a failure that says $pattern; got: $got"; fi
  checks=$((checks + 1))
}

# field NAME: what stands behind the name in $got.
field() { sed -n "s/^$1: *//p" <<<"$got" | head -n 1; }

export CONSUL_HTTP_ADDR=$1
if [[ -z $management ]]; then
  holds bootstrap '^SecretID:' "$consul" acl bootstrap
  management=$(field SecretID)
fi
refused 'a second bootstrap' 'ACL bootstrap no longer allowed' "$consul" acl bootstrap

for address; do
  export CONSUL_HTTP_ADDR=$address CONSUL_HTTP_TOKEN=$management
  mark=cli-$$-$RANDOM
  holds 'policy create' "^Name: *$mark" "$consul" acl policy create -name "$mark" -description d -rules "key_prefix \"$mark/\" { policy = \"write\" }"
  policy=$(field ID)
  holds 'policy list' "^$mark:" "$consul" acl policy list
  holds 'policy read' "key_prefix \"$mark/\"" "$consul" acl policy read -name "$mark"
  holds 'policy update' '^Description: *other' "$consul" acl policy update -id "$policy" -description other
  refused 'policy create, bad rules' 'Failed to parse ACL rules: At 1:' "$consul" acl policy create -name "$mark-bad" -rules 'key "a" {'
  holds 'role create' "^Name: *$mark" "$consul" acl role create -name "$mark" -policy-name "$mark" -service-identity web
  role=$(field ID)
  holds 'role list' "$mark" "$consul" acl role list
  holds 'role read' "$policy - $mark" "$consul" acl role read -name "$mark"
  holds 'role update' '^Description: *other' "$consul" acl role update -id "$role" -description other

  holds 'token create' '^SecretID:' "$consul" acl token create -description "$mark" -policy-name "$mark" -expires-ttl 1h
  accessor=$(field AccessorID) secret=$(field SecretID)
  holds 'token read' "$policy - $mark" "$consul" acl token read -id "$accessor"
  holds 'token update' '^Description: *other' "$consul" acl token update -id "$accessor" -description other -role-name "$mark"
  holds 'token clone' '^Description: *clone' "$consul" acl token clone -id "$accessor" -description clone
  clone=$(field AccessorID)
  holds 'token list' "$clone" "$consul" acl token list
  CONSUL_HTTP_TOKEN=$secret holds 'token read -self' "$accessor" "$consul" acl token read -self
  CONSUL_HTTP_TOKEN=$secret holds 'kv put' 'Success' "$consul" kv put "$mark/a" 1
  CONSUL_HTTP_TOKEN=$secret holds 'kv get' '^1$' "$consul" kv get "$mark/a"
  CONSUL_HTTP_TOKEN=$secret refused 'kv put elsewhere' 'Permission denied' "$consul" kv put "elsewhere-$mark" 1
  CONSUL_HTTP_TOKEN=$secret refused 'operator' 'Permission denied' "$consul" operator raft list-peers
  CONSUL_HTTP_TOKEN=none refused 'an unknown token' 'response code: 403' "$consul" kv get "$mark/a"
  CONSUL_HTTP_TOKEN='' refused 'no token' 'response code: 403' "$consul" kv get "$mark/a"
  holds 'auth-method list' '' "$consul" acl auth-method list
  holds 'binding-rule list' '' "$consul" acl binding-rule list

  holds 'token delete' 'deleted successfully' "$consul" acl token delete -id "$clone"
  holds 'token delete' 'deleted successfully' "$consul" acl token delete -id "$accessor"
  CONSUL_HTTP_TOKEN=$secret refused 'a deleted token' 'response code: 403' "$consul" kv get "$mark/a"
  holds 'role delete' 'deleted successfully' "$consul" acl role delete -id "$role"
  holds 'policy delete' 'deleted successfully' "$consul" acl policy delete -id "$policy"
  holds 'kv delete' 'Success' "$consul" kv delete -recurse "$mark/"
done
echo "consul-cli-acl: $checks checks passed at $# addresses"
