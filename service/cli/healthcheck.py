"""``kvorum healthcheck``: for containers, where it runs every few seconds; it loads as little as it can."""

import os
from http.client import HTTPConnection, HTTPException

import click

from service.addresses import API_PORT, WILDCARDS, Address, parse_address
from service.cli.console import FAILED, leave, say

_REASON_CHARACTERS_MAX = 500


@click.command()
@click.option("--http-addr", "--addr", "address", metavar="HOST:PORT", help="Node to ask; else the local one (KVORUM_API_BIND, or 127.0.0.1:8500).")
@click.option("--ready", is_flag=True, help="Ask whether it can serve (/readyz) instead of whether it lives (/livez).")
@click.option("--timeout", "seconds", type=click.FloatRange(0.1, 60), default=2.0, show_default=True, help="Seconds to wait for the answer.")
def healthcheck(address: str | None, ready: bool, seconds: float) -> None:
    """Exit with 0 when the local node is well, with 1 when it is not."""
    target = _target(address or os.environ.get("KVORUM_API_BIND") or f"127.0.0.1:{API_PORT}")
    path = "/readyz" if ready else "/livez"
    connection = HTTPConnection(target.host, target.port, timeout=seconds)
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        text = answer.read(_REASON_CHARACTERS_MAX).decode("utf-8", "replace").strip()
    except (OSError, HTTPException) as error:
        say(f"{path} of {target}: {error or type(error).__name__}")
        leave(FAILED)
    else:
        say(f"{path} of {target}: {answer.status} {text}")
        leave(0 if answer.status == 200 else FAILED)
    finally:
        connection.close()


def _target(text: str) -> Address:
    try:
        address = parse_address(text.removeprefix("http://").rstrip("/"), API_PORT)
    except ValueError as error:
        raise click.UsageError(str(error)) from error
    if address.host not in WILDCARDS:
        return address
    return Address("::1" if address.host == "::" else "127.0.0.1", address.port)
