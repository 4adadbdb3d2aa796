"""What the indexes of keys mean, and transactions of many keys (scenarios CL-07 and CL-08)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from service.domain import commands, results
from service.domain.commands import Command, KvPut, Txn, TxnOperation
from service.store.machine import KvMachine

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.service.store.conftest import Node

CREATORS = 50


def apply(machine: KvMachine, *batch: Command) -> list[bytes]:
    """Apply a batch of entries."""
    first = machine.applied()[0] + 1
    return list(machine.apply([(index, 1, commands.stamp(commands.encode(command), 1)) for index, command in enumerate(batch, first)]))


def restored(machine: KvMachine, other: KvMachine) -> KvMachine:
    """Another machine with the state of the first."""
    capture = machine.capture()
    pieces: list[bytes] = []
    capture.write(pieces.append)
    rest = iter([*pieces, b""])
    other.restore(capture.index, capture.term, lambda _: next(rest))
    capture.close()
    return other


def test_cl_07_what_an_index_means(node: Node, make_node: Callable[[str], Node]) -> None:
    """The ModifyIndex of each write is its entry's, so it grows over keys, a restart and a snapshot; CreateIndex stays; one of 50 creators wins."""
    told: list[int] = []

    def write(machine: KvMachine, key: bytes) -> None:
        (answer,) = apply(machine, KvPut(key, b"%d" % len(told)))
        told.append(results.decode(answer).modify_index)
        assert told[-1] == machine.applied_index

    for key in (b"a", b"b", b"a"):
        write(node.machine, key)
    node.machine.close()
    machine = node.machine = KvMachine(node.directory)
    write(machine, b"b")
    other = make_node("other")
    machine = restored(machine, other.machine)
    write(machine, b"a")
    assert told == sorted(set(told))
    row = other.reader.get(b"a").row
    assert (row.create_index, row.modify_index) == (told[0], told[-1])
    answers = [results.decode(answer) for answer in apply(machine, *(KvPut(b"new", b"%d" % number, cas=0) for number in range(CREATORS)))]
    assert [answer.ok for answer in answers] == [True] + [False] * (CREATORS - 1)
    assert {answer.modify_index for answer in answers} == {answers[0].index}


def test_cl_08_a_transaction_of_many_keys(node: Node, make_node: Callable[[str], Node]) -> None:
    """All keys have the transaction's index, or none was touched; a listing sees all or none; a replica that applies it has the same."""
    names = [b"t/%02d" % number for number in range(20)]

    def sets(value: bytes) -> list[TxnOperation]:
        return [TxnOperation("set", name, value) for name in names]

    log = [Txn(sets(b"one")), Txn([*sets(b"two"), TxnOperation("check-not-exists", b"t/00")]), Txn([*sets(b"two"), TxnOperation("delete", b"t/19")])]
    seen = []
    for command in log:
        apply(node.machine, command)
        rows = node.reader.list(b"t/").rows
        seen.append((len(rows), {row.value for row in rows}, {row.modify_index for row in rows}))
    assert seen == [(20, {b"one"}, {1}), (20, {b"one"}, {1}), (19, {b"two"}, {3})]
    replica = make_node("replica").machine
    apply(replica, *log)
    assert replica.digest() == node.machine.digest()
