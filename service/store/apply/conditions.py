"""Commands about one key that are carried out only if the key is as they want it."""

from service.domain.commands import KvConditional, KvDelete, KvPut
from service.domain.results import WriteResult
from service.store.apply import kv, sessions


def carry_out(view: sessions.View, index: int, stamp_ms: int, command: KvConditional) -> WriteResult:
    """Carry out the command, or tell the key's ModifyIndex, by which the condition failed."""
    found = view.modify_index(command.key)
    if not command.condition.holds(found):
        return WriteResult(ok=False, index=index, modify_index=found, unmet=True)
    match command.command:
        case KvPut() as put:
            return kv.put(view, index, stamp_ms, put)
        case KvDelete() as delete:
            return kv.delete(view, index, stamp_ms, delete)
        case lock:
            return sessions.lock(view, index, stamp_ms, lock)
