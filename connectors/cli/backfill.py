"""`meterbridge backfill`: send calls that never arrived, from LiteLLM's database or from files."""

import asyncio
import sys
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import suppress
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO, Literal

import typer

from connectors.cli.base import checked_delimiter, duration_s, moment_us, progress, say, span_us, table_of
from connectors.cli.running import one_sentence, settings_of_command
from connectors.cli.sentences import fail
from connectors.cli.terminal import when_interrupted
from connectors.config.connections import deployment_of, postgres_url, revealed
from connectors.config.deployment import Deployment
from connectors.config.settings import Settings
from connectors.litellm.spend_logs import spend_logs
from connectors.operations.audit_record import audited
from connectors.operations.backfill import Backfill
from connectors.operations.backfill_report import BackfillReport, no_price_yet
from connectors.operations.backfill_report import report_as_object as filled_as_json
from connectors.operations.call_files import csv_rows, json_lines
from connectors.operations.reason_sentences import meanings
from connectors.operations.sender import CommandProducer
from connectors.postgres.pool import Database
from connectors.telemetry.printable import shown
from schemas.moments import to_datetime
from schemas.money import plain
from schemas.plurals import numbered

LITELLM_DB, JSONL, CSV = "litellm-db", "jsonl", "csv"
Elements = AsyncIterator[tuple[str, bytes]]
Cut = Callable[[BinaryIO], Iterator[tuple[int, bytes]]]


def backfill(
    source: Literal["litellm-db", "jsonl", "csv"],
    file: str | None,
    since: str | None,
    until: str | None,
    overlap: str | None,
    checkpoint: Path | None,
    shape: Literal["flat", "slp", "integration"],
    trust_log_from: str | None,
    delimiter: str,
    patience: str,
    comment: str,
    *,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Run `meterbridge backfill`."""
    database_alone = {"--from": since, "--to": until, "--overlap": overlap, "--checkpoint": checkpoint}
    _check_given(source, LITELLM_DB, database_alone)
    _check_given(source, CSV, {"--delimiter": delimiter or None})
    if source == LITELLM_DB and file is not None:
        fail(f"--source {LITELLM_DB} reads no --file. Give --source jsonl or --source csv, or leave the file out.", 2)
    between = span_us(since or "24h", until or "5m")
    with one_sentence(OSError):
        settings = settings_of_command()
        deployment = deployment_of(settings)
        sender = None if dry_run else CommandProducer(deployment.kafka)
        trusted_us = None if trust_log_from is None else moment_us(trust_log_from, "--trust-log-from")
        database = Database(postgres_url(settings), size=1)
        job = Backfill(deployment, database, sender, shape, duration_s(patience, "--patience"), trusted_us)
        cut = json_lines if source == JSONL else partial(csv_rows, delimiter=checked_delimiter(delimiter))
        elements = _elements(settings, source, file, cut, between, overlap or "1h", checkpoint)
        keep = _keeper(checkpoint) if source == LITELLM_DB and not dry_run else None
        with progress("calls", 0, quiet=as_json) as on_progress:
            target = {"source": source, **({"trust_log_from": trust_log_from} if trust_log_from else {})}
            done = asyncio.run(_filled(deployment, job, elements, target, comment, on_progress, keep))
    answer = {"dry_run": dry_run, **filled_as_json(done)}
    say(answer, as_json=as_json, table=lambda: _table(answer, done, dry_run))
    if not done.whole:
        raise typer.Exit(1)


def _check_given(source: str, of: str, options: Mapping[str, object]) -> None:
    """End the command if one of the options was given that only the source `of` has: it would be ignored."""
    given = [option for option, value in options.items() if value is not None]
    if given and source != of:
        fail(f"{given[0]} is only for --source {of}. Leave it out, or change the source.", 2)


async def _filled(
    deployment: Deployment,
    job: Backfill,
    elements: Elements,
    target: dict[str, str],
    comment: str,
    on_progress: Callable[[int], None],
    keep: Callable[[str], None] | None,
) -> BackfillReport:
    def stored(place: str, count: int) -> None:
        on_progress(count)
        if keep is not None and place:
            keep(place)

    when_interrupted(
        lambda: (
            f"{numbered(job.done.read, 'call was', 'calls were')} read. Run it again: it recognises the calls that were sent."
        )
    )
    with job.database:
        if job.sender is not None:
            audited(deployment, job.sender, "backfill", target, reason=comment)
        return await job.run(elements, stored)


def _elements(
    settings: Settings,
    source: str,
    file: str | None,
    cut: Cut,
    between: tuple[int, int],
    overlap: str,
    checkpoint: Path | None,
) -> Elements:
    if source == LITELLM_DB:
        url = litellm_database(settings)
        begin, end = map(to_datetime, between)
        if checkpoint is not None and checkpoint.exists():
            last = datetime.fromisoformat(checkpoint.read_text(encoding="utf-8").strip())
            begin = last - timedelta(seconds=duration_s(overlap, "--overlap"))
        return _from_database(url, begin, end)
    if file is None:
        fail(f"--source {source} needs --file; - is stdin.", 2)
    return _from_file(file, cut)


def litellm_database(settings: Settings) -> str:
    """Return LITELLM_DATABASE_URL; if it is not set, end the command with exit code 2."""
    if settings.litellm_database_url is None:
        fail("LITELLM_DATABASE_URL is not set: that is where LiteLLM keeps its spend logs.", 2)
    return revealed(settings.litellm_database_url)


async def _from_database(url: str, since: datetime, until: datetime) -> Elements:
    async for start, element in spend_logs(url, since, until):
        yield start.isoformat(), element


async def _from_file(name: str, cut: Cut) -> Elements:
    for place, element in _cut(name, cut):
        yield place, element


def _cut(name: str, cut: Cut) -> Iterator[tuple[str, bytes]]:
    with sys.stdin.buffer if name == "-" else Path(name).open("rb") as file:
        for number, element in cut(file):
            yield f"line {number}", element


def _keeper(path: Path | None) -> Callable[[str], None] | None:
    if path is None:
        return None

    def keep(place: str) -> None:
        with suppress(FileNotFoundError):
            if datetime.fromisoformat(path.read_text(encoding="utf-8").strip()) > datetime.fromisoformat(place):
                return
        beside = path.with_name(path.name + ".new")
        beside.write_text(place + "\n", encoding="utf-8")
        beside.replace(path)

    return keep


def _table(report: dict[str, Any], done: BackfillReport, dry_run: bool) -> Any:
    verb = "would be sent" if dry_run else "were sent"
    lines = [
        f"{report['read']} read, {report['known']} known, {report['missing']} missing ({report['usd']} USD) {verb}"
    ]
    if report["priced"]:
        lines.append(f"{report['priced']} had been counted without a price ({report['priced_usd']} USD) and {verb}")
    if done.other_calls:
        lines.append(
            f"{numbered(done.other_calls, 'call is', 'calls are')} billed, and counted at another cost ({plain(done.other_usd)} USD more here); not sent:"
        )
        lines += [
            f"  {other.call} of {other.customer}: counted at {plain(other.counted)}, here {plain(other.claimed)} USD"
            for other in done.others
        ]
    if done.unpriced:
        lines.append(no_price_yet(done))
    lines += [f"refused: {place}" for place in done.where]
    lines += meanings(done.refused).splitlines()
    rows = [(name, amount.calls, amount.tokens, plain(amount.usd)) for name, amount in sorted(done.missing.items())]
    title = "\n".join(map(shown, lines))
    return table_of(("customer", "calls", "tokens", "USD"), rows, title) if rows else title
