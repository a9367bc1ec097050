"""Held usage an operator gives up on: its windows leave the ledger for `written_off`, and nothing else changes."""

from collections.abc import Iterator

import msgspec

from schemas.ledger import Sum, Window
from schemas.money import add, cents_text
from schemas.records import Receipt, WriteOff
from streams.core.books import Books, total
from streams.core.changes import Changes
from streams.core.event import transaction_id

WRITTEN_OFF = "written_off"

copy = msgspec.structs.replace


def write_off(books: Books, offset: int, time_ms: int, customer_id: str, order: WriteOff, prefix: str) -> Changes:
    """The changes that the order at `offset` of the raw topic makes; it is no call and counts as none.

    Given twice it finds nothing the second time. A receipt for each window, and for each that was merged into it, tells
    whoever keeps account of held usage.
    """
    position = books.position
    given_up = [
        window for first in sorted(books.held.get(customer_id, ())) if _meant(window := books.windows[first], order)
    ]
    changes = Changes(copy(position, next=offset + 1, clock_ms=max(position.clock_ms, time_ms)))
    changes.windows = {window.first: None for window in given_up}
    changes.receipts = [receipt for window in given_up for receipt in _receipts(window, order, prefix)]
    before, now = position.counters.written_off, total(given_up)
    changes.position.counters = copy(
        position.counters, written_off=Sum(before.calls + now.calls, add(before.cost, now.cost))
    )
    return changes


def _meant(window: Window, order: WriteOff) -> bool:
    return window.max_end_us <= order.until and order.id_kind in ("", window.id_kind)


def _receipts(window: Window, order: WriteOff, prefix: str) -> Iterator[Receipt]:
    """The money stands in the window's own; those merged into it have none left."""
    yield Receipt(
        transaction_id(prefix, window),
        WRITTEN_OFF,
        order.at,
        cents=cents_text(window.cost),
        calls=window.count,
        reason=order.audit_id,
    )
    for first in window.merged:
        yield Receipt(f"{prefix}{first}", WRITTEN_OFF, order.at, reason=order.audit_id)
