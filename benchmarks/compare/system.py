"""What is common to all systems that are compared, and how they are asked."""

import sys
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import requests

from benchmarks.compare.load import Address
from benchmarks.compare.workloads import CACHED, WORKLOADS

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tests" / "processes"))

from cluster import wait_until

TOP = Path(__file__).resolve().parents[2]
COUNT = 3
"""Nodes of each."""
ASK_SECONDS = 5.0


class Missing(Exception):
    """A system whose program is not on this machine; the text says how it is found."""


class System(ABC):
    """A running cluster.

    :ivar name: as tables have it.
    :ivar version: as it says itself.
    :ivar note: what a reader must know to read the figures.
    :ivar offers: the workloads in which it promises what kvorum promises.
    :ivar has_acl: whether it can be started with a token that every request must carry.
    :param token: a UUID: ACLs are on and deny by default, and this one may do everything. Without, they are off.
    """

    name = ""
    dialect = "consul"
    note = ""
    offers = frozenset(WORKLOADS) - {CACHED}
    has_acl = False

    def __init__(self, directory: Path, token: str = "") -> None:
        self.directory = directory
        self.token = token
        self.version = ""
        self.addresses: list[Address] = []

    @classmethod
    def find(cls) -> str:
        """The program that is not of this checkout; raises :class:`Missing`."""
        return ""

    @abstractmethod
    def start(self) -> None:
        """Start it, and return when it takes writes."""

    @abstractmethod
    def stop(self) -> None:
        """End every process of it."""

    @abstractmethod
    def leader_number(self) -> int:
        """Which address is the leader's, as the cluster itself says; raises when it doesn't say so."""

    @abstractmethod
    def kill(self, number: int) -> None:
        """SIGKILL to one node."""

    def leader(self) -> int:
        """Which address is the leader's, as soon as there is one."""
        found: list[int] = wait_until(lambda: [self.leader_number()], f"{self.name} has a leader")
        return found[0]

    def roles(self) -> tuple[Address, Address]:
        """The addresses of the leader and of one follower."""
        number = self.leader()
        return self.addresses[number], self.addresses[(number + 1) % len(self.addresses)]


def ask_json(url: str, token: str, body: bytes | None = None) -> Any:
    """What JSON is answered; raises while it isn't."""
    headers = {"X-Consul-Token": token} if token else {}
    answer = requests.request("GET" if body is None else "POST", url, data=body, headers=headers, timeout=ASK_SECONDS)
    answer.raise_for_status()
    return answer.json()


def address_of(url: str) -> Address:
    """Host and port of a URL."""
    parts = urlsplit(url)
    return parts.hostname or "", parts.port or 0
