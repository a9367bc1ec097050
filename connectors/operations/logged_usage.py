"""Reads calls from the usage log in the form in which the meter reads them, to compute other prices for them."""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any, Final

from connectors.postgres.pool import Database
from schemas.moments import to_datetime
from schemas.normalised_call import Usage
from streams.core.metering.call_kinds import JOBS, READABLE, kind_of
from streams.core.metering.spend_log_ids import names_a_job

_PAGE: Final = 2000
#: Ordered by end; each page begins after the last call of the previous page. Metered events have no cost and no rate
#: card. Who pays is read from the event: the call may have been counted or held for another org, or for none.
_CALLS: Final = f"""
SELECT u.*, COALESCE(e.org_id, u.counted_for) AS org_id,
    COALESCE(e.external_subscription_id, u.counted_on) AS external_subscription_id,
    e.event IS NULL AND p.status IS NOT DISTINCT FROM 'written_off' AS given_up
FROM (
    SELECT identity, customer_id, id_kind, org_id AS counted_for, external_subscription_id AS counted_on, decision, status,
        model, provider, call_type, tokens_input, tokens_output, total_tokens, cached_tokens, reasoning_tokens,
        cache_write_tokens, images, seconds, cost_usd, billed_usd, power_level, team_id, call_id, request_id, ended_at, part,
        COALESCE(cache_hit, false) AS cache_hit
    FROM llm_usage_log
    WHERE ended_at >= $1 AND ended_at < $2 AND decision <> 'metered' AND (ended_at, identity) > ($3, $4)
    ORDER BY ended_at, identity LIMIT {_PAGE}
) AS u
LEFT JOIN usage_parts p ON u.part <> '' AND p.part = u.part
LEFT JOIN usage_parts e ON e.event IS NOT NULL AND e.part = COALESCE(p.released_in, p.part)
ORDER BY u.ended_at, u.identity
"""  # noqa: S608  # our own number
#: The columns that are fields of `Usage`.
_FIELDS: Final = frozenset(Usage.__struct_fields__)


@dataclass(frozen=True, slots=True)
class Logged:
    """A call of the usage log: its usage as the meter's rules read it, its decision, who pays, and its billed amount in
    dollars.
    """

    usage: Usage
    decision: str
    org_id: str
    subscription: str
    billed: Decimal
    ended_at: datetime


async def logged_calls(database: Database, since_us: int, until_us: int) -> AsyncIterator[Logged]:
    """Yield the calls that ended in `[since_us, until_us)`, microseconds since 1970 UTC, in the order of their ends. Calls that
    were written off are left out.

    Raises:
        Unavailable: Postgres does not answer.
    """
    since, until = to_datetime(since_us), to_datetime(until_us)
    after: tuple[datetime, bytes] = (since, b"")
    while True:
        async with database.connection() as connection:
            rows = await connection.fetch(_CALLS, since, until, *after)
        for row in rows:
            if not row["given_up"]:
                yield _logged(row)
        if len(rows) < _PAGE:
            return
        after = (rows[-1]["ended_at"], rows[-1]["identity"])


def _logged(row: Any) -> Logged:
    billed = row["billed_usd"]
    if billed is None:
        billed = row["cost_usd"] if row["part"] else Decimal(0)
    return Logged(_usage(row), row["decision"], row["org_id"], row["external_subscription_id"], billed, row["ended_at"])


def _usage(row: Any) -> Usage:
    fields = {name: value for name, value in row.items() if name in _FIELDS}
    kind, end_us = kind_of(row["call_type"]), round(row["ended_at"].timestamp() * 1_000_000)
    usage = Usage(start_us=0, end_us=end_us, cost=row["cost_usd"], kind=kind, **fields)
    if row["call_type"] in JOBS | READABLE or names_a_job(usage.request_id):
        usage.job = usage.identity
    return usage
