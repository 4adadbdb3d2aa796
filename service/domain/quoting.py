"""Text in double quotes, as Go's ``%q`` writes it: Consul's messages name keys so."""

_ESCAPES = {"\a": "\\a", "\b": "\\b", "\f": "\\f", "\n": "\\n", "\r": "\\r", "\t": "\\t", "\v": "\\v", "\\": "\\\\", '"': '\\"'}
_SURROGATE_FIRST, _SURROGATE_LAST = 0xDC80, 0xDCFF


def quote(text: str) -> str:
    """As Go's strconv.Quote. Bytes that are no UTF-8 are expected as surrogate escapes."""
    return '"' + "".join(_quoted(character) for character in text) + '"'


def quote_key(key: bytes) -> str:
    """A key as Go's strconv.Quote."""
    return quote(key.decode("utf-8", "surrogateescape"))


def _quoted(character: str) -> str:
    if character in _ESCAPES:
        return _ESCAPES[character]
    code = ord(character)
    if _SURROGATE_FIRST <= code <= _SURROGATE_LAST:
        return f"\\x{code - 0xDC00:02x}"
    if character.isprintable():
        return character
    if code < 0x20:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"
