"""Finds in Postgres the held parts that were released into events that only Lago has, so that a backfill does not bill them again.

Such an event names only the first of its parts. Its amount beyond its known calls comes from parts that were released
into it, or from calls without a row. Held parts whose sums are exactly the difference were released into it
(streams/core/metering/found_releases.py).
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
#: Also windows that are open according to the log: such a window becomes held if Lago cannot bill it when it is sealed.
_HELD: Final = f"""
SELECT part, customer_id, model, provider, {_SUMS}, max(ended_at) FROM llm_usage_log
WHERE part = ANY($1::text[]) AND part <> '' GROUP BY 1, 2, 3, 4 ORDER BY 1
"""  # noqa: S608  # our own columns
_RELEASE: Final = """
INSERT INTO usage_parts AS p (part, released_in) SELECT part, $1 FROM unnest($2::text[]) AS chosen (part)
ON CONFLICT (part) DO UPDATE SET released_in = EXCLUDED.released_in WHERE p.event IS NULL
"""
#: The common values of the calls of events that are billed according to their receipts, but are neither in the tables
#: nor visible in Lago.
_SILENT: Final = """
SELECT p.part, u.customer_id, u.model, u.provider, max(u.ended_at) FROM usage_parts p JOIN llm_usage_log u ON u.part = p.part
WHERE u.part <> '' AND p.event IS NULL AND p.released_in IS NULL AND p.status = 'completed'
GROUP BY 1, 2, 3, 4 ORDER BY 1
"""
#: A person's decision about held usage that may be in an event: it is billed, or it is not.
BILLED, LOST = "billed", "lost"


#: The common values of the parts of a window: beginning of the names, customer, model, provider.
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
        unsent: parts that are in no known event.
        decision: of parts that may be in one: `billed`: they are in it; `lost`, `""`: they are not.
    """
    undecided, groups = Undecided(), dict[_Group, list[tuple[str, Untold]]]()
    for event in events:
        sums = await _untold(connection, event)
        if sums is not None and sums.calls > 0:
            groups.setdefault(_group(event), []).append((event.transaction_id, Untold(sums, *_window(event))))
    silent: Sequence[Any] = await connection.fetch(_SILENT)
    parts_of = await _held(connection, unsent) if groups or silent else {}
    for group, untold in groups.items():
        held = parts_of.get(group, [])
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
        parts_of[group] = [part for part in held if part.part in left]
    # If only the receipt of an event is known, no sums can be compared.
    for name, *same, ended_at in silent:
        held, ended_us = parts_of.get((_ledger(name), *same), []), to_us(ended_at)
        maybe = fitting(held, ended_us, ended_us + STRETCH_US)
        parts_of[_ledger(name), *same] = [part for part in held if part not in maybe]
        if chosen := _decided(undecided, name, maybe, decision):
            await connection.execute(_RELEASE, name, [part.part for part in chosen])
    return undecided


def _decided(undecided: Undecided, event: str, maybe: list[HeldPart], decision: str) -> list[HeldPart]:
    """Return the operator's decision about the parts that may be in the event."""
    if maybe:
        undecided.events.append(event)
        undecided.calls += sum(part.sums.calls for part in maybe)
        undecided.usd += sum((part.sums.usd for part in maybe), Decimal(0))
    return maybe if decision == BILLED else []


def _group(event: LagoEvent) -> _Group:
    told = event.properties
    return _ledger(event.transaction_id), told.get("user_id", ""), told.get("model", ""), told.get("provider", "")


def _ledger(part: str) -> str:
    """Return the common prefix of the ids of all parts of its ledger."""
    return part.rpartition("-")[0] + "-"


async def _untold(connection: Any, event: LagoEvent) -> Sums | None:
    """Return the amount of the event beyond its known calls; None: the event is not a sum of calls."""
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


async def _held(connection: Any, unsent: Sequence[str]) -> dict[_Group, list[HeldPart]]:
    parts: dict[_Group, list[HeldPart]] = {}
    rows: Sequence[Any] = await connection.fetch(_HELD, list(unsent))
    for part, customer, model, provider, *sums, ended_at in rows:
        group = _ledger(part), customer, model, provider
        parts.setdefault(group, []).append(HeldPart(part, Sums(*sums), to_us(ended_at)))
    return parts


def _window(event: LagoEvent) -> tuple[int, int]:
    """Return the event's window, or the whole range of time if the event has no window."""
    told = event.properties
    try:
        return parse_us(told["window_start"]), parse_us(told["window_end"])
    except (KeyError, Rejected):
        return 0, 1 << 62
