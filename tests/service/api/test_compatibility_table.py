"""The table of Consul's endpoints and the routes agree."""

import re
import sys
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parents[3]))

from tests.compatibility import Endpoint, endpoints

STATUS = {"absent": 404, "refused": 501}
NOT_HERE = {404, 405, 501}


@pytest.mark.parametrize("endpoint", endpoints(), ids=lambda one: f"{one.methods} {one.path}")
def test_endpoints(worker: Any, endpoint: Endpoint) -> None:
    """What is absent is unknown, what is refused says so, and everything else is there, for each method that is told."""
    path = re.sub(r"/[A-Z]+\Z", "/x", endpoint.path)
    if endpoint.path.endswith("/monitor"):
        path += "?loglevel=bogus"  # it would never end
    for method in endpoint.methods.split(", "):
        reply = worker.call(method, path, b"")
        if endpoint.verdict in STATUS:
            assert reply.status == STATUS[endpoint.verdict]
            assert bool(reply.body) == (endpoint.verdict == "refused")
        else:
            missing = reply.status == 404 and not reply.headers.get("X-Consul-Index") and not reply.body
            assert reply.status not in NOT_HERE - {404}
            assert not missing
