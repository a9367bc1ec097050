"""Carries out a write-off of held usage by an operator: its windows leave the ledger for `written_off`."""

import re
from collections.abc import Callable, Iterator
from fnmatch import translate

import msgspec

from schemas.customer_id import UNATTRIBUTED
from schemas.ledger import Window
from schemas.money import cents_text
from schemas.reasons import WRITTEN_OFF
from schemas.records import Receipt, WriteOff
from streams.core.metering.conservation import sum_of_windows
from streams.core.metering.lago_event import transaction_id
from streams.core.metering.ledger_state import LedgerState
from streams.core.metering.step_changes import Changes

#: The most changes and receipts of one transaction.
WRITE_OFF_LIMIT = 5_000
#: A window without merged ones needs a change and a receipt.
_OWN = 2

copy = msgspec.structs.replace


def write_off(
    ledger: LedgerState,
    offset: int,
    time_ms: int,
    customer_id: str,
    order: WriteOff,
    prefix: str,
    limit: int = WRITE_OFF_LIMIT,
) -> Changes:
    """Return at most `limit` changes of the write-off order at `offset` of the raw topic. The order does not count as a
    call.

    The position passes the order only when all of its windows are written off. Call the function again until then.
    After an aborted step it finds the same windows again; a repeated order finds none. There is a receipt for each
    window, and for each window that was merged into it.

    Args:
        time_ms: timestamp of the order's record, milliseconds since 1970 UTC. It moves the partition clock.
        customer_id: key of the record; `""` = `order.match` names the customers.
        prefix: see `part_prefix`.
    """
    position = ledger.position
    meant = (
        window
        for name in _names(ledger, customer_id, order)
        for first in sorted(ledger.held.get(name, ()))
        if _meant(window := ledger.windows[first], order)
    )
    changes = Changes(copy(position, clock_ms=max(position.clock_ms, time_ms)))
    given_up: list[Window] = []
    for window in meant:
        room = limit - len(changes.windows) - len(changes.receipts)
        if len(window.merged) + _OWN > room:
            if not given_up:  # this window alone is too large, so its merged windows get their receipts first
                changes.windows[window.first] = copy(window, merged=window.merged[room - 1 :])
                changes.receipts = [_of_merged(first, order, prefix) for first in window.merged[: room - 1]]
            break
        given_up.append(window)
        changes.windows[window.first] = None
        changes.receipts += [_own(window, order, prefix)]
        changes.receipts += [_of_merged(first, order, prefix) for first in window.merged]
    else:
        changes.position.next = offset + 1
    written_off = position.counters.written_off + sum_of_windows(given_up)
    changes.position.counters = copy(position.counters, written_off=written_off)
    return changes


def meant_by(pattern: str) -> Callable[[str], bool]:
    """Make a function that tests whether a customer id matches `pattern`: `*` is any text, `?` one character, `[ab]`
    one of these.

    Usage without a customer name (`unattributed:...`) matches only a pattern with this beginning. It is mostly regular
    usage, which must not be written off accidentally by `*`.
    """
    has_form = re.compile(translate(pattern)).match
    any_form = pattern.startswith(UNATTRIBUTED)

    def means(customer_id: str) -> bool:
        return (any_form or not customer_id.startswith(UNATTRIBUTED)) and has_form(customer_id) is not None

    return means


def _names(ledger: LedgerState, customer_id: str, order: WriteOff) -> Iterator[str]:
    """Yield the customers that the order names. Their windows on disk are brought back one customer at a time, so that
    one step holds no more than it can write off.
    """
    if not order.match:
        ledger.warm(customer_id)
        yield customer_id
        return
    means = meant_by(order.match)
    for name in sorted(name for name in ledger.held if means(name)):
        ledger.warm(name)  # bring back its windows on disk, too; otherwise the loop below would yield it a second time
        yield name
    if ledger.cold is not None:
        for name in filter(means, ledger.cold.names(order.until)):
            ledger.warm(name)
            yield name


def _meant(window: Window, order: WriteOff) -> bool:
    return window.max_end_us <= order.until and order.id_kind in ("", window.id_kind)


def _own(window: Window, order: WriteOff, prefix: str) -> Receipt:
    """Return the own receipt of the window, which has its amount. The receipts of merged windows have none."""
    return Receipt(
        transaction_id(prefix, window),
        WRITTEN_OFF,
        order.at,
        cents=cents_text(window.billed),
        calls=window.count,
        reason=order.audit_id,
    )


def _of_merged(first: int, order: WriteOff, prefix: str) -> Receipt:
    return Receipt(f"{prefix}{first}", WRITTEN_OFF, order.at, reason=order.audit_id)
