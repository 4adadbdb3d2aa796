"""The rules of a policy: which resource may be used how. What Consul refuses is refused with its text; resources it does not know mean nothing."""

from collections.abc import Iterator
from functools import lru_cache
from typing import NamedTuple

from service.domain.acl.hcl import HclRefused, Item, Items, Literal, Value, Values, parse
from service.domain.acl.scanner import HEREDOC, NUMBER, STRING
from service.domain.quoting import quote

READ, LIST, WRITE, DENY = "read", "list", "write", "deny"
LEVELS = {READ: 1, LIST: 2, WRITE: 3, DENY: 4}
"""Where several rules speak of one name, the highest wins."""
SCALARS = ("acl", "keyring", "operator")
_ENTERPRISE = ", EnterpriseRule:acl.EnterpriseRule{}"
_KINDS = {
    "agent": ("AgentRule", "Node", ""),
    "key": ("KeyRule", "Prefix", _ENTERPRISE),
    "node": ("NodeRule", "Name", _ENTERPRISE),
    "service": ("ServiceRule", "Name", _ENTERPRISE),
    "session": ("SessionRule", "Node", ""),
    "event": ("EventRule", "Event", ""),
    "query": ("PreparedQueryRule", "Prefix", ""),
}
"""By the name of a resource: what Consul calls such a rule, and its first field."""
NAMED = tuple(_KINDS)
_PREFIX = "_prefix"
_CACHED_POLICIES = 256


class RulesRefused(Exception):
    """Rules that can't be used, with Consul's text."""


class Rule(NamedTuple):
    """What a policy says about one name, or about all that begin with it.

    :ivar resource: one of :data:`NAMED` or :data:`SCALARS`; the name of the latter is empty.
    :ivar intentions: of services; kept, though nothing here has intentions.
    """

    resource: str
    name: str
    is_prefix: bool
    policy: str
    intentions: str = ""


@lru_cache(maxsize=_CACHED_POLICIES)
def read(text: str) -> tuple[Rule, ...]:
    """The rules in a text.

    :raises RulesRefused: with Consul's text.
    """
    try:
        items = parse(text)
        found = [*_scalars(items)]
        for resource in NAMED:
            for is_prefix in (False, True):
                found += _named(items, resource, is_prefix=is_prefix)
    except HclRefused as refused:
        raise RulesRefused(f"Failed to parse ACL rules: {refused}") from None
    for rule in found:
        _check(rule)
    return tuple(found)


def _check(rule: Rule) -> None:
    written = rule.resource + (_PREFIX if rule.is_prefix else "")
    if rule.resource in SCALARS:
        if rule.policy not in ("", READ, WRITE, DENY):
            raise RulesRefused(f"Invalid {written} policy: {quote(rule.policy)}")
        return
    if rule.policy not in LEVELS or (rule.policy == LIST and rule.resource != "key"):
        raise RulesRefused(f"Invalid {written} policy: {_shown(rule)}")
    if rule.intentions not in ("", READ, WRITE, DENY):
        raise RulesRefused(f"Invalid {written} intentions policy: {_shown(rule)}")


def _shown(rule: Rule) -> str:
    kind, field, rest = _KINDS[rule.resource]
    intentions = f", Intentions:{quote(rule.intentions)}" if rule.resource == "service" else ""
    return f"&acl.{kind}{{{field}:{quote(rule.name)}, Policy:{quote(rule.policy)}{intentions}{rest}}}"


def _scalars(items: list[Item]) -> Iterator[Rule]:
    for resource in SCALARS:
        policy = ""
        for keys, value in _of(items, resource):
            if keys:
                raise HclRefused(f"At {_place(value)}: root.{resource}: unknown type for string *ast.ObjectList")
            policy = _text(value, f"root.{resource}")
        if policy:
            yield Rule(resource, "", is_prefix=False, policy=policy)


def _named(items: list[Item], resource: str, *, is_prefix: bool) -> Iterator[Rule]:
    written = resource + (_PREFIX if is_prefix else "")
    for number, (keys, value) in enumerate(_labelled(items, written)):
        fields = {"policy": "", "intentions": ""}
        # A second label stands for an object in which none of the fields is.
        inner = value.items if isinstance(value, Items) and len(keys) == 1 else []
        for item in inner:
            name = item.keys[0].casefold()
            if name in fields and (name == "policy" or resource == "service"):
                if len(item.keys) > 1:
                    raise HclRefused(f"At {_place(item.value)}: root.{written}[{number}].{name.title()}: unknown type for string *ast.ObjectList")
                fields[name] = _text(item.value, f"root.{written}[{number}].{name.title()}")
        yield Rule(resource, keys[0], is_prefix, **fields)


def _labelled(items: list[Item], name: str) -> Iterator[tuple[list[str], Value]]:
    """All that is said under a name, with at least one label each."""
    for keys, value in _of(items, name):
        yield from [(keys, value)] if keys else _unfolded(value)


def _unfolded(value: Value) -> Iterator[tuple[list[str], Value]]:
    """The labels of an object or a list of objects that has none before it."""
    if isinstance(value, Literal):
        raise HclRefused(f"At {value.place}: unknown slice type: *ast.LiteralType")
    if isinstance(value, Values):
        for one in value.values:
            yield from _unfolded(one)
        return
    for item in value.items:
        if isinstance(item.value, Values):
            yield from ((item.keys, one) for one in item.value.values)
        else:
            yield item.keys, item.value


def _of(items: list[Item], name: str) -> Iterator[tuple[list[str], Value]]:
    """The items of a name, whatever the case, without it."""
    return ((item.keys[1:], item.value) for item in items if item.keys[0].casefold() == name)


def _text(value: Value, path: str) -> str:
    if isinstance(value, Literal) and value.kind in (STRING, HEREDOC, NUMBER):
        return value.value
    kind = {Literal: "LiteralType", Values: "ListType", Items: "ObjectType"}[type(value)]
    raise HclRefused(f"At {_place(value)}: {path}: unknown type for string *ast.{kind}")


def _place(value: Value) -> str:
    return value.place
