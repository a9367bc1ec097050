"""Bounds for senders whose credentials were not seen yet: how many connections they may hold, and how fast they may guess.

One object serves all ports of a process. A connection is a stranger's until one of its requests was admitted.
"""

import resource
from collections.abc import Callable
from ipaddress import IPv6Address, ip_network
from typing import Final, NamedTuple, Protocol

import structlog
from aiohttp import web

from connectors.http.client_address import ClientAddressPolicy
from connectors.http.rate_limit import SenderRateLimiter
from schemas.reasons import FULL, FULL_OF_ONE

#: Refused requests a second and address that are answered at once.
REFUSED_PER_S: Final = 10.0
#: How long the answer to each further one waits; its connection is closed afterwards.
SLOWED_S: Final = 1.0
#: Descriptors that are kept for everything but callers: Kafka, Postgres, Lago, the spool, files, of which about 50 are in
#: use; and at most 32 for the metrics port.
_RESERVED: Final = 96
#: A connection takes about 20 kB.
_MOST: Final = 4096
_LEAST: Final = 16
_FORWARDED: Final = "X-Forwarded-For"
_MINUTE_S: Final = 60.0
#: Addresses that have a line of their own in a minute.
_ADDRESSES: Final = 100
#: Why a connection was closed by us; labels of the metric.

_log = structlog.get_logger(__name__)


class Bounds(NamedTuple):
    """Connections that may be open: in all, and of one address that is no trusted proxy; how many are accepted at once."""

    total: int
    of_one: int
    at_once: int = 128


def bounds_of(descriptors: int) -> Bounds:
    """The bounds of a process that may have so many descriptors (`RLIMIT_NOFILE`).

    What waits to be accepted gets its descriptors all at once, before anything of it can be refused.
    """
    at_once = min(128, max(_LEAST, descriptors // 4))
    total = max(_LEAST, min(_MOST, descriptors - _RESERVED - at_once))
    return Bounds(total, max(_LEAST // 2, total // 2), at_once)


def own_bounds() -> Bounds:
    """The bounds of this process."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return bounds_of(soft if soft != resource.RLIM_INFINITY else _MOST + _RESERVED + 128)


class Connection(Protocol):
    """What is asked of a connection."""

    address: str

    def is_idle(self) -> bool:
        """It waits for a request."""

    def force_close(self) -> None:
        """Close it now."""


class UnauthenticatedConnections:
    """The connections of a process, and the addresses that are refused.

    Args:
        origins: finds the client's address behind trusted proxies.
        monotonic: seconds.
        on_closed: hears why a connection was closed, one of `CONNECTION_CAUSES`.
        on_wrong: a request named a credential that nobody knows, or none.
    """

    def __init__(
        self,
        bounds: Bounds,
        origins: ClientAddressPolicy,
        monotonic: Callable[[], float],
        on_closed: Callable[[str], None] = lambda _cause: None,
        on_wrong: Callable[[], None] = lambda: None,
    ) -> None:
        self.bounds = bounds
        self._origins = origins
        self._monotonic = monotonic
        self.on_closed = on_closed
        self._on_wrong = on_wrong
        self._refused = SenderRateLimiter(REFUSED_PER_S, monotonic)
        self._refused_at = float("-inf")
        self._open: dict[str, int] = {}  # connections by address
        self._total = 0
        self._strangers_of: dict[str, dict[Connection, None]] = {}  # by address, the oldest first
        self._lines = _Lines(monotonic)

    def connected(self, connection: Connection) -> bool:
        """Whether a new connection may stay; where all places are taken, the oldest stranger that is idle loses its own."""
        address = connection.address
        count = self._open.get(address, 0)
        if count >= self.bounds.of_one and not self._origins.trusts(address):
            if not _close_idle(self._strangers_of.get(address, {})):
                return self._closed(FULL_OF_ONE, address)
            self._closed(FULL_OF_ONE, address)
        elif self._total >= self.bounds.total:
            if not self._make_room():
                return self._closed(FULL, address)
            self._closed(FULL, address)
        self._open[address] = self._open.get(address, 0) + 1
        self._total += 1
        self._strangers_of.setdefault(address, {})[connection] = None
        return True

    def known(self, connection: Connection) -> None:
        """One of its requests was admitted."""
        if (of_one := self._strangers_of.get(connection.address)) is not None:
            of_one.pop(connection, None)
            if not of_one:
                del self._strangers_of[connection.address]

    def gone(self, connection: Connection) -> None:
        """A connection that `connected` let stay is closed."""
        self.known(connection)
        self._total -= 1
        left = self._open[connection.address] - 1
        if left:
            self._open[connection.address] = left
        else:
            del self._open[connection.address]

    def refused(self, request: web.BaseRequest, status: int) -> float:
        """Take note of a refusal; in how many seconds it may be answered."""
        source = self._source(request)
        self._refused_at = self._monotonic()
        if status == 401:
            self._on_wrong()
            self._lines.tell("wrong_credentials", source)
        return SLOWED_S if self._refused.wait_s(source) else 0.0

    def malformed(self, request: web.BaseRequest, error: str) -> None:
        """Take note of what is no HTTP."""
        self._lines.tell("request_malformed", self._source(request), error=error)

    def is_guessing(self, request: web.BaseRequest) -> bool:
        """Whether this address was refused too often of late for anything of its to be read."""
        if self._monotonic() - self._refused_at > 1:  # no address has more than a second's worth to wait for
            return False
        return self._refused.is_early(self._source(request))

    def _make_room(self) -> bool:
        """Of the address with the most strangers the oldest that is idle goes: a newcomer is hardly among them."""
        by_count = sorted(self._strangers_of.values(), key=len, reverse=True)
        return any(_close_idle(strangers) for strangers in by_count)

    def _closed(self, cause: str, address: str) -> bool:
        self.on_closed(cause)
        self._lines.tell("connections_full", address)
        return False

    def _source(self, request: web.BaseRequest) -> str:
        """The address; of IPv6 its network, for anybody has 2^64 of them."""
        headers = request.headers
        # Of what could not be parsed the headers are a plain dict.
        forwarded = headers.getall(_FORWARDED) if _FORWARDED in headers else ()
        address = self._origins.origin(request.remote, forwarded)
        if isinstance(address, IPv6Address):
            return str(ip_network((address, 64), strict=False))
        return str(address or "")


class _Lines:
    """Of each event one line a minute and address: the first at once, and how many came since with the next one."""

    def __init__(self, monotonic: Callable[[], float]) -> None:
        self._monotonic = monotonic
        self._began = 0.0
        self._counts: dict[tuple[str, str], int] = {}

    def tell(self, event: str, address: str, **more: str) -> None:
        now, key = self._monotonic(), (event, address)
        before: dict[tuple[str, str], int] = {}
        if now - self._began >= _MINUTE_S:
            before, self._counts, self._began = self._counts, {}, now
            for (told, of), count in before.items():
                if count > 1:
                    _log.warning(told, address=of, further=count - 1)
        if key in self._counts:
            self._counts[key] += 1
        elif len(self._counts) < _ADDRESSES:
            self._counts[key] = 1
            if before.get(key, 0) <= 1:
                _log.warning(event, address=address, **more)


def _close_idle(connections: dict[Connection, None]) -> bool:
    """Close the oldest that is idle. One that sends may be about to show its credential."""
    oldest = next((one for one in connections if one.is_idle()), None)
    if oldest is None:
        return False
    oldest.force_close()
    return True
