"""Whether an address is free to listen on, and whether somebody listens."""

import os
import socket
from pathlib import Path

from service.addresses import Address
from service.errors import KvorumError


class AddressTaken(KvorumError):
    """An address that can't be listened on; the text names it and why."""

    exit_code = 7


def require_free(address: Address, purpose: str) -> None:
    """Bind and let go again, so that a port in use is told before anything starts.

    :param purpose: what the address is for, for the message.
    :raises AddressTaken: when it can't be bound.
    """
    host = "0.0.0.0" if address.host == "*" else address.host  # noqa: S104 - the operator's own choice
    try:
        family, kind, protocol, _name, target = socket.getaddrinfo(host, address.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        with socket.socket(family, kind, protocol) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(target)
            probe.listen(1)
    except OSError as error:
        reason = error.strerror if isinstance(error, socket.gaierror) or error.errno is None else os.strerror(error.errno)
        raise AddressTaken(f"{purpose}: {address} can't be listened on: {reason}") from error


def accepts(path: Path) -> bool:
    """Whether somebody accepts connections on a Unix socket now."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(1)
        try:
            probe.connect(str(path))
        except OSError:
            return False
        return True
