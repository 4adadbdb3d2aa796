"""Addresses as people write them."""

PORT_MAX = 65_535


def parse_address(address: str) -> tuple[str, int]:
    """Host and port of ``host:port`` or ``[IPv6]:port``. The host may be a name; it is not resolved here.

    :raises ValueError: when it is something else; the text names the address.
    """
    host, separator, port = address.rpartition(":")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    elif ":" in host:
        separator = ""
    if not separator or not host or any(character.isspace() for character in host):
        raise ValueError(f"{address!r} is no address; host:port or [IPv6]:port is needed")
    if not port.isascii() or not port.isdigit() or len(port) > 5 or int(port) > PORT_MAX:
        raise ValueError(f"{address!r} has the port {port!r}; it must be a number from 0 to {PORT_MAX}")
    return host, int(port)
