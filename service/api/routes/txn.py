"""``/v1/txn``: the Flask view of :mod:`service.api.txn`."""

from service.api.routing import Route
from service.api.txn import METHODS, Transactions


def routes(transactions: Transactions) -> list[Route]:
    """The routes of this module."""
    return [Route("/v1/txn", METHODS, transactions.put)]
