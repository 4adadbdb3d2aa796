"""Base64 as Go's decoder reads it: line ends count for nothing, and the text of a refusal names the byte where it gave up."""

import binascii

_ALPHABET = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/")
_LINE_ENDS = b"\r\n"
_PAD = ord("=")


class Base64Refused(ValueError):
    """Go's text for what is no base64."""


def decode(text: str) -> bytes:
    """The bytes that a text stands for.

    :raises Base64Refused: with Go's text.
    """
    if len(text) % 4 == 0 and not text.endswith("==="):  # Python lets padding pass behind a whole group
        try:
            return binascii.a2b_base64(text, strict_mode=True)
        except ValueError:
            pass
    data = text.encode("utf-8", "surrogatepass")
    at = _first_wrong(data)
    if at is not None:
        raise Base64Refused(f"illegal base64 data at input byte {at}")
    return binascii.a2b_base64(data.translate(None, _LINE_ENDS))


def _first_wrong(data: bytes) -> int | None:
    """Where Go complains: at the character that can't be there, or, at an early end, where the last group of four is taken to have begun."""
    at = seen = 0
    while at < len(data):
        found = data[at]
        if found in _ALPHABET:
            seen = (seen + 1) % 4
        elif found == _PAD:
            return _wrong_padding(data, at, seen)
        elif found not in _LINE_ENDS:
            return at
        at += 1
    return len(data) - seen if seen else None


def _wrong_padding(data: bytes, at: int, seen: int) -> int | None:
    """:param seen: how many characters of the last group stand before the padding that begins at ``at``."""
    if seen < 2:
        return at
    following = _past_line_ends(data, at + 1)
    if seen == 2:
        if following == len(data):
            return following
        if data[following] != _PAD:
            return following - 1
        following = _past_line_ends(data, following + 1)
    return following if following < len(data) else None


def _past_line_ends(data: bytes, at: int) -> int:
    while at < len(data) and data[at] in _LINE_ENDS:
        at += 1
    return at
