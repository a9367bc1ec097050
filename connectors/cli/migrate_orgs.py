"""`meterbridge migrate-orgs`: migrate users' customers in Lago to orgs."""

import asyncio
import sys
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import typer

from connectors.cli.account_tables import lago_key, own_account_tables
from connectors.cli.base import progress, say, table_of
from connectors.cli.running import one_sentence, settings_of_command
from connectors.cli.sentences import fail
from connectors.config.connections import deployment_of, postgres_url
from connectors.config.deployment import Deployment
from connectors.config.settings import Settings
from connectors.operations.audit_record import audited
from connectors.operations.org_migration import (
    ALREADY,
    FAILED,
    MIGRATED,
    MISSING,
    SKIPPED,
    WOULD,
    MigrationOutcome,
    OrgMigration,
    plan_of,
)
from connectors.operations.sender import CommandProducer
from connectors.operations.usage_in_flight import find_usage_in_flight, settled_us
from connectors.operations.user_orgs import UserOrg, read_file, read_query
from streams.runtime.clock import now_us

DRY_RUN, EXECUTE, VERIFY = "dry_run", "execute", "verify"


def migrate_orgs(
    mapping_file: Path | None, mapping_sql: str | None, *, execute: bool, verify: bool, as_json: bool
) -> None:
    """Run `meterbridge migrate-orgs`."""
    if execute and verify:
        fail("give --execute or --verify, not both: run it again to verify.", 2)
    mode = EXECUTE if execute else VERIFY if verify else DRY_RUN
    with one_sentence(OSError):
        settings = settings_of_command()
        entries = _entries(settings, mapping_file, mapping_sql)
        with progress("customers", len(entries), quiet=as_json) as on_progress:
            outcomes = asyncio.run(_migrated(settings, entries, mode, on_progress))
    say(_as_object(outcomes, mode), as_json=as_json, table=lambda: _table(outcomes, mode))
    if _wrong(outcomes, mode):
        raise typer.Exit(1)


def _entries(settings: Settings, file: Path | None, query: str | None) -> list[UserOrg]:
    if (file is None) == (query is None):
        fail("give either --mapping-file or --mapping-sql: they say which org a user belongs to.", 2)
    if file is not None:
        return read_file(file)
    text = sys.stdin.read() if query == "-" else Path(query or "").read_text(encoding="utf-8")
    return asyncio.run(read_query(postgres_url(settings), text))


async def _migrated(
    settings: Settings, entries: Sequence[UserOrg], mode: str, on_progress: Callable[[int], None]
) -> list[MigrationOutcome]:
    clear, outcomes = plan_of(entries)
    on_progress(len(entries) - len(clear))
    async with _migration(settings) as migration:
        for entry in clear:
            if mode == EXECUTE:
                outcomes.append(await migration.run(entry))
            else:
                outcomes.append(await migration.look(entry, otherwise=WOULD if mode == DRY_RUN else MISSING))
            on_progress(1)
    return outcomes


@asynccontextmanager
async def _migration(settings: Settings) -> AsyncIterator[OrgMigration]:
    """Yield a migration with the tables and writers of the management API, in this process. Raises: TopicProblem,
    Unavailable.
    """
    lago_key(settings)
    deployment = deployment_of(settings)
    async with own_account_tables(settings, connections=2) as tables:
        yield OrgMigration(
            tables.billing,
            tables.mappings,
            tables.discovery,
            tables.customers.table,
            announce=_announcer(deployment),
            loose=lambda: find_usage_in_flight(deployment),
            mapping_delay_us=tables.mapping_delay_us,
            settled_us=settled_us(deployment.policy, settings.max_retries, settings.retry_delay),
            now_us=now_us,
        )


def _announcer(deployment: Deployment) -> Callable[[UserOrg, Sequence[str]], Any]:
    """Return a function that writes the audit line of one customer. Its first call makes the producer."""
    senders: list[CommandProducer] = []

    async def announce(entry: UserOrg, steps: Sequence[str]) -> None:
        if not senders:
            senders.append(CommandProducer(deployment.kafka))
        target = {"user": entry.user_id, "org": entry.org_id, "steps": "; ".join(steps)}
        await asyncio.to_thread(audited, deployment, senders[0], "orgs.migrate", target, count=len(steps))

    return announce


def _wrong(outcomes: Sequence[MigrationOutcome], mode: str) -> bool:
    """Return whether a customer has failed; in a check also whether one is missing or skipped."""
    return any(outcome.state in ({FAILED, MISSING, SKIPPED} if mode == VERIFY else {FAILED}) for outcome in outcomes)


def _as_object(outcomes: Sequence[MigrationOutcome], mode: str) -> dict[str, Any]:
    counts: dict[str, int] = {}
    for one in outcomes:
        counts[one.state] = counts.get(one.state, 0) + 1
    return {
        "mode": mode,
        "complete": all(outcome.state in (ALREADY, MIGRATED) for outcome in outcomes),
        "counts": counts,
        "customers": [
            {
                "user_id": outcome.user_id,
                "org_id": outcome.org_id,
                "state": outcome.state,
                "reason": outcome.reason,
                "steps": outcome.steps,
                "subscription": outcome.subscription,
                "to_end": [{"subscription": old.external_id, "wait": old.wait} for old in outcome.to_end],
            }
            for outcome in outcomes
        ],
    }


def _table(outcomes: Sequence[MigrationOutcome], mode: str) -> Any:
    if not outcomes:
        return "There is no user to migrate."
    counts = ", ".join(f"{count} {state}" for state, count in _as_object(outcomes, mode)["counts"].items())
    title = f"Nothing was changed: {counts}" if mode != EXECUTE else counts
    rows = []
    for outcome in outcomes:
        waits = [f"to end: {old.external_id}, {old.wait}" for old in outcome.to_end if old.wait]
        rows.append(
            (
                outcome.user_id,
                outcome.org_id,
                outcome.state,
                "; ".join([*([outcome.reason] * bool(outcome.reason)), *outcome.steps, *waits]),
            )
        )
    return table_of(("user", "org", "state", ""), rows, title)
