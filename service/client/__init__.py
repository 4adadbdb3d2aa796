"""A client of the public HTTP API, for programs and for the command line.

::

    client = Client()                      # KVORUM_HTTP_ADDR, CONSUL_HTTP_ADDR or 127.0.0.1:8500
    client.put("app/db/host", b"10.0.0.7")
    entry = client.get("app/db/host")      # None when there is no such key

Every error is a :class:`ClientError` whose ``outcome`` says whether the operation certainly did not happen (``rejected``) or may have happened
(``unknown``). A write is never sent twice by this module; who does that gives it a key (:class:`Once`).
A :class:`Client` belongs to one thread at a time.
"""

from service.client.addresses import base_url, read_token
from service.client.answers import Entry, Page
from service.client.client import SCAN_PAGE, Client, Once
from service.client.errors import AddressInvalid, ClientError

__all__ = ["SCAN_PAGE", "AddressInvalid", "Client", "ClientError", "Entry", "Once", "Page", "base_url", "read_token"]
