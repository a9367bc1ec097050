"""Decides which held windows are moved to disk, and when they are brought back; the meter's use of
`streams.state.held_on_disk`.

A customer without a record gets a target only after it gets a record. A customer with a record may get a target when
that record or an org's record changes, or at a certain moment. Record, orgs and moment are stored when the windows are
moved, and compared later.
"""

from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import islice
from typing import Protocol

import structlog

from schemas.customers import CustomerRecord, OrgRecord
from schemas.ledger import Window
from streams.core.mapping.time_spans import NEVER, borders_of, next_border
from streams.core.metering.ledger_state import LedgerState

log = structlog.get_logger(__name__)

#: Windows are moved to disk down to this fraction of the bound, so that a flood does not move a few windows at every
#: tick.
_LEFT = 0.8
#: The most windows that are moved, and customers that are checked, without a pause. This bounds the time for which the
#: event loop is blocked.
STEP, LOOKS = 500, 2_000


class CustomerTable(Protocol):
    """The part of `streams.runtime.compacted_table.CompactedTable` that is used; `members` grows when a key is added or
    removed.
    """

    table: dict[str, CustomerRecord]
    members: int


@dataclass(slots=True)
class _Seen:
    """The records that were valid when a customer's windows were moved to disk, and the next moment that may change the
    target.
    """

    customer: CustomerRecord
    border_us: int
    orgs: dict[str, OrgRecord | None] = field(default_factory=dict)


class WindowEviction:
    """The eviction of one ledger; `customers` and `orgs` are the tables that decide about its usage.

    Fields:
        busy: whether more windows may have to be brought back after the last step.
    """

    def __init__(self, customers: CustomerTable, orgs: Mapping[str, OrgRecord]) -> None:
        self._customers = customers
        self._orgs = orgs
        self._logged = False
        self.reopened()

    def reopened(self) -> None:
        """Forget all notes. Restored windows may be on disk although their customer has a record, so `notice` queues
        all of them.
        """
        self._members: int | None = None
        self._version: object = None
        self._at_us = 0
        self._seen: dict[str, _Seen] = {}
        self._border_us = NEVER
        #: Queues of customers: restored ones, new keys of the table, and those in `_seen` to be compared.
        self._all: Iterator[str] = iter(())
        self._new: deque[str] = deque()
        self._compared: Iterator[str] = iter(())
        self._again = False
        #: The customer whose windows come back in several steps, and the first offset of the last one.
        self._in_hand: tuple[str, int] | None = None
        self.busy = False

    def notice(self, ledger: LedgerState, version: object, at_us: int) -> None:
        """Queue customers to check: restored ones, new keys, and all with notes if the tables changed or a border was
        passed.

        New keys are last in a table, so as many of its last keys are checked as keys were added or removed.

        Args:
            version: version of the tables. A different value than the last time means that they changed.
        """
        table, members, before = self._customers.table, self._customers.members, self._members
        if ledger.cold is None or not ledger.cold.windows:
            self.reopened()
        elif before is None:
            self._all = ledger.cold.names()
        else:
            self._new.extend(islice(reversed(table), min(members - before, len(table))))
        self._members, self._at_us = members, at_us
        if version != self._version or at_us >= self._border_us:
            self._version, self._border_us, self._again = version, NEVER, True

    def wake(self, ledger: LedgerState) -> set[str]:
        """Bring back one step of windows that may have a target now; return their customers."""
        brought: set[str] = set()
        self.busy = True
        room = STEP
        for _ in range(LOOKS):
            if self._in_hand is None:
                name, forced = self._next()
                if name is None or ledger.cold is None:
                    self.busy = False
                    break
                if not (ledger.cold.has(name) and name in self._customers.table if forced else self._changed(name)):
                    continue
                self._seen.pop(name, None)
                self._in_hand = (name, -1)
            name, after = self._in_hand
            windows = ledger.warm(name, after, room)
            brought.add(name)
            room -= len(windows)
            if not room:
                self._in_hand = (name, windows[-1].first)
                break
            self._in_hand = None
        return brought

    def relieve(self, ledger: LedgerState, partition: int, looked_us: int | None) -> bool:
        """Move one step of held windows beyond the bound to disk; return whether there may be more. The first move is
        logged.

        Args:
            looked_us: when `release` last examined all held windows in memory with the current tables. None = the
                tables have changed since; then windows of customers with a record stay in memory.
        """
        if ledger.cold is None:
            return False
        table, left = self._customers.table, int(ledger.cold.room * _LEFT)
        moved = ledger.chill(lambda name: name not in table, left, STEP)
        if not moved and looked_us is not None:
            moved = ledger.chill(lambda _name: True, left, STEP)
            for window in moved:
                self._remember(window, looked_us)
        if moved and not self._logged:
            self._logged = True
            log.warning("held_usage_on_disk", partition=partition, windows=len(moved), see="meterbridge held list")
        return bool(moved)

    def _next(self) -> tuple[str | None, bool]:
        """Return the next customer, and whether it is checked regardless of its notes."""
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
        orgs = self._orgs
        same = self._customers.table.get(name) == seen.customer
        if same and seen.border_us > self._at_us and all(orgs.get(org) == known for org, known in seen.orgs.items()):
            self._border_us = min(self._border_us, seen.border_us)
            return False
        return True

    def _remember(self, window: Window, looked_us: int) -> None:
        """Note the customer's records. Earlier notes stay, because other windows of the customer were checked by them."""
        name, customers, orgs = window.customer_id, self._customers.table, self._orgs
        customer = customers.get(name)
        if customer is None:
            return
        seen = self._seen.get(name)
        if seen is None:
            seen = self._seen[name] = _Seen(customer, next_border(name, customers, orgs, looked_us))
            seen.orgs = {of.lago_customer_id: orgs.get(of.lago_customer_id) for of in customer.versions}
        if window.org_id not in seen.orgs:  # the window is held for an org whose mapping version was dropped
            org = seen.orgs[window.org_id] = orgs.get(window.org_id)
            coming = [at_us for at_us in (() if org is None else borders_of(org)) if at_us > looked_us]
            seen.border_us = min([seen.border_us, *coming])
        self._border_us = min(self._border_us, seen.border_us)
