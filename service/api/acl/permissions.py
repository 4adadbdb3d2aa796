"""What a request needs to be allowed: the token it carries, the questions that views ask, and the table of routes that are guarded whole.

A permission that was taken away is gone as soon as that was acknowledged, at whichever node. A write of keys is decided by what the worker remembers,
and carried out only if the ACL has not changed by then; whatever else changes something is decided after a barrier. A read is decided by the state
that it is answered from. With the ACL off all of this is one comparison.
"""

from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any, TypeVar

from service.api.acl.resolver import DENIED, FORBIDDEN, Resolver
from service.api.errors import RequestRefused
from service.api.params import parse_for_write
from service.api.reads import Reads
from service.api.routing import Route
from service.api.writes import PermissionOutdated
from service.domain.acl.authorizer import EVERYTHING, Authorizer
from service.domain.acl.rules import READ, WRITE
from service.errors import BackendError, RequestRejected, StateUnreadable

Environ = Mapping[str, Any]
Outcome = TypeVar("Outcome")

NO_INDEX = (("X-Consul-Index", "1"), ("X-Consul-Knownleader", "false"), ("X-Consul-Lastcontact", "0"))
"""The headers of a read that was refused before there was anything to tell an index of."""
OPEN = frozenset({"/", "/livez", "/readyz", "/metrics", "/v1/status/leader", "/v1/status/peers", "/v1/agent/members"})
"""Routes that anybody may use; the members are filtered."""
_ASKING = frozenset({"/v1/scan", "/v1/operator/raft/peer", "/v1/operator/autopilot/configuration"})
_ASKING_PREFIXES = (
    "/v1/kv/",
    "/v1/txn",
    "/v1/session/",
    "/v1/event/",
    "/v1/acl/",
    "/v1/internal/acl/",
    "/v1/catalog/",
    "/v1/health/",
    "/v1/coordinate/",
)
"""Routes whose views ask for themselves, because they filter, or look at the parameters first."""
_ANY_TOKEN = ("", READ, READ)
"""Nothing, but a token that is given must exist."""
_GUARDED = {
    "/v1/agent/self": ("agent", READ, READ),
    "/v1/agent/metrics": ("agent", READ, READ),
    "/v1/agent/checks": _ANY_TOKEN,
    "/v1/agent/services": _ANY_TOKEN,
    "/v1/agent/reload": ("agent", WRITE, WRITE),
    "/v1/agent/": ("agent", READ, WRITE),
    "/v1/operator/": ("operator", READ, WRITE),
    "/v1/cluster/": ("operator", READ, WRITE),
}
"""By the beginning of the path: the resource, and what GET and any other method need of it. What stands here nowhere needs everything."""


class Permissions:
    """The questions of one worker's requests.

    :param reads: whose barriers are used.
    :param node: the name of this node.
    """

    def __init__(self, resolver: Resolver, reads: Reads, node: str) -> None:
        self.enabled = resolver.enabled
        self._resolver = resolver
        self._reads = reads
        self._node = node

    def token(self, environ: Environ) -> str | None:
        """The secret of a request, empty for none; None when nobody is asked."""
        return secret_of(environ) if self.enabled else None

    def fresh(self, environ: Environ) -> Authorizer:
        """What a request may do, after a barrier.

        :raises RequestRefused: its token is unknown.
        :raises BackendError: the barrier failed.
        """
        if not self.enabled:
            return EVERYTHING
        self._reads.barrier()
        return self._resolve(environ)

    def local(self, environ: Environ) -> Authorizer:
        """What a request may do as far as this node knows; so also while there is no leader. A token that is not known yet is looked for again,
        after a barrier.
        """
        if not self.enabled:
            return EVERYTHING
        try:
            return self._resolve(environ)
        except RequestRefused as refused:
            if refused.status != FORBIDDEN or not self._reads.leader_known:
                raise
        try:
            self._reads.barrier()
        except BackendError:
            raise RequestRefused(FORBIDDEN, "ACL not found") from None
        return self._resolve(environ)

    def carry_out(self, environ: Environ, may: Callable[[Authorizer], bool], write: Callable[[Authorizer, int | None], Outcome]) -> Outcome:
        """Decide about a write, and have it carried out, which includes to refuse it.

        First by what is remembered, if by that it is allowed: then nothing has to be asked. Where the ACL has changed meanwhile nothing was done, and
        it is decided anew, after a barrier.

        :param may: whether it is allowed.
        :param write: is given what the request may do, and the index of the ACL's last change if that has to be the same when the write is applied.
        :raises RequestRefused: the token is unknown.
        :raises BackendError: the barrier failed.
        """
        if not self.enabled:
            return write(EVERYTHING, None)
        remembered = self._resolver.remembered(secret_of(environ))
        if remembered is not None and may(remembered[0]):
            with suppress(PermissionOutdated):
                return write(*remembered)
        return write(self.fresh(environ), None)

    def require(self, environ: Environ, level: str, resource: str, name: str | bytes = b"") -> Authorizer:
        """Refuse a write that is not allowed.

        :returns: what else the request may do.
        :raises RequestRefused: it is not allowed, or its token is unknown.
        :raises BackendError: the barrier failed.
        """
        return _checked(self.fresh(environ), level, resource, name)

    def require_local(self, environ: Environ, level: str, resource: str, name: str | bytes = b"") -> Authorizer:
        """Refuse what is not allowed as far as this node knows; see :meth:`require`."""
        return _checked(self.local(environ), level, resource, name)

    def for_read(self, environ: Environ) -> Authorizer:
        """As :meth:`local`; the refusal has the headers that reads of the catalog have."""
        try:
            return self.local(environ)
        except RequestRefused as refused:
            raise RequestRefused(refused.status, refused.text, NO_INDEX) from None

    def guard(self, route: Route) -> Route:
        """A route that asks before its view is called, where the view does not ask for itself."""
        if not self.enabled or route.path in OPEN | _ASKING or route.path.startswith(_ASKING_PREFIXES):
            return route
        needs = next((needed for path, needed in _GUARDED.items() if route.path.startswith(path)), None)
        return route._replace(view=self._guarded(route.view, needs))

    def require_management(self, environ: Environ, *, local: bool = False) -> None:
        """Refuse whoever may not have everything at once.

        :param local: ask nobody else: for what must work without a leader.
        """
        who = self.local(environ) if local else self.fresh(environ)
        if not who.may_manage():
            raise RequestRefused(FORBIDDEN, DENIED)

    def _guarded(self, view: Callable[[Environ], Any], needs: tuple[str, str, str] | None) -> Callable[[Environ], Any]:
        def ask_first(environ: Environ) -> Any:
            reads_only = environ["REQUEST_METHOD"] == "GET"
            if needs is None:
                self.require_management(environ, local=reads_only)
                return view(environ)
            resource, to_read, to_write = needs
            who = self.local(environ) if reads_only else self.fresh(environ)
            if resource:
                _checked(who, to_read if reads_only else to_write, resource, self._node if resource == "agent" else b"")
            return view(environ)

        return ask_first

    def _resolve(self, environ: Environ) -> Authorizer:
        try:
            return self._resolver.resolve(secret_of(environ))
        except (StateUnreadable, TimeoutError) as error:
            raise RequestRejected(str(error)) from error


def _checked(who: Authorizer, level: str, resource: str, name: str | bytes) -> Authorizer:
    if not who.may(level, resource, name):
        raise RequestRefused(FORBIDDEN, DENIED)
    return who


def secret_of(environ: Environ) -> str:
    """The secret of a request: ``?token=``, else ``X-Consul-Token``, else ``Authorization: Bearer``; empty when there is none."""
    query = environ.get("QUERY_STRING", "")
    if "token" in query and (given := parse_for_write(query).query.get("token", ("",))[0]):
        return given
    if given := environ.get("HTTP_X_CONSUL_TOKEN", ""):
        return str(given)
    scheme, _, rest = str(environ.get("HTTP_AUTHORIZATION", "")).partition(" ")
    return rest.strip() if scheme.lower() == "bearer" else ""
