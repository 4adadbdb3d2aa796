"""Data directories as nodes leave them behind, made by the nodes' own parts without a cluster."""

import hashlib
from collections.abc import Sequence
from pathlib import Path

import msgspec

from raft.core.membership import encode_configuration
from raft.core.model import Configuration, Entry, EntryKind, HardState, Member
from raft.ports.storage import WriteBatch
from raft.storage.sqlite import SqliteLog
from service.agent import identity
from service.agent.identity import IDENTITY_RECORD, Cluster, FormedMember, Identity
from service.domain.commands import KvPut, encode, stamp
from service.store.machine import KvMachine

NAMES = ("n1", "n2", "n3")
STAMP_MS = 1_700_000_000_000


def member(name: str, address: str = "") -> Member:
    """A member whose id follows from its name. Port 9 answers nobody."""
    return Member(f"id-of-{name}", name, address or "127.0.0.1:9")


def cluster_of(names: Sequence[str] = NAMES, addresses: Sequence[str] = (), cluster_id: str = "c1") -> Cluster:
    """A cluster formed of these."""
    given = [*addresses, *[""] * (len(names) - len(addresses))]
    return Cluster(cluster_id, [FormedMember(one.name, one.id, one.address) for one in map(member, names, given)])


def data_directory(
    path: Path,
    name: str = "n1",
    *,
    terms: Sequence[int] = (1, 1, 1, 2, 2),
    commit: int = 3,
    applied: int | None = None,
    cluster: Cluster | None = None,
    configurations: dict[int, Configuration] | None = None,
) -> Path:
    """The directory of a node that has stopped.

    :param terms: of its entries, from index 1 on; each puts a key ``k<index>``, but for those in ``configurations``.
    :param applied: up to where the state has got; as far as ``commit`` when None.
    """
    path.mkdir()
    log = SqliteLog(path)
    log.put(IDENTITY_RECORD, msgspec.json.encode(Identity(identity.FORMAT, name, member(name).id)))
    identity.join(log, cluster or cluster_of())
    entries = tuple(_entry(index, term, (configurations or {}).get(index)) for index, term in enumerate(terms, 1))
    log.write(WriteBatch(HardState(max(terms, default=0), None, commit), entries))
    machine = KvMachine(path)
    taken = entries[: commit if applied is None else applied]
    machine.apply([(entry.index, entry.term, entry.data if entry.kind is EntryKind.COMMAND else None) for entry in taken])
    machine.close()
    log.close()
    return path


def _entry(index: int, term: int, configuration: Configuration | None) -> Entry:
    if configuration is not None:
        return Entry(index, term, EntryKind.CONFIGURATION, encode_configuration(configuration))
    return Entry(index, term, EntryKind.COMMAND, stamp(encode(KvPut(b"k%d" % index, b"value-%d" % index)), STAMP_MS))


def contents(directory: Path) -> dict[str, str]:
    """What every file below a directory holds."""
    return {
        str(path.relative_to(directory)): hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(directory.rglob("*")) if path.is_file()
    }
