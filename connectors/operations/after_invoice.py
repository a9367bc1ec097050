"""Finds events with a timestamp before the end of their subscription that reached Lago after it had made the last
invoice.

Lago accepted them, and no invoice contains them. The last invoice itself shows which events these are
(streams/core/delivery/after_invoice.py). If it does not, the events are listed, and a person decides (docs/adr/0027).
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Final, NamedTuple

from connectors.lago.events import COPIES, MOVED, TOO_MANY
from connectors.lago.responses import StoredEvent
from connectors.lago.transport import read
from connectors.operations.delivered import Deliveries, PostedEvent
from connectors.operations.last_invoice import (
    MAYBE_INVOICED,
    NO_LAST_INVOICE,
    STILL_ARRIVING,
    Counted,
    Invoices,
    Life,
    ReadOnce,
    last_counted,
    uninvoiced_since,
)
from schemas.moments import HOUR_US, SECOND_US, parse_us
from schemas.money import ZERO, add
from streams.core.delivery.after_invoice import CountableEvent, Earlier, overtaken

#: The most events of a last billing period that are read from Lago: two years of one event a minute. If there are more,
#: all events that were delivered after the end are listed as `TOO_MANY_EVENTS`.
MOST: Final = 1_000_000
TOO_MANY_EVENTS: Final = "too_many_events"
#: The largest difference between our clock and Lago's. Events that were delivered up to this long before an end are
#: examined, too.
CLOCKS_US: Final = HOUR_US
_HALF_A_CENT: Final = Decimal("0.5")
#: How often a list is read until copies in it are believed. Events that move to another page during a reading look like
#: copies.
_READINGS: Final = 2
_UNREAD: Final = {TOO_MANY: TOO_MANY_EVENTS, MOVED: STILL_ARRIVING}


class NotInvoiced(NamedTuple):
    """Events of a life that are not, or perhaps not, on any invoice. `named` maps each id to why it is unclear; `""` =
    it is certain.
    """

    life: Life
    named: Mapping[str, str]


class Seen(NamedTuple):
    """The result of the last examination of `life`.

    Fields:
        counted: what its last invoice counted.
        since_us: events that were delivered at or after this moment were examined, microseconds since 1970 UTC.
        settled: how many of these are on the last invoice; an event on it stays on it.
        named: the other events, see `NotInvoiced`; some of them may have been billed again since.
        final: whether the result holds as long as the invoice and the events are the same.
    """

    life: Life
    counted: Counted
    since_us: int
    settled: int
    named: Mapping[str, str]
    final: bool


class _Judged(NamedTuple):
    """See `Seen`; `others`: Lago stored events after the end that the caller did not ask about."""

    named: Mapping[str, str]
    final: bool = True
    others: bool = False


#: The results for all lives of an org, by Lago's own id of the subscription.
Memory = dict[str, Seen]


async def not_invoiced(
    deliveries: Deliveries, lives: Iterable[Life], org_id: str, lago: Invoices, now_us: int, code: str, memory: Memory
) -> list[NotInvoiced]:
    """Find the events that the last invoices of an org's subscriptions did not, or perhaps did not, count.

    The data of a life is read from Lago once. It is read again only if the last invoice or the delivered events have
    changed.

    Args:
        lives: the lives of the org's subscriptions that have ended.
        code: the code of the metric of usage, `LAGO_EVENT_CODE`.
        memory: the earlier results for this org. The function updates it.

    Raises:
        LagoIntegrationError
        Unavailable: Postgres does not answer.
    """
    found, once = [], ReadOnce(lago)
    for life in lives:
        seen = memory.get(life.lago_id)
        if seen is None or await is_open(deliveries, life, seen):
            seen = await _judged(deliveries, life, org_id, once, now_us, code, seen)
            memory[life.lago_id] = seen
        if seen.named:
            found.append(NotInvoiced(life, seen.named))
    return found


async def is_open(deliveries: Deliveries, life: Life, seen: Seen | None) -> bool:
    """Return whether it is unknown for any delivered event if the last invoice counts it. Raises: Unavailable."""
    if seen is None:
        return await deliveries.some(life)
    left, others = await deliveries.counted(life, seen.since_us, seen.named)
    return left > 0 or others != seen.settled or not seen.final


async def _judged(
    deliveries: Deliveries, life: Life, org_id: str, lago: Invoices, now_us: int, code: str, seen: Seen | None
) -> Seen:
    if seen is None and not await deliveries.some(life):
        return Seen(life, Counted(), life.started_us, 0, {}, final=True)
    counted = await last_counted(lago, org_id, life, code, now_us)
    if seen is not None and seen.final and seen.counted == counted:
        _, others = await deliveries.counted(life, seen.since_us, seen.named)
        if others == seen.settled:
            return seen
    if counted.unclear == NO_LAST_INVOICE:
        begins_us = await uninvoiced_since(lago, org_id, life)
        since_us = life.ended_us - CLOCKS_US if begins_us is None else begins_us
        found = await _delivered(deliveries, life, since_us)
        if begins_us is None:
            verdict = _Judged(_after_the_end(found, life, MAYBE_INVOICED))
        else:
            verdict = _Judged(_without_invoice([post for post in found if post.at_us >= since_us], found, life))
    else:
        billed = frozenset[str]() if seen is None else frozenset(seen.named)
        since_us = life.ended_us - CLOCKS_US
        found = await _delivered(deliveries, life, since_us)
        verdict = await _not_on_it(life, found, counted, lago, code, billed)
        if verdict.others and since_us > life.started_us:
            # Lago stored them after the end, but by our clock they were delivered long before it.
            since_us = life.started_us
            found = await _delivered(deliveries, life, since_us)
            verdict = await _not_on_it(life, found, counted, lago, code, billed)
    named = {**verdict.named, **{post.transaction_id: "" for post in found if post.again}}
    left, others = await deliveries.counted(life, since_us, named)
    settled = others if left + others == len(found) else -1  # an event was delivered between the two queries
    return Seen(life, counted, since_us, settled, named, verdict.final)


async def _delivered(deliveries: Deliveries, life: Life, since_us: int) -> list[PostedEvent]:
    return [one async for page in deliveries.rows(life, since_us) for one in page]


def _without_invoice(last: Sequence[PostedEvent], found: Sequence[PostedEvent], life: Life) -> Mapping[str, str]:
    """Return all events of the last billing period and all that were delivered after the end. Lago makes no invoice
    below half a cent.
    """
    cents = ZERO
    for one in last:
        cents = add(cents, one.cents)
    named = [one.transaction_id for one in last] if cents >= _HALF_A_CENT else []
    return {**dict.fromkeys(named, NO_LAST_INVOICE), **_after_the_end(found, life, NO_LAST_INVOICE)}


async def _not_on_it(
    life: Life, found: Sequence[PostedEvent], counted: Counted, lago: Invoices, code: str, billed: Collection[str]
) -> _Judged:
    """Find the events in `found` that are not, or perhaps not, on the last invoice. Nothing is known until the invoice
    is final.

    Args:
        billed: ids that an earlier examination listed. One that is not in `found` was billed again since.
    """
    if counted.waits:
        return _Judged({}, final=False)
    if counted.unclear:
        return _Judged(_after_the_end(found, life, counted.unclear))
    if not found:
        return _Judged({})
    for _ in range(_READINGS):
        stored = _AroundAnEnd(life.ended_us, {post.transaction_id for post in found})
        why = await lago.read_events_of(life.subscription, code, counted.from_us, life.until_us, MOST, stored.take)
        if why not in {COPIES, MOVED}:
            break
    if why or stored.is_undated:
        unclear = _after_the_end(found, life, _UNREAD.get(why, MAYBE_INVOICED))
        return _Judged(unclear, final=why not in {MOVED, TOO_MANY})
    verdict = overtaken(stored.earlier, stored.after, counted.events, counted.cents)
    # Lago has these with another timestamp, or does not show them yet. Events before `from_us` belong to an earlier
    # invoice.
    missing = [
        post.transaction_id
        for post in found
        if post.at_us >= counted.from_us and post.transaction_id not in stored.known
    ]
    unclear_why = STILL_ARRIVING if missing else MAYBE_INVOICED
    history = {**dict.fromkeys([*verdict.unclear, *missing], unclear_why), **dict.fromkeys(verdict.late, "")}
    named = {name: why for name, why in history.items() if name in stored.asked}
    others = any(name not in stored.asked and name not in billed for name in history)
    return _Judged(named, final=not missing, others=others)


@dataclass(slots=True)
class _AroundAnEnd:
    """The events that Lago stored before the second of an end, as sums, and those that it stored after it, one by one.

    Fields:
        asked: ids of the events that the caller asks about.
        known: the ids in `asked` that Lago has.
        is_undated: whether Lago does not report for some event when it stored it.
    """

    end_us: int
    asked: set[str]
    known: set[str] = field(default_factory=set)
    after: list[CountableEvent] = field(default_factory=list)
    is_undated: bool = False
    _events: int = 0
    _cents: Decimal = ZERO
    _ids: list[str] = field(default_factory=list)

    @property
    def earlier(self) -> Earlier:
        """The sums of the events that Lago stored before the end."""
        return Earlier(self._events, self._cents, tuple(self._ids))

    def take(self, event: StoredEvent) -> None:
        """Add one event."""
        if event.created_at is None:
            self.is_undated = True
            return
        name, created_us = event.transaction_id, read(parse_us, event.created_at)
        cents = Decimal(event.precise_total_amount_cents or 0)
        is_asked = name in self.asked
        if is_asked:
            self.known.add(name)
        if created_us >= self.end_us:
            self.after.append(CountableEvent(name, created_us, cents))
            return
        self._events, self._cents = self._events + 1, add(self._cents, cents)
        if is_asked:
            self._ids.append(name)


def _after_the_end(found: Iterable[PostedEvent], life: Life, why: str) -> Mapping[str, str]:
    """Return the events that were delivered after the end: if the invoice shows no details, earlier ones are assumed to
    be on it.
    """
    return {post.transaction_id: why for post in found if post.taken_us >= life.ended_us + SECOND_US}
