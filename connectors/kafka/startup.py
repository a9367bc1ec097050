"""Makes a process that starts without Kafka wait for it. The log says so at once, and then once per minute."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

import structlog

from connectors.config.addresses import kafka_address
from schemas.errors import MeterbridgeError, Unavailable

T = TypeVar("T")

TELL_EVERY_S = 60.0
_AGAIN_S = 1.0

_log = structlog.get_logger(__name__)


class KafkaWait:
    """Logs that the process waits for Kafka; one object per process.

    Args:
        servers: the address in the log (`KAFKA_BOOTSTRAP_SERVERS`).
    """

    def __init__(self, servers: str, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._address = kafka_address(servers)
        self._monotonic = monotonic
        self._since: float | None = None
        self._logged_at = 0.0

    def log_waiting(self, error: BaseException) -> None:
        """Log that Kafka did not answer."""
        now = self._monotonic()
        if self._since is None:
            self._since = now
        elif now - self._logged_at < TELL_EVERY_S:
            return
        self._logged_at = now
        cause = {"reason": error.reason, "detail": error.detail} if isinstance(error, MeterbridgeError) else {}
        cause = cause or {"reason": "kafka_unavailable", "detail": str(error)[:200]}
        _log.warning("waiting_for_kafka", **cause, address=self._address, waited_s=round(now - self._since))

    def over(self) -> None:
        """Log that Kafka answers."""
        if self._since is not None:
            _log.info("kafka_answered", address=self._address, waited_s=round(self._monotonic() - self._since))
        self._since = None


async def when_kafka_answers(
    ask: Callable[[], T], awaited: KafkaWait, sleep: Callable[[float], Awaitable[None]] = asyncio.sleep
) -> T:
    """Call `ask` until Kafka answers; return its result.

    Args:
        ask: runs in a thread; raises `Unavailable` within seconds if Kafka does not answer.

    Raises:
        MeterbridgeError: any other error of `ask`.
    """
    while True:
        try:
            answer = await asyncio.to_thread(ask)
        except Unavailable as error:
            awaited.log_waiting(error)
            await sleep(_AGAIN_S)
        else:
            awaited.over()
            return answer
