"""Limits for unauthenticated clients: how many connections they may hold, and how many wrong credentials they may try.

One object serves all ports of a process. A connection is unauthenticated until one of its requests was admitted.
"""

import resource
from collections.abc import Callable
from typing import Final, NamedTuple, Protocol

import structlog
from aiohttp import web

from connectors.http.client_address import ClientAddressPolicy, source_of
from connectors.http.rate_limit import SenderRateLimiter
from schemas.reasons import FULL, FULL_OF_ONE

#: Refused requests per second of one address that are answered at once.
REFUSED_PER_S: Final = 10.0
#: Requests per second of one address that need no credential (health, metrics, the API's description) and are answered at
#: once.
OPEN_PER_S: Final = 50.0
#: They cost nothing, and a late answer to a probe restarts a process.
PROBES: Final = frozenset({"/health/live", "/health/ready"})
#: Seconds before each further one is answered. The connection of a refused request is then closed.
SLOWED_S: Final = 1.0
#: File descriptors kept for other uses: about 50 for Kafka, Postgres, Lago, the spool and files, and up to 32 for the
#: metrics port.
_RESERVED: Final = 96
#: Limits of all connections; a connection takes about 20 kB.
_MOST: Final = 4096
_LEAST: Final = 16
_MINUTE_S: Final = 60.0
_REFUSALS: Final = 400
#: How many addresses get log lines in one minute.
_ADDRESSES: Final = 100

_log = structlog.get_logger(__name__)


class Bounds(NamedTuple):
    """How many connections may be open, in total and for one address that is not a trusted proxy; and the listen backlog."""

    total: int
    of_one: int
    at_once: int = 128


def bounds_of(descriptors: int) -> Bounds:
    """Return the limits of a process that may open this many file descriptors (`RLIMIT_NOFILE`).

    asyncio accepts the whole backlog at once, so the whole backlog has descriptors before a connection can be refused.
    """
    at_once = min(128, max(_LEAST, descriptors // 4))
    total = max(_LEAST, min(_MOST, descriptors - _RESERVED - at_once))
    return Bounds(total, max(_LEAST // 2, total // 2), at_once)


def own_bounds() -> Bounds:
    """Return the limits of this process."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return bounds_of(soft if soft != resource.RLIM_INFINITY else _MOST + _RESERVED + 128)


class Connection(Protocol):
    """The part of a connection that this module uses."""

    address: str

    def is_idle(self) -> bool:
        """Return whether the connection waits for a request."""

    def is_spare(self) -> bool:
        """Return whether a busy connection may be closed for a new one: its client does not read its response, has sent
        more requests before it got the response, or its request has lasted for seconds.
        """

    def drop(self) -> None:
        """Close the connection now, with what the client has not read."""


class UnauthenticatedConnections:
    """Counts the connections and the refused requests of a process.

    Args:
        origins: finds the client's address behind trusted proxies.
        monotonic: seconds.
        on_closed: called with the cause when this process closes a connection, one of `CONNECTION_CAUSES`.
        on_wrong: called when a request has no credential, or an unknown one.
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
        self._served = SenderRateLimiter(OPEN_PER_S, monotonic)
        self._refused_at = float("-inf")
        self._open: dict[str, int] = {}  # connections by address
        self._total = 0
        self._unauthenticated_of: dict[
            str, dict[Connection, None]
        ] = {}  # unauthenticated connections by address, the oldest first
        self._lines = _Lines(monotonic)

    def connected(self, connection: Connection) -> bool:
        """Return whether a new connection may stay. At the limit, the oldest idle unauthenticated connection is closed
        for it, or the oldest spare one.
        """
        address = connection.address
        count = self._open.get(address, 0)
        if count >= self.bounds.of_one and not self._origins.trusts(address):
            if not _close_one(self._unauthenticated_of.get(address, {})):
                return self._closed(FULL_OF_ONE, address)
            self._closed(FULL_OF_ONE, address)
        elif self._total >= self.bounds.total:
            if not self._make_room():
                return self._closed(FULL, address)
            self._closed(FULL, address)
        self._open[address] = self._open.get(address, 0) + 1
        self._total += 1
        self._unauthenticated_of.setdefault(address, {})[connection] = None
        return True

    def known(self, connection: Connection) -> None:
        """Register that a request of the connection was admitted."""
        if (of_one := self._unauthenticated_of.get(connection.address)) is not None:
            of_one.pop(connection, None)
            if not of_one:
                del self._unauthenticated_of[connection.address]

    def gone(self, connection: Connection) -> None:
        """Register that a connection that `connected` accepted has ended."""
        self.known(connection)
        self._total -= 1
        left = self._open[connection.address] - 1
        if left:
            self._open[connection.address] = left
        else:
            del self._open[connection.address]

    def answered(self, request: web.BaseRequest, status: int) -> float:
        """Count a request that showed no valid credential; returns after how many seconds to answer it.

        Args:
            status: of the response; from 400 on the request is refused.
        """
        source = source_of(self._origins, request)
        if status < _REFUSALS:
            if request.path in PROBES:
                return 0.0
            return SLOWED_S if self._served.wait_s(source) else 0.0
        self._refused_at = self._monotonic()
        if status == 401:
            self._on_wrong()
            self._lines.log("wrong_credentials", source)
        return SLOWED_S if self._refused.wait_s(source) else 0.0

    def malformed(self, request: web.BaseRequest, error: str) -> None:
        """Log input that is not HTTP."""
        self._lines.log("request_malformed", source_of(self._origins, request), error=error)

    def is_guessing(self, request: web.BaseRequest) -> bool:
        """Return whether the address had too many refused requests recently, so that its body must not be read."""
        if self._monotonic() - self._refused_at > 1:  # the limiter never makes an address wait longer than a second
            return False
        return self._refused.is_early(source_of(self._origins, request))

    def _make_room(self) -> bool:
        """Close a connection of the address that has the most: an attacker has more than a new client."""
        by_count = sorted(self._unauthenticated_of.values(), key=len, reverse=True)
        return any(_close_one(unauthenticated) for unauthenticated in by_count)

    def _closed(self, cause: str, address: str) -> bool:
        self.on_closed(cause)
        self._lines.log("connections_full", address)
        return False


class _Lines:
    """Logs each event at most once per minute and address. The next line says how many were left out (`further`)."""

    def __init__(self, monotonic: Callable[[], float]) -> None:
        self._monotonic = monotonic
        self._began = 0.0
        self._counts: dict[tuple[str, str], int] = {}

    def log(self, event: str, address: str, **more: str) -> None:
        now, key = self._monotonic(), (event, address)
        before: dict[tuple[str, str], int] = {}
        if now - self._began >= _MINUTE_S:
            before, self._counts, self._began = self._counts, {}, now
            for (logged, of), count in before.items():
                if count > 1:
                    _log.warning(logged, address=of, further=count - 1)
        if key in self._counts:
            self._counts[key] += 1
        elif len(self._counts) < _ADDRESSES:
            self._counts[key] = 1
            if before.get(key, 0) <= 1:
                _log.warning(event, address=address, **more)


def _close_one(connections: dict[Connection, None]) -> bool:
    """Close the oldest idle connection, otherwise the oldest spare one; another client may be about to show its
    credential.
    """
    spare = next((one for one in connections if one.is_idle()), None)
    if spare is None and (spare := next((one for one in connections if one.is_spare()), None)) is None:
        return False
    spare.drop()
    return True
