"""Sessions: the rules about their ids."""

from service.domain.quoting import quote

ID_BYTES = 36
_HYPHENS_MAX = 4
_DIGITS = 32
_HEX = frozenset(b"0123456789abcdefABCDEF")


class SessionIdRefused(Exception):
    """A text that can't be the id of a session; the text says why, as Consul does."""


def canonical_id(text: str) -> str:
    """The id under which a session is kept: lower case, hyphens in their places.

    Consul compares the digits only, so the case and the places of the hyphens don't matter. A text of other digits than a UUID has is the id of no
    session, though Consul takes it for one; it is given back as it is.

    :raises SessionIdRefused: with Consul's text.
    """
    data = text.encode("utf-8", "surrogatepass")
    if len(data) != ID_BYTES:
        raise SessionIdRefused(f"failed session lookup: index error: UUID must be {ID_BYTES} characters")
    if (hyphens := data.count(b"-")) > _HYPHENS_MAX:
        raise SessionIdRefused(f'failed session lookup: index error: UUID should have maximum of {_HYPHENS_MAX} "-"; got {hyphens}')
    digits = data.replace(b"-", b"")
    if len(digits) % 2:
        raise SessionIdRefused("failed session lookup: index error: Input (without hyphens) must be even length")
    if wrong := next((byte for byte in digits if byte not in _HEX), None):
        raise SessionIdRefused(f"failed session lookup: index error: Invalid UUID: encoding/hex: invalid byte: {_named(wrong)}")
    if len(digits) != _DIGITS:
        return text
    plain = digits.decode().lower()
    return "-".join((plain[:8], plain[8:12], plain[12:16], plain[16:20], plain[20:]))


def unknown(text: str) -> str:
    """What Consul says of a session that does not exist."""
    return f"invalid session {quote(text)}"


def _named(byte: int) -> str:
    """A byte as Go's ``%#U`` shows the character of that number."""
    character = chr(byte)
    return f"U+{byte:04X} '{character}'" if character.isprintable() else f"U+{byte:04X}"
