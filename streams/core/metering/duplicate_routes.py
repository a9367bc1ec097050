"""Detects customers whose usage arrives by two routes: LiteLLM reports one call to two callbacks under two ids.

Such a pair of reports looks exactly like two calls, because the `lago` callback sends a random id and no time. But it
shows that one customer was reported by two routes within an hour, which does not happen in a correct deployment.
"""

from collections import OrderedDict
from typing import Final

from schemas.customer_id import UNATTRIBUTED
from schemas.wire import CLOUDEVENT, FLAT, INTEGRATION, LAGO, SLP

#: Shapes with a common namespace of identities are one route, because a call in both shapes is counted once.
_ROUTES: Final = {SLP: "litellm", FLAT: "litellm", INTEGRATION: INTEGRATION, LAGO: LAGO, CLOUDEVENT: CLOUDEVENT}
#: The route of nearly all usage. Nothing is remembered until another route is seen.
MAIN: Final = "litellm"
#: All routes, in alphabetical order.
ROUTES: Final = tuple(sorted(set(_ROUTES.values())))
WITHIN_MS: Final = 3_600_000
#: The most pairs of customer and route that are remembered.
MOST: Final = 10_000


class Routes:
    """The routes of one partition, by the timestamps of the records. They are kept only in memory, because they raise
    an alarm and do not affect billing.

    Attributes:
        watching: whether usage came by another route than LiteLLM's own payloads, so that `saw` must be called for
            those as well.
    """

    def __init__(self) -> None:
        self.watching = False
        self._last: OrderedDict[tuple[str, str], int] = OrderedDict()
        self._seen_at_ms: OrderedDict[tuple[str, str, str], int] = OrderedDict()
        self._pairs: list[tuple[str, str, str]] = []

    def saw(self, shape: str, customer_id: str, at_ms: int) -> None:
        """Register usage of a customer in this shape. Metered events have none of these shapes and are ignored, as is
        usage that names no customer: it comes from several senders.
        """
        route = _ROUTES.get(shape)
        if route is None or not customer_id or customer_id.startswith(UNATTRIBUTED):
            return
        self.watching = self.watching or route != MAIN
        _remember(self._last, (customer_id, route), at_ms)
        for other in ROUTES:
            before = self._last.get((customer_id, other)) if other != route else None
            if before is not None and abs(at_ms - before) < WITHIN_MS:
                self._pair(customer_id, *sorted((route, other)), at_ms=at_ms)

    def taken(self) -> list[tuple[str, str, str]]:
        """Return the (customer, route, route) found since the last call, each pair at most once an hour."""
        pairs, self._pairs = self._pairs, []
        return pairs

    def _pair(self, customer_id: str, first: str, second: str, *, at_ms: int) -> None:
        pair = (customer_id, first, second)
        seen_at_ms = self._seen_at_ms.get(pair)
        if seen_at_ms is None or at_ms - seen_at_ms >= WITHIN_MS:
            _remember(self._seen_at_ms, pair, at_ms)
            self._pairs.append(pair)


def _remember(kept: OrderedDict, key: tuple[str, ...], at_ms: int) -> None:  # type: ignore[type-arg]
    kept[key] = at_ms
    kept.move_to_end(key)
    if len(kept) > MOST:
        kept.popitem(last=False)
