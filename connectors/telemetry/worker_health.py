"""Whether a worker's role works, for probes: `/health/ready` and `/health/live` beside the metrics, on METRICS_PORT."""

import asyncio
import threading
from collections.abc import Callable, Iterable
from typing import Any

import msgspec

#: A loop that has stood still so long is stuck; opening the largest ledger takes less.
STUCK_S = 60.0
_BEAT_S = 1.0
_READY, _LIVE = "/health/ready", "/health/live"

Wsgi = Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]


class WorkerHealth:
    """The health of one role in this process: written by its event loop, read by the thread that serves the metrics."""

    def __init__(self, monotonic: Callable[[], float]) -> None:
        self._monotonic = monotonic
        self._lock = threading.Lock()
        self._begun = False
        self._halted: dict[tuple[str, int], str] = {}
        self._beat = monotonic()

    def begun(self) -> None:
        """Kafka answered, and the role runs."""
        self._begun = True

    def halted(self, topic: str, partition: int, reason: str) -> None:
        """A partition stands still."""
        with self._lock:
            self._halted[topic, partition] = reason

    def resumed(self, topic: str, partition: int) -> None:
        """It goes on, here or at another worker."""
        with self._lock:
            self._halted.pop((topic, partition), None)

    async def keep_beating(self) -> None:
        """Note for ever that the loop turns."""
        while True:
            self._beat = self._monotonic()
            await asyncio.sleep(_BEAT_S)

    def ready(self) -> dict[str, Any]:
        """`{"status": "ok"}`, or why not: `starting`, or `halted` with each partition that stands still."""
        with self._lock:
            halted = sorted(self._halted.items())
        if halted:
            lanes = [{"topic": topic, "partition": number, "reason": reason} for (topic, number), reason in halted]
            return {"status": "halted", "partitions": lanes}
        return {"status": "ok" if self._begun else "starting"}

    def live(self) -> dict[str, Any]:
        """`{"status": "ok"}`, or `event_loop_blocked`: the process is to be restarted."""
        return {"status": "ok" if self._monotonic() - self._beat <= STUCK_S else "event_loop_blocked"}

    def beside(self, metrics: Wsgi) -> Wsgi:
        """An application that answers the probes itself, with 200 or 503, and everything else as `metrics` does."""
        answers = {_READY: self.ready, _LIVE: self.live}

        def application(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
            answer = answers.get(environ["PATH_INFO"])
            if answer is None:
                return metrics(environ, start_response)
            told = answer()
            status = "200 OK" if told["status"] == "ok" else "503 Service Unavailable"
            start_response(status, [("Content-Type", "application/json")])
            return [msgspec.json.encode(told)]

        return application
