"""``/v1/acl/``: tokens, policies and roles, read and changed. What Consul 1.8 has besides (auth methods, its older ACL) is empty here, or refused."""

import logging
import uuid
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import msgspec

from service.api import params as parameters
from service.api.acl import body, documents, links, policies, tokens
from service.api.acl.changes import Changes, Draft
from service.api.acl.permissions import NO_INDEX, secret_of
from service.api.acl.resolver import FORBIDDEN, NOT_FOUND, is_expired
from service.api.errors import Answer, RequestRefused
from service.api.kv import KeyValue, read_body
from service.api.params import Params
from service.api.reads import Kind, Query
from service.api.responses import JSON, OK, json, json_answer, pretty
from service.domain.acl.records import (
    ANONYMOUS_ID,
    ANONYMOUS_SECRET,
    MANAGEMENT_ID,
    POLICIES,
    ROLES,
    TOKENS,
    Policy,
    Role,
    Token,
    complete_times,
    management_token,
    row_id,
    secret_hash,
)
from service.domain.acl.rules import READ, WRITE
from service.domain.results import AclResult
from service.settings import Settings
from service.store.acl_rows import BOOTSTRAP, Everything

log = logging.getLogger(__name__)

Environ = Mapping[str, Any]
Document = dict[str, Any]

BODY_BYTES_MAX = 512 * 1024
RESET_FILE = "acl-bootstrap-reset"


class Endpoints:
    """The views of one worker.

    :param kv: whose reads, waiting and permissions they share.
    """

    def __init__(self, changes: Changes, kv: KeyValue, settings: Settings) -> None:
        self._changes = changes
        self._kv = kv
        self._keep = settings.acl_secrets == "shown"
        self._data_dir = settings.data_dir
        self._has_initial = bool(settings.acl_initial_management)

    # -- bootstrap --

    def bootstrap(self, environ: Environ) -> Answer:
        """PUT: the first token that may do everything; once, or again when the file on this node says so.

        Where the settings name that token the leader writes it soon after it was elected. Nobody may be quicker.
        """
        params = _params(environ)
        secret = str(uuid.uuid4())
        token = management_token(str(uuid.uuid4()), secret, "Bootstrap Token (Global Management)", keep=self._keep)

        def judge(acl: Everything) -> Draft:
            used = acl.indexes.get(BOOTSTRAP, 0)
            if used or self._has_initial:
                self._check_reset(used)
            return Draft([token], bootstraps=True)

        acl, done = self._changes.carry_out(environ, token.accessor, judge)
        (self._data_dir / RESET_FILE).unlink(missing_ok=True)
        told = documents.token(_now(token, None, done), acl, secret)
        return json_answer(json({"ID": secret} | told), indent=params.pretty)

    def _check_reset(self, used: int) -> None:
        wanted = _reset_index(self._data_dir / RESET_FILE)
        if not wanted:
            raise RequestRefused(FORBIDDEN, f"Permission denied: ACL bootstrap no longer allowed (reset index: {used})")
        if wanted != used:
            raise RequestRefused(500, f"Invalid bootstrap reset index (specified {wanted}, reset index: {used})")

    # -- tokens --

    def tokens(self, environ: Environ) -> Answer:
        """GET: all tokens, or those with a policy or a role."""

        def view(acl: Everything, params: Params) -> Any:
            policy, role, method = (params.query.get(name, ("",))[0] for name in ("policy", "role", "authmethod"))
            found = sorted(acl.tokens.values(), key=lambda one: (one.secret or one.secret_hash.hex(), one.accessor))
            wanted = (one for one in found if (not policy or policy in one.policies) and (not role or role in one.roles) and not method)
            return [documents.listed_token(one, acl) for one in wanted if not is_expired(one)]

        return self._read(environ, TOKENS, view)

    def token(self, environ: Environ, accessor: str) -> Answer:
        """GET, PUT and DELETE of one token."""
        if not accessor:
            raise RequestRefused(400, "Bad request: Missing token ID")
        match environ["REQUEST_METHOD"]:
            case "GET":
                return self._read_token(environ, accessor)
            case "PUT":
                return self._put_token(environ, accessor)
            case _:
                return self._delete_token(environ, accessor)

    def own_token(self, environ: Environ) -> Answer:
        """GET: the token of whoever asks."""
        params = _read_params(environ)
        secret = secret_of(environ)
        result = self._kv.read(Query(Kind.ACL, TOKENS.encode()), params)
        hashed = secret_hash(secret or ANONYMOUS_SECRET)
        found = next((one for one in result.found.tokens.values() if one.secret_hash == hashed and not is_expired(one)), None)
        headers = self._kv.index_headers(result.index, params.stale)
        if found is None or not secret:
            raise RequestRefused(FORBIDDEN, NOT_FOUND, tuple(headers))
        data = json(documents.token(found, result.found, secret))
        return OK, [JSON, *headers], pretty(data) if params.pretty else data

    def _read_token(self, environ: Environ, accessor: str) -> Answer:
        may_write = self._kv.permissions.for_read(environ).may(WRITE, "acl")

        def view(acl: Everything, _: Params) -> Any:
            found = acl.tokens.get(links.check_id(accessor, "token"))
            if found is None or is_expired(found):
                return None
            return documents.token(found, acl, documents.shown_secret(found) if may_write else documents.HIDDEN)

        return self._read(environ, TOKENS, view)

    def new_token(self, environ: Environ) -> Answer:
        """PUT: makes a token."""
        return self._put_token(environ, "")

    def _put_token(self, environ: Environ, accessor: str) -> Answer:
        params = _params(environ)
        given = body.token(read_body(environ, BODY_BYTES_MAX))
        if accessor and given.get("AccessorID", accessor) not in ("", accessor):
            raise RequestRefused(400, "Bad request: Token Accessor ID in URL and payload do not match")
        actor = self._kv.permissions.require(environ, WRITE, "acl").accessor
        wanted: list[tuple[Token, str]] = []

        def judge(acl: Everything) -> Draft:
            if accessor:
                changed = tokens.changed(accessor, given, acl)
                wanted[:] = [(changed, documents.shown_secret(changed))]
            else:
                wanted[:] = [tokens.new(given, acl, keep=self._keep)]
            return Draft([wanted[0][0]])

        acl, done = self._changes.carry_out(environ, actor, judge)
        token, secret = wanted[0]
        return json_answer(json(documents.token(_now(token, acl.tokens.get(token.accessor), done), acl, secret)), indent=params.pretty)

    def clone(self, environ: Environ, accessor: str) -> Answer:
        """PUT: a token with the rights of another."""
        params = _params(environ)
        given = body.token(read_body(environ, BODY_BYTES_MAX))
        actor = self._kv.permissions.require(environ, WRITE, "acl").accessor
        wanted: list[tuple[Token, str]] = []

        def judge(acl: Everything) -> Draft:
            old = acl.tokens.get(links.check_id(accessor, "token"))
            if old is None or is_expired(old):
                raise RequestRefused(FORBIDDEN, NOT_FOUND)
            wanted[:] = [tokens.cloned(old, given.get("Description", ""), keep=self._keep)]
            return Draft([wanted[0][0]])

        acl, done = self._changes.carry_out(environ, actor, judge)
        token, secret = wanted[0]
        return json_answer(json(documents.token(_now(token, None, done), acl, secret)), indent=params.pretty)

    def _delete_token(self, environ: Environ, accessor: str) -> Answer:
        actor = self._kv.permissions.require(environ, WRITE, "acl").accessor
        if not tokens.is_uuid(accessor):
            raise RequestRefused(500, "Accessor ID is missing or an invalid UUID")
        id_ = accessor.lower()
        if id_ == ANONYMOUS_ID:
            raise RequestRefused(500, "Delete operation not permitted on the anonymous token")
        if id_ == actor:
            raise RequestRefused(500, "Deletion of the request's authorization token is not permitted")
        return self._delete(environ, actor, TOKENS, id_)

    # -- policies and roles --

    def policies(self, environ: Environ) -> Answer:
        """GET: all policies."""
        return self._read(environ, POLICIES, lambda acl, _: [documents.listed_policy(one) for one in acl.policies.values()])

    def roles(self, environ: Environ) -> Answer:
        """GET: all roles, or those with a policy."""

        def view(acl: Everything, params: Params) -> Any:
            policy = params.query.get("policy", ("",))[0]
            return [documents.role(one, acl) for one in acl.roles.values() if not policy or policy in one.policies]

        return self._read(environ, ROLES, view)

    def policy(self, environ: Environ, id_: str) -> Answer:
        """GET, PUT and DELETE of one policy."""
        if not id_:
            raise RequestRefused(400, "Bad request: Missing policy ID")
        match environ["REQUEST_METHOD"]:
            case "GET":
                return self._read(environ, POLICIES, lambda acl, _: _shown(acl.policies.get(links.check_id(id_, "policy"))))
            case "PUT":
                return self._put_policy(environ, id_)
            case _:
                return self._delete_policy(environ, id_)

    def policy_by_name(self, environ: Environ, name: str) -> Answer:
        """GET of one policy."""
        return self._read(environ, POLICIES, lambda acl, _: _shown(next((one for one in acl.policies.values() if one.name == name), None)))

    def new_policy(self, environ: Environ) -> Answer:
        """PUT: makes a policy."""
        return self._put_policy(environ, "")

    def _put_policy(self, environ: Environ, id_: str) -> Answer:
        given = body.policy(read_body(environ, BODY_BYTES_MAX))
        if id_ and given.get("ID", id_) not in ("", id_):
            raise RequestRefused(400, "Bad request: Policy ID in URL and payload do not match")
        if not id_ and given.get("ID"):
            raise RequestRefused(400, "Bad request: Cannot specify the ID when creating a new policy")
        return self._put(environ, lambda acl: policies.policy(id_, given, acl), lambda one, _: documents.policy(one))

    def _delete_policy(self, environ: Environ, id_: str) -> Answer:
        actor = self._kv.permissions.require(environ, WRITE, "acl").accessor
        if links.check_id(id_, "policy") == MANAGEMENT_ID:
            raise RequestRefused(500, "Delete operation not permitted on the builtin global-management policy")
        return self._delete(environ, actor, POLICIES, links.check_id(id_, "policy"))

    def role(self, environ: Environ, id_: str) -> Answer:
        """GET, PUT and DELETE of one role."""
        if not id_:
            raise RequestRefused(400, "Bad request: Missing role ID")
        match environ["REQUEST_METHOD"]:
            case "GET":
                return self._read_role(environ, lambda acl: acl.roles.get(links.check_id(id_, "role")))
            case "PUT":
                return self._put_role(environ, id_)
            case _:
                actor = self._kv.permissions.require(environ, WRITE, "acl").accessor
                return self._delete(environ, actor, ROLES, links.check_id(id_, "role"))

    def role_by_name(self, environ: Environ, name: str) -> Answer:
        """GET of one role."""
        return self._read_role(environ, lambda acl: next((one for one in acl.roles.values() if one.name == name), None))

    def new_role(self, environ: Environ) -> Answer:
        """PUT: makes a role."""
        return self._put_role(environ, "")

    def _read_role(self, environ: Environ, find: Callable[[Everything], Role | None]) -> Answer:
        try:
            return self._read(environ, ROLES, lambda acl, _: documents.role(one, acl) if (one := find(acl)) else None)
        except RequestRefused as refused:
            if refused.text != NOT_FOUND or refused.headers == NO_INDEX:
                raise
            return 404, [], b""

    def _put_role(self, environ: Environ, id_: str) -> Answer:
        given = body.role(read_body(environ, BODY_BYTES_MAX))
        if given.get("ID", id_) not in ("", id_):
            raise RequestRefused(400, "Bad request: Role ID in URL and payload do not match")
        return self._put(environ, lambda acl: policies.role(id_, given, acl), documents.role)

    # -- what they share --

    def _read(self, environ: Environ, kind: str, view: Callable[[Everything, Params], Any]) -> Answer:
        """A read of the ACL; ``view`` gives None for what does not exist."""
        params = _read_params(environ)
        try:
            self._kv.check_datacenter(params)
            result = self._kv.read(Query(Kind.ACL, kind.encode()), params)
            self._kv.permissions.require_local(environ, READ, "acl")
            told = view(result.found, params)
        except RequestRefused as refused:
            raise RequestRefused(refused.status, refused.text, NO_INDEX) from None
        headers = self._kv.index_headers(result.index, params.stale)
        if told is None:
            raise RequestRefused(FORBIDDEN, NOT_FOUND, tuple(headers))
        data = json(told)
        return OK, [JSON, *headers], pretty(data) if params.pretty else data

    def _put(self, environ: Environ, judge: Callable[[Everything], Policy | Role], document: Callable[[Any, Everything], Document]) -> Answer:
        params = _params(environ)
        actor = self._kv.permissions.require(environ, WRITE, "acl").accessor
        wanted: list[Policy | Role] = []

        def draft(acl: Everything) -> Draft:
            wanted[:] = [judge(acl)]
            return Draft([wanted[0]])

        acl, done = self._changes.carry_out(environ, actor, draft)
        record = wanted[0]
        old: Policy | Role | None = acl.policies.get(record.id) if isinstance(record, Policy) else acl.roles.get(record.id)
        return json_answer(json(document(_now(record, old, done), acl)), indent=params.pretty)

    def _delete(self, environ: Environ, actor: str, kind: str, id_: str) -> Answer:
        """Delete a record; one that does not exist counts as deleted."""

        def judge(acl: Everything) -> Draft | None:
            known = {TOKENS: set(acl.tokens), POLICIES: set(acl.policies), ROLES: set(acl.roles)}[kind]
            return Draft(deletes=[row_id(kind, id_)]) if id_ in known else None

        self._changes.carry_out(environ, actor, judge)
        return json_answer(b"true", indent=_params(environ).pretty)


def _params(environ: Environ) -> Params:
    """The parameters of a change."""
    params = parameters.parse_for_write(environ["QUERY_STRING"])
    parameters.check_headers(environ, params)
    return params


def _read_params(environ: Environ) -> Params:
    params = parameters.parse(environ["QUERY_STRING"])
    parameters.check_headers(environ, params)
    return params


def _shown(found: Policy | None) -> Document | None:
    return documents.policy(found) if found else None


def _now(record: Any, old: Any, done: AclResult | None) -> Any:
    """A record as it is kept once its change is done."""
    if done is None:
        return record
    completed = msgspec.structs.replace(record, create_index=old.create_index if old else done.index, modify_index=done.index)
    return complete_times(completed, done.stamp_ms) if isinstance(completed, Token) else completed


def _reset_index(file: Path) -> int:
    """The number in the file by which an operator allows another bootstrap; 0 when there is none that can be read."""
    try:
        text = file.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError):
        return 0
    if not (text.isascii() and text.isdigit() and len(text) < 20):
        log.error("%s holds no index; it is not heeded", file)
        return 0
    return int(text)
