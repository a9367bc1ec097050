"""Checks of stored values in addition to their types: timestamps, counts and amounts that every reader can process.

A value of the right type can still stop its reader: `to_iso` cannot write the year 300 000, Postgres has no integer
beyond 64 bits, and a comparison with a signalling NaN raises. `schemas.decoding.decoder` makes these checks for all
readers.
"""

from collections.abc import Callable
from decimal import Decimal
from re import compile as re_compile
from typing import Any, Final

from schemas import customers, rates
from schemas.errors import Rejected
from schemas.ledger import Position, Window
from schemas.moments import MAX_US, parse_us
from schemas.money import ZERO
from schemas.normalised_call import token_counts
from schemas.record_sizes import MOST_ID_CHARS
from schemas.records import (
    AuditRecord,
    DeliveryAttempt,
    EnrichedUsage,
    LagoEvent,
    Manifest,
    Receipt,
    Rejection,
    WriteOff,
)

#: One above the largest integers of Postgres: `integer`, `bigint`.
_INT4, _INT8 = 1 << 31, 1 << 63
#: Bounds of dollars: no sum of calls reaches the first; a cost below the second counts as 0. Sums of amounts within the
#: bounds have at most the 60 digits of `schemas.money.EXACT`.
_DOLLARS, _LEAST_EXPONENT = Decimal(10**15), -40
_IDENTITY = re_compile(r"[0-9a-f]{32}")
#: ISO 8601 with an offset, the years 1970 to 9999; the meter writes UTC.
_MOMENT = re_compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9:.]{8,15}(Z|[+-][0-9]{2}:[0-9]{2})")
#: Cents as text, with no more digits than Lago keeps (`decimal(40,15)`) and some to spare: the sum of two amounts such as
#: `1e40` and `1e-40` would need more digits than `schemas.money.EXACT` has. Older releases post events without an amount
#: with `""`.
_AMOUNT = re_compile(r"(-?([0-9]{1,25}(\.[0-9]{1,20})?|[0-9]{1,15}(\.[0-9]{1,15})?[eE][+-]?[0-9]))?")


def moments(*all_us: int | None) -> None:
    """Raises: ValueError: one of them is outside of 1970 to 9999 (microseconds since 1970 UTC). None is skipped."""
    for at_us in all_us:
        if at_us is not None and not 0 <= at_us < MAX_US:
            raise ValueError("moment")


def counts(*found: int, below: int = _INT8) -> None:
    """Raises: ValueError: one of them is negative, or `below` or more."""
    for number in found:
        if not 0 <= number < below:
            raise ValueError("count")


def dollars(*found: Decimal) -> None:
    """Raises: ValueError: one of them is NaN, infinite, or beyond the bounds."""
    for amount in found:
        if not amount.is_finite() or amount.copy_abs() >= _DOLLARS or int(amount.as_tuple().exponent) < _LEAST_EXPONENT:
            raise ValueError("amount")


def _cents(text: str) -> None:
    if not _AMOUNT.fullmatch(text):
        raise ValueError("cents")


def written(moment: str) -> None:
    """Raises: ValueError: it is no moment in ISO 8601 with an offset, of 1970 to 9999."""
    try:
        if not _MOMENT.fullmatch(moment):
            raise ValueError("moment")
        parse_us(moment)
    except Rejected:
        raise ValueError("moment") from None


def _usage(usage: EnrichedUsage) -> None:
    if not _IDENTITY.fullmatch(usage.identity):
        raise ValueError("identity")
    written(usage.start)
    written(usage.end)
    counts(usage.offset, *token_counts(usage), usage.cache_write_tokens, usage.images)
    dollars(usage.cost_usd, usage.seconds, usage.billed_usd or ZERO, usage.price_usd or ZERO)


def _event(event: LagoEvent) -> None:
    if not event.transaction_id:
        raise ValueError("transaction_id")
    if max(len(event.transaction_id), len(event.external_subscription_id)) > MOST_ID_CHARS:
        raise ValueError("id")
    _cents(event.precise_total_amount_cents)


def _manifest(manifest: Manifest) -> None:
    counts(manifest.partition, below=_INT4)
    counts(manifest.first, manifest.last, manifest.count, *manifest.windows)


def _receipt(receipt: Receipt) -> None:
    moments(receipt.at)
    counts(receipt.calls)
    counts(receipt.attempts, below=_INT4)
    _cents(receipt.cents)


def _write_off(order: WriteOff) -> None:
    moments(order.at, order.until)


def _audit(record: AuditRecord) -> None:
    moments(record.at)
    counts(record.count)
    dollars(record.cost_usd)


def _attempt(attempt: DeliveryAttempt) -> None:
    moments(attempt.at)
    counts(attempt.status, attempt.attempt, below=_INT4)
    counts(attempt.duration_ms, attempt.events)


def _rejection(rejection: Rejection) -> None:
    moments(rejection.at)
    if not -1 <= rejection.offset < _INT8:
        raise ValueError("offset")


def _position(position: Position) -> None:
    counts(position.next, position.seal_seq, position.skipped)
    moments(position.clock_ms * 1000, position.forgot_us)
    dollars(position.margin)
    sums = position.counters
    for bounds in (
        *(sums.received, sums.folded, sums.duplicate, sums.rejected, sums.unbilled, sums.sealed, sums.written_off),
        *position.decisions.values(),
    ):
        counts(bounds.calls)
        dollars(bounds.cost)


def _window(window: Window) -> None:
    dollars(window.cost)  # the decoder checks its other numbers by their types
    if window.rated is not None:
        dollars(window.rated.usd, window.rated.factor)


#: The checks by type. The meter's normaliser checks the raw record.
CHECKS: Final[dict[type[Any], Callable[[Any], object]]] = {
    **customers.CHECKS,
    **rates.CHECKS,
    EnrichedUsage: _usage,
    LagoEvent: _event,
    Manifest: _manifest,
    Receipt: _receipt,
    WriteOff: _write_off,
    AuditRecord: _audit,
    DeliveryAttempt: _attempt,
    Rejection: _rejection,
    Position: _position,
    Window: _window,
}
