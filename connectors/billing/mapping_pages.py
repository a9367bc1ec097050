"""Customer mappings in pages, in order of the customer's id: what comes or goes meanwhile moves nobody else."""

from bisect import bisect_left, bisect_right
from collections.abc import Callable
from typing import NamedTuple

from connectors.billing.mappings import MappingResult, Mappings
from schemas.customers import CustomerRecord, MappingVersion
from streams.runtime.compacted_table import CompactedTable

#: Customers looked at for one page: bounds how long the event loop stands still, whatever is filtered out.
SCANNED = 5000


class MappingSlice(NamedTuple):
    """Some mappings; `last` is where the next page begins after, None = there is none."""

    mappings: list[MappingResult]
    last: str | None


class MappingPages:
    """Pages of the customers table."""

    def __init__(self, mappings: Mappings, customers: CompactedTable[CustomerRecord]) -> None:
        self._mappings = mappings
        self._customers = customers
        self._ids: list[str] = []
        self._members = -1

    def page(self, after: str, prefix: str, wanted: Callable[[MappingVersion], bool], limit: int) -> MappingSlice:
        """At most `limit` mappings whose shown version is `wanted`, of customers after `after` whose id begins with
        `prefix`; fewer, even none, where only few of those looked at are wanted."""
        ids = self._sorted()
        start = max(bisect_right(ids, after) if after else 0, bisect_left(ids, prefix))
        found: list[MappingResult] = []
        for place in range(start, min(len(ids), start + SCANNED)):
            if not ids[place].startswith(prefix):
                return MappingSlice(found, None)
            if (mapped := self._mappings.mapped(ids[place], wanted)) is not None:
                found.append(mapped)
                if len(found) == limit:
                    break
        else:
            place = start + SCANNED - 1
        more = place + 1 < len(ids) and ids[place + 1].startswith(prefix)
        return MappingSlice(found, ids[place] if more else None)

    def _sorted(self) -> list[str]:
        if self._members != self._customers.members:
            self._members, self._ids = self._customers.members, sorted(self._customers.table)
        return self._ids
