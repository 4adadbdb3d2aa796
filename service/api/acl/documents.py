"""Tokens, policies and roles in Consul's JSON: its fields in its order."""

from base64 import b64encode
from datetime import UTC, datetime
from typing import Any

from service.domain.acl.records import ANONYMOUS_ID, ANONYMOUS_SECRET, NodeIdentity, Policy, Role, ServiceIdentity, Token
from service.store.acl_rows import Everything

Document = dict[str, Any]

HIDDEN = "<hidden>"
_NANOSECONDS = 10**9


def token(found: Token, acl: Everything, secret: str) -> Document:
    """A token.

    :param acl: tells what its policies and roles are called now; those that do not exist any more are left out.
    :param secret: as it is to be shown.
    """
    return {"AccessorID": found.accessor, "SecretID": secret} | listed_token(found, acl)


def shown_secret(found: Token) -> str:
    """The secret of a token, where it may be shown."""
    return ANONYMOUS_SECRET if found.accessor == ANONYMOUS_ID else found.secret or HIDDEN


def listed_token(found: Token, acl: Everything) -> Document:
    """A token as lists have it: without its secret."""
    links = {"Policies": _links(found.policies, acl.policies), "Roles": _links(found.roles, acl.roles)}
    links |= _identities(found.service_identities, found.node_identities)
    times = {"ExpirationTime": _time(found.expires_ns)} if found.expires_ns else {}
    rest = {"CreateTime": _time(found.created_ns), "Hash": _base64(found.hash), **_indexes(found)}
    shown = {name: value for name, value in links.items() if value}
    return {"AccessorID": found.accessor, "Description": found.description, **shown, "Local": found.local, **times, **rest}


def policy(found: Policy) -> Document:
    """A policy."""
    datacenters = {"Datacenters": found.datacenters} if found.datacenters else {}
    told = {"ID": found.id, "Name": found.name, "Description": found.description, "Rules": found.rules}
    return told | datacenters | {"Hash": _base64(found.hash), **_indexes(found)}


def listed_policy(found: Policy) -> Document:
    """A policy as lists have it: without its rules."""
    told = {"ID": found.id, "Name": found.name, "Description": found.description, "Datacenters": found.datacenters or None}
    return told | {"Hash": _base64(found.hash), **_indexes(found)}


def role(found: Role, acl: Everything) -> Document:
    """A role."""
    links = {"Policies": _links(found.policies, acl.policies)} | _identities(found.service_identities, found.node_identities)
    told = {"ID": found.id, "Name": found.name, "Description": found.description}
    return told | {name: value for name, value in links.items() if value} | {"Hash": _base64(found.hash), **_indexes(found)}


def _links(ids: list[str], known: dict[str, Policy] | dict[str, Role]) -> list[Document]:
    return [{"ID": id_, "Name": known[id_].name} for id_ in ids if id_ in known]


def _identities(services: list[ServiceIdentity], nodes: list[NodeIdentity]) -> Document:
    return {
        "ServiceIdentities": [{"ServiceName": one.service_name} | ({"Datacenters": one.datacenters} if one.datacenters else {}) for one in services],
        "NodeIdentities": [{"NodeName": one.node_name, "Datacenter": one.datacenter} for one in nodes],
    }


def _indexes(found: Token | Policy | Role) -> Document:
    return {"CreateIndex": found.create_index, "ModifyIndex": found.modify_index}


def _time(nanoseconds: int) -> str:
    """A time as Go writes it."""
    seconds, rest = divmod(nanoseconds, _NANOSECONDS)
    fraction = f".{rest:09}".rstrip("0") if rest else ""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S") + fraction + "Z"


def _base64(data: bytes) -> str:
    return b64encode(data).decode("ascii")
