"""Pages of customer mappings in the order of the customers' ids. A new or removed mapping does not move the others to
another page.
"""

import asyncio
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Collection
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

    async def page(
        self,
        after: str,
        prefix: str,
        predicate: Callable[[MappingVersion], bool],
        limit: int,
        orgs: Collection[str] | None = None,
    ) -> MappingSlice:
        """Return the next page: at most `limit` mappings whose shown version satisfies `predicate`.

        It has fewer mappings, or none, if few of the `SCANNED` examined customers satisfy it.

        Args:
            after: customer id after which the page begins; `""` = the first page.
            prefix: beginning of the customer ids; `""` = all.
            orgs: the caller may see only the customers of these orgs. Then `last` is one of the page's own customers, because it
                is sent to the caller; so more than `SCANNED` customers are examined, and other tasks run meanwhile. None = all.
        """
        ids = self._sorted()
        start = max(bisect_right(ids, after) if after else 0, bisect_left(ids, prefix))
        if orgs is not None:
            return await self._own_page(ids, start, prefix, predicate, limit, orgs)
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

    async def _own_page(
        self,
        ids: list[str],
        start: int,
        prefix: str,
        predicate: Callable[[MappingVersion], bool],
        limit: int,
        orgs: Collection[str],
    ) -> MappingSlice:
        results: list[MappingResult] = []
        for begin in range(start, len(ids), SCANNED):
            for name in ids[begin : begin + SCANNED]:
                if not name.startswith(prefix):
                    return MappingSlice(results, None)
                record = self._customers.table.get(name)
                if record is None or all(version.lago_customer_id not in orgs for version in record.versions):
                    continue
                if (mapped := self._mappings.mapped(name, predicate)) is not None:
                    results.append(mapped)
                    if len(results) == limit:
                        return MappingSlice(results, name)
            await asyncio.sleep(0)
        return MappingSlice(results, None)

    def _sorted(self) -> list[str]:
        if self._members != self._customers.members:
            self._members, self._ids = self._customers.members, sorted(self._customers.table)
        return self._ids
