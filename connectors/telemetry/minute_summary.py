"""One log line a minute of what was billed; none where nothing was. Sums only: no customer, no payload."""

import asyncio
from collections.abc import Awaitable, Callable
from decimal import Decimal, localcontext

import structlog

from schemas.ledger import Counters, Sum
from schemas.money import EXACT, ZERO

EVERY_S = 60.0

log = structlog.get_logger(__name__)


class MinuteSummary:
    """What this process did since the last line: calls it counted and sealed for billing, and events that Lago took."""

    def __init__(self, sleep: Callable[[float], Awaitable[None]] = asyncio.sleep) -> None:
        self._sleep = sleep
        self._folded, self._sealed = Sum(), Sum()
        self._cents = ZERO
        self._events: dict[str, int] = {}

    def counted(self, before: Counters, now: Counters) -> None:
        """A ledger moved on: what was folded into windows, and what left them as events."""
        with localcontext(EXACT):
            self._folded = _plus(self._folded, before.folded, now.folded)
            self._sealed = _plus(self._sealed, before.sealed, now.sealed)

    def settled(self, status: str, cents: str) -> None:
        """An event has this state now, as in its receipt."""
        self._events[status] = self._events.get(status, 0) + 1
        if status == "completed":
            with localcontext(EXACT):
                self._cents += Decimal(cents)

    def tell(self) -> None:
        """Log the line and begin anew."""
        told: dict[str, object] = {}
        if self._folded.calls:
            told |= {"calls_counted": self._folded.calls, "counted_usd": _usd(self._folded.cost)}
        if self._sealed.calls:
            told |= {"calls_sealed": self._sealed.calls, "sealed_usd": _usd(self._sealed.cost)}
        if delivered := self._events.get("completed", 0):
            with localcontext(EXACT):
                told |= {"events_delivered": delivered, "delivered_usd": _usd(self._cents / 100)}
        told |= {name: count for status, name in _OTHERS.items() if (count := self._events.get(status, 0))}
        self._begin()
        if told:
            log.info("billed_last_minute", **told)

    async def tell_every(self, seconds: float = EVERY_S) -> None:
        """`tell`, for ever; the last line when cancelled."""
        try:
            while True:
                await self._sleep(seconds)
                self.tell()
        finally:
            self.tell()

    def _begin(self) -> None:
        self._folded, self._sealed, self._cents = Sum(), Sum(), ZERO
        self._events = {}


def _plus(total: Sum, before: Sum, now: Sum) -> Sum:
    return Sum(total.calls + now.calls - before.calls, total.cost + now.cost - before.cost)


def _usd(amount: Decimal) -> str:
    return f"{amount.normalize(EXACT):f}"


_OTHERS = {"processing": "events_put_off", "failed": "events_failed"}
