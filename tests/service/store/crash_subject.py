"""The state machine of the service as crash images want it (:class:`raft.testing.crash_script.Subject`), with the faults that they must notice."""

from __future__ import annotations

import random
from contextlib import contextmanager
from typing import TYPE_CHECKING
from unittest.mock import patch

from service.domain.commands import KvDelete, KvDeleteTree, KvPut, ReapTombstones, encode, stamp
from service.store import machine as machines
from service.store import statements
from service.store.machine import KvMachine
from service.store.transaction import Transaction

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


class KvSubject:
    """Puts, conditional puts, deletes and tree deletes over a few keys; a counter shows what was left out or applied twice."""

    def open(self, directory: Path) -> KvMachine:
        """Open the machine, or make it. Few pages are a long log here, so that checkpoints have it start anew."""
        machines.LOG_FRAMES_MAX = 10
        return KvMachine(directory)

    def command(self, index: int, term: int) -> bytes:
        """Always the same for an index and a term."""
        chosen = random.Random(f"{index}/{term}")
        key = b"key/%d/%d" % (chosen.randrange(3), chosen.randrange(10))
        rare = (KvDelete(key), KvDeleteTree(b"key/1/"), ReapTombstones(index - 20), KvPut(key, b"cas", cas=index - 1))
        if chosen.random() < 0.2:
            return stamp(encode(chosen.choice(rare)), index)
        return stamp(encode(KvPut(key, b"%d/%d" % (index, term) * chosen.choice([1, 30, 400]))), index)

    def fingerprint(self, machine: KvMachine) -> str:
        """The digest over everything that is replicated."""
        return repr((machine.applied(), machine.digest()))

    @contextmanager
    def planted(self, mutant: str) -> Iterator[None]:
        """``M25``: effects and applied index in two transactions; ``believes``: a checkpoint that proved nothing is believed;
        ``unsynced``: new files, and CURRENT, are named before they are durable. KeyError for any other.
        """
        faults = {
            "M25": patch.object(Transaction, "commit", _commit_in_two),
            "believes": patch.object(KvMachine, "checkpoint", _believe),
            "unsynced": patch("service.store.files.sync", lambda _path: None),
        }
        with faults[mutant]:
            yield


def _commit_in_two(transaction: Transaction, index: int, term: int) -> None:
    """The index moves first, by a transaction of its own."""
    waiting, parameters = transaction._waiting, transaction._parameters
    if not transaction._begun:
        transaction._connection.execute(statements.SET_META, (index, term, transaction._kv_index))
    transaction._waiting, transaction._parameters = waiting, parameters
    transaction._flush_inside()
    transaction._begin()
    transaction._connection.execute(statements.SET_META, (index, term, transaction._kv_index))
    transaction._connection.execute("COMMIT")


def _believe(machine: KvMachine) -> int:
    """Whatever the checkpoint says, all that was applied counts as durable."""
    index = machine.applied()[0]
    machine._checkpointer.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
    return index
