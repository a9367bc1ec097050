"""Reconciliation: compares each ledger with itself, with the events that it emitted, with LiteLLM and with Lago."""

import asyncio
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal

from connectors.config.deployment import Deployment
from connectors.config.kafka_connection import KafkaConnection
from connectors.kafka.admin import topic_ids
from connectors.kafka.retention import retention_s
from connectors.kafka.topic_scan import OffsetRange, header_of, number_in_header, offset_range_of, scan
from connectors.lago.client import LagoClient
from connectors.operations.backfill_report import BackfillReport, Hour
from connectors.operations.backlog import BEHIND_S, Backlog, not_projected, uncounted
from connectors.operations.damaged_records import DamagedRecords
from connectors.operations.dead_letters import EVENTS, Filters, may_be_in_lago, unresolved
from connectors.operations.ledgers import ledgers_of
from connectors.operations.money_notes import Notes, notes_of, recounted_elsewhere, unbilled_text
from connectors.operations.reconcile_lago import compare_with_lago, organizations_with_events
from connectors.operations.reconcile_litellm import (
    call_discrepancies,
    compared_with_litellm,
    notes_about_calls,
)
from connectors.operations.unplaceable_usage import Misdirected, note
from connectors.operations.usage_log import placed, records_in, unprojected
from connectors.postgres.pool import Database
from schemas.decoding import decoder
from schemas.errors import Unavailable
from schemas.ledger import Sum
from schemas.money import ZERO, add, plain
from schemas.plurals import numbered
from schemas.records import LagoEvent, Manifest
from schemas.topics import EVENTS as EVENTS_TOPIC
from streams.core.metering.decisions import CARRIED
from streams.core.metering.lago_event import part_prefix
from streams.core.metering.ledger_state import LedgerState
from streams.core.metering.reconciliation import Emitted, Older, ledger_discrepancies, uncompared
from streams.runtime import clock
from streams.state.step_writes import MANIFEST, RAW_PARTITION, SEAL_SEQ

_event = decoder(LagoEvent)
_manifest = decoder(Manifest)

_OLDER = """
SELECT count(DISTINCT seal_seq), COALESCE(sum(calls), 0), COALESCE(sum(amount_cents), 0) FROM usage_parts
WHERE event IS NOT NULL AND raw_partition = $1 AND seal_seq < $2 AND starts_with(part, $3) AND seal_seq >= $4
"""

#: The last offset of a partition whose records expired may be a transaction marker.
_MARKER = 1


@dataclass(slots=True)
class ReconciliationReport:
    """The sums of all partitions, and the discrepancies. Amounts are dollars.

    Fields:
        subscriptions: number of subscriptions that were compared with Lago.
        hours: the calls in LiteLLM's spend logs, by the hour in which they started.
        billed_usd: the sum of the sealed events. With a rate card it differs from `cost_usd`, the cost of their calls.
            All other amounts are costs.
        misdirected: held dollars that need a person, by reason and org.
        complaints: sentences about sums that differ, and about wrong billing.
        unbilled_calls, unbilled_usd: counted calls that are not billed because of their decision.
        notes: sentences about facts that are correct, and that a person should know.
        litellm, tables: see `compared_with_litellm` and `notes_of`.
        dead_events, dead_usd: sealed events that wait as dead letters, so that Lago does not bill them.
        doubtful_events, doubtful_usd: further dead letters, of which it is unknown whether Lago has them.
        subscriptions_not_compared: see `LagoComparison.not_compared`.
        carried_calls, carried_usd: failed attempts whose cost is billed with the successful call after them. They are
            not in `unbilled_calls`.
        uncounted: stored calls that are in no sum, because no meter has read them yet.
    """

    received: int = 0
    billed_calls: int = 0
    billed_usd: Decimal = ZERO
    open_usd: Decimal = ZERO
    held_usd: Decimal = ZERO
    written_off_usd: Decimal = ZERO
    parts: int = 0
    subscriptions: int = 0
    hours: dict[str, Hour] = field(default_factory=dict)
    complaints: list[str] = field(default_factory=list)
    misdirected: Misdirected = field(default_factory=dict)
    unbilled_calls: int = 0
    unbilled_usd: Decimal = ZERO
    rejected_calls: int = 0
    duplicate_calls: int = 0
    notes: list[str] = field(default_factory=list)
    litellm: BackfillReport | None = None
    tables: Notes = field(default_factory=Notes)
    cost_usd: Decimal = ZERO
    dead_events: int = 0
    dead_usd: Decimal = ZERO
    doubtful_events: int = 0
    doubtful_usd: Decimal = ZERO
    subscriptions_not_compared: int = 0
    carried_calls: int = 0
    carried_usd: Decimal = ZERO
    uncounted: Backlog | None = None


async def reconcile_ledgers(
    deployment: Deployment, passed: Callable[[int], None] = lambda _count: None, database: Database | None = None
) -> ReconciliationReport:
    """Compare each ledger with itself, and with its events in `billing.lago.events`: each event exists once, with its
    amount.

    Args:
        database: has the events that have expired in the topic. Without it, or while it does not answer, their sums are
            not compared.
    """
    raw = await asyncio.to_thread(offset_range_of, deployment.kafka, deployment.topics.raw)
    ledgers = await ledgers_of(deployment, passed)
    stretch = await asyncio.to_thread(offset_range_of, deployment.kafka, deployment.topics.events)
    expired_ms = await asyncio.to_thread(_expired_ms, deployment.kafka, stretch)
    emitted = {number: Emitted(ledger.position.seal_seq, expired_ms=expired_ms) for number, ledger in ledgers.items()}
    damaged = DamagedRecords()
    await asyncio.to_thread(_take, deployment.kafka, stretch, emitted, damaged)
    for totals in emitted.values():
        totals.from_the_start = not any(start for start, _ in stretch.ranges.values())
    if database is not None:
        with suppress(Unavailable):  # `reconcile_tables` reports it
            await _older(deployment, database, ledgers, emitted)
    report = ReconciliationReport(notes=damaged.sentences())
    for number, one in ledgers.items():
        _count(report, one)
        report.complaints += ledger_discrepancies(number, one.position, one.windows.values(), emitted[number])
        if note_about_sums := uncompared(number, one.position, emitted[number]):
            report.notes.append(note_about_sums)
    # A ledger of another topic of this name has counted nothing of this one.
    topic_id = (await asyncio.to_thread(topic_ids, deployment.kafka, [raw.topic]))[raw.topic]
    positions = {number: one.position for number, one in ledgers.items() if one.position.topic_id == topic_id}
    counted_to = {number: position.next for number, position in positions.items()}
    await asyncio.to_thread(_count_uncounted, deployment, raw, counted_to, report)
    await asyncio.to_thread(_count_dead_letters, deployment, report)
    return report


async def reconcile_lago(
    database: Database, lagos: Mapping[str, LagoClient], report: ReconciliationReport, event_code: str
) -> None:
    """Compare the delivered events with Lago's bills, for each subscription with an event. Raises: Unavailable.

    Args:
        lagos: the client of each Lago organisation.
    """
    for organization, lago in lagos.items():
        compared = await compare_with_lago(database, lago, event_code, organization=organization)
        report.subscriptions += compared.subscriptions
        report.subscriptions_not_compared += compared.not_compared
        report.complaints += compared.complaints
        report.notes += compared.notes
    for organization in await organizations_with_events(database):
        if organization not in lagos:
            report.complaints.append(f"events of the Lago organisation {organization}, which is not configured")


async def reconcile_litellm(
    deployment: Deployment, database: Database, url: str, since: datetime, until: datetime, report: ReconciliationReport
) -> None:
    """Compare the calls in LiteLLM's spend logs that started in `[since, until)` with the usage log.

    Raises: see `compared_with_litellm`.
    """
    comparison = await compared_with_litellm(deployment, database, url, since, until)
    report.litellm, report.hours = comparison, dict(sorted(comparison.hours.items()))
    report.complaints += call_discrepancies(comparison)
    report.notes += notes_about_calls(comparison)


async def reconcile_tables(deployment: Deployment, database: Database, report: ReconciliationReport) -> None:
    """Add the calls that are not billed, or billed twice, according to the tables. Raises: Unavailable."""
    report.tables = await notes_of(database)
    topics, kafka = (deployment.topics.events, deployment.topics.enriched), deployment.kafka
    ranges = [await asyncio.to_thread(offset_range_of, kafka, topic) for topic in topics]
    left = [unprojected(whole, await placed(database, whole.topic)) for whole in ranges]
    if not sum([await asyncio.to_thread(records_in, kafka, whole) for whole in left]):
        report.complaints += await recounted_elsewhere(database)
    report.complaints += report.tables.complaints
    report.notes += unbilled_text(report.tables)
    decisive = (deployment.topics.enriched, deployment.topics.rejected)  # the complaints above are made of them
    for behind in await not_projected(deployment, database):
        if behind.sentence:
            is_old = behind.unread.oldest_s > BEHIND_S
            found = report.complaints if is_old and behind.topic in decisive else report.notes
            found.append(f"{behind.sentence}. The tables do not have them")


async def _older(
    deployment: Deployment, database: Database, ledgers: Mapping[int, LedgerState], emitted: Mapping[int, Emitted]
) -> None:
    """Read the sums of events that have expired in the topic. Events of another raw topic have another prefix."""
    for number, one in emitted.items():
        position = ledgers[number].position
        if position.summed_from < one.first <= one.limit + 1:
            prefix = part_prefix(deployment.name, position.topic_id, number)
            async with database.connection() as connection:
                row = await connection.fetchrow(_OLDER, number, one.first, prefix, position.summed_from)
            one.older = Older(row[0], int(row[1]), row[2])


def _expired_ms(kafka: KafkaConnection, stretch: OffsetRange) -> int:
    """Return the record time up to which events may have expired, milliseconds since 1970 UTC; 0 = none may have.

    It is the latest first record of a partition that has lost records. The first record of a quiet partition may be
    young, but no event that is younger than the topic's retention can have expired.

    Raises:
        Unavailable: Kafka does not answer.
    """
    begun = [(number, ends) for number, ends in stretch.ranges.items() if ends[0]]
    if not begun:
        return 0
    kept_s = retention_s(kafka, {stretch.topic: EVENTS_TOPIC})[stretch.topic]
    now_ms, latest = clock.now_us() // 1000, 0
    bound_ms = now_ms - round(kept_s * 1000) if kept_s else now_ms  # without a retention now, there was one before
    for number, ends in begun:
        first = next(scan(kafka, OffsetRange(stretch.topic, {number: ends})), None)
        latest = max(latest, bound_ms if first is None else first.timestamp()[1])
    return min(latest, bound_ms)


def _take(kafka: KafkaConnection, stretch: OffsetRange, emitted: dict[int, Emitted], damaged: DamagedRecords) -> None:
    for message in scan(kafka, stretch):
        number, seal_seq = number_in_header(message, RAW_PARTITION), number_in_header(message, SEAL_SEQ)
        if number is None or seal_seq is None or number not in emitted:
            continue
        event = damaged.read(_event, message)
        manifest = damaged.read(_manifest, message, header_of(message, MANIFEST).encode()) if event else None
        if event is not None and manifest is not None:
            cents, at_ms = Decimal(event.precise_total_amount_cents or 0), message.timestamp()[1]
            emitted[number].take(seal_seq, manifest.count, cents, at_ms)
    for totals in emitted.values():
        totals.settle()


def _count_uncounted(
    deployment: Deployment, raw: OffsetRange, counted_to: Mapping[int, int], report: ReconciliationReport
) -> None:
    """Report the calls that were stored before the ledgers were read and are not in them. A meter that runs always has a
    few; they are a complaint only if nobody reads them.
    """
    behind = report.uncounted = uncounted(deployment, raw, counted_to)
    if behind.sentence:
        found = report.complaints if behind.is_stuck else report.notes
        found.append(f"{behind.sentence}. They are in no sum here")
    for number, (start, _) in raw.ranges.items():
        if (lost := start - counted_to.get(number, start)) > _MARKER:
            report.complaints.append(f"partition {number}: {lost} offsets left {raw.topic} before they were counted")


def _count_dead_letters(deployment: Deployment, report: ReconciliationReport) -> None:
    for dead_letter in unresolved(deployment, EVENTS, Filters()):
        usd = dead_letter.usd or ZERO
        if may_be_in_lago(dead_letter):
            report.doubtful_events, report.doubtful_usd = report.doubtful_events + 1, add(report.doubtful_usd, usd)
        else:
            report.dead_events, report.dead_usd = report.dead_events + 1, add(report.dead_usd, usd)
    if report.dead_events:
        events = numbered(report.dead_events, "event")
        report.notes.append(f"not billed, dead letters: {events}, {plain(report.dead_usd)} USD: `meterbridge dlq list`")
    if report.doubtful_events:
        events = numbered(report.doubtful_events, "event")
        report.notes.append(
            f"dead letters that Lago may have, and then bills: {events}, {plain(report.doubtful_usd)} USD: "
            "`meterbridge dlq requeue` sends each again under its id, and Lago counts an id once"
        )


def _count(report: ReconciliationReport, ledger: LedgerState) -> None:
    counters = ledger.position.counters
    report.received += counters.received.calls
    report.billed_calls += counters.sealed.calls
    report.cost_usd = add(report.cost_usd, counters.sealed.cost)
    report.billed_usd = add(report.billed_usd, add(counters.sealed.cost, ledger.position.margin))
    report.written_off_usd = add(report.written_off_usd, counters.written_off.cost)
    carried = ledger.position.decisions.get(CARRIED, Sum())
    report.carried_calls, report.carried_usd = (
        report.carried_calls + carried.calls,
        add(report.carried_usd, carried.cost),
    )
    report.unbilled_calls += counters.unbilled.calls - carried.calls
    report.unbilled_usd = add(report.unbilled_usd, add(counters.unbilled.cost, -carried.cost))
    report.rejected_calls += counters.rejected.calls
    report.duplicate_calls += counters.duplicate.calls
    report.parts += ledger.position.seal_seq
    for window in ledger.windows.values():
        note(report.misdirected, window)
        if window.held:
            report.held_usd = add(report.held_usd, window.cost)
        else:
            report.open_usd = add(report.open_usd, window.cost)
