"""`meterbridge reconcile`: check that all calls and amounts add up."""

import asyncio
from collections.abc import Callable
from contextlib import AsyncExitStack
from datetime import datetime
from typing import Any

import typer

from connectors.cli.account_tables import lago_key
from connectors.cli.backfill import litellm_database
from connectors.cli.base import progress, say, span_us
from connectors.cli.running import one_sentence, settings_of_command
from connectors.cli.sentences import fail
from connectors.config.connections import deployment_of, postgres_url
from connectors.config.deployment import Deployment
from connectors.config.settings import Settings
from connectors.operations.backfill_report import report_as_object as filled_as_json
from connectors.operations.money_notes import unbilled_json
from connectors.operations.reconcile import (
    ReconciliationReport,
    reconcile_lago,
    reconcile_ledgers,
    reconcile_litellm,
    reconcile_tables,
)
from connectors.operations.unplaceable_usage import lines
from connectors.postgres.pool import Database
from connectors.processes.lagos import open_lagos
from connectors.telemetry.printable import shown
from schemas.errors import Unavailable
from schemas.moments import to_datetime
from schemas.money import plain
from schemas.plurals import numbered


def reconcile(lago: bool, litellm: bool, since: str | None, until: str | None, as_json: bool) -> None:
    """Run `meterbridge reconcile`."""
    if not litellm and (since is not None or until is not None):
        fail("--from and --to choose among LiteLLM's spend logs. Add --litellm, or leave them out.", 2)
    begin, end = map(to_datetime, span_us(since or "24h", until or "5m"))
    between = (begin, end) if litellm else None
    with one_sentence():
        settings = settings_of_command()
        with progress("reading ledgers", settings.kafka_partitions, quiet=as_json) as on_progress:
            report = asyncio.run(_reconciled(settings, on_progress, lago, between))
    say(_as_object(report), as_json=as_json, table=lambda: _text(report))
    if report.complaints:
        raise typer.Exit(1)


async def _reconciled(
    settings: Settings, on_progress: Callable[[int], None], lago: bool, between: tuple[datetime, datetime] | None
) -> ReconciliationReport:
    if lago:
        lago_key(settings)
    litellm_url = litellm_database(settings) if between else ""
    deployment = deployment_of(settings)
    with_tables = bool(lago or between)
    if not with_tables and settings.postgres_url is None:
        return await reconcile_ledgers(deployment, on_progress, None)
    with Database(postgres_url(settings), size=1) as database:
        report = await reconcile_ledgers(deployment, on_progress, database)
        await _tables(deployment, database, report, enabled=with_tables)
        if lago:
            async with AsyncExitStack() as stack:
                await reconcile_lago(database, await open_lagos(stack, settings, 1), report, settings.lago_event_code)
        if between:
            await reconcile_litellm(deployment, database, litellm_url, *between, report)
    return report


async def _tables(deployment: Deployment, database: Database, report: ReconciliationReport, *, enabled: bool) -> None:
    """Read the tables. The ledgers are checked without Postgres; if it does not answer, only the details of unbilled
    calls are missing.
    """
    try:
        await reconcile_tables(deployment, database, report)
    except Unavailable as error:
        if enabled:
            raise
        report.notes.append(f"the reasons of unbilled calls are not known: Postgres: {error.reason}")


def _as_object(report: ReconciliationReport) -> dict[str, Any]:
    return {
        "adds_up": not report.complaints,
        "received": report.received,
        "billed_calls": report.billed_calls,
        "billed_usd": plain(report.billed_usd),
        "cost_usd": plain(report.cost_usd),
        "open_usd": plain(report.open_usd),
        "held_usd": plain(report.held_usd),
        "written_off_usd": plain(report.written_off_usd),
        "parts": report.parts,
        "subscriptions": report.subscriptions,
        "subscriptions_not_compared": report.subscriptions_not_compared,
        "litellm_hours": {
            name: {
                "known": hour.known,
                "missing": hour.missing.calls,
                "missing_usd": plain(hour.missing.usd),
                "priced": hour.priced.calls,
                "priced_usd": plain(hour.priced.usd),
            }
            for name, hour in report.hours.items()
        },
        "misdirected": lines(report.misdirected),
        "complaints": report.complaints,
        "unbilled_calls": report.unbilled_calls,
        "unbilled_usd": plain(report.unbilled_usd),
        "carried_calls": report.carried_calls,
        "carried_usd": plain(report.carried_usd),
        "rejected_calls": report.rejected_calls,
        "duplicate_calls": report.duplicate_calls,
        "dead_events": report.dead_events,
        "dead_usd": plain(report.dead_usd),
        "doubtful_events": report.doubtful_events,
        "doubtful_usd": plain(report.doubtful_usd),
        "uncounted": None if report.uncounted is None else report.uncounted.as_object(),
        **unbilled_json(report.tables),
        "litellm": None if report.litellm is None else filled_as_json(report.litellm),
        "notes": report.notes,
    }


def _text(report: ReconciliationReport) -> str:
    answer = _as_object(report)
    compared = "" if report.complaints else _compared(report)
    cost = f" (they cost {answer['cost_usd']} USD)" if report.cost_usd != report.billed_usd else ""
    total = (
        f"{numbered(report.received, 'delivery')} received, {numbered(report.billed_calls, 'call')} and {answer['billed_usd']} USD "
        f"sealed for Lago in {numbered(report.parts, 'event')}{cost}, {answer['open_usd']} USD open, {answer['held_usd']} USD held, "
        f"{answer['written_off_usd']} USD written off, {numbered(report.unbilled_calls, 'call')} NOT billed "
        f"({answer['unbilled_usd']} USD), {numbered(report.duplicate_calls, 'repeat')}{_carried(report)}, {report.rejected_calls} refused by the meter{compared}."
    )
    so_far = " so far" if report.uncounted is not None and report.uncounted.unread.records else ""
    heads = (
        ["It does NOT add up:", *report.complaints, f"In all: {total}"]
        if report.complaints
        else [f"It adds up{so_far}: {total}"]
    )
    return "\n".join(map(shown, [*heads, *lines(report.misdirected), *report.notes]))


def _carried(report: ReconciliationReport) -> str:
    """Say how many failed attempts have their cost in the event of a later call."""
    if not report.carried_calls:
        return ""
    calls = numbered(report.carried_calls, "failed attempt")
    return f", {calls} billed with the call after it ({plain(report.carried_usd)} USD)"


def _compared(report: ReconciliationReport) -> str:
    """Say what agreed with the tables, if anything else was compared."""
    compared = (
        f"; {numbered(report.subscriptions, 'subscription agrees', 'subscriptions agree')} with Lago"
        if report.subscriptions
        else ""
    )
    if report.subscriptions_not_compared:
        compared += f"; {numbered(report.subscriptions_not_compared, 'subscription')} not compared with Lago"
    if report.hours:
        known = sum(hour.known for hour in report.hours.values())
        compared += f"; {numbered(known, 'call')} of LiteLLM's spend logs: all here"
    return compared
