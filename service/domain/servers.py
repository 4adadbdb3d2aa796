"""The members of the cluster as every node tells them: recorded by the leader in the log, so that all answer alike and watchers are woken."""

from typing import NamedTuple


class Server(NamedTuple):
    """One member.

    :ivar id: of its incarnation.
    :ivar address: ``host:port`` for the other nodes.
    :ivar alive: whether the leader had heard of it of late.
    :ivar create_index: of the entry that recorded it first.
    :ivar modify_index: of the last one that changed anything but ``alive``.
    :ivar check_index: of the last one that changed ``alive``.
    """

    id: str
    name: str
    address: str
    voter: bool
    alive: bool
    create_index: int = 0
    modify_index: int = 0
    check_index: int = 0
