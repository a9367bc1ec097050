"""Whether Kafka answers, asked in the background once a second: to read the finding costs nothing.

It changes only when two answers in a row say the same, so an answer that was lost makes nobody unready; and a broker that
is killed, frozen or cut off is known to be away within `2 * (EVERY_S + ANSWER_S)` seconds.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import NoReturn

from connectors.kafka.startup import KafkaAwaited
from schemas.errors import Unavailable

EVERY_S, ANSWER_S = 1.0, 3.0


class KafkaReachability:
    """What was found of late.

    Fields:
        away_because: the reason why Kafka counts as away; `""` when it answers.
    """

    def __init__(self) -> None:
        self.away_because = ""
        self._last = ""

    def found(self, reason: str) -> None:
        """Kafka answered (`""`), or did not, for a reason."""
        if bool(reason) == bool(self._last):
            self.away_because = reason
        self._last = reason

    def answered(self) -> None:
        """Kafka took a record just now: a question that was lost meanwhile was not its fault."""
        if not self.away_because:
            self._last = ""

    async def work(
        self,
        ask: Callable[[], Awaitable[None]],
        awaited: KafkaAwaited,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> NoReturn:
        """Ask for ever; the log says when Kafka goes, once a minute while it is away, and when it is back.

        Args:
            ask: returns when Kafka answered, raises `Unavailable` within `ANSWER_S` seconds when it did not.
        """
        while True:
            try:
                await ask()
                self.found("")
            except Unavailable as error:
                self.found(error.reason)
                if self.away_because:
                    awaited.tell(error)
            if not self.away_because:
                awaited.over()
            await sleep(EVERY_S)
