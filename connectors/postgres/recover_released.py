"""Finds in Postgres the held parts that were released into events that only Lago has, so that a backfill does not bill them again.

Such an event names the first of its parts only. What it bills more than the calls that are known of it was released into it, or is in no
row at all: held parts whose sums are exactly the difference are the former (streams/core/metering/found_releases.py).
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from decimal import Decimal, InvalidOperation
from typing import Any, Final

from schemas.errors import Rejected
from schemas.moments import parse_us, to_us
from schemas.records import LagoEvent
from streams.core.metering.found_releases import HeldPart, Sums, fitting, less, released

_SUMS: Final = "count(*), COALESCE(sum(cost_usd), 0), COALESCE(sum(tokens_input), 0)::bigint, COALESCE(sum(tokens_output), 0)::bigint"
_KNOWN: Final = f"""
SELECT {_SUMS} FROM llm_usage_log u JOIN usage_parts p ON p.part = u.part
WHERE u.part <> '' AND (p.part = $1 OR p.released_in = $1)
"""  # noqa: S608  # our own columns
_HELD: Final = f"""
SELECT part, {_SUMS}, max(ended_at) FROM llm_usage_log
WHERE part = ANY($1::text[]) AND part <> '' AND held <> '' AND starts_with(part, $2)
    AND customer_id = $3 AND model = $4 AND provider = $5
GROUP BY part ORDER BY part
"""  # noqa: S608  # our own columns
_RELEASE: Final = "UPDATE usage_parts SET released_in = $1 WHERE part = ANY($2::text[]) AND event IS NULL"
#: What a person says of held usage that may be in an event: it is billed, or it is not.
BILLED, LOST = "billed", "lost"


@dataclass(slots=True)
class Undecided:
    """Held usage of which it is not known whether an event bills it: the events, and the usage."""

    events: list[str] = field(default_factory=list)
    calls: int = 0
    usd: Decimal = Decimal(0)


async def mark_released(
    connection: Any, events: Sequence[LagoEvent], unsent: Sequence[str], decision: str
) -> Undecided:
    """Tell in `usage_parts` which of the parts are in these events.

    Args:
        events: those that only Lago has; they are in `usage_parts` already.
        unsent: parts that are in no event as far as is known.
        decision: of parts that may be in one: `billed`: they are in it; `lost`, `""`: they are not.
    """
    undecided, left = Undecided(), set(unsent)
    for event in events:
        untold = await _untold(connection, event)
        if untold is None or untold.calls <= 0:
            continue
        held = fitting(await _held(connection, event, sorted(left)), *_window(event))
        chosen = released(held, untold)
        if chosen is None and held:
            undecided.events.append(event.transaction_id)
            undecided.calls += sum(part.sums.calls for part in held)
            undecided.usd += sum((part.sums.usd for part in held), Decimal(0))
            chosen = held if decision == BILLED else None
        if chosen:
            names = [part.part for part in chosen]
            await connection.execute(_RELEASE, event.transaction_id, names)
            left.difference_update(names)
    return undecided


async def _untold(connection: Any, event: LagoEvent) -> Sums | None:
    """What the event bills beyond the calls that are known of it; None: it does not sum up calls."""
    told = event.properties
    try:
        every = Sums(
            int(told["requests"]),
            Decimal(told["cost_usd"]),
            int(told["tokens_input"]),
            int(told["tokens_output"]),
        )
    except (KeyError, ValueError, InvalidOperation):
        return None
    return less(every, Sums(*await connection.fetchrow(_KNOWN, event.transaction_id)))


async def _held(connection: Any, event: LagoEvent, unsent: Sequence[str]) -> list[HeldPart]:
    told = event.properties
    same = told.get("user_id", ""), told.get("model", ""), told.get("provider", "")
    ledger = event.transaction_id.rpartition("-")[0] + "-"
    rows: Sequence[Any] = await connection.fetch(_HELD, list(unsent), ledger, *same)
    return [HeldPart(part, Sums(*sums), to_us(ended_at)) for part, *sums, ended_at in rows]


def _window(event: LagoEvent) -> tuple[int, int]:
    """The event's window; all of time where it does not tell one."""
    told = event.properties
    try:
        return parse_us(told["window_start"]), parse_us(told["window_end"])
    except (KeyError, Rejected):
        return 0, 1 << 62
