"""Where a node is, and by which token it is spoken to, from what a user may write."""

from collections.abc import Mapping
from pathlib import Path

from service.addresses import API_PORT, parse_address
from service.client.errors import AddressInvalid

_TOKEN_VARIABLES = ("KVORUM_HTTP_TOKEN", "CONSUL_HTTP_TOKEN", "KVORUM_HTTP_TOKEN_FILE", "CONSUL_HTTP_TOKEN_FILE")


def base_url(address: str) -> str:
    """``http://host:port`` from what a user may write.

    :raises AddressInvalid: naming the address.
    """
    scheme, separator, rest = address.partition("://")
    if not separator:
        scheme, rest = "http", address
    if scheme not in {"http", "https"}:
        raise AddressInvalid(f"the address {address!r} has the scheme {scheme!r}; http and https are known")
    try:
        return f"{scheme}://{parse_address(rest.rstrip('/'), API_PORT)}"
    except ValueError as error:
        raise AddressInvalid(f"the address {address!r} can't be used: {error}") from error


def find_token(variables: Mapping[str, str]) -> str:
    """The token that variables name, or hold; empty when there is none."""
    name = next((name for name in _TOKEN_VARIABLES if variables.get(name)), "")
    return read_token(Path(variables[name]), name) if name.endswith("_FILE") else variables.get(name, "")


def read_token(path: Path, named_by: str) -> str:
    """The token in a file that something has named; :class:`AddressInvalid` when it can't be read."""
    try:
        return path.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise AddressInvalid(f"{named_by} {str(path)!r} can't be read: {error}") from error


def checked(token: str) -> str:
    """The token, if it can be sent."""
    if not (token.isascii() and token.isprintable()):
        raise AddressInvalid("the token holds characters that no HTTP header can carry")
    return token
