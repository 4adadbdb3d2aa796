"""The ACL in an archive: how it is written, and how each record is judged before a restore. Nobody judges it again where it takes its place."""

from collections.abc import Iterator

import msgspec

from service.api.acl.tokens import is_uuid
from service.archive import acl_records, records
from service.archive.errors import unreadable
from service.archive.records import Record
from service.domain.acl.records import ANONYMOUS_ID, ANONYMOUS_SECRET, IDENTITY_NAME, NAME, POLICIES, ROLE_NAME, ROLES, TOKENS, Policy, Role, Token
from service.domain.acl.rules import RulesRefused, read
from service.store import acl_rows
from service.store.acl_rows import Everything
from service.store.restored import AclIndexes

INDEXES = {
    acl_records.TOKENS_INDEX: TOKENS,
    acl_records.POLICIES_INDEX: POLICIES,
    acl_records.ROLES_INDEX: ROLES,
    acl_records.BOOTSTRAP_INDEX: acl_rows.BOOTSTRAP,
}
"""What the indexes of the ACL are called in archives and here."""


def left_out(acl: Everything, *, may_tell_secrets: bool) -> str:
    """What of the ACL an archive can't have, in words: nothing or all of it.

    A token whose secret is not known can be restored nowhere, and an ACL that lacks some of its tokens is another one.
    """
    if may_tell_secrets and all(token.secret for token in acl.tokens.values()):
        return ""
    counts = {"ACL tokens": len(acl.tokens), "ACL policies": len(acl.policies), "ACL roles": len(acl.roles)}
    return ", ".join(f"{count} {name}" for name, count in counts.items() if count)


def pack(acl: Everything) -> Iterator[bytes]:
    """All records and indexes of an ACL."""
    policies = {policy.id: policy.name for policy in acl.policies.values()}
    roles = {role.id: role.name for role in acl.roles.values()}
    yield from (acl_records.pack_token(token, policies, roles) for token in acl.tokens.values())
    yield from map(acl_records.pack_policy, acl.policies.values())
    yield from (acl_records.pack_role(role, policies) for role in acl.roles.values())
    known = ((name, acl.indexes.get(kept_as, 0)) for name, kept_as in INDEXES.items())
    yield from (records.pack_index(name, index) for name, index in known if index)


class AclOfArchive:
    """What one archive holds of an ACL.

    Policies and roles that a record names need not be there: a Consul leaves the names of deleted ones, too.

    :param keep_secrets: beside their hashes.
    :ivar count: how many records were taken.
    :ivar indexes: of what has one in the archive.
    """

    def __init__(self, *, keep_secrets: bool) -> None:
        self.count = 0
        self.indexes: AclIndexes = {}
        self._keep_secrets = keep_secrets
        self._taken: set[tuple[str, str | bytes]] = set()

    def token(self, record: Record) -> Token:
        """The token of a record, with its secret only where those are kept.

        :raises ArchiveInvalid: from here on: it can't be used, or there are two of it.
        """
        found = acl_records.token_of(record)
        what = _named("token", found.accessor, record)
        found = msgspec.structs.replace(found, accessor=self._id("accessor", found.accessor, what))
        if (found.accessor == ANONYMOUS_ID) != (found.secret == ANONYMOUS_SECRET):
            raise unreadable(f"{what} has the accessor or the secret of the anonymous one, but not both")
        self._take("secret", found.secret_hash, f"{what} has the secret of another")
        _check_identities(found, what)
        return found if self._keep_secrets or found.accessor == ANONYMOUS_ID else msgspec.structs.replace(found, secret="")

    def policy(self, record: Record) -> Policy:
        """The policy of a record."""
        found = acl_records.policy_of(record)
        what = _named("policy", found.name, record)
        if not NAME.fullmatch(found.name):
            raise unreadable(f"{what} has a name that can't be one")
        try:
            read(found.rules)
        except RulesRefused as refused:
            raise unreadable(f"{what} has rules that can't be used: {refused}") from None
        self._take("policy named", found.name, f"{what} has the name of another")
        return msgspec.structs.replace(found, id=self._id("policy", found.id, what))

    def role(self, record: Record) -> Role:
        """The role of a record."""
        found = acl_records.role_of(record)
        what = _named("role", found.name, record)
        if not ROLE_NAME.fullmatch(found.name):
            raise unreadable(f"{what} has a name that can't be one")
        self._take("role named", found.name, f"{what} has the name of another")
        _check_identities(found, what)
        return msgspec.structs.replace(found, id=self._id("role", found.id, what))

    def note_index(self, name: bytes, index: int) -> None:
        """The index of a table, whichever it is."""
        if name in INDEXES:
            self.indexes[INDEXES[name]] = index

    def _id(self, kind: str, id_: str, what: str) -> str:
        """An id as it is kept."""
        if not is_uuid(id_):
            raise unreadable(f"{what} has the id {id_!r}, which is no UUID")
        self._take(kind, id_.lower(), f"{what} has the id of another")
        self.count += 1
        return id_.lower()

    def _take(self, kind: str, name: str | bytes, problem: str) -> None:
        if (kind, name) in self._taken:
            raise unreadable(problem)
        self._taken.add((kind, name))


def _named(kind: str, name: str, record: Record) -> str:
    return f'the ACL {kind} {name!r} at byte {record.position} of "state.bin"'


def _check_identities(holder: Token | Role, what: str) -> None:
    for name in [one.service_name for one in holder.service_identities] + [one.node_name for one in holder.node_identities]:
        if not IDENTITY_NAME.fullmatch(name):
            raise unreadable(f"{what} has an identity with the name {name!r}, which can't be one")
