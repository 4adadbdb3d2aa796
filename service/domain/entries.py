"""What the state holds, as values: one key with all that is kept of it."""

from typing import NamedTuple


class Row(NamedTuple):
    """One key. ``flags`` is unsigned; ``session`` is None unless the key is locked."""

    key: bytes
    value: bytes
    flags: int
    lock_index: int
    session: str | None
    create_index: int
    modify_index: int


class ServiceCheck(NamedTuple):
    """A check of a service that a session depends on, as the client named it."""

    id: str
    namespace: str


class Session(NamedTuple):
    """One session.

    :param id: lower case, with hyphens.
    :param lock_delay_ns: how long a key that was lost with the session can't be locked; none when it is not above 0.
    :param behavior: what becomes of its keys: ``release`` or ``delete``.
    :param ttl: as the client wrote it; ``ttl_ns`` is what it means, 0 for none.
    :param node_checks: None stands for JSON's null, like ``service_checks``.
    """

    id: str
    name: str
    node: str
    lock_delay_ns: int
    behavior: str
    ttl: str
    ttl_ns: int
    node_checks: list[str] | None
    service_checks: list[ServiceCheck] | None
    create_index: int = 0
    modify_index: int = 0
