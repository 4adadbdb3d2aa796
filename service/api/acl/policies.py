"""What becomes of the body of a request about a policy or a role: the record that is wanted, or Consul's refusal."""

import uuid
from typing import Any

from service.api.acl import links
from service.api.errors import RequestRefused
from service.domain.acl.records import MANAGEMENT_ID, ROLE_NAME, Policy, Role
from service.domain.acl.rules import RulesRefused, read
from service.domain.quoting import quote
from service.store.acl_rows import Everything

_BUILTIN = "the builtin global-management policy"


def policy(id_: str, given: dict[str, Any], acl: Everything) -> Policy:
    """A policy that is to be made, or changed as a whole.

    :param id_: empty for a new one.
    :raises RequestRefused: with Consul's text.
    """
    name, rules, datacenters = given.get("Name", ""), given.get("Rules", ""), given.get("Datacenters", [])
    if not id_:
        links.check_name(name, "Policy")
    old = acl.policies.get(links.check_id(id_, "policy")) if id_ else None
    if id_ and old is None:
        raise RequestRefused(links.FAILED, f"cannot find policy {id_}")
    links.check_name(name, "Policy")
    if any(other.name == name for other in acl.policies.values() if other is not old):
        raise RequestRefused(links.FAILED, f"Invalid Policy: A Policy with Name {quote(name)} already exists")
    if old is not None and old.id == MANAGEMENT_ID:
        if datacenters:
            raise RequestRefused(links.FAILED, f"Changing the Datacenters of {_BUILTIN} is not permitted")
        if rules != old.rules:
            raise RequestRefused(links.FAILED, f"Changing the Rules for {_BUILTIN} is not permitted")
    try:
        read(rules)
    except RulesRefused as refused:
        raise RequestRefused(links.FAILED, str(refused)) from None
    return Policy(old.id if old else str(uuid.uuid4()), name, given.get("Description", ""), rules, datacenters)


def role(id_: str, given: dict[str, Any], acl: Everything) -> Role:
    """A role; parameters and errors as above."""
    name = given.get("Name", "")
    if not id_:
        links.check_name(name, "Role", ROLE_NAME)
    old = acl.roles.get(links.check_id(id_, "role")) if id_ else None
    if id_ and old is None:
        raise RequestRefused(links.FAILED, f"cannot find role {id_}")
    links.check_name(name, "Role", ROLE_NAME)
    if any(other.name == name for other in acl.roles.values() if other is not old):
        raise RequestRefused(links.FAILED, f"Invalid Role: A Role with Name {quote(name)} already exists")
    services = links.service_identities(given.get("ServiceIdentities", []), "role")
    nodes = links.node_identities(given.get("NodeIdentities", []), "role")
    policies = links.ids(given.get("Policies", []), acl.policies, "policy")
    return Role(old.id if old else str(uuid.uuid4()), name, given.get("Description", ""), policies, services, nodes)
