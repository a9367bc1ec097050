"""Pages of customer mappings in order of the customer's id: a mapping that comes or goes does not move the others."""

from bisect import bisect_left, bisect_right
from collections.abc import Callable
from typing import NamedTuple

from connectors.billing.mappings import MappingResult, Mappings
from schemas.customers import CustomerRecord, MappingVersion
from streams.runtime.compacted_table import CompactedTable

#: Customers that are examined for one page. It bounds the time for which the event loop is blocked.
SCANNED = 5000


class MappingSlice(NamedTuple):
    """One page; `last`: the next page begins after this customer id, None = there is no next page."""

    mappings: list[MappingResult]
    last: str | None


class MappingPages:
    """Pages of the customers table."""

    def __init__(self, mappings: Mappings, customers: CompactedTable[CustomerRecord]) -> None:
        self._mappings = mappings
        self._customers = customers
        self._ids: list[str] = []
        self._members = -1

    def page(self, after: str, prefix: str, predicate: Callable[[MappingVersion], bool], limit: int) -> MappingSlice:
        """The next page: at most `limit` mappings whose shown version is `predicate`.

        It has fewer, even none, if few of the `SCANNED` customers are wanted.

        Args:
            after: the page begins after this customer id; `""` = at the beginning.
            prefix: only customers whose id begins with it.
        """
        ids = self._sorted()
        start = max(bisect_right(ids, after) if after else 0, bisect_left(ids, prefix))
        results: list[MappingResult] = []
        for place in range(start, min(len(ids), start + SCANNED)):
            if not ids[place].startswith(prefix):
                return MappingSlice(results, None)
            if (mapped := self._mappings.mapped(ids[place], predicate)) is not None:
                results.append(mapped)
                if len(results) == limit:
                    break
        else:
            place = start + SCANNED - 1
        more = place + 1 < len(ids) and ids[place + 1].startswith(prefix)
        return MappingSlice(results, ids[place] if more else None)

    def _sorted(self) -> list[str]:
        if self._members != self._customers.members:
            self._members, self._ids = self._customers.members, sorted(self._customers.table)
        return self._ids
