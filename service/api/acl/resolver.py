"""From a secret to what its bearer may do, by the local state; kept in memory as long as no part of the ACL changes."""

import time
from functools import partial
from sqlite3 import Connection
from typing import NamedTuple

from service.api.errors import RequestRefused
from service.domain.acl.authorizer import Authorizer
from service.domain.acl.records import ANONYMOUS_SECRET, NodeIdentity, Policy, Role, ServiceIdentity, Token, row_id, secret_hash
from service.domain.acl.records import POLICIES as KIND_POLICIES
from service.domain.acl.records import ROLES as KIND_ROLES
from service.domain.acl.rules import READ, WRITE, Rule, RulesRefused, read
from service.settings import Settings
from service.store import acl_rows
from service.store.reader import Reader

FORBIDDEN = 403
NOT_FOUND = "ACL not found"
DENIED = "Permission denied"
_ROOTS = frozenset({"allow", "deny", "manage"})
_KNOWN_MAX = 10_000


class _Found(NamedTuple):
    """A token with all that it refers to, and the ACL's index at that moment."""

    token: Token | None
    roles: list[Role]
    policies: list[Policy]
    index: int  # type: ignore[assignment]  # the field's word; tuple.index is of no use here


class Resolver:
    """Finds tokens. Belongs to one thread, the worker's hub.

    Whoever needs a decision as new as something acknowledged has a barrier before it; each call looks at the index of the ACL's last change.

    :param settings: whether the ACL is on, the default policy and the datacenter: these stay while the node runs.
    :ivar as_of: how far the state was applied that the last decision comes from, at least; 0 when it also depends on the time.
    """

    def __init__(self, state: Reader, settings: Settings) -> None:
        self.enabled = settings.acl_enabled == "true"
        self._default_allows = settings.acl_default_policy == "allow"
        self._datacenter = settings.datacenter
        self._state = state
        self._version = (0, 0)
        self.as_of = 0
        self._known: dict[str, tuple[Authorizer, int]] = {}

    def resolve(self, secret: str) -> Authorizer:
        """What the bearer of a secret may do; an empty one stands for nobody's.

        :raises RequestRefused: there is no such token, or it has expired.
        :raises StateUnreadable: when the state can't be opened or read.
        """
        indexes, looked_at = self._state.tables(acl_rows.indexes)
        self._forget_unless((self._state.generation(), indexes.get(acl_rows.TABLE, 0)))
        known = self._known.get(secret)
        if known is not None:
            authorizer, expires_ns = known
            if expires_ns and time.time_ns() >= expires_ns:
                raise RequestRefused(FORBIDDEN, NOT_FOUND)
        else:
            authorizer, expires_ns = self._resolve(secret)
        self.as_of = 0 if expires_ns else looked_at
        return authorizer

    def remembered(self, secret: str) -> tuple[Authorizer, int] | None:
        """What the bearer of a secret could do when that was last asked, and the index of the ACL's last change then; None when that is not known.

        Nothing is read: whoever relies on it has to make sure that the ACL is still the same.
        """
        known = self._known.get(secret)
        if known is None or (known[1] and time.time_ns() >= known[1]):
            return None
        return known[0], self._version[1]

    def _resolve(self, secret: str) -> tuple[Authorizer, int]:
        if secret in _ROOTS:
            raise RequestRefused(500, "Cannot resolve root ACL")
        found, _ = self._state.tables(partial(_find, secret_hash(secret or ANONYMOUS_SECRET)))
        token = found.token
        if token is None:
            if secret not in ("", ANONYMOUS_SECRET):
                raise RequestRefused(FORBIDDEN, NOT_FOUND)
            return Authorizer([], default_allows=self._default_allows), 0
        if is_expired(token):
            raise RequestRefused(FORBIDDEN, NOT_FOUND)
        rules = [rule for policy in found.policies if self._holds_here(policy.datacenters) for rule in _rules_of(policy)]
        holders: list[Token | Role] = [token, *found.roles]
        for holder in holders:
            rules += self._identity_rules(holder.service_identities, holder.node_identities)
        authorizer = Authorizer(rules, default_allows=self._default_allows, accessor=token.accessor)
        self._forget_unless((self._state.generation(), found.index))
        if len(self._known) >= _KNOWN_MAX:
            self._known.clear()
        self._known[secret] = authorizer, token.expires_ns
        return authorizer, token.expires_ns

    def _forget_unless(self, version: tuple[int, int]) -> None:
        if version != self._version:
            self._known.clear()
            self._version = version

    def _holds_here(self, datacenters: list[str]) -> bool:
        return not datacenters or self._datacenter in datacenters

    def _identity_rules(self, services: list[ServiceIdentity], nodes: list[NodeIdentity]) -> list[Rule]:
        """What Consul grants to a service or to the agent of a node."""
        rules = []
        for service in services:
            if self._holds_here(service.datacenters):
                names = (service.service_name, f"{service.service_name}-sidecar-proxy")
                rules += [Rule("service", name, is_prefix=False, policy=WRITE) for name in names]
                rules += [Rule(resource, "", is_prefix=True, policy=READ) for resource in ("service", "node")]
        for node in nodes:
            if node.datacenter == self._datacenter:
                rules += [Rule("node", node.node_name, is_prefix=False, policy=WRITE), Rule("service", "", is_prefix=True, policy=READ)]
        return rules


def is_expired(token: Token) -> bool:
    """Whether a token's time is up, by this node's clock; the leader removes it soon."""
    return 0 < token.expires_ns <= time.time_ns()


def _rules_of(policy: Policy) -> tuple[Rule, ...]:
    try:
        return read(policy.rules)
    except RulesRefused:  # never stored by this version; what can't be understood grants nothing
        return ()


def _find(wanted: bytes, connection: Connection) -> _Found:
    token = acl_rows.find_token(connection, wanted)
    index = acl_rows.indexes(connection).get(acl_rows.TABLE, 0)
    if token is None:
        return _Found(None, [], [], index)
    roles = [role for id_ in token.roles if isinstance(role := acl_rows.find(connection, row_id(KIND_ROLES, id_)), Role)]
    ids = dict.fromkeys([*token.policies, *(id_ for role in roles for id_ in role.policies)])
    policies = [policy for id_ in ids if isinstance(policy := acl_rows.find(connection, row_id(KIND_POLICIES, id_)), Policy)]
    return _Found(token, roles, policies, index)
