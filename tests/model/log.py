"""Replaces Postgres: the enriched topic as the usage log, and the receipts as the rows of posted events.

Decisions from them are made by the product's own functions.
"""

from collections.abc import AsyncIterator, Collection, Iterable, Iterator, Mapping
from datetime import date
from decimal import Decimal
from types import SimpleNamespace
from typing import Any, NamedTuple

import msgspec

from connectors.operations import after_end, after_invoice, rebilling, usage_log
from connectors.operations.after_end import EndedSubscriptions, LagoHistory, UninvoicedEvent
from connectors.operations.after_invoice import Memory
from connectors.operations.delivered import PostedEvent
from connectors.operations.last_invoice import Life
from schemas.customers import OrgRecord
from schemas.moments import parse_us, to_datetime
from schemas.normalised_call import Usage
from schemas.policy import MeterPolicy, OutOfPeriodPolicy
from schemas.records import EnrichedUsage, LagoEvent, Receipt
from streams.core.delivery.after_end import AGAIN
from streams.core.metering.matching import LoggedCall, verdict
from tests.model import history as h
from tests.model.lago import Clock, Lago
from tests.model.stand_ins import TOPICS


class Posted(NamedTuple):
    """A delivered event: the subscription, its time, when Lago accepted it; `again` as in `UninvoicedEvent`."""

    event: LagoEvent
    subscription: str
    at_us: int
    taken_us: int
    again: bool = False


class Deliveries:
    """Like `DeliveredRows`."""

    def __init__(self, posted: Iterable[Posted]) -> None:
        self._posted = [one for one in posted if one.event.code == h.USAGE]

    def _of(self, life: Life, since_us: int) -> list[PostedEvent]:
        return [
            PostedEvent(one.event.transaction_id, one.at_us, one.taken_us, cents_of(one.event), one.again)
            for one in self._posted
            if one.subscription == life.subscription
            and life.started_us <= one.at_us < life.until_us
            and one.taken_us >= since_us
        ]

    async def some(self, life: Life) -> bool:
        return bool(self._of(life, life.started_us))

    async def counted(self, life: Life, since_us: int, named: Collection[str]) -> tuple[int, int]:
        found = [one.transaction_id in named for one in self._of(life, since_us)]
        return sum(found), len(found) - sum(found)

    async def rows(self, life: Life, since_us: int) -> AsyncIterator[list[PostedEvent]]:
        for one in self._of(life, since_us):
            yield [one]


class Log:
    """The log of one deployment."""

    def __init__(self, clock: Clock, lago: Lago, topics: dict[str, list[Any]]) -> None:
        self._clock = clock
        self._lago = lago
        self._unclear: dict[str, UninvoicedEvent] = {}
        self._memories: dict[str, Memory] = {}
        self._ends = EndedSubscriptions(lago.client)
        self._topics = topics
        self._kept_from: date = date.min
        self._desk = object.__new__(rebilling.Rebilling)
        self._desk._topics, self._desk._deployment = TOPICS, SimpleNamespace(name="d")  # type: ignore[assignment]

    def everything(self) -> Iterator[EnrichedUsage]:
        """Counted calls, and the reason why each is billed or not."""
        return (msgspec.json.decode(value, type=EnrichedUsage) for _, value in self._topics.get(TOPICS.enriched, []))

    def prune(self, now_us: int) -> None:
        """The months before this one are deleted."""
        self._kept_from = to_datetime(now_us).date().replace(day=1)

    def judged(self, usage: Usage, policy: MeterPolicy) -> usage_log.LogJudgement:
        """Like `usage_log.log_judgements`."""
        rows = [_counted(row) for row in self.everything()]
        found = verdict(usage, [row for row in rows if to_datetime(row.start_us).date() >= self._kept_from], policy)
        forgotten = {month for month in usage_log._months_of(usage) if month < self._kept_from}
        return usage_log.LogJudgement(found, usage_log._refusal(usage, found, forgotten, usage_log.LogCheck(0, "", {})))

    async def rebill(self, orgs: Mapping[str, OrgRecord], policy: MeterPolicy) -> None:
        """Like `LearntEnds.once`: for every org whose record shows an end, with the events that Lago names. They are
        written, not posted.
        """
        now_us, self._unclear = self._clock.us(), {}
        for org in list(orgs.values()):
            ended = {one.external_id for one in org.periods if (one.terminated_at or 0) >= now_us - after_end.ENDED_US}
            posted = [one for one in self._posted() if one.event.properties.get("org_id") == org.org_id]
            if not any(one.subscription in ended for one in posted):
                continue
            result = await self._ends.of(org, now_us)
            memory = self._memories.setdefault(org.org_id, {})
            late = await after_invoice.not_invoiced(
                Deliveries(posted), result.lives, org.org_id, self._lago.client, now_us, h.USAGE, memory
            )
            found = [lost for life, named in late for lost in _named(result, posted, life, named, now_us)]
            self._unclear |= {one.event.transaction_id: one for one in found if one.unclear}
            if policy.out_of_period_policy is OutOfPeriodPolicy.HOLD:
                continue
            for lost in [*_behind(result, posted, now_us), *found]:
                for write in self._desk._writes(lost):
                    self._topics.setdefault(write.topic, []).append(write)

    def dead(self) -> dict[str, Decimal]:
        """Dollars of events that the sink gave up, by org."""
        return _by_org(msgspec.json.decode(write.value)["properties"] for write in self._topics.get(TOPICS.dlq, []))

    def maybe_invoiced(self) -> dict[str, Decimal]:
        """Dollars that may be on a last invoice or not, at the last check; by org."""
        return _by_org(one.event.properties for one in self._unclear.values())

    def _posted(self) -> list[Posted]:
        """Delivered events that are billed as far as is known."""
        result = {}
        for write in self._topics.get(TOPICS.receipts, []):
            receipt = msgspec.json.decode(write.value, type=Receipt)
            result[receipt.transaction_id] = receipt
        events = [msgspec.json.decode(write.value, type=LagoEvent) for write in self._topics.get(TOPICS.events, [])]
        return [
            _posted(one, result[one.transaction_id])._replace(again=one.transaction_id + AGAIN in result)
            for one in events
            if result[one.transaction_id].status == "completed"
        ]


def _by_org(events: Iterable[Mapping[str, Any]]) -> dict[str, Decimal]:
    """Dollars of events, by their properties."""
    found = dict[str, Decimal]()
    for properties in events:
        if "cost_usd" in properties:
            org = properties["org_id"]
            found[org] = found.get(org, Decimal(0)) + Decimal(properties["cost_usd"])
    return {org: usd for org, usd in found.items() if usd}


def _posted(event: LagoEvent, receipt: Receipt) -> Posted:
    """A row of a delivered event."""
    moment = parse_us(receipt.timestamp or event.timestamp)
    return Posted(event, receipt.external_subscription_id, moment, receipt.at)


def cents_of(event: LagoEvent) -> Decimal:
    """The billed amount."""
    return Decimal(event.precise_total_amount_cents)


def _named(
    lago_history: LagoHistory, posted: list[Posted], life: Life, named: Mapping[str, str], now_us: int
) -> Iterator[UninvoicedEvent]:
    """Return events that may be on no invoice, like `delivered.lost_pages`."""
    for event, name, _, _, again in posted:
        why = named.get(event.transaction_id)
        if why is not None:
            lost = UninvoicedEvent(
                event, lago_history.org.org_id, name, life.ended_us, None, again, unclear="" if again else why
            )
            yield after_end.redirected(lost, lago_history.org, now_us, h.USAGE)


def _behind(lago_history: LagoHistory, posted: list[Posted], now_us: int) -> Iterator[UninvoicedEvent]:
    """Return events with a time after an end, like `after_end.pages`."""
    for event, name, at_us, *_ in posted:
        for gap in lago_history.gaps:
            if gap.subscription == name and gap.begins_us <= at_us < gap.ends_us:
                lost = UninvoicedEvent(event, lago_history.org.org_id, name, gap.begins_us, None, taken_by=gap.customer)
                yield after_end.redirected(lost, lago_history.org, now_us, h.USAGE)


def _counted(row: EnrichedUsage) -> LoggedCall:
    """A row of the usage log."""
    return LoggedCall(
        bytes.fromhex(row.identity),
        row.decision,
        row.status,
        row.cost_usd,
        bool(row.part),
        row.customer_id,
        row.id_kind,
        row.model,
        row.call_id,
        row.request_id,
        parse_us(row.start),
    )
