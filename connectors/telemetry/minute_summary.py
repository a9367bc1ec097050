"""Logs one line per minute with the billed sums, unless they are zero. The line has no customer and no payload."""

import asyncio
from decimal import Decimal, localcontext

import structlog

from schemas.ledger import Counters, Sum
from schemas.money import EXACT, ZERO

EVERY_S = 60.0

log = structlog.get_logger(__name__)


class MinuteSummary:
    """Sums since the last line: calls that this process counted and sealed, and events that Lago accepted."""

    def __init__(self) -> None:
        self._folded, self._sealed = Sum(), Sum()
        self._cents = ZERO
        self._events: dict[str, int] = {}

    def counted(self, before: Counters, now: Counters, margin: Decimal = ZERO) -> None:
        """Add the difference between two states of a ledger; `margin`: billed amount of the events between them minus
        their cost.
        """
        with localcontext(EXACT):
            self._folded = _plus(self._folded, before.folded, now.folded)
            self._sealed = _plus(self._sealed, before.sealed, now.sealed)
            self._sealed.cost += margin

    def settled(self, status: str, cents: str) -> None:
        """Count an event with the status and the amount of its receipt."""
        self._events[status] = self._events.get(status, 0) + 1
        if status == "completed":
            with localcontext(EXACT):
                self._cents += Decimal(cents)

    def emit(self) -> None:
        """Log the line, and start again from zero."""
        fields: dict[str, object] = {}
        if self._folded.calls:
            fields |= {"calls_counted": self._folded.calls, "counted_usd": _usd(self._folded.cost)}
        if self._sealed.calls:
            fields |= {"calls_sealed": self._sealed.calls, "sealed_usd": _usd(self._sealed.cost)}
        if delivered := self._events.get("completed", 0):
            with localcontext(EXACT):
                fields |= {"events_delivered": delivered, "delivered_usd": _usd(self._cents / 100)}
        fields |= {name: count for status, name in _OTHERS.items() if (count := self._events.get(status, 0))}
        self._begin()
        if fields:
            log.info("billed_last_minute", **fields)

    async def log_every(self, seconds: float = EVERY_S) -> None:
        """Log the line every `seconds`, and once more when cancelled."""
        try:
            while True:
                await asyncio.sleep(seconds)
                self.emit()
        finally:
            self.emit()

    def _begin(self) -> None:
        self._folded, self._sealed, self._cents = Sum(), Sum(), ZERO
        self._events = {}


def _plus(total: Sum, before: Sum, now: Sum) -> Sum:
    return Sum(total.calls + now.calls - before.calls, total.cost + now.cost - before.cost)


def _usd(amount: Decimal) -> str:
    return f"{amount.normalize(EXACT):f}"


_OTHERS = {"processing": "events_put_off", "failed": "events_failed"}
