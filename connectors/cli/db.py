"""`meterbridge db`: the tables in Postgres."""

import asyncio
import sys
from datetime import timedelta
from typing import Any

import typer

from connectors.cli.base import duration_s, moment_us, say, table_of
from connectors.cli.running import one_sentence, settings_of_command
from connectors.cli.sentences import fail, print_error
from connectors.config.connections import deployment_of, postgres_url
from connectors.config.settings import Settings
from connectors.operations.audit_record import audited
from connectors.operations.sender import CommandProducer
from connectors.postgres.initialise import DatabaseContents, Initialised, contents, initialise
from connectors.postgres.migrate import make_roles, pending
from connectors.postgres.migrate import migrate as bring
from connectors.postgres.prune import Pruned, prunable
from connectors.postgres.prune import prune as forget
from connectors.postgres.unprojected import KeptAside, unprojected_records
from connectors.telemetry.printable import shown
from schemas.moments import to_datetime
from schemas.topics import RAW


def init(yes: str, *, test_data: bool, reset: bool, as_json: bool) -> None:
    """Run `meterbridge db init`."""
    if yes and not reset:
        fail("--yes confirms --reset, and does nothing without it.", 2)
    with one_sentence():
        url = postgres_url(settings_of_command())
        if reset:
            _confirmed(asyncio.run(contents(url)), yes)
        done = asyncio.run(initialise(url, reset=reset, test_data=test_data, progress=print_error))
    answer = {
        "database": done.database,
        "reset": reset,
        "applied": [f"{migration.version:04d}_{migration.name}" for migration in done.applied],
        "test_data": test_data,
        "verified": {kind: sorted(names) for kind, names in done.verified.items()},
    }
    say(answer, as_json=as_json, table=lambda: _verified(done))


def _confirmed(there: DatabaseContents, name: str) -> None:
    """End the command unless the operator has given the database's name or types it now."""
    if not name:
        print_error(
            f"{there.objects} tables, views and functions in {there.database} will be dropped, with {there.accounts} credit "
            "accounts. Type the database's name to confirm:"
        )
    given = name or sys.stdin.readline().strip()
    if given != there.database:
        fail("that is not the database's name: nothing was changed.", 2)


def _verified(done: Initialised) -> Any:
    rows = [(kind, len(names), ", ".join(sorted(names))) for kind, names in done.verified.items()]
    return table_of(("verified", "number", "names"), rows, f"{done.database}: {len(done.applied)} migrations applied.")


def migrate(*, check: bool, as_json: bool) -> None:
    """Run `meterbridge db migrate`."""
    with one_sentence():
        url = postgres_url(settings_of_command())
        names = [
            f"{migration.version:04d}_{migration.name}"
            for migration in asyncio.run(pending(url) if check else bring(url))
        ]
    answer = {"applied": [] if check else names, "pending": names if check else []}
    say(answer, as_json=as_json, table=lambda: _text(names, "pending" if check else "applied"))
    if check and names:
        raise typer.Exit(1)


def roles(*, as_json: bool) -> None:
    """Run `meterbridge db roles`."""
    with one_sentence():
        asyncio.run(make_roles(postgres_url(settings_of_command())))
    lines = "meterbridge_projector, meterbridge_api and meterbridge_reader have the rights that they need. They have no password yet."
    say(
        {"roles": ["meterbridge_projector", "meterbridge_api", "meterbridge_reader"]},
        as_json=as_json,
        table=lambda: lines,
    )


def prune(older_than: str, comment: str, *, dry_run: bool, as_json: bool) -> None:
    """Run `meterbridge db prune`."""
    age_s = duration_s(older_than, "--older-than")
    with one_sentence():
        settings = settings_of_command()
        url, least = postgres_url(settings), _least(settings)
        if age_s < least.total_seconds():
            fail(f"--older-than must be at least {least.days}d: younger calls may still be sent again.", 2)
        before = to_datetime(moment_us(older_than, "--older-than"))
        pruned = asyncio.run(prunable(url, before))
        audit_id = ""
        if not dry_run and pruned.total:
            deployment = deployment_of(settings)
            target = {"older_than": older_than, "months": ",".join(pruned.months)}
            audit_id = audited(
                deployment, CommandProducer(deployment.kafka), "db.prune", target, reason=comment, count=pruned.total
            )
            pruned = asyncio.run(forget(url, before))
    answer = {
        "dry_run": dry_run,
        "audit_id": audit_id,
        "months": pruned.months,
        "kept": pruned.kept,
        "rows": pruned.rows,
    }
    say(answer, as_json=as_json, table=lambda: _forgotten(pruned, dry_run))


def unprojected(limit: int, *, as_json: bool) -> None:
    """Run `meterbridge db unprojected`."""
    with one_sentence():
        aside = asyncio.run(unprojected_records(postgres_url(settings_of_command()), limit))
    heads = ("topic", "partition", "offset", "reason", "problem", "noticed")
    answer = {"total": aside.total, "records": [dict(zip(heads, row, strict=True)) for row in aside.rows]}
    say(answer, as_json=as_json, table=lambda: _kept_aside(heads, aside))


def _kept_aside(heads: tuple[str, ...], aside: KeptAside) -> Any:
    if not aside.total:
        return "Every record that was read has become a row."
    return table_of(heads, aside.rows)


def _least(settings: Settings) -> timedelta:
    """Return the minimum age: the time in which a call may be read again from its topic and be looked up in the log,
    plus one day.
    """
    topic = timedelta(milliseconds=int(RAW.config["retention.ms"]))
    return topic + timedelta(hours=settings.dedupe_retention_hours, days=1)


def _forgotten(pruned: Pruned, dry_run: bool) -> Any:
    verb = "would be deleted" if dry_run else "deleted"
    rows: list[tuple[str, object, str]] = [(f"calls of {month}", count, verb) for month, count in pruned.months.items()]
    rows += [(table, count, verb) for table, count in pruned.rows.items()]
    rows += [(f"calls of {month}", count, "not billed yet: the month is kept") for month, count in pruned.kept.items()]
    return table_of(("what", "rows", ""), rows)


def _text(names: list[str], what: str) -> str:
    if not names:
        return "The tables are up to date."
    return "\n".join(map(shown, [f"{len(names)} migrations {what}.", *names]))
