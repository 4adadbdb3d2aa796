"""What becomes of the body of a request about a token: the record that is wanted, or Consul's refusal."""

import re
import time
import uuid
from hmac import compare_digest
from typing import Any

import msgspec

from service.api.acl import links
from service.api.acl.documents import HIDDEN
from service.api.errors import RequestRefused
from service.api.go import format_duration
from service.domain.acl.records import RESERVED_PREFIX, Token, made, secret_hash
from service.domain.quoting import quote
from service.store.acl_rows import Everything

_SECOND_NS = 10**9
_LIFETIME_NS_MIN, _LIFETIME_NS_MAX = 60 * _SECOND_NS, 24 * 3600 * _SECOND_NS
_UUID = re.compile(r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")


def is_uuid(text: str) -> bool:
    """Whether a text is a UUID in its usual form."""
    return _UUID.fullmatch(text) is not None


def new(given: dict[str, Any], acl: Everything, *, keep: bool) -> tuple[Token, str]:
    """A token that is to be made.

    :param given: the body.
    :param keep: whether its secret can be shown again.
    :returns: the token and its secret.
    :raises RequestRefused: with Consul's text.
    """
    accessor = _free_accessor(given.get("AccessorID", ""), acl)
    secret = given.get("SecretID") or str(uuid.uuid4())
    if not is_uuid(secret):
        raise _refusal("Invalid Token: SecretID is not a valid UUID")
    _check_reserved(secret)
    hashed = secret_hash(secret)
    if any(token.secret_hash == hashed for token in acl.tokens.values()):
        raise _refusal("Invalid Token: SecretID is already in use")
    if given.get("AuthMethod"):
        raise _refusal("AuthMethod field is disallowed outside of Login")
    lifetime_ns, expires_ns = _lifetime(given)
    blank = Token(accessor, hashed, secret if keep else "", local=given.get("Local", False), lifetime_ns=lifetime_ns, expires_ns=expires_ns)
    return _filled(blank, given, acl), secret


def changed(accessor: str, given: dict[str, Any], acl: Everything) -> Token:
    """A token that is to be changed: everything that can be is replaced.

    :raises RequestRefused: with Consul's text.
    """
    old = acl.tokens.get(_looked_up(accessor))
    if old is None:
        raise _refusal(f"Cannot find token {quote(accessor)}")
    secret = given.get("SecretID", "")
    shown_hidden = secret == HIDDEN and not old.secret
    if secret and not shown_hidden and not compare_digest(secret_hash(secret), old.secret_hash):
        raise _refusal("Changing a tokens SecretID is not permitted")
    if given.get("AuthMethod"):
        raise _refusal("Cannot change AuthMethod of " + accessor)
    if given.get("Local", False) != old.local:
        raise _refusal(f"cannot toggle local mode of {accessor}")
    if given.get("ExpirationTTL") or given.get("ExpirationTime", old.expires_ns) != old.expires_ns:
        raise _refusal(f"Cannot change expiration time of {accessor}")
    return _filled(old, given, acl)


def cloned(old: Token, description: str, *, keep: bool) -> tuple[Token, str]:
    """A token with the rights of another.

    :returns: the token and its secret.
    """
    secret = str(uuid.uuid4())
    about = {"accessor": str(uuid.uuid4()), "secret_hash": secret_hash(secret), "secret": secret if keep else ""}
    clone = msgspec.structs.replace(old, **about, description=description or old.description, created_ns=0)
    return made(clone), secret


def _filled(blank: Token, given: dict[str, Any], acl: Everything) -> Token:
    fields = {
        "description": given.get("Description", ""),
        "policies": links.ids(given.get("Policies", []), acl.policies, "policy"),
        "roles": links.ids(given.get("Roles", []), acl.roles, "role"),
        "service_identities": links.service_identities(given.get("ServiceIdentities", []), "token", local=blank.local),
        "node_identities": links.node_identities(given.get("NodeIdentities", []), "token"),
    }
    if given.get("Rules"):
        raise _refusal("Rules cannot be specified for this token")
    return made(msgspec.structs.replace(blank, **fields))


def _looked_up(accessor: str) -> str:
    try:
        return links.check_id(accessor, "token")
    except RequestRefused as refused:
        raise _refusal(f"Failed acl token lookup by accessor: {refused.text}") from None


def _free_accessor(wanted: str, acl: Everything) -> str:
    if not wanted:
        return str(uuid.uuid4())
    accessor = _looked_up(wanted)
    if not is_uuid(accessor):
        raise _refusal("Invalid Token: AccessorID is not a valid UUID")
    if accessor in acl.tokens:
        raise _refusal("Invalid Token: AccessorID is already in use")
    _check_reserved(accessor)
    return accessor


def _check_reserved(id_: str) -> None:
    if id_.startswith(RESERVED_PREFIX):
        raise _refusal(f"Invalid Token: UUIDs with the prefix {quote(RESERVED_PREFIX)} are reserved")


def _lifetime(given: dict[str, Any]) -> tuple[int, int]:
    """How long a new token lives from its creation on, or until when (in nanoseconds); 0 for what was not given."""
    lifetime_ns, expires_ns = given.get("ExpirationTTL", 0), given.get("ExpirationTime", 0)
    if lifetime_ns < 0:
        raise _refusal(f"Token Expiration TTL '{format_duration(lifetime_ns)}' should be > 0")
    if lifetime_ns and "ExpirationTime" in given:
        raise _refusal("Token Expiration TTL and Expiration Time cannot both be set")
    if not lifetime_ns and "ExpirationTime" not in given:
        return 0, 0
    left_ns = lifetime_ns or expires_ns - time.time_ns()
    if left_ns < 0:
        raise _refusal("ExpirationTime cannot be before CreateTime")
    for bound_ns, breaks, word in ((_LIFETIME_NS_MIN, left_ns < _LIFETIME_NS_MIN, "less"), (_LIFETIME_NS_MAX, left_ns > _LIFETIME_NS_MAX, "more")):
        if breaks:
            bound, left = format_duration(bound_ns), format_duration(left_ns)
            raise _refusal(f"ExpirationTime cannot be {word} than {bound} in the future (was {left})")
    return lifetime_ns, expires_ns


def _refusal(text: str) -> RequestRefused:
    return RequestRefused(links.FAILED, text)
