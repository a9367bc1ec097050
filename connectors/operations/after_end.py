"""Finds events that were posted to a subscription with a timestamp after its end. Lago accepted them, and no invoice
counts them.

Meterbridge learns of an end from a webhook or by polling, so it may post events to a subscription that has ended
already. Postgres shows which events these are, once Lago has reported when the org's subscriptions ended.
"""

from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import Any, Final, NamedTuple

import msgspec

from connectors.billing.org_sync import BEGUN, as_lago_says
from connectors.billing.plan_terms import PlanTermsCache, period_with
from connectors.lago.client import LagoClient
from connectors.operations.last_invoice import Life, lives_of
from connectors.postgres.pool import Database
from schemas.customers import OrgRecord, Period
from schemas.moments import HOUR_US, to_datetime, to_us
from schemas.money import EXACT, ZERO, add
from schemas.organizations import DEFAULT
from schemas.records import LagoEvent, Manifest
from streams.core.delivery.after_end import AGAIN, Gap, gaps, instead_of, shared

#: The largest number of events in memory at once.
PAGE: Final = 500
#: How long ago a subscription may have ended to be examined, microseconds. A person has already seen the invoices of
#: older ends.
ENDED_US: Final = 40 * 24 * HOUR_US
_HUNDRED: Final = Decimal(100)

_ORGS = """
SELECT DISTINCT org_id FROM lago_events WHERE org_id <> '' AND status = 'completed' AND processed_at >= $1
"""
#: The bounds on `sealed_at` and `posted_at` limit the rows that are read. An event is sealed after its usage, and it is
#: posted with its own timestamp or with a later one, which is then in `posted_at`. The clock of the usage may be ahead,
#: by less than a day. An event waits for Lago for 30 days at most.
_POSTED = """
FROM unnest($2::text[], $3::timestamptz[], $4::timestamptz[]) AS gap (name, begins, ends)
JOIN usage_parts p ON p.org_id = $1 AND COALESCE(p.posted_to, p.external_subscription_id) = gap.name
    AND p.status = 'completed' AND p.event IS NOT NULL AND p.sealed_at >= gap.begins - interval '40 days'
    AND (p.posted_at >= gap.begins OR (p.posted_at IS NULL AND p.sealed_at >= gap.begins - interval '1 day'))
    AND EXISTS (
        SELECT FROM lago_events e
        WHERE e.transaction_id = p.part AND e.billed_at >= gap.begins AND e.billed_at < gap.ends
    )
"""
_COUNT = f"SELECT count(*), COALESCE(sum(p.amount_cents), 0) {_POSTED}"
_PAGE = f"""
SELECT p.part, p.event::text, p.calls, p.raw_partition, p.first_offset, p.last_offset, p.windows, gap.name, gap.begins,
       EXISTS (SELECT FROM usage_parts other WHERE other.part = p.part || '{AGAIN}' AND other.event IS NOT NULL) AS again
{_POSTED} AND p.part > $5
ORDER BY p.part LIMIT {PAGE}
"""  # noqa: S608  # our own words


@dataclass(frozen=True, slots=True)
class UninvoicedEvent:
    """An event that no invoice counts.

    Fields:
        event: the event as it was sealed.
        ended_us: the end of its subscription, microseconds since 1970 UTC, with the precision of a second.
        manifest: its calls; None = the event has no manifest.
        again: a replacement event is posted already; only the failed receipt of this event is missing.
        instead: the replacement event that is to be posted; None = no subscription can be billed yet.
        taken_by: another Lago customer, whose invoice contains the event. A person must refund that customer first.
            `""` = no invoice contains it.
        unclear: why Lago's answers do not show whether the last invoice of its subscription contains it; `""` = the
            invoice does not.
        organization: the Lago organisation of the org.
    """

    event: LagoEvent
    org_id: str
    subscription: str
    ended_us: int
    manifest: Manifest | None
    again: bool = False
    instead: LagoEvent | None = None
    taken_by: str = ""
    unclear: str = ""
    organization: str = DEFAULT

    @property
    def cents(self) -> Decimal:
        """The amount that the event bills, in cents."""
        return Decimal(self.event.precise_total_amount_cents or 0)

    @property
    def able(self) -> bool:
        """Whether Meterbridge can bill it again without a person."""
        return self.again or (self.instead is not None and not self.taken_by and not self.unclear)


class LagoHistory(NamedTuple):
    """Lago's report about an org and its ended subscriptions.

    Fields:
        org: the org as Lago has it now.
        gaps: the times after the ends of its subscriptions.
        lives: the lives of its subscriptions that have ended.
    """

    org: OrgRecord
    gaps: list[Gap]
    lives: list[Life]


class EndedSubscriptions:
    """Asks Lago which subscriptions of an org have ended."""

    def __init__(self, lago: LagoClient) -> None:
        self._lago = lago
        self._terms = PlanTermsCache(lago)

    async def of(self, org: OrgRecord, now_us: int) -> LagoHistory:
        """Return the org and its subscriptions that ended at most `ENDED_US` ago. Ends that Lago does not report are
        ignored.

        A subscription's id may belong to another customer by now. Then the gap names that customer.

        Raises:
            LagoIntegrationError
        """
        listed = await self._lago.subscriptions(org.org_id, BEGUN)
        customer = await self._lago.customer(org.org_id)
        periods = await self._terms.periods(listed, customer)
        since_us = now_us - ENDED_US
        ended_gaps = gaps(periods, since_us)
        others = [
            life
            for name in sorted({gap.subscription for gap in ended_gaps})
            for life in await self._of_others(org, name)
        ]
        ended = lives_of(listed, [*periods, *(life for _, life in others)], since_us)
        return LagoHistory(as_lago_says(org, customer, periods, now_us), shared(ended_gaps, others), ended)

    async def _of_others(self, org: OrgRecord, name: str) -> list[tuple[str, Period]]:
        """Return the lives of a subscription's id that belong to other customers, each with the customer's id."""
        listed = await self._lago.subscriptions(statuses=BEGUN, external_id=name)
        others = [
            subscription
            for subscription in listed
            if subscription.external_customer_id != org.org_id and subscription.started_at is not None
        ]
        return [(subscription.external_customer_id or "?", period_with(subscription, None)) for subscription in others]


async def billed_orgs(database: Database, now_us: int) -> list[str]:
    """Return the orgs to which an event was delivered within the last `ENDED_US`. Raises: Unavailable."""
    async with database.connection() as connection:
        return [row[0] for row in await connection.fetch(_ORGS, to_datetime(now_us - ENDED_US))]


async def posted_in(database: Database, org_id: str, gaps: Sequence[Gap]) -> tuple[int, Decimal]:
    """Count the delivered events with a timestamp in one of the gaps, and add up their cents. Raises: Unavailable."""
    if not gaps:
        return 0, ZERO
    async with database.connection() as connection:
        count, cents = await connection.fetchrow(_COUNT, org_id, *_columns(gaps))
    return count, cents


async def pages(
    database: Database, org: OrgRecord, gaps: Sequence[Gap], now_us: int, code: str
) -> AsyncIterator[list[UninvoicedEvent]]:
    """Yield the delivered events with a timestamp in one of the gaps, each with its replacement event if there can be
    one.

    Raises:
        Unavailable: Postgres does not answer.
    """
    after = ""
    while gaps:
        async with database.connection() as connection:
            rows = await connection.fetch(_PAGE, org.org_id, *_columns(gaps), after)
        if not rows:
            return
        after = rows[-1]["part"]
        takers = {(gap.subscription, gap.begins_us): gap.customer for gap in gaps}
        yield [redirected(_lost(row, org.org_id, takers), org, now_us, code) for row in rows]


def dollars_of(lost: Iterable[UninvoicedEvent]) -> Decimal:
    """Return the sum of the amounts that the events bill, in dollars."""
    cents = ZERO
    for event in lost:
        cents = add(cents, event.cents)
    return EXACT.divide(cents, _HUNDRED)


def _columns(gaps: Sequence[Gap]) -> tuple[list[str], list[Any], list[Any]]:
    begins, ends = [to_datetime(gap.begins_us) for gap in gaps], [to_datetime(gap.ends_us) for gap in gaps]
    return [gap.subscription for gap in gaps], begins, ends


def _lost(row: Mapping[str, Any], org_id: str, takers: Mapping[tuple[str, int], str]) -> UninvoicedEvent:
    event = msgspec.json.decode(row["event"], type=LagoEvent)
    name, begins_us = row["name"], to_us(row["begins"])
    return UninvoicedEvent(
        event, org_id, name, begins_us, manifest_of(row), row["again"], taken_by=takers[name, begins_us]
    )


def manifest_of(row: Mapping[str, Any]) -> Manifest | None:
    """Read the manifest of an event from its row; None = the event has no manifest."""
    place = row["raw_partition"], row["first_offset"], row["last_offset"], row["calls"]
    return None if None in place else Manifest(*place, tuple(row["windows"] or ()))


def redirected(lost: UninvoicedEvent, org: OrgRecord, now_us: int, code: str) -> UninvoicedEvent:
    """Return the event with its replacement event, if there can be one. Args: org: as Lago has it now."""
    if lost.again:
        return lost
    return replace(lost, instead=instead_of(lost.event, org, now_us, code), organization=org.organization)
