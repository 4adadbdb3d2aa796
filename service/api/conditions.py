"""Conditional requests (RFC 9110, section 13) on one key, whose entity tag is its ModifyIndex: ``"42"``.

Of a read they are judged by the worker, against what it read. Of a write they travel with the command and are judged where it is applied.
"""

import re
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from service.api.errors import OUTCOME, Answer, RequestRefused
from service.api.params import Params
from service.api.responses import json, pretty
from service.domain.commands import KvConditional, KvDelete, KvLock, KvPut
from service.domain.conditions import ABSENT, Condition
from service.domain.quoting import quote
from service.domain.results import WriteResult
from service.errors import REJECTED
from service.ipc.membership import TYPE_PREFIX

IF_MATCH, IF_NONE_MATCH = "HTTP_IF_MATCH", "HTTP_IF_NONE_MATCH"
INDEX = "X-Kvorum-Index"
PROBLEM = ("Content-Type", "application/problem+json")

_NAMES = {IF_MATCH: "If-Match", IF_NONE_MATCH: "If-None-Match"}
_ANY = "*"
_TAG = re.compile(r'[ \t]*(W/)?"([\x21\x23-\x7e\x80-\xff]*)"[ \t]*')
_INDEX_DIGITS_MAX = 19


def entity_tag(modify_index: int) -> tuple[str, str]:
    """The header that names a key's version."""
    return "ETag", f'"{modify_index}"'


def is_known(environ: Mapping[str, Any], modify_index: int) -> bool:
    """Whether the client of a read says that it has this version already. What can't be read is of another version."""
    text = environ[IF_NONE_MATCH].strip()
    if text == _ANY:
        return True
    tags = _tags(text)
    return tags is not None and any(opaque == str(modify_index) for _, opaque in tags)


def guarded(environ: Mapping[str, Any], command: KvPut | KvDelete | KvLock, cas: int | None) -> KvPut | KvDelete | KvLock | KvConditional:
    """The command that a request stands for: under the condition of its headers, if there is one.

    :param cas: that of the query.
    :raises RequestRefused: when a header can't be read, or can never hold together with ``cas``.
    """
    condition = Condition()
    if IF_MATCH in environ:
        condition = condition.both(_if_match(environ[IF_MATCH]))
    if IF_NONE_MATCH in environ:
        condition = condition.both(_if_none_match(environ[IF_NONE_MATCH]))
    if cas is not None and not condition.holds(cas):
        given = ", ".join(f"{name}: {environ[variable]}" for variable, name in _NAMES.items() if variable in environ)
        raise RequestRefused(400, f"Conflicting conditions: cas={cas} and {given} can't both hold.")
    return KvConditional(command, condition)


def refuse(environ: Mapping[str, Any]) -> None:
    """Refuse conditions where none is possible.

    :raises RequestRefused: naming the header.
    """
    for variable, name in _NAMES.items():
        if variable in environ:
            raise RequestRefused(400, f"{name} is a condition on one key; ?recurse deletes many.")


def failed(result: WriteResult, params: Params) -> Answer:
    """The answer to a write whose condition did not hold: a problem (RFC 9457) with the key's present ModifyIndex, 0 if there is no such key."""
    found = result.modify_index
    detail = f"the key's ModifyIndex is {found}" if found else "there is no such key"
    body = json(
        {
            "type": TYPE_PREFIX + "precondition-failed",
            "title": HTTPStatus.PRECONDITION_FAILED.phrase,
            "status": int(HTTPStatus.PRECONDITION_FAILED),
            "detail": f"the condition does not hold: {detail}; nothing was changed",
            "outcome": REJECTED,
            "modify_index": found,
        }
    )
    headers = [PROBLEM, (OUTCOME, REJECTED), (INDEX, str(result.index))]
    if found:
        headers.append(entity_tag(found))
    return HTTPStatus.PRECONDITION_FAILED, headers, pretty(body) if params.pretty else body


def _if_match(text: str) -> Condition:
    if text.strip() == _ANY:
        return Condition(none_of=[ABSENT])
    return Condition(one_of=[index for weak, opaque in _require_tags(IF_MATCH, text) if not weak and (index := _index(opaque))])


def _if_none_match(text: str) -> Condition:
    if text.strip() == _ANY:
        return Condition(one_of=[ABSENT])
    return Condition(none_of=[index for _, opaque in _require_tags(IF_NONE_MATCH, text) if (index := _index(opaque))])


def _index(opaque: str) -> int:
    """The ModifyIndex that a tag of ours names; 0 for a tag that is not ours, and so is no key's."""
    plain = opaque.isascii() and opaque.isdecimal() and not opaque.startswith("0") and len(opaque) < _INDEX_DIGITS_MAX
    return int(opaque) if plain else 0


def _require_tags(variable: str, text: str) -> list[tuple[bool, str]]:
    tags = _tags(text)
    if tags is None:
        raise RequestRefused(400, f'{_NAMES[variable]} is {quote(text)}; entity tags look like "42", in quotes, with commas between them, or *.')
    return tags


def _tags(text: str) -> list[tuple[bool, str]] | None:
    """Each tag of a list, and whether it is a weak one; None when it is no list of tags."""
    tags: list[tuple[bool, str]] = []
    position = 0
    while match := _TAG.match(text, position):
        tags.append((match[1] is not None, match[2]))
        if match.end() == len(text):
            return tags
        if text[match.end()] != ",":
            return None
        position = match.end() + 1
    return None
