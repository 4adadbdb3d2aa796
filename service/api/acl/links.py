"""What tokens and roles refer to: policies, roles and identities, as a body names them."""

from typing import Any

from service.api.errors import RequestRefused
from service.domain.acl.records import IDENTITY_NAME, NAME, NodeIdentity, Policy, Role, ServiceIdentity
from service.domain.quoting import quote
from service.domain.sessions import SessionIdRefused, canonical_id

FAILED = 500


def check_id(id_: str, what: str) -> str:
    """An id as it is kept.

    :param what: ``token``, ``policy`` or ``role``.
    :raises RequestRefused: it can't be one.
    """
    try:
        return canonical_id(id_)
    except SessionIdRefused as refused:
        raise RequestRefused(FAILED, str(refused).replace("failed session", f"failed acl {what}", 1)) from None


def ids(links: list[dict[str, str]], known: dict[str, Policy] | dict[str, Role], what: str) -> list[str]:
    """The ids of what is named by ids or names, each once.

    :raises RequestRefused: something does not exist.
    """
    names = {record.name: id_ for id_, record in known.items()}
    found: dict[str, None] = {}
    for link in links:
        id_, name = link.get("ID", ""), link.get("Name", "")
        if id_ and check_id(id_, what) not in known:
            raise RequestRefused(FAILED, f"No such ACL {what} with ID {quote(id_)}")
        if not id_ and name not in names:
            raise RequestRefused(FAILED, f"No such ACL {what} with name {quote(name)}")
        found[check_id(id_, what) if id_ else names[name]] = None
    return list(found)


def service_identities(given: list[dict[str, Any]], holder: str, *, local: bool = False) -> list[ServiceIdentity]:
    """Services, each once: one that is named without datacenters holds in all of them.

    :param holder: ``token`` or ``role``.
    :param local: they hold in this datacenter only.
    :raises RequestRefused: with Consul's text.
    """
    merged: dict[str, dict[str, None] | None] = {}
    for one in given:
        name, datacenters = one.get("ServiceName", ""), one.get("Datacenters") or []
        if not name:
            raise RequestRefused(FAILED, f"Service identity is missing the service name field on this {holder}")
        if local and datacenters:
            raise RequestRefused(FAILED, f"Service identity {quote(name)} cannot specify a list of datacenters on a local token")
        if not IDENTITY_NAME.fullmatch(name):
            text = f"Service identity {quote(name)} has an invalid name. Only alphanumeric characters, '-' and '_' are allowed"
            raise RequestRefused(FAILED, text)
        known = merged.get(name, {})
        merged[name] = None if known is None or not datacenters else known | dict.fromkeys(datacenters)
    return [ServiceIdentity(name, list(datacenters or ())) for name, datacenters in merged.items()]


def node_identities(given: list[dict[str, str]], holder: str) -> list[NodeIdentity]:
    """Nodes, each once; parameters and errors as above."""
    found: dict[NodeIdentity, None] = {}
    for one in given:
        name, datacenter = one.get("NodeName", ""), one.get("Datacenter", "")
        if not name:
            raise RequestRefused(FAILED, f"Node identity is missing the node name field on this {holder}")
        if not datacenter:
            raise RequestRefused(FAILED, f"Node identity is missing the datacenter field on this {holder}")
        if not IDENTITY_NAME.fullmatch(name):
            raise RequestRefused(FAILED, "Node identity has an invalid name. Only alphanumeric characters, '-' and '_' are allowed")
        found[NodeIdentity(name, datacenter)] = None
    return list(found)


def check_name(name: str, what: str, pattern: Any = NAME) -> None:
    """Refuse the name of a policy or a role that can't be one.

    :param what: ``Policy`` or ``Role``.
    """
    if not name:
        raise RequestRefused(FAILED, f"Invalid {what}: no Name is set")
    if not pattern.fullmatch(name):
        raise RequestRefused(FAILED, f"Invalid {what}: invalid Name. Only alphanumeric characters, '-' and '_' are allowed")
