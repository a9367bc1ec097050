"""An event that only Lago has may bill held parts that were released into it; it names only the first of them
(docs/adr/0055).

If sums decide which parts these are, they are found; otherwise a person decides, before anything is changed.
"""

import time
from decimal import Decimal
from typing import Any

import pytest

from connectors.postgres.recover import LostCalls, NewTopics, begin_anew, unsent_parts
from schemas.records import EnrichedUsage, LagoEvent
from tests.support.database import rows
from tests.support.history import PREFIX, TOPICS
from tests.support.projection import Writer, receipt, usage

NEW = NewTopics(TOPICS.projected, TOPICS.enriched, "new", 1)
_LOST = "SELECT raw_offset::int FROM llm_usage_log WHERE decision = 'lost' ORDER BY 1"
_RELEASED = "SELECT part FROM held_parts WHERE transaction_id = $1 AND part <> $1 ORDER BY part"


def held(number: int, usd: str = "0.01", **fields: Any) -> EnrichedUsage:
    """A call of an unknown customer, in its own held part."""
    like = {
        "part": f"{PREFIX}{number}",
        "held": "no_mapping",
        "cost_usd": Decimal(usd),
        "model": "gpt",
        "provider": "openai",
    }
    return usage(number, **{**like, "tokens_input": 7, "tokens_output": 2, **fields})


def at_lago(first: int, calls: int, usd: str, **properties: str) -> LagoEvent:
    """The event of the part that starts at offset `first`, as Lago shows it."""
    result = {
        "unit": str(9 * calls),
        "tokens_input": str(7 * calls),
        "tokens_output": str(2 * calls),
        "requests": str(calls),
        "cost_usd": usd,
        "model": "gpt",
        "provider": "openai",
        "user_id": "acme",
        "org_id": "org",
        "window_start": "2026-11-20T12:00:00.000000Z",
        "window_end": "2026-11-20T12:01:00.000000Z",
    }
    cents = str(Decimal(usd) * 100)
    return LagoEvent(f"{PREFIX}{first}", "sub", "ai_usage", "1795176000.000", cents, {**result, **properties})


async def begin(
    database: str, calls: list[EnrichedUsage], *events: LagoEvent, undecided: str = "", do: bool = True
) -> LostCalls:
    async with Writer(database) as writer:
        await writer.put(TOPICS.enriched, *calls)
    return await begin_anew(database, list(events), NEW, dry_run=not do, undecided=undecided)


async def lost(database: str) -> list[int]:
    return [number for (number,) in await rows(database, _LOST)]


async def test_held_parts_with_the_sum_that_the_event_bills_are_in_it(database: str) -> None:
    calls = [held(7), held(8, "0.02"), held(9, "0.05")]
    result = await begin(database, calls, at_lago(7, 2, "0.03"))
    assert (result.calls, result.usd, result.missing, result.undecided.calls) == (1, Decimal("0.05"), 0, 0)
    assert await lost(database) == [9]
    assert await rows(database, _RELEASED, f"{PREFIX}7") == [(f"{PREFIX}8",)]


async def test_an_event_that_an_open_window_names_has_the_parts_that_joined_it(database: str) -> None:
    """Its first call came after the mapping, and is in the log."""
    calls = [held(7, held="", part=f"{PREFIX}7"), held(3), held(4)]
    result = await begin(database, calls, at_lago(7, 3, "0.03"))
    assert (result.calls, result.missing, result.undecided.calls) == (0, 0, 0)


async def test_two_events_share_the_parts(database: str) -> None:
    calls = [held(n) for n in (7, 8, 9, 10)]
    result = await begin(database, calls, at_lago(7, 2, "0.02"), at_lago(9, 2, "0.02"))
    assert (result.calls, result.missing, result.undecided.calls) == (0, 0, 0)


async def test_equal_calls_of_two_windows_are_distributed_so_that_both_events_are_explained(database: str) -> None:
    """The later window reaches back to the earlier one's parts. If its event took one of these, the earlier event would
    bill a call without a row, and the later part would be billed a second time.
    """
    later = {"end": "2026-11-20T12:01:30.000000Z"}
    calls = [held(9), held(10, **later), held(11), held(12, **later)]
    next_minute = {"window_start": "2026-11-20T12:01:00.000000Z", "window_end": "2026-11-20T12:02:00.000000Z"}
    result = await begin(database, calls, at_lago(10, 2, "0.02", **next_minute), at_lago(9, 2, "0.02"))
    assert (result.calls, result.missing, result.undecided.calls) == (0, 0, 0)


async def test_a_window_that_became_held_at_its_seal_is_found_in_the_event_that_it_joined(database: str) -> None:
    """Its calls were not held when they were counted, so their rows do not say so."""
    result = await begin(database, [held(7), held(8, held="")], at_lago(7, 2, "0.02"))
    assert (result.calls, result.missing, result.undecided.calls) == (0, 0, 0)
    released = await rows(database, "SELECT released_in FROM usage_parts WHERE part = $1", f"{PREFIX}8")
    assert released == [(f"{PREFIX}7",)]


async def test_parts_that_cannot_be_distributed_are_undecided(database: str) -> None:
    """Each event alone may bill the held part; one of them bills a call without a row."""
    calls = [held(7), held(8), held(9)]
    result = await begin(database, calls, at_lago(7, 2, "0.02"), at_lago(8, 2, "0.02"))
    assert (result.undecided.events, result.undecided.calls, result.calls) == ([f"{PREFIX}7"], 1, 1)


@pytest.mark.parametrize(
    "other",
    [
        {"model": "claude"},
        {"provider": "azure"},
        {"customer_id": "other"},
        {"end": "2026-11-20T12:01:00.000000Z"},
        {"part": f"meterbridge-{'B' * 22}-0-8"},
    ],
)
async def test_a_metered_part_is_in_no_such_event(database: str, other: dict[str, Any]) -> None:
    result = await begin(database, [held(7), held(8, **other)], at_lago(7, 2, "0.02"))
    assert (result.calls, result.missing, result.undecided.calls) == (1, 1, 0)


#: Lago bills one call more than the log has. Which one is unknown: the held call, or a call without a row.
UNCLEAR = at_lago(7, 3, "0.06")


async def test_sums_that_do_not_agree_are_undecided_and_a_dry_run_changes_nothing(database: str) -> None:
    result = await begin(database, [held(7), held(8)], UNCLEAR, do=False)
    assert (result.undecided.events, result.undecided.calls, result.undecided.usd) == (
        [f"{PREFIX}7"],
        1,
        Decimal("0.01"),
    )
    assert not await lost(database)
    assert await rows(database, "SELECT count(*) FROM usage_parts WHERE event IS NOT NULL OR released_in <> ''") == [
        (0,)
    ]


@pytest.mark.parametrize(("decision", "left", "missing"), [("billed", [], 1), ("lost", [8], 2)])
async def test_a_person_decides_about_sums_that_do_not_agree(
    database: str, decision: str, left: list[int], missing: int
) -> None:
    result = await begin(database, [held(7), held(8)], UNCLEAR, undecided=decision)
    assert (await lost(database), result.missing) == (left, missing)


async def test_metered_events_without_sums_are_compared_only_by_name(database: str) -> None:
    result = await begin(database, [held(7), held(8)], at_lago(7, 2, "0.02", requests="", cost_usd="nothing"))
    assert (result.calls, result.undecided.calls) == (1, 0)


async def test_an_event_that_was_billed_again_bills_no_call_missing_from_the_log(database: str) -> None:
    """Its calls are those of the event that Lago accepted and did not bill."""
    again = at_lago(7, 1, "0.01")
    again.transaction_id += "-again"
    assert (await begin(database, [held(7)], at_lago(7, 1, "0.01"), again)).missing == 0


async def test_lago_is_asked_for_an_event_known_only_by_its_receipt(database: str) -> None:
    """It is billed; and parts that were released into it are in it too."""
    async with Writer(database) as writer:
        await writer.put(TOPICS.enriched, held(7), held(8))
        await writer.put(TOPICS.receipts, receipt("completed", 1))
    assert sorted(await unsent_parts(database)) == [f"{PREFIX}7", f"{PREFIX}8"]
    result = await begin_anew(database, [at_lago(7, 2, "0.02")], NEW, dry_run=False)
    assert (result.calls, result.missing, result.undecided.calls) == (0, 0, 0)


@pytest.mark.parametrize(("decision", "left"), [("", [8]), ("lost", [8]), ("billed", [])])
async def test_parts_that_may_be_in_an_event_that_lago_does_not_show_are_undecided(
    database: str, decision: str, left: list[int]
) -> None:
    """Its organisation is closed and not asked. Only the receipt of what it bills is known."""
    far = held(9, end="2026-11-20T12:20:00.000000Z")
    async with Writer(database) as writer:
        await writer.put(TOPICS.enriched, held(7), held(8), far)
        await writer.put(TOPICS.receipts, receipt("completed", 1))
    result = await begin_anew(database, [], NEW, dry_run=False, undecided=decision)
    assert (result.undecided.events, result.undecided.calls, result.missing) == ([f"{PREFIX}7"], 1, 0)
    assert await lost(database) == [*left, 9]


async def test_a_receipt_of_an_event_without_row_and_without_lagos_data_means_unknown_calls(database: str) -> None:
    async with Writer(database) as writer:
        await writer.put(TOPICS.enriched, held(9, end="2026-11-20T12:20:00.000000Z"))
        await writer.put(TOPICS.receipts, receipt("completed", int(time.time())))
    assert (await begin_anew(database, [], NEW, dry_run=False)).missing == 1


async def test_the_receipt_of_an_event_that_was_billed_again_means_no_unknown_call(database: str) -> None:
    again = receipt("completed", int(time.time()))
    again.transaction_id += "-again"
    async with Writer(database) as writer:
        await writer.put(TOPICS.enriched, held(7))
        await writer.put(TOPICS.receipts, again)
    assert (await begin_anew(database, [at_lago(7, 1, "0.01")], NEW, dry_run=False)).missing == 0


async def test_usage_billed_according_to_its_receipt_alone_is_not_lost(database: str) -> None:
    async with Writer(database) as writer:
        await writer.put(TOPICS.enriched, held(7))
        await writer.put(TOPICS.receipts, receipt("completed", 1))
    assert (await begin_anew(database, [], NEW, dry_run=False)).calls == 0
