"""Pages of customer mappings in the order of the customers' ids. A new or removed mapping does not move the others to
another page.
"""

import asyncio
import time
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import NamedTuple

from connectors.billing.in_slices import in_slices
from connectors.billing.mappings import MappingResult, Mappings
from schemas.customers import CustomerRecord, MappingVersion
from streams.runtime.compacted_table import CompactedTable

#: The most customers that are examined for one page, or between two pauses. This bounds the time for which the event loop
#: is blocked.
SCANNED = 5000
#: For how many sets of orgs the ids of their customers are kept.
_MOST_CALLERS = 20
#: With more customers than this, their ids are kept for these seconds although the table has changed. Otherwise an import
#: would make each request search a table of a million customers.
_MANY, _KEPT_S = 50_000, 5.0


class MappingSlice(NamedTuple):
    """One page; `last`: the customer id after which the next page begins, None = there is no next page."""

    mappings: list[MappingResult]
    last: str | None


@dataclass(slots=True)
class MappingPages:
    """Makes pages of the customers table."""

    mappings: Mappings
    customers: CompactedTable[CustomerRecord]
    monotonic: Callable[[], float] = time.monotonic
    _ids: list[str] = field(default_factory=list, init=False)
    _members: int = field(default=-1, init=False)
    #: The ids of the customers of some orgs, at this version of the table; one request at a time looks for them.
    _own: dict[frozenset[str], list[str]] = field(default_factory=dict, init=False)
    _own_version: int = field(default=-1, init=False)
    _own_until: float = field(default=float("-inf"), init=False)
    _finding: asyncio.Lock = field(default_factory=asyncio.Lock, init=False)

    async def page(
        self,
        after: str,
        prefix: str,
        predicate: Callable[[MappingVersion], bool],
        limit: int,
        orgs: frozenset[str] | None = None,
    ) -> MappingSlice:
        """Return the next page: at most `limit` mappings whose shown version satisfies `predicate`.

        It has fewer mappings, or none, if few of the `SCANNED` examined customers satisfy it.

        Args:
            after: customer id after which the page begins; `""` = the first page.
            prefix: beginning of the customer ids; `""` = all.
            orgs: the caller may see only the customers of these orgs. Then only these are examined, and `last` is one of
                them, because it is sent to the caller. With more than 50,000 customers in the table, a new customer may be
                missing for 5 seconds. None = all.
        """
        ids = self._sorted() if orgs is None else await self._of_orgs(orgs)
        start = max(bisect_right(ids, after) if after else 0, bisect_left(ids, prefix))
        if orgs is not None:
            return await self._own_page(ids, start, prefix, predicate, limit)
        results: list[MappingResult] = []
        for place in range(start, min(len(ids), start + SCANNED)):
            if not ids[place].startswith(prefix):
                return MappingSlice(results, None)
            if (mapped := self.mappings.mapped(ids[place], predicate)) is not None:
                results.append(mapped)
                if len(results) == limit:
                    break
        else:
            place = start + SCANNED - 1
        more = place + 1 < len(ids) and ids[place + 1].startswith(prefix)
        return MappingSlice(results, ids[place] if more else None)

    async def _own_page(
        self, ids: Sequence[str], start: int, prefix: str, predicate: Callable[[MappingVersion], bool], limit: int
    ) -> MappingSlice:
        results: list[MappingResult] = []
        for number, name in enumerate(islice(ids, start, None), 1):
            if not name.startswith(prefix):
                break
            if number % SCANNED == 0:
                await asyncio.sleep(0)
            if (mapped := self.mappings.mapped(name, predicate)) is not None:
                results.append(mapped)
                if len(results) == limit:
                    return MappingSlice(results, name)
        return MappingSlice(results, None)

    async def _of_orgs(self, orgs: frozenset[str]) -> Sequence[str]:
        """Return the ids of the customers of some orgs, sorted. They are found once for each version of the table, and of
        a large table at most every `_KEPT_S` seconds.
        """
        async with self._finding:
            version, now = self.customers.version, self.monotonic()
            is_large = self.customers.members > _MANY
            if version != self._own_version and not (is_large and now < self._own_until):
                self._own_version, self._own_until = version, now + _KEPT_S
                self._own.clear()
            if (own := self._own.get(orgs)) is None:
                own = []
                async for records in in_slices(self.customers.table.items()):
                    own += [
                        name for name, record in records if any(one.lago_customer_id in orgs for one in record.versions)
                    ]
                own.sort()
                if is_large or version == self.customers.version:
                    if len(self._own) >= _MOST_CALLERS:
                        self._own.clear()
                    self._own[orgs] = own
            return own

    def _sorted(self) -> list[str]:
        if self._members != self.customers.members:
            self._members, self._ids = self.customers.members, sorted(self.customers.table)
        return self._ids
