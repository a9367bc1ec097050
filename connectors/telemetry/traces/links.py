"""The calls of a window that are traced, until the window becomes an event.

They are in memory only: not in the ledger, whose bytes do not depend on traces. After a restart or a rebalance the spans of windows
that were open before have no links, and are not recorded at all if no call that was folded since is traced.
"""

from collections import OrderedDict
from collections.abc import Iterable
from typing import Final

from opentelemetry.trace import SpanContext

#: The most calls of one window that its span links to, and the most windows that are remembered.
MOST_LINKS: Final = 32
MOST_WINDOWS: Final = 10_000


class TracedCalls:
    """By the transaction id that a window's event will have; the window that got no call for longest is forgotten first."""

    def __init__(self) -> None:
        self._calls: OrderedDict[str, list[SpanContext]] = OrderedDict()

    def add(self, transaction_id: str, call: SpanContext) -> None:
        """Remember a call of a window, unless it has `MOST_LINKS`."""
        calls = self._calls.setdefault(transaction_id, [])
        self._calls.move_to_end(transaction_id)
        if len(calls) < MOST_LINKS:
            calls.append(call)
        if len(self._calls) > MOST_WINDOWS:
            self._calls.popitem(last=False)

    def take(self, transaction_ids: Iterable[str]) -> list[SpanContext]:
        """The calls of these windows, at most `MOST_LINKS`, and forget the windows."""
        if not self._calls:
            return []
        found = [call for name in transaction_ids for call in self._calls.pop(name, ())]
        return found[:MOST_LINKS]

    def __len__(self) -> int:
        return len(self._calls)
