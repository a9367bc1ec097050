"""Which held windows go to disk, and when they come back: the meter's part of `streams.cold`."""

from collections.abc import Container
from itertools import islice
from typing import Any, Protocol

import structlog

from streams.core.books import Books

log = structlog.get_logger(__name__)

#: Part of the bound that is left in memory, so that not every tick of a flood moves a few.
_LEFT = 0.8
#: Windows moved without a pause: bounds how long the event loop stands still.
_STEP = 500


class Customers(Protocol):
    """What is asked of `streams.followers.Follower`: `members` grows whenever a key comes or goes."""

    table: dict[str, Any]
    members: int


class OnDisk:
    """Of one ledger."""

    def __init__(self) -> None:
        self._members: int | None = None
        self._told = False

    def reopened(self) -> None:
        """What was read back may lie on disk though its customer has a record."""
        self._members = None

    def wake(self, books: Books, customers: Customers) -> None:
        """Bring back what is held for customers that have got a record since the last time.

        A new key stands last in a table, so only as many of the last keys are looked at as have come or gone. At
        first all are.
        """
        members, before = customers.members, self._members
        self._members = members
        if books.cold is None or not books.cold.windows or members == before:
            return
        count = len(customers.table) if before is None else min(members - before, len(customers.table))
        for customer_id in list(islice(reversed(customers.table), count)):
            if books.cold.has(customer_id):
                books.warm(customer_id)

    def relieve(self, books: Books, known: Container[str], partition: int) -> bool:
        """Move a part of what is too much in memory to disk; whether there is more. The log has a line about it once."""
        if books.cold is None:
            return False
        moved = books.chill(known, int(books.cold.room * _LEFT), _STEP)
        if moved and not self._told:
            self._told = True
            log.warning("held_usage_on_disk", partition=partition, windows=moved, see="meterbridge held list")
        return moved > 0
