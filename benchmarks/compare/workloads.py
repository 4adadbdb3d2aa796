"""What is asked of each system, by name."""

from dataclasses import dataclass

from benchmarks.compare.dialects import TRANSACTION_OPERATIONS


@dataclass(frozen=True)
class Workload:
    """One row of a table.

    :param kind: the method of a dialect that makes its requests.
    :param query: what follows the key, in Consul's words.
    :param follower: whether a follower is asked, not the leader.
    :param weight: what one request counts for.
    """

    name: str
    says: str
    kind: str
    connections: int
    query: str = ""
    follower: bool = False
    weight: int = 1


CACHED = "cached64"
"""The one that needs a Redis; without, it is an ordinary read."""
WORKLOADS = {
    one.name: one
    for one in (
        Workload("put1", "PUT, 1 connection", "put", 1),
        Workload("put64", "PUT, 64 connections", "put", 64),
        Workload("put256", "PUT, 256 connections", "put", 256),
        Workload("fput64", "PUT at a follower, 64", "put", 64, follower=True),
        Workload("get1", "GET, 1 connection", "get", 1),
        Workload("get64", "GET, 64 connections", "get", 64),
        Workload("getc64", "GET ?consistent, 64", "get", 64, "?consistent"),
        Workload("fget64", "GET at a follower, 64", "get", 64, follower=True),
        Workload("stale64", "GET ?stale at a follower, 64", "get", 64, "?stale", follower=True),
        Workload("cached64", "GET ?cached, 64 connections", "get", 64, "?cached"),
        Workload("mixed64", "one PUT, nine GET, 64", "mixed", 64),
        Workload("txn64", "transactions of 64 PUT, 16; keys a second", "txn", 16, weight=TRANSACTION_OPERATIONS),
        Workload("list1000", "listings of 1,000 keys, 8", "list", 8),
    )
}
