"""Liveness, readiness, the state of all dependencies, and the Prometheus metrics.

- `/health/live`: the event loop runs.
- `/health/ready`: records can be stored: the topics are checked, the producer works and Kafka answers. In a process that
  changes mappings, Kafka's transaction coordinator has answered too. The probe shows the last result of a background check.
  An ingress with a spool is ready without Kafka, and says that it spools. Lago is not needed to accept usage.
- `/health`: asks every dependency.
"""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import msgspec
from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest

from connectors.config.postgres_urls import connecting
from connectors.http.problem import Problem
from connectors.http.shared_answer import SharedAnswer
from connectors.http.unready import unready
from schemas.errors import MeterbridgeError, Unavailable
from schemas.moments import to_iso
from streams.runtime.kept_up import kept_up

_BEAT_S, _BEAT_LIMIT_S = 1.0, 5.0
#: The shortest time between two checks of a dependency, and the time limit of a check, in seconds.
_FRESH_S, _PROBE_S = 1.0, 5.0

#: Checks a dependency. Raises: MeterbridgeError, OSError, or any error of its library.
Probe = Callable[[], Awaitable[object]]


@dataclass(slots=True)
class _Finding:
    at: float
    ok: bool
    latency_ms: float


class Dependency:
    """A dependency, and the result of its last check."""

    def __init__(self, probe: Probe, monotonic: Callable[[], float], now_us: Callable[[], int]) -> None:
        self._probe = probe
        self._monotonic = monotonic
        self._now_us = now_us
        self._finding: _Finding | None = None
        self._last_error: dict[str, str] | None = None
        self._asking = asyncio.Lock()

    async def state(self) -> dict[str, Any]:
        """Return `status` (`ok` or `down`), `latency_ms`, and `last_error` (time and message), which stays after
        recovery; null = no error yet.
        """
        async with self._asking:
            finding = self._finding
            if finding is None or self._monotonic() - finding.at > _FRESH_S:
                finding = self._finding = await self._ask()
        status = "ok" if finding.ok else "down"
        return {"status": status, "latency_ms": round(finding.latency_ms, 1), "last_error": self._last_error}

    async def _ask(self) -> _Finding:
        started = self._monotonic()
        error = ""
        try:
            async with asyncio.timeout(_PROBE_S):
                await self._probe()
        except TimeoutError:
            error = f"no answer within {_PROBE_S:g} s"
        except MeterbridgeError as problem:
            error = str(problem)
        except Exception as problem:  # noqa: BLE001  # any error of the library means that the dependency is down
            error = type(problem).__name__
        now = self._monotonic()
        if error:
            self._last_error = {"at": to_iso(self._now_us()), "error": error}
        return _Finding(now, not error, (now - started) * 1000)


class Health:
    """The health of this process.

    Args:
        dependencies: by their names in `/health`.
        ready: the reason why records cannot be stored now; `""` if they can.
        monotonic: seconds.
        spooling: the reason why records go to the spool and not to Kafka; `""` if they go to Kafka.
    """

    def __init__(
        self,
        dependencies: Mapping[str, Dependency],
        ready: Callable[[], str],
        monotonic: Callable[[], float],
        registry: CollectorRegistry,
        spooling: Callable[[], str] = lambda: "",
    ) -> None:
        self._spooling = spooling
        self._dependencies = dependencies
        self._ready = ready
        self._monotonic = monotonic

        async def metrics() -> bytes:
            return generate_latest(registry)

        self._metrics = SharedAnswer(metrics, monotonic)
        self._beat = monotonic()
        self._heart: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Start to watch the event loop."""
        self._heart = asyncio.ensure_future(kept_up("heartbeat", self._keep_beating))

    async def stop(self) -> None:
        """Stop watching."""
        if self._heart is not None:
            self._heart.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._heart

    def routes(self) -> list[web.RouteDef]:
        """Return the routes; they need no credential, because nothing here is secret and probes have no token."""
        return [
            web.get("/health", self.answer),
            web.get("/health/live", self.answer_live),
            web.get("/health/ready", self.answer_ready),
            web.get("/health/metrics", self.answer_metrics),
            web.get("/metrics/prometheus", self.answer_metrics),
        ]

    async def answer(self, _: web.Request) -> web.Response:
        """Answer 200 if every dependency is `ok`, otherwise 503 `degraded`."""
        states = await asyncio.gather(*(dependency.state() for dependency in self._dependencies.values()))
        by_dependency = dict(zip(self._dependencies, states, strict=True))
        well = all(state["status"] == "ok" for state in states)
        body = {"status": "ok" if well else "degraded", "dependencies": by_dependency}
        return json_response(body, 200 if well else 503)

    async def answer_live(self, _: web.Request) -> web.Response:
        """Answer 503 if the event loop was blocked for 5 s: the process must be restarted."""
        behind_s = self._monotonic() - self._beat
        if behind_s > _BEAT_LIMIT_S:
            raise Problem(503, "event_loop_blocked", f"the event loop was blocked for {behind_s:.0f} s")
        return json_response({"status": "ok"})

    async def answer_ready(self, _: web.Request) -> web.Response:
        """Answer 503 with the reason if no record can be stored; `spooling` says why records wait on the disk of this
        machine.
        """
        if reason := self._ready():
            raise Problem(503, reason, unready(reason))
        spooling = self._spooling()
        return json_response({"status": "ok", "spooling": spooling} if spooling else {"status": "ok"})

    async def answer_metrics(self, _: web.Request) -> web.Response:
        """Answer with the metrics in Prometheus' text format. It takes milliseconds, and needs no credential, so requests
        that come close together share one answer.
        """
        return web.Response(body=await self._metrics.get(), headers={"Content-Type": CONTENT_TYPE_LATEST})

    async def _keep_beating(self) -> None:
        while True:
            self._beat = self._monotonic()
            await asyncio.sleep(_BEAT_S)


#: Headers of a response that no cache may store, because it contains a secret, or a link that gives access.
NO_STORE: Final = {"Cache-Control": "no-store"}


def json_response(body: object, status: int = 200, headers: Mapping[str, str] | None = None) -> web.Response:
    """Return a response with `body` as JSON."""
    encoded = msgspec.json.encode(body)
    return web.Response(status=status, body=encoded, content_type="application/json", headers=headers)


def lago_probe(healthy: Callable[[], Awaitable[bool]]) -> Probe:
    """Checks Lago with `LagoClient.healthy`."""

    async def probe() -> None:
        if not await healthy():
            raise Unavailable("lago_unhealthy", "its /health does not answer, or answers with an error")

    return probe


def postgres_probe(url: str) -> Probe:
    """Checks Postgres with a query on a new connection, so that it does not depend on the pool."""

    async def probe() -> None:
        import asyncpg

        connection = await asyncpg.connect(**{**connecting(url), "timeout": _PROBE_S})
        try:
            await connection.fetchval("SELECT 1")
        finally:
            await connection.close(timeout=_PROBE_S)

    return probe


def redis_probe(url: str) -> Probe:
    """Checks Redis with a PING on a new connection."""

    async def probe() -> None:
        from redis.asyncio import Redis

        async with Redis.from_url(url) as redis:
            await redis.ping()

    return probe
