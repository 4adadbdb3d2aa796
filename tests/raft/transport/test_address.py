"""Addresses are read as people write them, or refused by name."""

import pytest

from raft.transport.address import parse_address
from raft.transport.http_server import HttpServer


@pytest.mark.parametrize(
    ("address", "expected"),
    [("host:1", ("host", 1)), ("127.0.0.1:65535", ("127.0.0.1", 65_535)), ("[::1]:8300", ("::1", 8_300)), ("a.b:0", ("a.b", 0))],
)
def test_addresses_are_read(address: str, expected: tuple[str, int]) -> None:
    """Names, IPv4 and bracketed IPv6 addresses give host and port."""
    assert parse_address(address) == expected


@pytest.mark.parametrize("address", ["", "host", "host:", ":8300", "host:port", "host:65536", "host:-1", "::1:8300", "a b:1", "host:\u0663", "[]:1"])
def test_what_is_no_address_is_refused(address: str) -> None:
    """An address without host or with an impossible port is refused by name."""
    with pytest.raises(ValueError, match=r"is no address|has the port"):
        HttpServer(address)
