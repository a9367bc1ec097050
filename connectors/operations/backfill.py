"""Backfills calls from LiteLLM's database or from files. Each call is looked up in the usage log, and only owed calls
are sent.

A call is owed if it was never counted, or if it was counted without the price that it has now. A call that was counted
before is in the log. A call that arrives by webhook at the same time is recognised within the ledgers' dedupe
retention, by its identity or by its start and end (streams/core/metering/normalise.py).
"""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from decimal import Decimal

from connectors.config.deployment import Deployment
from connectors.ingest.body_splitter import WrappedCalls
from connectors.ingest.call_context import ContextFields
from connectors.ingest.raw_record import Arrival, strip_arrived
from connectors.ingest.rejection_record import InvalidElement
from connectors.operations.backfill_report import BackfillReport, name_of
from connectors.operations.call_files import place_of, readable
from connectors.operations.dead_letters import usage_of
from connectors.operations.pricing import as_counted
from connectors.operations.requeue import checked
from connectors.operations.sender import CommandProducer, Outgoing
from connectors.operations.usage_log import LogCheck, LogJudgement, caught_up, log_judgements
from connectors.postgres.pool import Database
from schemas.decoding import decoder
from schemas.normalised_call import Usage
from schemas.rounding import quantum
from schemas.wire import BACKFILL, RawRecord
from streams.core.metering.call_rejections import NOT_A_CALL
from streams.core.metering.decisions import UNPRICED
from streams.core.metering.matching import KNOWN, MISSING, OTHER_COST, PRICED
from streams.runtime import clock

BATCH = 500
#: Reason for a call that is not in the log and has no start: it may be a repeat.
NO_START = "no_start"
#: How long a check of the log is valid, seconds. This is far shorter than the dedupe retention.
_CHECK_AGAIN_S = 3600.0
_MILLISECOND_US = 1000

_raw = decoder(RawRecord)


@dataclass(frozen=True, slots=True)
class _FoundCall:
    """An element that is a call; `timeless`: whether it has no start."""

    place: str
    key: bytes
    value: bytes
    usage: Usage
    timeless: bool


class Backfill:
    """One backfill.

    Args:
        sender: None = a dry run, which compares all calls and sends none.
        shape: shape of the elements, see `connectors.ingest.raw_record.strip_arrived`.
        patience_s: time limit for the meter and the projector to reach the end of their topics, seconds.
        trusted_us: see `caught_up`.
    """

    def __init__(
        self,
        deployment: Deployment,
        database: Database,
        sender: CommandProducer | None,
        shape: str,
        patience_s: float = 60.0,
        trusted_us: int | None = None,
    ) -> None:
        self.done = BackfillReport()
        self._deployment = deployment
        self.database = database
        self.sender = sender
        self._shape = shape
        self._patience_s = patience_s
        self._trusted_us = trusted_us
        self._raw = deployment.topics.raw
        self._policy = deployment.policy
        self._unit = quantum(self._policy.cost_decimals)
        self._kept = ContextFields(deployment.kept_tag_prefixes, deployment.kept_metadata)
        self._seen: dict[bytes, Decimal] = {}
        self._checked: LogCheck | None = None
        self._checked_until = 0.0

    async def run(
        self,
        elements: AsyncIterator[tuple[str, bytes]],
        stored: Callable[[str, int], None] = lambda _place, _count: None,
    ) -> BackfillReport:
        """Take every (place, element). `stored` is called with the place up to which all calls are durable and with
        their number.

        Raises:
            Unavailable: `projection_behind`, or Kafka or Postgres stopped answering. A repeat recognises the calls that
                were sent.
        """
        batch: list[_FoundCall] = []
        place, count = "", 0
        async for place, element in elements:
            count += 1
            call = self._read(place, element)
            if call is not None:
                batch.append(call)
            if count == BATCH:
                await self._keep(batch)
                stored(place, count)
                batch, count = [], 0
        await self._keep(batch)
        stored(place, count)
        return self.done

    def _read(self, place: str, element: bytes) -> _FoundCall | None:
        done = self.done
        done.read += 1
        try:
            arrival = Arrival(clock.now_us(), self._deployment.customer_id_fields, BACKFILL, self._kept)
            stripped = strip_arrived(readable(element), self._shape, arrival)
        except InvalidElement as refused:
            done.refuse(place_of(place, element, refused), refused.reason)
            return None
        except WrappedCalls:
            done.refuse(place_of(place, element), NOT_A_CALL)
            return None
        key, value = stripped if stripped is not None else ("", b"")
        usage = usage_of(value, key, self._unit)
        if usage is None:
            done.refuse(place_of(place, element), "unreadable")
            return None
        call = _raw(value).call
        timeless = all(moment in (None, "") for moment in (call.startTime, call.timestamp))
        if timeless:
            usage.start_us -= usage.start_us % _MILLISECOND_US  # a missing call's start is precise to the millisecond
        before = self._seen.get(usage.identity)
        if before is not None and (before or not usage.cost):
            done.known += 1
            return None
        self._seen[usage.identity] = usage.cost
        return _FoundCall(f"{place} {name_of(usage)}", key.encode(), value, usage, timeless)

    async def _keep(self, batch: list[_FoundCall]) -> None:
        if not batch:
            return
        if self._checked is None or time.monotonic() >= self._checked_until:
            self._checked = await caught_up(
                self._deployment, self.database, self._patience_s, trusted_us=self._trusted_us
            )
            self._checked_until = time.monotonic() + _CHECK_AGAIN_S
        answers = await log_judgements(self.database, [found.usage for found in batch], self._checked, self._policy)
        records = []
        for found, answer in zip(batch, answers, strict=True):
            if self._take(found, answer):
                records.append(self._outgoing(found, answer, self._checked.at_us))
        if self.sender is not None:
            await asyncio.to_thread(self.sender.send, records)

    def _take(self, found_call: _FoundCall, judgement: LogJudgement) -> bool:
        """Count one call by its outcome; return whether it has to be sent."""
        done, call, row = self.done, found_call.usage, judgement.verdict.row
        word = judgement.verdict.word
        if judgement.refused or (word == MISSING and found_call.timeless):
            done.refuse(found_call.place, judgement.refused or NO_START)
            return False
        if word == PRICED and row is not None:
            done.find_a_price(call, row)
        elif word == MISSING:
            done.arrive_late(call)
        else:
            done.known += 1
            done.hour_of(call).known += 1
        if word == OTHER_COST and row is not None:
            done.differ(call, row)
        elif word == KNOWN and row is not None and row.decision == UNPRICED and not call.cost:
            done.unpriced[row.model] = done.unpriced.get(row.model, 0) + 1
        return judgement.sendable

    def _outgoing(self, call: _FoundCall, judgement: LogJudgement, at_us: int) -> Outgoing:
        key, value, row = call.key, call.value, judgement.verdict.row
        if row is not None:
            key, value = as_counted(value, row, self._unit)
        return Outgoing(self._raw, key, checked(value, at_us))
