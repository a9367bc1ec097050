"""Exports the waiting records in Kafka, and whether the audit log is unchanged.

The api process does this, because unlike a worker it also asks while no role reads.
"""

import asyncio
import time
from collections.abc import Callable

import structlog

from connectors.config.connections import deployment_of
from connectors.config.deployment import Deployment
from connectors.config.settings import Settings
from connectors.kafka.retention import retention_s
from connectors.operations.audit_check import latest_verified
from connectors.operations.unread import queues_of, unread
from connectors.telemetry.metrics import Metrics
from connectors.telemetry.queue_metrics import Waiting
from schemas.errors import TopicProblem, Unavailable
from schemas.topics import EVENTS, RAW, RETRY

#: Seconds between two reads. A read is a few requests to the broker.
LOOK_EVERY_S = 30.0
#: Seconds between two checks of the audit log, and how many of its last lines a check reads.
AUDIT_EVERY_S, AUDIT_LINES = 3600.0, 10_000
_CATALOGUE = {"raw": RAW, "events": EVENTS, "retry": RETRY}

_log = structlog.get_logger(__name__)


def waiting(deployment: Deployment) -> dict[str, Waiting]:
    """Read how many records wait in each queue, and how long its topic keeps them. The function blocks.

    Raises:
        TopicProblem, Unavailable: see `offset_range_of`.
    """
    names = {queue: topic for queue, (topic, _) in queues_of(deployment).items()}
    kept = retention_s(deployment.kafka, {names[queue]: topic for queue, topic in _CATALOGUE.items()})
    return {queue: Waiting(*found, kept[names[queue]]) for queue, found in unread(deployment).items()}


class QueueWatch:
    """Watches the queues for one process."""

    def __init__(self, settings: Settings, metrics: Metrics, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._deployment = deployment_of(settings)
        self._metrics = metrics
        self._monotonic = monotonic
        self._audit_at = float("-inf")
        self._why = ""

    async def work(self, every_s: float = LOOK_EVERY_S) -> None:
        """Run `once` periodically until cancelled. While Kafka does not answer, the exported values stay."""
        while True:
            try:
                await self.once()
                self._why = ""
            except (Unavailable, TopicProblem) as problem:
                if problem.reason != self._why:
                    _log.warning("queues_not_watched", reason=problem.reason, detail=problem.detail)
                self._why = problem.reason
            await asyncio.sleep(every_s)

    async def once(self) -> None:
        """Read the queues once, and every hour also check the end of the audit log.

        Raises:
            TopicProblem, Unavailable: see `offset_range_of`.
        """
        self._metrics.waits(await asyncio.to_thread(waiting, self._deployment))
        if self._monotonic() - self._audit_at >= AUDIT_EVERY_S:
            self._audit_at = self._monotonic()
            kafka, topic = self._deployment.kafka, self._deployment.topics.audit
            verdict = await asyncio.to_thread(latest_verified, kafka, topic, AUDIT_LINES)
            self._metrics.audit_broken.set(verdict.broken is not None)
