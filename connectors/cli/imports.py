"""`meterbridge import`: mappings, customers and subscriptions from files."""

import asyncio
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any, BinaryIO, Literal

import typer

from connectors.cli.account_tables import lago_key, own_account_tables
from connectors.cli.base import checked_delimiter, progress, say, table_of
from connectors.cli.running import one_sentence, settings_of_command
from connectors.cli.sentences import fail
from connectors.cli.terminal import when_interrupted
from connectors.config.connections import deployment_of
from connectors.config.settings import Settings
from connectors.operations.audit_record import audited
from connectors.operations.import_kinds import CustomerRows, MappingRows, SubscriptionRows
from connectors.operations.imports import Import, Imported, ImportKind, RowsWarning, columns_of, required_of
from connectors.operations.row_files import CSV, JSON, rows
from connectors.operations.sender import CommandProducer
from connectors.processes.account_tables import AccountTables
from schemas.errors import MeterbridgeError, Unavailable
from schemas.plurals import numbered

MAPPINGS, CUSTOMERS, SUBSCRIPTIONS = "mappings", "customers", "subscriptions"
_CHUNK = 1 << 16
#: The number of rows that are processed at the same time: mappings share transactions; Lago gets few requests at once.
_AT_ONCE = {MAPPINGS: 100, CUSTOMERS: 4, SUBSCRIPTIONS: 4}
_PATIENCE_S = 60.0
_WARNINGS_SHOWN = 20


def import_rows(
    what: Literal["mappings", "customers", "subscriptions"],
    file: str,
    kind: Literal["auto", "csv", "json"],
    delimiter: str,
    rate: float,
    comment: str,
    *,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Run `meterbridge import`."""
    with one_sentence(OSError):
        settings = settings_of_command()
        if what != MAPPINGS:
            lago_key(settings)
        file_format = (CSV if file.lower().endswith(".csv") else JSON) if kind == "auto" else kind
        with (
            sys.stdin.buffer if file == "-" else Path(file).open("rb") as opened,
            progress(what, 0, quiet=as_json) as on_progress,
        ):
            sign = checked_delimiter(delimiter)
            job = _imported(settings, what, opened, file_format, sign, rate, comment, on_progress, dry_run=dry_run)
            done, failure = asyncio.run(job)
    answer = {"dry_run": dry_run, **done.as_object(), "failed": None if failure is None else failure.reason}
    if as_json or done.read or failure is None:
        say(answer, as_json=as_json, table=lambda: _table(done, what, dry_run=dry_run))
    if failure is not None:
        first = "" if isinstance(failure, Unavailable) else "correct the file and "
        fail(f"{failure}; {first}run it again, no row takes effect twice.", 1)
    if done.refused:
        raise typer.Exit(1)


async def _imported(
    settings: Settings,
    what: str,
    file: BinaryIO,
    file_format: str,
    delimiter: str,
    rate: float,
    comment: str,
    on_progress: Callable[[int], None],
    *,
    dry_run: bool,
) -> tuple[Imported, MeterbridgeError | None]:
    """Return the report, and the error that ended the import early, if there is one."""
    async with own_account_tables(settings, _AT_ONCE[what]) as tables:
        if not dry_run:
            target = {"what": what, "file": file.name}
            deployment = deployment_of(settings)
            sender = CommandProducer(deployment.kafka)
            await asyncio.to_thread(audited, deployment, sender, f"import.{what}", target, reason=comment)
        of = _kind(tables, what, dry_run=dry_run)
        job: Import[Any] = Import(of, _AT_ONCE[what], _PATIENCE_S, on_progress)
        when_interrupted(
            lambda: f"{numbered(job.done.read, 'row was', 'rows were')} read. Run it again: no row takes effect twice."
        )
        try:
            parsed_rows = rows(_chunks(file), file_format, columns_of(of.model), delimiter, required_of(of.model))
            await job.run(parsed_rows, None if what == MAPPINGS else _evenly(rate))
        except MeterbridgeError as failure:
            return job.done, failure
        return job.done, None


def _kind(tables: AccountTables, what: str, *, dry_run: bool) -> ImportKind[Any]:
    if what == MAPPINGS:
        return MappingRows(tables.mappings, dry_run=dry_run)
    of = CustomerRows if what == CUSTOMERS else SubscriptionRows
    return of(tables.lago, tables.billing, dry_run=dry_run)


def _evenly(per_second: float) -> Callable[[], Awaitable[None]]:
    """Return a function that waits so that it returns at most `per_second` times per second."""
    due = time.monotonic()

    async def rate() -> None:
        nonlocal due
        due = max(due, time.monotonic()) + 1 / per_second
        await asyncio.sleep(max(0.0, due - 1 / per_second - time.monotonic()))

    return rate


async def _chunks(file: BinaryIO) -> AsyncIterator[bytes]:
    while chunk := await asyncio.to_thread(file.read, _CHUNK):
        yield chunk


def _table(done: Imported, what: str, *, dry_run: bool) -> Any:
    verb = "would be" if dry_run else "were"
    title = (
        f"{done.read} {what} read: {done.created} {verb} created, {done.changed} changed, "
        f"{done.unchanged} unchanged, {done.refused} refused"
    )
    more = len(done.warnings) - _WARNINGS_SHOWN
    title = "\n".join([title, *map(_warning, done.warnings[:_WARNINGS_SHOWN])])
    title += f"\nThere are {numbered(more, 'more warning')}: --json has them." if more > 0 else ""
    refused = [(error["line"], error["reason"], error["detail"]) for error in done.as_object()["errors"]]
    return table_of(("line", "reason", "detail"), refused, title) if refused else title


def _warning(one: RowsWarning) -> str:
    whose = "" if one.org_id is None else f"{one.org_id}, {numbered(one.rows, 'row')}: "
    return f"Warning: {whose}{one.warning}."
