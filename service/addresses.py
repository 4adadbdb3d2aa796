"""Addresses of nodes: ``host:port`` and the list of initial members. Parsing only; nothing here resolves or connects."""

import re
from collections import Counter
from typing import NamedTuple
from urllib.parse import urlsplit

PEER_PORT = 8300
API_PORT = 8500
WILDCARDS = frozenset({"0.0.0.0", "::", "*", ""})  # noqa: S104 - the names are compared with, nothing is bound here

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")
NAME_RULE = "1 to 63 letters, digits, '.', '_' and '-', the first of them a letter or a digit"
_HOST = re.compile(r"[A-Za-z0-9._-]{1,253}|[0-9A-Fa-f:.]{2,45}")


class Address(NamedTuple):
    """A host (a name, an IPv4 or an IPv6 address without brackets) and a port."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


class Member(NamedTuple):
    """One entry of ``initial_cluster``: a node's name and the address at which its peers reach it."""

    name: str
    address: Address

    @property
    def url(self) -> str:
        """The entry's URL."""
        return f"http://{self.address}"


def parse_address(text: str, default_port: int | None = None) -> Address:
    """Take ``host:port`` (or ``[IPv6]:port``) apart.

    :param default_port: the port to take when the text names none; None: a port is required.
    :raises ValueError: saying what is wrong; the message names the text.
    """
    bracketed = re.fullmatch(r"\[([^\]]*)\](?::(.*))?", text)
    if bracketed:
        host, port = bracketed.group(1), bracketed.group(2)
    else:
        host, colon, rest = text.rpartition(":")
        host, port = (host, rest) if colon else (text, None)
    if not _HOST.fullmatch(host) or (":" in host and not bracketed):
        raise ValueError(f"{text!r} has no usable host; expected host:port, or [IPv6]:port")
    if port is None:
        if default_port is None:
            raise ValueError(f"{text!r} names no port; expected host:port")
        return Address(host, default_port)
    if not (port.isascii() and port.isdigit() and 1 <= int(port) <= 65_535):
        raise ValueError(f"{text!r} has the port {port!r}; a port is a number from 1 to 65535")
    return Address(host, int(port))


def parse_members(text: str, own_name: str) -> tuple[tuple[Member, ...], tuple[str, ...]]:
    """Read ``name=http://host:port,name=…``.

    :param own_name: the node's own name, which must be among the members.
    :returns: the members in the order given, and every problem found (each names the value).
    """
    members: list[Member] = []
    problems: list[str] = []
    for entry in (part.strip() for part in text.split(",")):
        try:
            members.append(_parse_member(entry))
        except ValueError as error:
            problems.append(f"{error} (in {entry!r})" if entry not in str(error) else str(error))
    given_names = Counter(part.partition("=")[0].strip() for part in text.split(","))
    problems += [f"the name {name!r} appears {count} times; every node needs its own" for name, count in given_names.items() if name and count > 1]
    problems += _conflicts(members)
    if not problems and own_name not in {member.name for member in members}:
        known = ", ".join(member.name for member in members)
        problems.append(f"this node's name {own_name!r} is not among the members {known}")
    return tuple(members), tuple(problems)


def parse_targets(text: str) -> tuple[str, ...]:
    """Read whom a server asks that wants to join: ``host:port`` of a peer or the URL of an HTTP API, with commas between them.

    :returns: each with its port.
    :raises ValueError: naming what can't be used.
    """
    targets = []
    for entry in filter(None, (part.strip() for part in text.split(","))):
        scheme, separator, rest = entry.partition("://")
        if separator and scheme not in {"http", "https"}:
            raise ValueError(f"{entry!r} has the scheme {scheme!r}; an HTTP API has http or https, a peer address none")
        targets.append(f"{scheme}://{parse_address(rest.rstrip('/'), API_PORT)}" if separator else str(parse_address(entry, PEER_PORT)))
    return tuple(targets)


def _parse_member(entry: str) -> Member:
    name, equals, url = entry.partition("=")
    if not entry or not equals or not url:
        raise ValueError(f"{entry!r} is no member; expected name=http://host:port")
    if not NAME.fullmatch(name):
        raise ValueError(f"{name!r} is no name of a node; a name is {NAME_RULE}")
    scheme, separator, _rest = url.partition("://")
    if not separator:
        return Member(name, parse_address(url, PEER_PORT))
    if scheme != "http":
        raise ValueError(f"{url!r} has the scheme {scheme!r}; peers speak http")
    parts = urlsplit(url)
    if parts.path not in {"", "/"} or parts.query or parts.fragment or "@" in parts.netloc:
        raise ValueError(f"{url!r} holds more than http://host:port")
    return Member(name, parse_address(parts.netloc, PEER_PORT))


def _conflicts(members: list[Member]) -> list[str]:
    problems: list[str] = []
    names: dict[str, Member] = {}
    addresses: dict[Address, Member] = {}
    for member in members:
        if member.name not in names and member.address in addresses:
            problems.append(f"the address {member.address} belongs to both {addresses[member.address].name!r} and {member.name!r}")
        if str(member.address.host) in WILDCARDS:
            problems.append(f"{member.url!r} of {member.name!r} is no address that others can reach")
        names.setdefault(member.name, member)
        addresses.setdefault(member.address, member)
    return problems
