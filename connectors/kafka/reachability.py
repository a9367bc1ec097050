"""Checks in the background, once per second, whether Kafka answers. Reading the result costs nothing.

The result changes only after two equal answers in a row, so one lost answer does not make a process unready. A broker that
is killed, frozen or disconnected is noticed within `2 * (EVERY_S + ANSWER_S)` seconds.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import NoReturn

from connectors.kafka.startup import KafkaWait
from schemas.errors import Unavailable

EVERY_S, ANSWER_S = 1.0, 3.0


class KafkaReachability:
    """The result of the last checks.

    Attributes:
        away_because: why Kafka counts as unavailable; `""` = it answers.
    """

    def __init__(self) -> None:
        self.away_because = ""
        self._last = ""

    def found(self, reason: str) -> None:
        """Register the result of a check: `""` = Kafka answered, otherwise the reason."""
        if bool(reason) == bool(self._last):
            self.away_because = reason
        self._last = reason

    def answered(self) -> None:
        """Register that Kafka accepted a record, so that a check that failed at the same time does not count."""
        if not self.away_because:
            self._last = ""

    async def work(
        self,
        ask: Callable[[], Awaitable[None]],
        awaited: KafkaWait,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> NoReturn:
        """Check until cancelled. The log says when Kafka stops answering, once per minute while it does not, and when it answers again.

        Args:
            ask: returns if Kafka answered; otherwise raises `Unavailable` within `ANSWER_S` seconds.
        """
        while True:
            try:
                await ask()
                self.found("")
            except Unavailable as error:
                self.found(error.reason)
                if self.away_because:
                    awaited.log_waiting(error)
            if not self.away_because:
                awaited.over()
            await sleep(EVERY_S)
