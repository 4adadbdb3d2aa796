"""What is compared, as three fresh processes each (kvorum: three nodes) on free ports of 127.0.0.1, with data below a folder that is given.

Each with the settings it has by default, but: Consul gets ``raft_multiplier = 1``, which its makers recommend for production, and a limit of
connections that the tests fit into; all are told to log errors only, kvorum logs as always. A program that is not there is named, and left out.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType

from benchmarks.compare.ours import Kvorum, KvorumWithRedis
from benchmarks.compare.peers import Consul, Etcd, PySyncObj
from benchmarks.compare.system import Missing, System

PEERS: MappingProxyType[str, type[System]] = MappingProxyType({"consul": Consul, "etcd": Etcd, "pysyncobj": PySyncObj})
SYSTEMS: MappingProxyType[str, type[System]] = MappingProxyType({"kvorum": Kvorum, "kvorum-redis": KvorumWithRedis, **PEERS})


def present(names: list[str]) -> tuple[list[str], list[str]]:
    """Which of these systems can be started.

    :returns: their names, and for each of the others a line that says what is missing.
    """
    found, missing = [], []
    for name in names:
        try:
            SYSTEMS[name].find()
            found.append(name)
        except Missing as error:
            missing.append(f"{name} is left out: {error}")
    return found, missing


@contextmanager
def started(name: str, directory: Path, token: str = "") -> Iterator[System]:
    """A fresh cluster, ended on the way out."""
    system = SYSTEMS[name](directory / name, token)
    try:
        system.directory.mkdir(parents=True)
        system.start()
        yield system
    finally:
        system.stop()
