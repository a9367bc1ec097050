"""Remembers the traced calls of a window until the window becomes an event.

They are kept only in memory, and not in the ledger, because its bytes must not depend on traces. After a restart or a
rebalance, the spans of windows that were open before have no links. Such a span is not recorded at all if none of the
calls that were folded since then is traced.
"""

from collections import OrderedDict
from collections.abc import Iterable
from typing import Final

from opentelemetry.trace import SpanContext

#: The maximum number of links of a window's span, and of remembered windows.
MOST_LINKS: Final = 32
MOST_WINDOWS: Final = 10_000


class TracedCalls:
    """The calls by the transaction id of the window's future event. The window that has been without a new call for the
    longest time is forgotten first.
    """

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
        """Return the calls of these windows, at most `MOST_LINKS`, and forget the windows."""
        if not self._calls:
            return []
        found = [call for name in transaction_ids for call in self._calls.pop(name, ())]
        return found[:MOST_LINKS]

    def __len__(self) -> int:
        return len(self._calls)
