"""What a node answers, taken apart."""

import json
from base64 import b64decode
from binascii import Error as Base64Error
from collections.abc import Iterator
from typing import Any, NamedTuple
from urllib.parse import unquote_to_bytes

import requests

from service.client.errors import ClientError

OUTCOME_HEADER = "X-Kvorum-Outcome"
INDEX_HEADER = "X-Kvorum-Index"
PROBLEM_TYPE = "application/problem+json"
CHUNK_BYTES = 64 * 1024
# Of an answer that says its outcome, as a node's do; and of a page by somebody in between.
_MESSAGE_CHARACTERS_MAX = 20_000
_STRANGE_CHARACTERS_MAX = 500


class Entry(NamedTuple):
    """A key as it is stored. ``flags`` is a number that means something to clients only; the indexes are log positions."""

    key: str
    value: bytes
    flags: int = 0
    create_index: int = 0
    modify_index: int = 0
    lock_index: int = 0


class Page(NamedTuple):
    """Some keys in byte order; ``next`` is the key at which the following page starts, None when nothing follows."""

    entries: list[Entry]
    next: str | None


def index(response: requests.Response) -> int:
    """The log index at which a write was carried out; 0 when the answer has none."""
    told = response.headers.get(INDEX_HEADER, "")
    return int(told) if told.isdecimal() else 0


def entry(row: Any) -> Entry:
    """A key as a node lists it."""
    try:
        value = b64decode(row["Value"] or "", validate=True)
        return Entry(row["Key"], value, row["Flags"], row["CreateIndex"], row["ModifyIndex"], row["LockIndex"])
    except (KeyError, TypeError, Base64Error) as error:
        raise ClientError("the node sent an entry that can't be read") from error


def page(found: dict[str, Any]) -> Page:
    """A page of a scan."""
    try:
        following = found["next"]
        encoded = None if following is None else unquote_to_bytes(following).decode("utf-8", "surrogateescape")
        return Page([entry(row) for row in found["entries"]], encoded)
    except (KeyError, TypeError, AttributeError) as error:
        raise ClientError("the node sent a page that can't be read") from error


def text(response: requests.Response) -> str:
    """The body as a line for people, cut off where it is too long for one."""
    characters_max = _MESSAGE_CHARACTERS_MAX if OUTCOME_HEADER in response.headers else _STRANGE_CHARACTERS_MAX
    return response.content.decode("utf-8", "replace").strip()[:characters_max]


def problem(response: requests.Response) -> dict[str, Any]:
    """The object that explains an error; empty when there is none."""
    if response.headers.get("Content-Type") != PROBLEM_TYPE:
        return {}
    try:
        content = response.json()
    except ValueError:
        return {}
    return content if isinstance(content, dict) else {}


def text_chunks(response: requests.Response) -> Iterator[str]:
    """The body as text, piece by piece as it arrives."""
    # JSON of this API is ASCII or UTF-8; a character may lie across two chunks.
    response.encoding = "utf-8"
    return (str(chunk) for chunk in response.iter_content(CHUNK_BYTES, decode_unicode=True))


def array_items(chunks: Iterator[str]) -> Iterator[Any]:
    """The items of a JSON array that arrives in pieces.

    :raises ValueError: when it is no array, or ends early.
    """
    decoder = json.JSONDecoder()
    buffer = ""
    opened = False
    for chunk in chunks:
        buffer = (buffer + chunk).lstrip() if not buffer else buffer + chunk
        if not opened:
            if not buffer:
                continue
            if not buffer.startswith("["):
                raise ValueError("no array")
            opened, buffer = True, buffer[1:]
        position = 0
        while True:
            while position < len(buffer) and buffer[position] in ", \r\n\t":
                position += 1
            if buffer[position : position + 1] == "]":
                return
            try:
                item, position = decoder.raw_decode(buffer, position)
            except json.JSONDecodeError:
                break
            yield item
        buffer = buffer[position:]
    raise ValueError("it ends early")
