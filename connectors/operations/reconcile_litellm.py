"""Compares LiteLLM's spend logs with the usage log: each call must be in it, at LiteLLM's cost."""

from collections.abc import AsyncIterator
from datetime import datetime, timedelta

from connectors.config.deployment import Deployment
from connectors.litellm.spend_logs import spend_logs
from connectors.operations.backfill import Backfill
from connectors.operations.backfill_report import BackfillReport, Hour, no_price_yet
from connectors.postgres.pool import Database
from schemas.moments import to_iso
from schemas.money import plain
from schemas.plurals import numbered
from schemas.wire import FLAT


async def compared_with_litellm(
    deployment: Deployment, database: Database, url: str, since: datetime, until: datetime
) -> BackfillReport:
    """Return the report of a dry-run backfill of the calls that started in `[since, until)`.

    Raises:
        Unavailable: `litellm_db`, `projection_behind`, or Postgres does not answer.
    """
    job = Backfill(deployment, database, None, FLAT)

    async def elements() -> AsyncIterator[tuple[str, bytes]]:
        async for start, element in spend_logs(url, since, until):
            yield start.isoformat(), element

    return await job.run(elements())


def call_discrepancies(report: BackfillReport) -> list[str]:
    """Return sentences about hours with owed calls, about different costs, and about rows that cannot be read."""
    sentences = []
    for name, hour in sorted(report.hours.items()):
        command = f"meterbridge backfill --source litellm-db --from {name} --to {_next(name)}"
        if hour.missing.calls:
            sentences.append(
                f"{name}: {hour.missing.calls} of LiteLLM's calls ({plain(hour.missing.usd)} USD) never arrived, "
                f"between {_clock(hour.first_us)} and {_clock(hour.last_us)}, {_names(hour)}: {command}"
            )
        if hour.priced.calls:
            sentences.append(
                f"{name}: {numbered(hour.priced.calls, 'call was', 'calls were')} counted without a price, and LiteLLM has one now "
                f"({plain(hour.priced.usd)} USD): {command}"
            )
    sentences += [
        f"{other.call} of {other.customer}: counted at {plain(other.counted)} USD, LiteLLM says {plain(other.claimed)} USD"
        for other in report.others
    ]
    if report.other_calls > len(report.others):
        sentences.append(
            f"and {report.other_calls - len(report.others)} more at another cost; all together LiteLLM says "
            f"{plain(report.other_usd)} USD more than was counted"
        )
    if report.refused:
        reasons = ", ".join(f"{count} {reason}" for reason, count in sorted(report.refused.items()))
        sentences.append(f"rows of LiteLLM's that cannot be judged: {reasons}: {'; '.join(report.where)}")
    return sentences


def notes_about_calls(report: BackfillReport) -> list[str]:
    """Return sentences about calls without a price. They are no error, but a person should know them."""
    return [no_price_yet(report)] if report.unpriced else []


def _names(hour: Hour) -> str:
    more = hour.missing.calls - len(hour.names)
    return ", ".join(hour.names) + (f" and {more} more" if more else "")


def _clock(us: int) -> str:
    return to_iso(us)[11:23]


def _next(hour: str) -> str:
    return (datetime.fromisoformat(hour) + timedelta(hours=1)).strftime("%Y-%m-%dT%H:%MZ")
