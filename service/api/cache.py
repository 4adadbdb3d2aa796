"""``?cached``: a read that may be answered from Redis, with its age. See :mod:`service.cache` for what may be served.

Only requests that ask for it come here, and no failure of Redis does more than answer as if there were no cache.
"""

import logging
from collections.abc import Callable

import gevent

from service.api.errors import Headers
from service.cache import MILLISECONDS, CacheUnavailable, Entry, Links, namespace, now_ms
from service.domain.entries import Row
from service.reloading import Live
from service.store.reader import Found

log = logging.getLogger(__name__)

CONNECTIONS_MAX = 16
HIT, MISS, BYPASS = "HIT", "MISS", "BYPASS"


class Cache:
    """The cache as one worker uses it.

    :param cluster_id: tells the id of the cluster; empty while it is not known, which bypasses the cache.
    """

    def __init__(self, live: Live, cluster_id: Callable[[], str]) -> None:
        self._links = Links(live.now.redis_url, live.now.cache_timeout_ms / MILLISECONDS, CONNECTIONS_MAX)
        self._live = live
        self._cluster_id = cluster_id
        self._floor = 0

    def read(self, key: bytes, max_age_seconds: float | None, fresh: Callable[[], Found]) -> tuple[Found, Headers]:
        """Read a key from Redis or, if it has nothing to serve, freshly; then Redis is told in the background.

        :param max_age_seconds: the oldest that the client takes.
        :param fresh: reads it after a barrier.
        :returns: what was found, and the headers that say whence.
        """
        whole_ttl_ms = self._live.now.cache_ttl_seconds * MILLISECONDS
        ttl_ms = whole_ttl_ms if max_age_seconds is None else min(whole_ttl_ms, int(max_age_seconds * MILLISECONDS))
        try:
            space = namespace(self._known_cluster())
            with self._links.borrow() as link:
                entry = link.get(space, key, ttl_ms)
        except CacheUnavailable as reason:
            log.debug("a read without the cache: %s", reason)
            found = fresh()
            self._distrust_before(found.applied)
            return found, [("X-Cache", BYPASS)]
        if entry is not None and entry.as_of >= self._floor:
            age = max(0, now_ms() - entry.written_ms) // MILLISECONDS
            return _found(key, entry), [("X-Cache", HIT), ("Age", str(age))]
        began_ms = now_ms()
        found = fresh()
        row = found.row
        gevent.spawn(self._fill, space, key, Entry(row and row[1:], found.index, found.applied, began_ms), whole_ttl_ms)
        return found, [("X-Cache", MISS)]

    def _known_cluster(self) -> str:
        if cluster_id := self._cluster_id():
            return cluster_id
        raise CacheUnavailable("the cluster's id is not known yet")

    def _fill(self, space: str, key: bytes, entry: Entry, ttl_ms: int) -> None:
        try:
            with self._links.borrow() as link:
                if command := link.put_command(space, key, entry, ttl_ms):
                    link.ask(*command)
        except CacheUnavailable as reason:
            log.debug("the cache was not filled: %s", reason)
            self._distrust_before(entry.as_of)

    def _distrust_before(self, applied: int) -> None:
        """A client got an answer that Redis was not told because it fails: let no older one follow."""
        if self._links.pausing:
            self._floor = max(self._floor, applied)


def _found(key: bytes, entry: Entry) -> Found:
    row = None if entry.row is None else Row(key, *entry.row)
    return Found(row, entry.index, entry.as_of)
