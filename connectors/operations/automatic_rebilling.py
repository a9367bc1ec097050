"""Bills events again that were posted after the end of their subscription: `lago rebill` without an operator.

It runs beside the projector, in the process that owns the first partition of the orgs' topic. Meterbridge knows of an
end as soon as the org's record has it. So the rows in Postgres name the orgs to ask Lago about: the record shows an
end, and an event was delivered to the subscription that ended. Only Lago knows the exact moment of the end, because a
record may show a later one. So Lago is asked once for each version of the record. It is asked again while events wait
after an end, or while it is not known whether the last invoice counted an event
(connectors/operations/after_invoice.py).

Each event is billed again exactly once (connectors/operations/rebilling.py). A process may be killed at any point, and
a second process or an operator's command may run at the same time, because they fence each other.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from decimal import Decimal
from functools import partial
from typing import Any, Final, NamedTuple, Protocol

import structlog

from connectors.billing.subscription_discovery import MOST_FAILURES
from connectors.config.deployment import Deployment
from connectors.lago.client import LagoClient, LagoIntegrationError
from connectors.operations.after_end import (
    ENDED_US,
    EndedSubscriptions,
    LagoHistory,
    UninvoicedEvent,
    dollars_of,
    pages,
    posted_in,
)
from connectors.operations.after_invoice import Memory, NotInvoiced, is_open, not_invoiced
from connectors.operations.audit_record import audited
from connectors.operations.awaiting_rebilling import (
    ANOTHER_CUSTOMER,
    NO_LAGO_KEY,
    NOWHERE,
    OUT_OF_PERIOD_POLICY,
    AwaitingRebilling,
)
from connectors.operations.background_task import watch
from connectors.operations.delivered import DeliveredRows, lost_pages
from connectors.operations.ended_orgs import RECORDS, USED, record_of
from connectors.operations.rebilling import Rebilling
from connectors.operations.sender import CommandProducer
from connectors.postgres.pool import Database
from schemas.customers import OrgRecord
from schemas.moments import to_datetime
from schemas.money import EXACT, ZERO, add, plain
from schemas.policy import OutOfPeriodPolicy
from streams.core.delivery.after_end import gaps
from streams.runtime.clock import now_us

log = structlog.get_logger(__name__)

#: Period of the search for orgs whose records have changed, seconds.
EVERY_S: Final = 60.0
#: The longest wait until an org is examined again, seconds; the waits are one minute, two, four ... Events that were in
#: flight when the end became known may be delivered, or reported as delivered, only later.
_LONGEST_S: Final = 3600.0


class RebillingMetrics(Protocol):
    """Counts events that were posted after the end of their subscription."""

    def rebilled(self, outcome: str, events: int) -> None: ...
    def after_end(self, events: int, usd: Decimal) -> None: ...


class _LagoAnswer(NamedTuple):
    """Lago's last report about an org, and the offset that the org's record had then."""

    offset: int
    history: LagoHistory


@dataclass(slots=True)
class _Looked:
    """The last examination of an org.

    Fields:
        offset: the offset that its record had then.
        next_s: when it is examined again, monotonic clock, seconds.
        wait_s: the wait between the last examination and the next one, seconds.
    """

    offset: int
    next_s: float
    wait_s: float
    waiting: AwaitingRebilling


@dataclass(slots=True)
class LearntEnds:
    """Bills events again as soon as the end of their subscription is known. Each process has one instance.

    Fields:
        partition_tasks: the partitions that the process owns now, by `topic-partition`.
        lagos: the client of each Lago organisation, `""` = the default one. Without a client Lago cannot be asked.
    """

    deployment: Deployment
    database: Database
    partition_tasks: Mapping[str, Any]
    sensors: RebillingMetrics
    lagos: Mapping[str, LagoClient]
    make_sender: Callable[[], CommandProducer]
    make_rebilling: Callable[[Deployment, Database], Rebilling] = Rebilling
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep
    monotonic: Callable[[], float] = time.monotonic
    _looked: dict[str, _Looked] = field(default_factory=dict)
    _unasked: dict[str, str] = field(default_factory=dict)
    _answers: dict[str, _LagoAnswer] = field(default_factory=dict)
    _memories: dict[str, Memory] = field(default_factory=dict)
    _ends: dict[str, EndedSubscriptions] = field(default_factory=dict)
    _sender: CommandProducer | None = None

    async def watch(self) -> None:
        """Run `once` periodically until cancelled. An expected error is logged, once for each cause, and retried."""
        await watch(
            self.once,
            self.sleep,
            EVERY_S,
            waits="rebilling_waits",
            refused=lambda: self.sensors.rebilled("failed", 0),
        )

    async def once(self) -> None:
        """Examine every org that is due.

        Raises:
            Unavailable: Kafka or Postgres does not answer, or `requeue_in_progress`. The rest is examined the next
                time.
            LagoIntegrationError: the requests for `MOST_FAILURES` consecutive orgs failed.
        """
        topic = self.deployment.topics.orgs
        if f"{topic}-0" not in self.partition_tasks:
            self._looked.clear()
            self._answers.clear()
            self._memories.clear()
            self._show()
            return
        async with AsyncExitStack() as stack:
            opened: list[Rebilling] = []

            async def open_rebilling() -> Rebilling:
                if not opened:
                    opened.append(await stack.enter_async_context(self.make_rebilling(self.deployment, self.database)))
                return opened[0]

            failures = 0
            for offset, org in await self._due():
                try:
                    waiting = await self._look(offset, org, open_rebilling)
                except LagoIntegrationError as error:
                    failures += error.retryable
                    if failures == MOST_FAILURES:
                        raise
                    self._passed_over(org.org_id, error)
                else:
                    failures = 0
                    self._keep(org.org_id, offset, waiting)
        self._show()

    async def _due(self) -> list[tuple[int, OrgRecord]]:
        """Return the orgs with an end whose record has changed or whose wait is over, each with its record's offset."""
        since = to_datetime(now_us() - ENDED_US)
        async with self.database.connection() as connection:
            rows = await connection.fetch(RECORDS, since)
        for gone in self._looked.keys() - {row["org_id"] for row in rows}:
            self._give_up(gone, self._looked.pop(gone).waiting.events)
            self._answers.pop(gone, None)
            self._memories.pop(gone, None)
        due = []
        for row in rows:
            looked = self._looked.get(row["org_id"])
            if looked is None or looked.offset != row["offset"] or self.monotonic() >= looked.next_s:
                due.append((row["offset"], record_of(row)))
        return due

    async def _look(
        self, offset: int, org: OrgRecord, rebilling: Callable[[], Awaitable[Rebilling]]
    ) -> AwaitingRebilling:
        at_us = now_us()
        lago = self.lagos.get(org.organization)
        if lago is None:
            count, cents = await posted_in(self.database, org.org_id, gaps(org.periods, at_us - ENDED_US))
            return AwaitingRebilling(count, cents, NO_LAGO_KEY) if count else AwaitingRebilling()
        if not await self._is_to_be_asked(offset, org, at_us):
            return AwaitingRebilling()
        ends = self._ends.setdefault(org.organization, EndedSubscriptions(lago))
        history = await ends.of(org, at_us)
        code, memory = self.deployment.policy.event_code, self._memories.setdefault(org.org_id, {})
        rows = DeliveredRows(self.database, org.org_id, code)
        for over in memory.keys() - {life.lago_id for life in history.lives}:
            seen = memory.pop(over)
            left, others = await rows.counted(seen.life, seen.since_us, seen.named)
            # While the invoice is not final, no event is listed for it.
            self._give_up(org.org_id, left + others if seen.counted.waits else left)
        try:
            late = await not_invoiced(rows, history.lives, org.org_id, lago, at_us, code, memory)
        except LagoIntegrationError:
            # Events with a timestamp after an end are on no invoice, so they can be billed although the last invoice is
            # not known.
            if self.deployment.policy.out_of_period_policy is not OutOfPeriodPolicy.HOLD and await self._some_able(
                history
            ):
                await self._bill(history, [], await rebilling())
            raise
        self._answers[org.org_id] = _LagoAnswer(offset, history)
        if self.deployment.policy.out_of_period_policy is OutOfPeriodPolicy.HOLD:
            held = await self._in_gaps(history, OUT_OF_PERIOD_POLICY)
            return await self._with_late(held, history, late, OUT_OF_PERIOD_POLICY)
        if await self._some_able(history, late):
            return await self._bill(history, late, await rebilling())
        taken, _ = await posted_in(self.database, org.org_id, [gap for gap in history.gaps if gap.customer])
        nowhere = await self._in_gaps(history, ANOTHER_CUSTOMER if taken else NOWHERE)
        return await self._with_late(nowhere, history, late)

    async def _is_to_be_asked(self, offset: int, org: OrgRecord, now_us: int) -> bool:
        """Return whether Lago may report an end after which an event was posted. The record itself may show a later end
        than Lago.
        """
        answer = self._answers.get(org.org_id)
        if answer is None or answer.offset != offset:
            since_us = now_us - ENDED_US
            ended = {period.external_id for period in org.periods if (period.terminated_at or 0) >= since_us}
            async with self.database.connection() as connection:
                return bool(await connection.fetchval(USED, org.org_id, sorted(ended)))
        possible_gaps = [*answer.history.gaps, *gaps(org.periods, now_us - ENDED_US)]
        count, _ = await posted_in(self.database, org.org_id, possible_gaps)
        rows = DeliveredRows(self.database, org.org_id, self.deployment.policy.event_code)
        memory = self._memories.get(org.org_id, {})
        return count > 0 or any([await is_open(rows, life, memory.get(life.lago_id)) for life in answer.history.lives])

    async def _in_gaps(self, history: LagoHistory, why: str) -> AwaitingRebilling:
        count, cents = await posted_in(self.database, history.org.org_id, history.gaps)
        return AwaitingRebilling(count, cents, why) if count else AwaitingRebilling()

    async def _with_late(
        self, waiting: AwaitingRebilling, history: LagoHistory, late: Sequence[NotInvoiced], why: str = ""
    ) -> AwaitingRebilling:
        async for page in self._late_pages(history, late):
            waiting = waiting.with_these(page, why)
        return waiting

    async def _some_able(self, history: LagoHistory, late: Sequence[NotInvoiced] = ()) -> bool:
        async for page in self._pages(history, late):
            if any(event.able for event in page):
                return True
        return False

    async def _bill(self, history: LagoHistory, late: Sequence[NotInvoiced], rebilling: Rebilling) -> AwaitingRebilling:
        """Bill the events that can be billed, page by page; return the ones that remain."""
        waiting = AwaitingRebilling()
        async for page in self._pages(history, late):
            if able := [event for event in page if event.able]:
                await asyncio.to_thread(self._audited, history.org.org_id, able)
                await rebilling.bill(able)
                self.sensors.rebilled("rebilled", len(able))
                usd = plain(dollars_of(able))
                on = sorted({event.instead.external_subscription_id for event in able if event.instead is not None})
                log.info("usage_rebilled", org=history.org.org_id, events=len(able), usd=usd, on=on)
            waiting = waiting.with_these(event for event in page if not event.able)
        return waiting

    async def _pages(self, history: LagoHistory, late: Sequence[NotInvoiced]) -> AsyncIterator[list[UninvoicedEvent]]:
        """Yield first the events with a timestamp after an end, then the events in `late` that are still on no invoice."""
        async for page in pages(self.database, history.org, history.gaps, now_us(), self.deployment.policy.event_code):
            yield page
        async for page in self._late_pages(history, late):
            yield page

    async def _late_pages(
        self, history: LagoHistory, late: Sequence[NotInvoiced]
    ) -> AsyncIterator[list[UninvoicedEvent]]:
        for one in late:
            code = self.deployment.policy.event_code
            async for page in lost_pages(self.database, history.org, one.life, one.named, now_us(), code):
                yield page

    def _audited(self, org_id: str, able: list[UninvoicedEvent]) -> None:
        if self._sender is None:
            self._sender = self.make_sender()
        write = partial(audited, self.deployment, self._sender, "lago.rebill", actor="meterbridge")
        write({"events": str(len(able)), "org": org_id}, count=len(able), cost_usd=dollars_of(able))

    def _keep(self, org_id: str, offset: int, waiting: AwaitingRebilling) -> None:
        self._unasked.pop(org_id, None)
        before = self._looked.get(org_id)
        again = before is not None and before.offset == offset
        wait_s = min(_LONGEST_S, before.wait_s * 2) if again and before is not None else EVERY_S
        self._looked[org_id] = _Looked(offset, self.monotonic() + wait_s, wait_s, waiting)
        if waiting.events and (before is None or before.waiting.why != waiting.why):
            usd = plain(_dollars(waiting.cents))
            log.warning("usage_after_end", org=org_id, events=waiting.events, usd=usd, reason=waiting.why)

    def _passed_over(self, org_id: str, error: LagoIntegrationError) -> None:
        """Log an org for which Lago's answer failed. It does not delay the other orgs."""
        if self._unasked.get(org_id) != error.reason:
            self._unasked[org_id] = error.reason
            log.warning("org_not_looked_at", org=org_id, reason=error.reason, detail=error.detail)

    def _give_up(self, org_id: str, events: int) -> None:
        """Count events that were not billed again, and whose end is too long ago to be examined."""
        if events:
            self.sensors.rebilled("given_up", events)
            log.error("usage_after_end_given_up", org=org_id, events=events)

    def _show(self) -> None:
        cents = ZERO
        for one in self._looked.values():
            cents = add(cents, one.waiting.cents)
        self.sensors.after_end(sum(answer.waiting.events for answer in self._looked.values()), _dollars(cents))


def _dollars(cents: Decimal) -> Decimal:
    return EXACT.divide(cents, Decimal(100))
