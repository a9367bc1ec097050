"""The readiness and liveness of a worker's role, for probes: `/health/ready` and `/health/live` on METRICS_PORT."""

import asyncio
import threading
from collections import Counter
from collections.abc import Callable, Iterable
from typing import Any

import msgspec

#: An event loop that is blocked for this time counts as stuck, seconds. Opening the largest ledger takes less.
STUCK_S = 60.0
_BEAT_S = 1.0
_READY, _LIVE = "/health/ready", "/health/live"

Wsgi = Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]


class WorkerHealth:
    """The health of one role in this process. The event loop writes it; the thread that serves the metrics reads it."""

    def __init__(self, monotonic: Callable[[], float]) -> None:
        self._monotonic = monotonic
        self._lock = threading.Lock()
        self._begun = False
        self._halted: Counter[tuple[str, int, str]] = Counter()
        self._beat = monotonic()

    def begun(self) -> None:
        """Register that Kafka has answered and the role runs."""
        self._begun = True

    def halted(self, topic: str, partition: int, reason: str) -> None:
        """Register that a partition is halted. Lanes of several Lago organisations may be halted on one partition."""
        with self._lock:
            self._halted[topic, partition, reason] += 1

    def resumed(self, topic: str, partition: int, reason: str) -> bool:
        """Register that a halted partition runs again, here or in another worker; return whether no other partition is
        halted for this reason.
        """
        with self._lock:
            self._halted[topic, partition, reason] -= 1
            self._halted = +self._halted
            return (topic, partition, reason) not in self._halted

    def halts(self) -> dict[tuple[str, int], str]:
        """Return why partitions are halted, by topic and number: the reasons in order, separated by commas."""
        reasons: dict[tuple[str, int], list[str]] = {}
        with self._lock:
            for topic, number, reason in sorted(self._halted):
                reasons.setdefault((topic, number), []).append(reason)
        return {place: ", ".join(told) for place, told in reasons.items()}

    async def keep_beating(self) -> None:
        """Record every second that the event loop runs, until cancelled."""
        while True:
            self._beat = self._monotonic()
            await asyncio.sleep(_BEAT_S)

    def ready(self) -> dict[str, Any]:
        """Return `{"status": "ok"}`; or `starting`, or `halted` with the halted partitions."""
        with self._lock:
            halted = sorted(self._halted)
        if halted:
            partition_tasks = [
                {"topic": topic, "partition": number, "reason": reason} for topic, number, reason in halted
            ]
            return {"status": "halted", "partitions": partition_tasks}
        return {"status": "ok" if self._begun else "starting"}

    def live(self) -> dict[str, Any]:
        """Return `{"status": "ok"}`, or `event_loop_blocked`: the process must be restarted."""
        return {"status": "ok" if self._monotonic() - self._beat <= STUCK_S else "event_loop_blocked"}

    def beside(self, metrics: Wsgi) -> Wsgi:
        """Make a WSGI application that answers the probes with 200 or 503, and all other requests with `metrics`."""
        answers = {_READY: self.ready, _LIVE: self.live}

        def application(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
            answer = answers.get(environ["PATH_INFO"])
            if answer is None:
                return metrics(environ, start_response)
            body = answer()
            status = "200 OK" if body["status"] == "ok" else "503 Service Unavailable"
            start_response(status, [("Content-Type", "application/json")])
            return [msgspec.json.encode(body)]

        return application
