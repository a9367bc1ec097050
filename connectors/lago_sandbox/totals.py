"""Running sums of each subscription, and the part of them that an invoice counts: inside a period, and before its
invoice.
"""

from collections.abc import Callable
from decimal import Decimal
from typing import Any

import msgspec

from connectors.lago_sandbox.stored_event import Event
from schemas.money import ZERO, add, plain

#: Periods `[started, terminated]` in microseconds; both ends are included.
Windows = tuple[tuple[int, int], ...]
#: `(subscription, event time, arrival)`: whether the event arrived before the invoice of its time was made.
InTime = Callable[[str | None, int, int], bool]


class _Counted(msgspec.Struct, gc=False):
    requests: Any = None
    total_tokens: Any = None


class _Sums(msgspec.Struct):
    windows: Windows
    events: int = 0
    calls: int = 0
    tokens: int = 0
    cents: Decimal = ZERO
    billed_cents: Decimal = ZERO


_counted = msgspec.json.Decoder(_Counted)


class SandboxTotals:
    """Sums over the billed copies. A change of the periods takes effect at the next read."""

    def __init__(
        self, windows: Callable[[str], Windows], in_time: InTime, events: "Callable[[str | None], list[Event]]"
    ) -> None:
        self._windows = windows
        self._in_time = in_time
        self._events = events
        self._sums: dict[str | None, _Sums] = {}

    def add(self, event: Event) -> None:
        """Count one more copy."""
        self._count(event, 1)

    def remove(self, event: Event) -> None:
        """Subtract one copy that was counted before."""
        self._count(event, -1)

    def read(self) -> dict[str, dict[str, object]]:
        """Return events, calls, tokens, cents and billed_cents by external subscription id (`""` = no subscription)."""
        for external_id, sums in self._sums.items():
            windows = self._windows_of(external_id)
            if windows is not sums.windows:
                sums.windows = windows
                sums.billed_cents = self._billed(external_id, windows)
        return {external_id or "": _shown(sums) for external_id, sums in self._sums.items()}

    def overall(self) -> dict[str, object]:
        """Return the same five sums over all subscriptions, as of the last `read`."""
        overall = _Sums(windows=())
        for sums in self._sums.values():
            overall.events += sums.events
            overall.calls += sums.calls
            overall.tokens += sums.tokens
            overall.cents = add(overall.cents, sums.cents)
            overall.billed_cents = add(overall.billed_cents, sums.billed_cents)
        return _shown(overall)

    def _count(self, event: Event, sign: int) -> None:
        sums = self._sums.get(event.subscription)
        if sums is None:
            sums = self._sums[event.subscription] = _Sums(windows=self._windows_of(event.subscription))
        counted = _counted.decode(event.properties)
        cents = sign * Decimal(event.cents or 0)
        sums.events += sign
        sums.calls += sign * _whole(counted.requests)
        sums.tokens += sign * _whole(counted.total_tokens)
        sums.cents = add(sums.cents, cents)
        if self._is_billed(event, sums.windows):
            sums.billed_cents = add(sums.billed_cents, cents)

    def _billed(self, external_id: str | None, windows: Windows) -> Decimal:
        billed = ZERO
        for event in self._events(external_id):
            if not event.superseded and event.cents and self._is_billed(event, windows):
                billed = add(billed, Decimal(event.cents))
        return billed

    def _is_billed(self, event: Event, windows: Windows) -> bool:
        return inside(windows, event.ts_us) and self._in_time(event.subscription, event.ts_us, event.received_us)

    def _windows_of(self, external_id: str | None) -> Windows:
        return () if external_id is None else self._windows(external_id)


def inside(windows: Windows, ts_us: int) -> bool:
    """Return whether billing assigns an event of this moment to one of the periods."""
    return any(started <= ts_us <= ended for started, ended in windows)


def _whole(value: object) -> int:
    if isinstance(value, int):
        return int(value)
    return int(value) if isinstance(value, str) and value.isascii() and value.isdigit() else 0


def _shown(sums: _Sums) -> dict[str, object]:
    return {
        "events": sums.events,
        "calls": sums.calls,
        "tokens": sums.tokens,
        "cents": plain(sums.cents),
        "billed_cents": plain(sums.billed_cents),
    }
