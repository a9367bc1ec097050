"""Which held windows go to disk, and when they come back: the meter's part of `streams.state.held_on_disk`.

A customer without a record finds a target only by getting one. One with a record may find it when the record changes, or
that of an org, or by the clock: what they were is remembered when the windows go, and compared with what they are.
"""

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import islice
from typing import Protocol

import structlog

from schemas.customers import CustomerRecord, OrgRecord
from schemas.ledger import Window
from streams.core.mapping.time_spans import NEVER, borders_of, next_border
from streams.core.metering.ledger_state import LedgerState

log = structlog.get_logger(__name__)

#: Part of the bound that is left in memory, so that not every tick of a flood moves a few.
_LEFT = 0.8
#: Windows moved, and customers looked at, without a pause: bounds how long the event loop stands still.
STEP, LOOKS = 500, 2_000


class CustomerTable(Protocol):
    """What is asked of `streams.runtime.compacted_table.CompactedTable`: `members` grows whenever a key comes or goes."""

    table: dict[str, CustomerRecord]
    members: int


class Orgs(Protocol):
    """The same of the orgs."""

    table: dict[str, OrgRecord]


@dataclass(slots=True)
class _Seen:
    """By what a customer's windows were held when they went to disk, and when that changes by itself."""

    customer: CustomerRecord
    border_us: int
    orgs: dict[str, OrgRecord | None] = field(default_factory=dict)


class WindowEviction:
    """Of one ledger; `customers` and `orgs` are the tables that its usage is decided by.

    Fields:
        busy: whether more may have to come back than the last step brought.
    """

    def __init__(self, customers: CustomerTable, orgs: Orgs) -> None:
        self._customers = customers
        self._orgs = orgs
        self._told = False
        self.reopened()

    def reopened(self) -> None:
        """What was read back may lie on disk though its customer has a record: all of it is looked at again."""
        self._members: int | None = None
        self._version: object = None
        self._at_us = 0
        self._seen: dict[str, _Seen] = {}
        self._border_us = NEVER
        #: To be looked at: all that was read back, new keys of the table; to be compared: those of `_seen`.
        self._all: Iterator[str] = iter(())
        self._new: deque[str] = deque()
        self._compared: Iterator[str] = iter(())
        self._again = False
        #: Whose windows come back in several steps, and the last one that did.
        self._in_hand: tuple[str, int] | None = None
        self.busy = False

    def notice(self, books: LedgerState, version: object, at_us: int) -> None:
        """Note what is to be looked at: what was read back, new keys, and all with a record where `version`, of the
        tables, is not the last one, or a border has come.

        A new key stands last in a table, so only as many of the last keys are looked at as have come or gone.
        """
        table, members, before = self._customers.table, self._customers.members, self._members
        if books.cold is None or not books.cold.windows:
            self.reopened()
        elif before is None:
            self._all = books.cold.names()
        else:
            self._new.extend(islice(reversed(table), min(members - before, len(table))))
        self._members, self._at_us = members, at_us
        if version != self._version or at_us >= self._border_us:
            self._version, self._border_us, self._again = version, NEVER, True

    def wake(self, books: LedgerState) -> set[str]:
        """Bring back a step of what may have a target now; whose it is. `busy` says whether there may be more."""
        brought: set[str] = set()
        self.busy = True
        room = STEP
        for _ in range(LOOKS):
            if self._in_hand is None:
                name, forced = self._next()
                if name is None or books.cold is None:
                    self.busy = False
                    break
                if not (books.cold.has(name) and name in self._customers.table if forced else self._changed(name)):
                    continue
                self._seen.pop(name, None)
                self._in_hand = (name, -1)
            name, after = self._in_hand
            windows = books.warm(name, after, room)
            brought.add(name)
            room -= len(windows)
            if not room:
                self._in_hand = (name, windows[-1].first)
                break
            self._in_hand = None
        return brought

    def relieve(self, books: LedgerState, partition: int, looked_us: int | None) -> bool:
        """Move a step of what is too much in memory to disk; whether there may be more. The log has a line about it once.

        Args:
            looked_us: when all that is held in memory was last looked at, with the tables as they are; None where they
                have changed since: then customers with a record stay.
        """
        if books.cold is None:
            return False
        table, left = self._customers.table, int(books.cold.room * _LEFT)
        moved = books.chill(lambda name: name not in table, left, STEP)
        if not moved and looked_us is not None:
            moved = books.chill(lambda _name: True, left, STEP)
            for window in moved:
                self._remember(window, looked_us)
        if moved and not self._told:
            self._told = True
            log.warning("held_usage_on_disk", partition=partition, windows=len(moved), see="meterbridge held list")
        return bool(moved)

    def _next(self) -> tuple[str | None, bool]:
        """The next customer, and whether it is looked at whatever is remembered of it."""
        if self._new:
            return self._new.popleft(), True
        if (name := next(self._all, None)) is not None:
            return name, True
        name = next(self._compared, None)
        if name is None and self._again:
            self._again, self._compared = False, iter(list(self._seen))
            name = next(self._compared, None)
        return name, False

    def _changed(self, name: str) -> bool:
        seen = self._seen.get(name)
        if seen is None:
            return False
        orgs = self._orgs.table
        same = self._customers.table.get(name) == seen.customer
        if same and seen.border_us > self._at_us and all(orgs.get(org) == known for org, known in seen.orgs.items()):
            self._border_us = min(self._border_us, seen.border_us)
            return False
        return True

    def _remember(self, window: Window, looked_us: int) -> None:
        """What is remembered already stays: other windows of the customer were looked at by it."""
        name, customers, orgs = window.customer_id, self._customers.table, self._orgs.table
        customer = customers.get(name)
        if customer is None:
            return
        seen = self._seen.get(name)
        if seen is None:
            seen = self._seen[name] = _Seen(customer, next_border(name, customers, orgs, looked_us))
            seen.orgs = {of.lago_customer_id: orgs.get(of.lago_customer_id) for of in customer.versions}
        if window.org_id not in seen.orgs:  # it is held for an org whose version is forgotten
            org = seen.orgs[window.org_id] = orgs.get(window.org_id)
            coming = [at_us for at_us in (() if org is None else borders_of(org)) if at_us > looked_us]
            seen.border_us = min([seen.border_us, *coming])
        self._border_us = min(self._border_us, seen.border_us)
