"""Pages of customer mappings in the order of the customers' ids. A new or removed mapping does not move the others to
another page.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Callable
from typing import NamedTuple

from connectors.billing.mappings import MappingResult, Mappings
from schemas.customers import CustomerRecord, MappingVersion
from streams.runtime.compacted_table import CompactedTable

#: The most customers that are examined for one page. This bounds the time for which the event loop is blocked.
SCANNED = 5000


class MappingSlice(NamedTuple):
    """One page; `last`: the customer id after which the next page begins, None = there is no next page."""

    mappings: list[MappingResult]
    last: str | None


class MappingPages:
    """Makes pages of the customers table."""

    def __init__(self, mappings: Mappings, customers: CompactedTable[CustomerRecord]) -> None:
        self._mappings = mappings
        self._customers = customers
        self._ids: list[str] = []
        self._members = -1

    def page(self, after: str, prefix: str, predicate: Callable[[MappingVersion], bool], limit: int) -> MappingSlice:
        """Return the next page: at most `limit` mappings whose shown version satisfies `predicate`.

        It has fewer mappings, or none, if few of the `SCANNED` examined customers satisfy it.

        Args:
            after: customer id after which the page begins; `""` = the first page.
            prefix: beginning of the customer ids; `""` = all.
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
