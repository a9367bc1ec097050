"""Held usage an operator gives up on: its windows leave the ledger for `written_off`, and nothing else changes."""

import re
from collections.abc import Callable, Iterator
from fnmatch import translate

import msgspec

from schemas.customer_id import UNATTRIBUTED
from schemas.ledger import Sum, Window
from schemas.money import add, cents_text
from schemas.records import Receipt, WriteOff
from streams.core.metering.lago_event import transaction_id
from streams.core.metering.ledger_state import LedgerState, total
from streams.core.metering.step_changes import Changes

WRITTEN_OFF = "written_off"
#: Changes and receipts in one transaction.
WRITE_OFF_LIMIT = 5_000
#: What a window that took none in makes: a change and a receipt.
_OWN = 2

copy = msgspec.structs.replace


def write_off(
    books: LedgerState,
    offset: int,
    time_ms: int,
    customer_id: str,
    order: WriteOff,
    prefix: str,
    limit: int = WRITE_OFF_LIMIT,
) -> Changes:
    """What the order at `offset` of the raw topic changes, or the next `limit` changes of it; it is no call and counts
    as none.

    The position passes the order once nothing is left of what it gives up, so repeat it until then: a step that is
    cut off is found again as it was. Given twice it finds nothing the second time. A receipt for each window, and for
    each that was merged into it, tells whoever keeps account of held usage.
    """
    position = books.position
    meant = (
        window
        for name in _names(books, customer_id, order)
        for first in sorted(books.held.get(name, ()))
        if _meant(window := books.windows[first], order)
    )
    changes = Changes(copy(position, clock_ms=max(position.clock_ms, time_ms)))
    given_up: list[Window] = []
    for window in meant:
        room = limit - len(changes.windows) - len(changes.receipts)
        if len(window.merged) + _OWN > room:
            if not given_up:  # alone it is too much: the receipts of those it took in come first
                changes.windows[window.first] = copy(window, merged=window.merged[room - 1 :])
                changes.receipts = [_of_merged(first, order, prefix) for first in window.merged[: room - 1]]
            break
        given_up.append(window)
        changes.windows[window.first] = None
        changes.receipts += [_own(window, order, prefix)]
        changes.receipts += [_of_merged(first, order, prefix) for first in window.merged]
    else:
        changes.position.next = offset + 1
    before, now = position.counters.written_off, total(given_up)
    changes.position.counters = copy(
        position.counters, written_off=Sum(before.calls + now.calls, add(before.cost, now.cost))
    )
    return changes


def meant_by(pattern: str) -> Callable[[str], bool]:
    """Whether a customer id has the form `pattern`: `*` is any text, `?` one character, `[ab]` one of these.

    Usage that named no customer (`unattributed:...`) is meant only by a pattern that begins so: it is honest usage as
    a rule, and `*` would give it up unseen.
    """
    has_form = re.compile(translate(pattern)).match
    any_form = pattern.startswith(UNATTRIBUTED)

    def means(customer_id: str) -> bool:
        return (any_form or not customer_id.startswith(UNATTRIBUTED)) and has_form(customer_id) is not None

    return means


def _names(books: LedgerState, customer_id: str, order: WriteOff) -> Iterator[str]:
    """Whose usage is meant. That on disk comes back for it as it is asked for: no more than one step can write off."""
    if not order.match:
        books.warm(customer_id)
        yield customer_id
        return
    means = meant_by(order.match)
    for name in sorted(name for name in books.held if means(name)):
        books.warm(name)  # what it has on disk, too: else it would come a second time below
        yield name
    if books.cold is not None:
        for name in filter(means, books.cold.names(order.until)):
            books.warm(name)
            yield name


def _meant(window: Window, order: WriteOff) -> bool:
    return window.max_end_us <= order.until and order.id_kind in ("", window.id_kind)


def _own(window: Window, order: WriteOff, prefix: str) -> Receipt:
    """The money stands here; those merged into it have none left."""
    return Receipt(
        transaction_id(prefix, window),
        WRITTEN_OFF,
        order.at,
        cents=cents_text(window.cost),
        calls=window.count,
        reason=order.audit_id,
    )


def _of_merged(first: int, order: WriteOff, prefix: str) -> Receipt:
    return Receipt(f"{prefix}{first}", WRITTEN_OFF, order.at, reason=order.audit_id)
