"""Commands that are carried out once, however often they come."""

from collections.abc import Callable
from typing import Protocol

import msgspec

from service.domain.commands import Command, KvConditional, KvPut, Once
from service.domain.results import OnceResult, Result, Verdict, WriteResult, encode
from service.store import once_rows
from service.store.apply import kv
from service.store.apply.tables import Tables


class View(kv.View, Tables, Protocol):
    """What it needs beside what its command needs."""

    def keep_results(self) -> None:
        """Give every result whole from here on, whether or not anybody waits for it."""
        ...


def carry_out(view: View, index: int, command: Once, apply: Callable[[Command], Result]) -> OnceResult:
    """Give the result that is remembered under the key, or carry the command out and remember its result; whatever that is.

    :param apply: carries out a command at this entry.
    """
    once_rows.forget(view.open(), index - command.entries_max, command.bytes_max)
    known = once_rows.find(view.open(), command.key)
    if known is not None:
        if known.digest != command.digest:
            return OnceResult(index, Verdict.OTHER, first_index=known.first_index)
        return OnceResult(index, Verdict.AGAIN, known.result, known.memo, known.first_index)
    if command.since is not None and command.since < once_rows.forgotten_up_to(view.open()):
        return OnceResult(index, Verdict.FORGOTTEN)
    view.keep_results()
    result = encode(_settled(view, command, apply(command.command)))
    once_rows.remember(view.open(), command.key, once_rows.Remembered(index, command.digest, result, command.memo))
    once_rows.forget(view.open(), index - command.entries_max, command.bytes_max)
    return OnceResult(index, Verdict.FIRST, result, command.memo, index)


def _settled(view: View, command: Once, result: Result) -> Result:
    """The result with the key's true ModifyIndex: what is remembered must not depend on how the log was cut into batches."""
    inner = command.command.command if isinstance(command.command, KvConditional) else command.command
    if isinstance(inner, KvPut) and isinstance(result, WriteResult) and result.ok:
        return msgspec.structs.replace(result, modify_index=view.modify_index(inner.key))
    return result
