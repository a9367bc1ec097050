"""Reads everything again and compares: ledgers with themselves, with the events they emitted, and with what Lago counts."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from decimal import Decimal

import msgspec

from connectors.lago.client import LagoClient
from connectors.litellm.spend_logs import spend_logs
from connectors.operations.backfill import Backfill, Hour
from connectors.operations.ledgers import books_of
from connectors.operations.misdirected import Misdirected, note
from connectors.operations.reconcile_lago import compare_with_lago
from connectors.operations.scan import Stretch, header_of, scan, stretch_of
from connectors.postgres.pool import Database
from connectors.settings import Settings
from schemas.money import ZERO, add, plain
from schemas.records import LagoEvent, Manifest
from schemas.topics import TopicNames
from schemas.wire import FLAT
from streams.core.books import Books
from streams.core.proof import Emitted, complaints_about
from streams.writes import MANIFEST, RAW_PARTITION, SEAL_SEQ

_event = msgspec.json.Decoder(LagoEvent).decode
_manifest = msgspec.json.Decoder(Manifest).decode


@dataclass(slots=True)
class Report:
    """What was compared and what did not add up; amounts are dollars, over all partitions.

    Fields:
        subscriptions: how many were compared with Lago.
        hours: what LiteLLM's spend logs hold, by the hour calls started in.
        misdirected: held dollars that wait for a person, by reason and org.
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


async def reconcile_ledgers(settings: Settings, passed: Callable[[int], None] = lambda _count: None) -> Report:
    """Each ledger adds up by itself, and its parts are in `billing.lago.events`, each once, with its money."""
    books = await books_of(settings, passed)
    topic = TopicNames.with_prefix(settings.topic_prefix).events
    stretch = await asyncio.to_thread(stretch_of, settings, topic)
    emitted = {number: Emitted(one.position.seal_seq) for number, one in books.items()}
    await asyncio.to_thread(_take, settings, stretch, emitted)
    report = Report()
    for number, one in books.items():
        _count(report, one)
        report.complaints += complaints_about(number, one.position, one.windows.values(), emitted[number])
    return report


async def reconcile_lago(database: Database, lago: LagoClient, report: Report, event_code: str) -> None:
    """What was delivered is what Lago bills, of every subscription that was ever billed. Raises: Unavailable."""
    compared = await compare_with_lago(database, lago, event_code)
    report.subscriptions += compared.subscriptions
    report.complaints += compared.complaints


async def reconcile_litellm(
    settings: Settings, database: Database, url: str, since: datetime, until: datetime, report: Report
) -> None:
    """Every call of LiteLLM's spend logs that started in `[since, until)` is in the usage log.

    Raises:
        Unavailable: `litellm_db`, `log_behind`, or Postgres does not answer.
    """
    job = Backfill(settings, database, None, FLAT)
    found = await job.run((start.isoformat(), element) async for start, element in spend_logs(url, since, until))
    report.hours = dict(sorted(found.hours.items()))
    for name, hour in report.hours.items():
        if hour.missing.calls:
            report.complaints.append(
                f"{name}: {hour.missing.calls} of LiteLLM's calls ({plain(hour.missing.usd)} USD) never arrived: "
                f"meterbridge backfill --source litellm-db --from {name} --to {_next(name)}"
            )


def _next(hour: str) -> str:
    return (datetime.fromisoformat(hour) + timedelta(hours=1)).strftime("%Y-%m-%dT%H:%MZ")


def _take(settings: Settings, stretch: Stretch, emitted: dict[int, Emitted]) -> None:
    for message in scan(settings, stretch):
        number, seal_seq = header_of(message, RAW_PARTITION), header_of(message, SEAL_SEQ)
        if number.isdigit() and seal_seq.isdigit() and int(number) in emitted:
            event = _event(message.value() or b"")
            calls = _manifest(header_of(message, MANIFEST).encode()).count
            emitted[int(number)].take(int(seal_seq), calls, Decimal(event.precise_total_amount_cents))


def _count(report: Report, books: Books) -> None:
    counters = books.position.counters
    report.received += counters.received.calls
    report.billed_calls += counters.sealed.calls
    report.billed_usd = add(report.billed_usd, counters.sealed.cost)
    report.written_off_usd = add(report.written_off_usd, counters.written_off.cost)
    report.parts += books.position.seal_seq
    for window in books.windows.values():
        note(report.misdirected, window)
        if window.held:
            report.held_usd = add(report.held_usd, window.cost)
        else:
            report.open_usd = add(report.open_usd, window.cost)
