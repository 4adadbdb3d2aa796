"""Changing the ACL: judged by the worker against the whole of it, applied only if nothing has changed meanwhile, and judged anew if something has."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from service.api.errors import RequestRefused
from service.api.params import origin
from service.api.reads import Kind, Query, Reads
from service.domain.acl.records import ANONYMOUS_ID, MANAGEMENT_ID, Record, anonymous_token, management_policy
from service.domain.commands import AclChange, encode
from service.domain.results import AclResult, decode_acl
from service.ipc.client import AgentClient
from service.store.acl_rows import Everything

ATTEMPTS = 10


class Draft(NamedTuple):
    """A change that is wanted.

    :ivar deletes: as :func:`service.domain.acl.records.row_id` calls them.
    :ivar bootstraps: see :class:`service.domain.commands.AclChange`.
    """

    puts: list[Record] = []  # noqa: RUF012 - nobody changes it
    deletes: list[str] = []  # noqa: RUF012 - nobody changes it
    bootstraps: bool = False


class Changes:
    """The changes that one worker proposes."""

    def __init__(self, backend: AgentClient, reads: Reads) -> None:
        self._backend = backend
        self._reads = reads

    def carry_out(self, environ: Mapping[str, Any], actor: str, judge: Callable[[Everything], Draft | None]) -> tuple[Everything, AclResult | None]:
        """Make a change.

        :param judge: from the ACL as it is to what is wanted; None for nothing. It raises what refuses the change.
        :returns: the ACL as it was judged by, and what became of the change; None when nothing was wanted.
        :raises RequestRefused: from ``judge``, or because it never came to rest.
        :raises BackendError: the change could not be made; or nobody knows.
        """
        who = origin(environ, actor)
        for _ in range(ATTEMPTS):
            found: Everything = self._reads.read(Query(Kind.ACL), fresh=True).found
            builtin = _missing(found)
            for record in builtin:
                found.add(record)
            draft = judge(found)
            if draft is None:
                return found, None
            puts = [*builtin, *draft.puts]
            result = decode_acl(self._backend.propose(encode(AclChange(found.last_index, puts, draft.deletes, draft.bootstraps, who))))
            if result.ok:
                return found, result
        raise RequestRefused(500, f"the ACL was changed by others {ATTEMPTS} times while this request was judged; ask again")


def _missing(found: Everything) -> list[Record]:
    """What is builtin and was not written yet. The first change brings it along; later it can only be changed."""
    policies: list[Record] = [] if MANAGEMENT_ID in found.policies else [management_policy()]
    return policies + ([] if ANONYMOUS_ID in found.tokens else [anonymous_token()])
