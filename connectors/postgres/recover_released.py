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
from streams.core.metering.found_releases import STRETCH_US, HeldPart, Sums, Untold, fitting, less, shared_out

_SUMS: Final = "count(*), COALESCE(sum(cost_usd), 0), COALESCE(sum(tokens_input), 0)::bigint, COALESCE(sum(tokens_output), 0)::bigint"
_KNOWN: Final = f"""
SELECT {_SUMS} FROM llm_usage_log u JOIN usage_parts p ON p.part = u.part
WHERE u.part <> '' AND (p.part = $1 OR p.released_in = $1)
"""  # noqa: S608  # our own columns
#: Also those that were open as far as the log knows: such a window becomes held where Lago cannot bill it at its seal.
_HELD: Final = f"""
SELECT part, {_SUMS}, max(ended_at) FROM llm_usage_log
WHERE part = ANY($1::text[]) AND part <> '' AND starts_with(part, $2)
    AND customer_id = $3 AND model = $4 AND provider = $5
GROUP BY part ORDER BY part
"""  # noqa: S608  # our own columns
_RELEASE: Final = """
INSERT INTO usage_parts AS p (part, released_in) SELECT part, $1 FROM unnest($2::text[]) AS chosen (part)
ON CONFLICT (part) DO UPDATE SET released_in = EXCLUDED.released_in WHERE p.event IS NULL
"""
_GONE: Final = "SELECT part FROM usage_parts WHERE part = ANY($1::text[]) AND released_in IS NOT NULL"
#: Events that are billed as their receipts say, and that neither the tables nor Lago show: what their own calls have in common.
_SILENT: Final = """
SELECT p.part, u.customer_id, u.model, u.provider, max(u.ended_at) FROM usage_parts p JOIN llm_usage_log u ON u.part = p.part
WHERE u.part <> '' AND p.event IS NULL AND p.released_in IS NULL AND p.status = 'completed'
GROUP BY 1, 2, 3, 4 ORDER BY 1
"""
#: What a person says of held usage that may be in an event: it is billed, or it is not.
BILLED, LOST = "billed", "lost"


#: What the parts of a window have in common: the beginning of their names, the customer, the model and the provider.
_Group = tuple[str, str, str, str]


@dataclass(slots=True)
class Undecided:
    """Held usage of which it is not known whether an event bills it: the events, and the usage."""

    events: list[str] = field(default_factory=list)
    calls: int = 0
    usd: Decimal = Decimal(0)


async def mark_released(
    connection: Any, events: Sequence[LagoEvent], unsent: Sequence[str], decision: str
) -> Undecided:
    """Record in `usage_parts` which of the parts are in these events.

    Args:
        events: those that only Lago has; they are in `usage_parts` already.
        unsent: parts that are in no event as far as is known.
        decision: of parts that may be in one: `billed`: they are in it; `lost`, `""`: they are not.
    """
    undecided, groups = Undecided(), dict[_Group, list[tuple[str, Untold]]]()
    for event in events:
        sums = await _untold(connection, event)
        if sums is not None and sums.calls > 0:
            groups.setdefault(_group(event), []).append((event.transaction_id, Untold(sums, *_window(event))))
    for group, untold in groups.items():
        held = await _held(connection, group, unsent)
        found = shared_out([one for _, one in untold], held)
        left = {part.part for part in held}.difference(part.part for parts in found or () for part in parts or ())
        for (name, one), parts in zip(untold, found or [None] * len(untold), strict=True):
            chosen = parts
            if chosen is None:
                maybe = [part for part in fitting(held, one.start_us, one.end_us) if part.part in left]
                chosen = _decided(undecided, name, maybe, decision)
                left.difference_update(part.part for part in maybe)
            if chosen:
                await connection.execute(_RELEASE, name, [part.part for part in chosen])
    await _mark_silent(connection, unsent, decision, undecided)
    return undecided


async def _mark_silent(connection: Any, unsent: Sequence[str], decision: str, undecided: Undecided) -> None:
    """Held parts that may be in an event of which only the receipt is known: no sums of it can be compared."""
    gone = {part for (part,) in await connection.fetch(_GONE, list(unsent))}
    for name, customer, model, provider, ended_at in await connection.fetch(_SILENT):
        group = _ledger(name), customer, model, provider
        held = [part for part in await _held(connection, group, unsent) if part.part not in gone]
        ended_us = to_us(ended_at)
        maybe = fitting(held, ended_us, ended_us + STRETCH_US)
        gone.update(part.part for part in maybe)
        if chosen := _decided(undecided, name, maybe, decision):
            await connection.execute(_RELEASE, name, [part.part for part in chosen])


def _decided(undecided: Undecided, event: str, maybe: list[HeldPart], decision: str) -> list[HeldPart]:
    """What a person says of the parts that may be in the event."""
    if maybe:
        undecided.events.append(event)
        undecided.calls += sum(part.sums.calls for part in maybe)
        undecided.usd += sum((part.sums.usd for part in maybe), Decimal(0))
    return maybe if decision == BILLED else []


def _group(event: LagoEvent) -> _Group:
    told = event.properties
    return _ledger(event.transaction_id), told.get("user_id", ""), told.get("model", ""), told.get("provider", "")


def _ledger(part: str) -> str:
    """The beginning of the names of all parts of its ledger."""
    return part.rpartition("-")[0] + "-"


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
    if not every.usd.is_finite():
        return None
    return less(every, Sums(*await connection.fetchrow(_KNOWN, event.transaction_id)))


async def _held(connection: Any, group: _Group, unsent: Sequence[str]) -> list[HeldPart]:
    rows: Sequence[Any] = await connection.fetch(_HELD, list(unsent), *group)
    return [HeldPart(part, Sums(*sums), to_us(ended_at)) for part, *sums, ended_at in rows]


def _window(event: LagoEvent) -> tuple[int, int]:
    """The event's window; all of time where it does not tell one."""
    told = event.properties
    try:
        return parse_us(told["window_start"]), parse_us(told["window_end"])
    except (KeyError, Rejected):
        return 0, 1 << 62
