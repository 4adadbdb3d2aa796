"""What each command does to single keys and to prefixes: rules over a small view of the state, without SQL and without a clock."""

from collections.abc import Iterable
from typing import Protocol, TypeGuard

from service.domain.commands import CheckState, Command, KvConditional, KvDelete, KvDeleteTree, KvPut, Permitted, ReapTombstones
from service.domain.results import WriteResult


class View(Protocol):
    """The state as the entry at hand finds it, with the effects of those before it."""

    def modify_index(self, key: bytes) -> int:
        """The key's ModifyIndex; 0 when it does not exist."""
        ...

    def put(self, index: int, key: bytes, value: bytes, flags: int) -> None:
        """Set a key at ``index``. The same value and flags on a key whose LockIndex is 0 change nothing and move no index. CreateIndex and
        session stay, LockIndex becomes 0.
        """
        ...

    def delete(self, index: int, stamp_ms: int, key: bytes) -> None:
        """Delete a key and leave a tombstone; a missing key moves nothing."""
        ...

    def delete_prefix(self, index: int, stamp_ms: int, prefix: bytes) -> None:
        """Delete all keys with the prefix and leave a tombstone for each; nothing moves when there are none."""
        ...

    def reap(self, up_to: int) -> None:
        """Forget tombstones of that index and below."""
        ...


def put(view: View, index: int, _stamp_ms: int, command: KvPut) -> WriteResult:
    """Set a key unless its condition fails: 0 wants the key absent, another number wants that ModifyIndex.

    The result takes for granted that something changes; whoever writes the rows knows when nothing did.
    """
    if command.cas is not None and (found := view.modify_index(command.key)) != command.cas:
        return WriteResult(ok=False, index=index, modify_index=found)
    view.put(index, command.key, command.value, command.flags)
    return WriteResult(ok=True, index=index, modify_index=index)


def delete(view: View, index: int, stamp_ms: int, command: KvDelete) -> WriteResult:
    """Delete a key unless its condition fails. A missing key counts as deleted whatever the condition; 0 never deletes one that exists."""
    if command.cas is not None:
        found = view.modify_index(command.key)
        if found == 0:
            return WriteResult(ok=True, index=index)
        if found != command.cas:
            return WriteResult(ok=False, index=index, modify_index=found)
    view.delete(index, stamp_ms, command.key)
    return WriteResult(ok=True, index=index)


def delete_tree(view: View, index: int, stamp_ms: int, command: KvDeleteTree) -> bool:
    """Delete every key with the prefix; the empty one stands for all keys."""
    view.delete_prefix(index, stamp_ms, command.prefix)
    return True


def reap_tombstones(view: View, _index: int, _stamp_ms: int, command: ReapTombstones) -> bool:
    """Forget old deletions: an emptied prefix then answers with the index of the whole table again."""
    view.reap(command.up_to)
    return True


def check_state(_view: View, _index: int, _stamp_ms: int, _command: CheckState) -> bool:
    """Change nothing: the digest is taken by whoever applies the entries."""
    return True


def conditional_keys(commands: Iterable[Command]) -> list[bytes]:
    """The keys whose ModifyIndex decides about one of the commands, each once, in order."""
    asked = (command.command if isinstance(command, Permitted) else command for command in commands)
    return list(dict.fromkeys(command.key for command in asked if _is_conditional(command)))


def _is_conditional(command: Command) -> TypeGuard[KvPut | KvDelete | KvConditional]:
    return isinstance(command, KvConditional) or (isinstance(command, KvPut | KvDelete) and command.cas is not None)
