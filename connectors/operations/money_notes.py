"""Reads from Postgres the calls that are not billed or may be billed twice although all ledgers are correct."""

from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any, Final

from connectors.postgres.pool import Database
from schemas.money import ZERO, add, plain
from schemas.plurals import numbered
from streams.core.metering.decisions import CARRIED, UNPRICED

#: How long a pair is reported after it was found, days. The table keeps it longer.
_DAYS: Final = 35
_MOST: Final = 20
_UNBILLED: Final = """
SELECT decision, model, count(*), COALESCE(sum(cost_usd), 0), COALESCE(sum(total_tokens), 0)
FROM llm_usage_log WHERE part = '' AND decision <> 'rejected' AND month >= date_trunc('month', now() - interval '35 days')::date
GROUP BY decision, model ORDER BY 3 DESC
"""
_REFUSED: Final = """
SELECT reason, count(*), COALESCE(sum(cost_usd), 0) FROM open_rejected_calls GROUP BY reason ORDER BY 1
"""
_DIFFERS: Final = """
SELECT customer_id, detail FROM open_rejected_calls
WHERE reason = 'cost_differs' ORDER BY rejected_at LIMIT 20
"""
_DOUBLED: Final = f"""
SELECT d.kind, d.request_id, d.other_request_id, d.customer_id, d.other_customer_id, d.cost_usd, d.started_at, c.costs
FROM doubled_calls d CROSS JOIN LATERAL (
    SELECT array_agg(DISTINCT u.cost_usd ORDER BY u.cost_usd) AS costs FROM llm_usage_log u
    WHERE d.kind = 'job' AND u.identity IN (d.identity, d.other) AND u.part <> ''
) AS c
WHERE d.found_at > now() - interval '{_DAYS} days' ORDER BY d.found_at, d.request_id LIMIT 1000
"""  # noqa: S608  # our own number
#: Events of which the usage log has fewer calls than they bill, after a rebuilt ledger has counted a call of their parts elsewhere.
_RECOUNTED: Final = f"""
SELECT e.part, e.calls, c.found
FROM (
    SELECT DISTINCT COALESCE(p.released_in, p.part) AS part
    FROM corrected_parts m JOIN usage_parts p ON p.part = m.part
    WHERE m.recounted AND m.found_at > now() - interval '{_DAYS} days'
) AS s
JOIN usage_parts e ON e.part = s.part AND e.event IS NOT NULL
CROSS JOIN LATERAL (
    SELECT count(*) AS found
    FROM (SELECT e.part UNION SELECT q.part FROM usage_parts q WHERE q.released_in = e.part) AS w
    JOIN llm_usage_log u ON u.part = w.part AND u.part <> ''
) AS c
WHERE c.found < e.calls ORDER BY e.part LIMIT 1000
"""  # noqa: S608  # our own number


@dataclass(slots=True)
class Unbilled:
    """Unbilled calls of one decision; `models`: their number by model."""

    calls: int = 0
    usd: Decimal = ZERO
    tokens: int = 0
    models: dict[str, int] = field(default_factory=dict)


@dataclass(slots=True)
class Notes:
    """Findings in the tables.

    Fields:
        unbilled: unbilled calls by decision, in the months that contain one of the last 35 days.
        refused: open rejected calls: (reason, number, their dollars).
        complaints: sentences about calls that are billed twice, and about copies with another cost.
    """

    unbilled: dict[str, Unbilled] = field(default_factory=dict)
    refused: list[tuple[str, int, Decimal]] = field(default_factory=list)
    complaints: list[str] = field(default_factory=list)


async def notes_of(database: Database) -> Notes:
    """Read the tables. Raises: Unavailable."""
    notes = Notes()
    async with database.connection() as connection:
        for decision, model, calls, usd, tokens in await connection.fetch(_UNBILLED):
            amount = notes.unbilled.setdefault(decision, Unbilled())
            amount.calls += calls
            amount.usd = add(amount.usd, usd)
            amount.tokens += int(tokens)
            amount.models[model] = calls
        notes.refused = [(reason, calls, usd) for reason, calls, usd in await connection.fetch(_REFUSED)]
        notes.complaints += _differing(notes.refused, await connection.fetch(_DIFFERS))
        notes.complaints += _doubled(await connection.fetch(_DOUBLED))
    return notes


async def recounted_elsewhere(database: Database) -> list[str]:
    """Return sentences about events whose calls a rebuilt ledger has counted again in other parts, or rejected.

    The projector must have written all enriched calls and events, because the rows of an event's calls may come after it. Raises: Unavailable.
    """
    async with database.connection() as connection:
        events = await connection.fetch(_RECOUNTED)
    sentences = [
        f"the event {part} bills {numbered(calls, 'call')}, and the usage log has {found} of them: a rebuilt ledger has counted the others "
        "again. Look for them with `meterbridge explain`, and credit what is billed twice in Lago"
        for part, calls, found in events[:_MOST]
    ]
    if len(events) > _MOST:
        sentences.append(f"and {len(events) - _MOST} more events whose calls were counted again")
    return sentences


def _differing(refused: list[tuple[str, int, Decimal]], rows: list[Any]) -> list[str]:
    count = sum(calls for reason, calls, _ in refused if reason == "cost_differs")
    if not count:
        return []
    first = ", ".join(f"{row['customer_id']} ({row['detail']})" for row in rows[:3])
    sentence = (
        f"{numbered(count, 'copy of a billed call', 'copies of billed calls')} came with another cost, and the first cost stays billed: {first}. "
        "`meterbridge dlq list --reason cost_differs` names them; once it is settled, `meterbridge dlq dismiss --reason cost_differs --comment ...`"
    )
    return [sentence]


def _doubled(rows: list[Any]) -> list[str]:
    bridges = [row for row in rows if row["kind"] == "bridge"]
    jobs = [row for row in rows if row["kind"] == "job"]
    copies = [row for row in rows if row["kind"] == "copy"]
    sentences = [
        f"one request is billed under two ids, {row['request_id']} and {row['other_request_id']} of "
        f"{row['customer_id']}, {plain(row['cost_usd'])} USD each, at {row['started_at']:%Y-%m-%d %H:%M:%S}Z: "
        "LiteLLM logged it twice"
        for row in bridges[:_MOST]
    ]
    sentences += [_job_billed_twice(row) for row in jobs[:_MOST]]
    sentences += [_counted_twice(row) for row in copies[:_MOST]]
    for what, amount in (
        *(("requests under two ids", bridges), ("jobs that are billed twice", jobs)),
        ("calls that were counted twice", copies),
    ):
        if len(amount) > _MOST:
            sentences.append(f"and {len(amount) - _MOST} more {what}, in the table doubled_calls")
    return sentences


def _job_billed_twice(row: Any) -> str:
    job, first, second = f"one job, {row['request_id']}", row["customer_id"], row["other_customer_id"]
    costs = [plain(cost) for cost in row["costs"] or (row["cost_usd"],)]  # the log may have been pruned since
    cost = f"{' and '.join(costs)} USD"
    if first == second:
        return (
            f"{job}, is billed to {first} twice, {cost}{' each' if len(costs) == 1 else ''}: its result was asked for again "
            "more than 35 days after the report before, or its ledger was begun again. Credit one in Lago"
        )
    return f"{job}, is billed to {first} and to {second}, {cost}: two customers asked for its result"


def _counted_twice(row: Any) -> str:
    call = f"one call, {row['request_id']} at {row['started_at']:%Y-%m-%d %H:%M:%S}Z, is counted twice"
    cost, end = f"{plain(row['cost_usd'])} USD", "If both are billed, credit one in Lago"
    first, second = row["customer_id"], row["other_customer_id"]
    if first == second:
        return f"{call} for {first}, {cost}: it was sent again after TOPIC_PREFIX was changed, or its ledger was begun again. {end}"
    cause = "it was sent with both names, or again after CUSTOMER_ID_FIELDS or TOPIC_PREFIX was changed"
    return f"{call}, for {first} and for {second}, {cost}: {cause}. {end}"


def unbilled_text(notes: Notes) -> list[str]:
    """Return sentences about calls that are not billed as themselves; empty = there is none."""
    lines = []
    for decision, amount in sorted(notes.unbilled.items()):
        if decision == CARRIED:
            lines.append(
                f"failed attempts that are billed with the call after them: {numbered(amount.calls, 'call')}, "
                f"{plain(amount.usd)} USD, {numbered(amount.tokens, 'token')}"
            )
            continue
        models = ""
        if decision == UNPRICED:
            names = sorted(amount.models.items(), key=lambda item: -item[1])
            models = ": " + ", ".join(f"{model or 'no model'} ({calls})" for model, calls in names[:10])
        lines.append(
            f"not billed, {decision}: {numbered(amount.calls, 'call')}, {plain(amount.usd)} USD, {numbered(amount.tokens, 'token')}{models}"
        )
    for reason, calls, usd in notes.refused:
        lines.append(
            f"refused by the ingress or the meter, and still open, {reason}: {numbered(calls, 'call')}, {plain(usd)} USD"
        )
    return lines


def unbilled_json(notes: Notes) -> dict[str, Any]:
    """Return the findings for programs, without the complaints."""
    return {
        "unbilled": {
            decision: {
                "calls": amount.calls,
                "usd": plain(amount.usd),
                "tokens": amount.tokens,
                **({"models": amount.models} if decision == UNPRICED else {}),
            }
            for decision, amount in sorted(notes.unbilled.items())
            if decision != CARRIED
        },
        "refused": {reason: {"calls": calls, "usd": plain(usd)} for reason, calls, usd in notes.refused},
    }
