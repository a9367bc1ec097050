"""A rebuilt ledger counts open and held calls again. If a mapping has changed meanwhile, they are in other parts than before:
the tables then show the part that bills them.
"""

from decimal import Decimal
from typing import Any

import msgspec
import pytest

from connectors.operations.call_stories import HELD
from connectors.operations.explain import story_of_event
from connectors.operations.held_usage import UnmappedUsage
from connectors.operations.money_notes import notes_of, recounted_elsewhere
from connectors.postgres.pool import Database
from schemas.records import Manifest
from tests.support.database import rows
from tests.support.history import PREFIX, TOPICS
from tests.support.projection import Writer, emptied, event, manifest, snapshot, usage

WHERE = {"org_id": "org", "external_subscription_id": "sub"}
#: Two calls of a customer without a mapping, in two held parts; then in one part of the org that pays.
BEFORE = [usage(7, held="no_mapping"), usage(8, held="no_mapping", part=f"{PREFIX}8")]
AGAIN = [usage(7, **WHERE), usage(8, **WHERE)]
WAITING = "SELECT part FROM held_parts WHERE transaction_id IS NULL"
BILLED = msgspec.structs.replace(event(7), precise_total_amount_cents="0.029")


async def seen(url: str) -> tuple[Any, ...]:
    """Return whether the event is proved, what is held, and the complaints of `meterbridge reconcile`."""
    with Database(url, size=1) as database:
        story = await story_of_event(database, BILLED.transaction_id)
        notes = await notes_of(database)
        unmapped = await UnmappedUsage(database).unmapped()
    assert story is not None and story.status != HELD
    return story.proved, len(story.calls), unmapped, notes.complaints, await rows(url, WAITING)


@pytest.mark.parametrize("batches", [[BEFORE, AGAIN], [[*BEFORE, *AGAIN]]])
@pytest.mark.parametrize("event_first", [False, True])
async def test_held_calls_that_a_rebuilt_ledger_counts_for_their_new_payer_are_explained_by_its_event(
    url: str, batches: list[list[Any]], event_first: bool
) -> None:
    """Earlier they were held forever, their event was not proved, and reconcile called each of them counted twice."""
    async with Writer(url) as writer:
        if event_first:
            await writer.put(TOPICS.events, BILLED, manifest=manifest())
        for batch in batches:
            await writer.put(TOPICS.enriched, *batch)
        if not event_first:
            await writer.put(TOPICS.events, BILLED, manifest=manifest())
    assert await seen(url) == (True, 2, [], [], [])


COUNTED = "SELECT part, held, org_id, cost_usd, rate FROM llm_usage_log ORDER BY raw_offset"
HELD_NOW = "SELECT part, org_id, reason, calls, cost_usd FROM held_parts"
PART, USD = f"{PREFIX}7", Decimal("0.000145")


@pytest.mark.parametrize("together", [False, True])
@pytest.mark.parametrize(
    ("before", "again", "row", "held"),
    [
        ({"held": "no_mapping"}, WHERE, ("", "org", USD, ""), []),
        (WHERE, {"held": "no_mapping"}, ("no_mapping", "", USD, ""), [(PART, "", "no_mapping", 2, 2 * USD)]),
        (
            {"held": "no_mapping"},
            {"held": "no_subscription", "org_id": "org"},
            ("no_subscription", "org", USD, ""),
            [(PART, "org", "no_subscription", 2, 2 * USD)],
        ),
        (WHERE, {**WHERE, "cost_usd": Decimal("0.0001")}, ("", "org", Decimal("0.0001"), ""), []),
        (
            {**WHERE, "billed_usd": Decimal(1), "rate": "r1"},
            {**WHERE, "billed_usd": Decimal(1), "rate": "r2"},
            ("", "org", USD, "r2"),
            [],
        ),
    ],
    ids=["released", "held", "held otherwise", "rounded otherwise", "at another rate"],
)
async def test_calls_that_are_counted_again_in_a_part_of_the_same_name_have_the_new_result(
    url: str, before: dict[str, Any], again: dict[str, Any], row: Any, held: Any, together: bool
) -> None:
    """A part is named by its first call, so it often keeps its name. The tables kept the result of the lost ledger: usage was shown
    as held that was not, and held usage was not shown.
    """
    batches = [[usage(n, **fields) for n in (7, 8)] for fields in (before, again)]
    async with Writer(url) as writer:
        for batch in [[*batches[0], *batches[1]]] if together else batches:
            await writer.put(TOPICS.enriched, *batch)
        assert await rows(url, COUNTED) == [(PART, *row)] * 2
        assert await rows(url, HELD_NOW) == held
        for batch in batches:  # the topic is read again
            await writer.put(TOPICS.enriched, *batch)
        assert await rows(url, COUNTED) == [(PART, *row)] * 2
        assert await rows(url, HELD_NOW) == held


NOT_BILLED = {"decision": "byok", "part": "", "ledger": PREFIX}


@pytest.mark.parametrize("together", [False, True])
@pytest.mark.parametrize("before", [WHERE, {"held": "no_mapping"}, {**WHERE, "part": "7" * 32}])
async def test_calls_that_are_counted_again_as_not_billed_are_in_no_part(
    url: str, before: dict[str, Any], together: bool
) -> None:
    """BYOK_POLICY=skip was set since then. The rows stayed billable, in a part that no event would bill."""
    first, second = [usage(7, **before)], [usage(7, **NOT_BILLED)]
    async with Writer(url) as writer:
        for batch in [[*first, *second]] if together else (first, second, first, second):
            await writer.put(TOPICS.enriched, *batch)
    assert await rows(url, "SELECT part, held, decision, org_id FROM llm_usage_log") == [("", "", "byok", "")]
    assert await rows(url, "SELECT 1 FROM held_parts") == []


REJECTED = {"decision": "rejected", "part": "", "ledger": PREFIX}


@pytest.mark.parametrize("together", [False, True])
@pytest.mark.parametrize("before", [WHERE, {"held": "no_mapping"}, {**WHERE, "part": "7" * 32}])
async def test_a_call_that_a_rebuilt_ledger_rejects_is_in_no_part_and_is_counted_anew_once_it_comes_again(
    url: str, before: dict[str, Any], together: bool
) -> None:
    """MAX_USD_PER_CALL was lowered since then. The row stayed billable, and once the call was sent again it was called counted twice."""
    first, second, again = usage(7, **before), usage(7, **REJECTED), usage(7, **WHERE, offset=30, part=f"{PREFIX}30")
    async with Writer(url) as writer:
        for batch in [[first, second]] if together else ([first], [second], [first], [second]):
            await writer.put(TOPICS.enriched, *batch)
        assert await rows(url, "SELECT part, held, decision, org_id FROM llm_usage_log") == [("", "", "rejected", "")]
        assert await rows(url, "SELECT 1 FROM held_parts") == []
        for batch in [[first, second, again]] if together else ([second, again], [first, second], [again]):
            await writer.put(TOPICS.enriched, *batch)
    assert await rows(url, "SELECT part, decision, raw_offset FROM llm_usage_log") == [(f"{PREFIX}30", "billable", 30)]
    with Database(url, size=1) as database:
        assert (await notes_of(database)).complaints == []


async def test_a_rejected_call_that_comes_again_and_is_not_billed_has_that_decision(url: str) -> None:
    async with Writer(url) as writer:
        for value in (usage(7, **WHERE), usage(7, **REJECTED), usage(7, **NOT_BILLED, offset=30)):
            await writer.put(TOPICS.enriched, value)
    assert await rows(url, "SELECT decision, raw_offset FROM llm_usage_log") == [("byok", 30)]


async def test_a_rejected_measurement_is_counted_anew_once_it_comes_again(url: str) -> None:
    own = f"{7:032x}"
    measured = usage(7, decision="metered", part=own, held="no_subscription", ledger=PREFIX, cost_usd=Decimal(0))
    async with Writer(url) as writer:
        for value in (measured, usage(7, **REJECTED), msgspec.structs.replace(measured, offset=30)):
            await writer.put(TOPICS.enriched, value)
    assert await rows(url, "SELECT part, decision, raw_offset FROM llm_usage_log") == [(own, "metered", 30)]
    assert await rows(url, "SELECT calls FROM held_parts") == [(1,)]


@pytest.mark.parametrize("event_first", [False, True])
@pytest.mark.parametrize("released", [False, True])
@pytest.mark.parametrize("again", [{**WHERE, "part": f"{PREFIX}8"}, REJECTED], ids=["elsewhere", "rejected"])
async def test_a_call_of_an_event_that_is_counted_again_is_a_complaint(
    url: str, again: dict[str, Any], *, released: bool, event_first: bool
) -> None:
    """Only a wrong rebuild does this. The row moved to the new part without a word."""
    sealed, windows = (event(9), manifest(7, first=9)) if released else (event(7), manifest())
    async with Writer(url) as writer:
        await writer.put(TOPICS.enriched, usage(7, **WHERE), usage(8, **WHERE))
        if event_first:
            await writer.put(TOPICS.events, sealed, manifest=windows)
        await writer.put(TOPICS.enriched, usage(8, **again))
        if not event_first:
            await writer.put(TOPICS.events, sealed, manifest=windows)
    with Database(url, size=1) as database:
        [complaint] = await recounted_elsewhere(database)
    assert complaint.startswith(f"the event {sealed.transaction_id} bills 2 calls, and the usage log has 1 of them")


async def test_a_call_that_leaves_a_part_before_it_is_an_event_is_no_complaint(url: str) -> None:
    one = msgspec.json.encode(Manifest(0, 7, 7, 1))
    async with Writer(url) as writer:
        await writer.put(TOPICS.enriched, usage(7, **WHERE), usage(8, **WHERE))
        await writer.put(TOPICS.enriched, usage(7, **WHERE), usage(8, **NOT_BILLED))
        await writer.put(TOPICS.events, event(7), manifest=one)
    with Database(url, size=1) as database:
        assert await recounted_elsewhere(database) == []


async def test_a_call_of_another_topic_is_not_withdrawn(url: str) -> None:
    async with Writer(url) as writer:
        await writer.put(TOPICS.enriched, usage(7, **WHERE))
        await writer.put(TOPICS.enriched, usage(7, decision="byok", part="", ledger="another-topic-0-"))
    assert await rows(url, "SELECT part, decision FROM llm_usage_log") == [(PART, "billable")]


@pytest.mark.parametrize("window_seconds", [(0, 60), (60, 0)])
async def test_calls_that_are_counted_again_with_windows_of_another_length_are_in_their_new_parts(
    url: str, window_seconds: tuple[int, int]
) -> None:
    ways = {0: {"part": f"{7:032x}", "ledger": PREFIX}, 60: {"part": PART}}
    async with Writer(url) as writer:
        for length in window_seconds:
            await writer.put(TOPICS.enriched, usage(7, **WHERE, **ways[length]))
    assert await rows(url, "SELECT part FROM llm_usage_log") == [(ways[window_seconds[1]]["part"],)]


async def test_only_the_calls_that_were_counted_again_leave_their_part(url: str) -> None:
    async with Writer(url) as writer:
        await writer.put(TOPICS.enriched, usage(7, held="no_mapping"), usage(8, held="no_mapping"))
        await writer.put(TOPICS.enriched, usage(8, part=f"{PREFIX}8", **WHERE))
    kept = await rows(url, "SELECT part, calls, cost_usd FROM held_parts")
    assert kept == [(f"{PREFIX}7", 1, Decimal("0.000145"))]


@pytest.mark.parametrize(
    "other",
    [
        {"offset": 9, "part": f"{PREFIX}9"},
        {"part": "another-topic-0-9"},
        {"part": "0" * 32},
    ],
)
async def test_a_copy_that_another_record_counts_is_named(url: str, other: dict[str, Any]) -> None:
    """It may be billed twice: it came with another TOPIC_PREFIX, or was sent again to a ledger that was begun again."""
    async with Writer(url) as writer:
        await writer.put(TOPICS.enriched, usage(7))
        before = await snapshot(url)
        await writer.put(TOPICS.enriched, usage(7, **other))
        assert await snapshot(url) == before
    with Database(url, size=1) as database:
        [complaint] = (await notes_of(database)).complaints
    assert "is counted twice" in complaint


async def test_a_call_whose_own_event_has_billed_it_stays_there(url: str) -> None:
    """The name of its part does not show the ledger."""
    own = f"{7:032x}"
    sealed = msgspec.structs.replace(event(7), transaction_id=own)
    async with Writer(url) as writer:
        await writer.put(TOPICS.enriched, usage(7, part=own))
        await writer.put(TOPICS.events, sealed, manifest=manifest())
        await writer.put(TOPICS.enriched, usage(7))
    assert await rows(url, "SELECT part FROM llm_usage_log") == [(own,)]
    with Database(url, size=1) as database:
        assert "is counted twice" in (await notes_of(database)).complaints[0]


@pytest.mark.parametrize(
    ("before", "again"),
    [
        ({"held": "no_mapping"}, WHERE),
        ({"org_id": "other", "external_subscription_id": "its"}, WHERE),
        (WHERE, {**WHERE, "cost_usd": Decimal("0.0001")}),
        ({**WHERE, "billed_usd": Decimal(1), "rate": "r1"}, {**WHERE, "billed_usd": Decimal(2), "rate": "r2"}),
        ({**WHERE, "billed_usd": Decimal(1), "rate": "r1"}, {**WHERE, "billed_usd": Decimal(1), "rate": "r2"}),
    ],
    ids=[
        "released",
        "of another org",
        "rounded otherwise",
        "at another rate",
        "at another rate of the same price",
    ],
)
@pytest.mark.parametrize("released", [False, True])
async def test_the_tables_are_the_same_whether_the_event_or_the_second_count_is_projected_first(
    url: str, before: dict[str, Any], again: dict[str, Any], released: bool
) -> None:
    """Both are in one transaction if the windows are over, and the projector reads their topics independently. Earlier the row kept
    the result of the lost ledger if the event came first: the event was not proved, and its credits were debited otherwise.
    """
    found = []
    sealed, windows = (event(9), manifest(7, first=9)) if released else (event(7), manifest())
    for event_first in (False, True):
        await emptied(url)
        async with Writer(url) as writer:
            await writer.put(TOPICS.enriched, *[usage(n, **before) for n in (7, 8)])
            if event_first:
                await writer.put(TOPICS.events, sealed, manifest=windows)
            await writer.put(TOPICS.enriched, *[usage(n, **again) for n in (7, 8)])
            if not event_first:
                await writer.put(TOPICS.events, sealed, manifest=windows)
        found.append(await snapshot(url))
    assert found[0] == found[1]


@pytest.mark.parametrize("event_first", [False, True])
async def test_a_call_that_is_counted_again_at_an_amount_that_has_a_factor_now_is_billed_at_it(
    url: str, *, event_first: bool
) -> None:
    """The event's factor was applied to the amount that has it already."""
    before = usage(7, **WHERE, billed_usd=Decimal(2), rate="r1")
    again = usage(7, **WHERE, billed_usd=Decimal(2), rate="r1", price_usd=Decimal(1))
    rated = event(7, billed_usd="2", rate="r1", rate_factor="2")
    async with Writer(url) as writer:
        await writer.put(TOPICS.enriched, before)
        if event_first:
            await writer.put(TOPICS.events, rated, manifest=manifest())
        await writer.put(TOPICS.enriched, again)
        if not event_first:
            await writer.put(TOPICS.events, rated, manifest=manifest())
    assert await rows(url, "SELECT billed_usd, price_usd FROM llm_usage_log") == [(Decimal(2), Decimal(1))]


@pytest.mark.parametrize(
    "again", [NOT_BILLED, {**WHERE, "part": f"{PREFIX}8"}], ids=["not billed", "in a part of its own"]
)
async def test_a_call_leaves_a_part_whether_its_event_is_projected_first_or_not(
    url: str, again: dict[str, Any]
) -> None:
    """The event is that of the calls that were counted in the part again. If it came first, the others stayed there."""
    found = []
    for event_first in (False, True):
        await emptied(url)
        async with Writer(url) as writer:
            await writer.put(TOPICS.enriched, usage(7, **WHERE), usage(8, **WHERE))
            if event_first:
                await writer.put(TOPICS.events, event(7), manifest=manifest())
            await writer.put(TOPICS.enriched, usage(7, **WHERE), usage(8, **again))
            if not event_first:
                await writer.put(TOPICS.events, event(7), manifest=manifest())
        found.append(await snapshot(url))
    assert found[0] == found[1]
    assert await rows(url, "SELECT part FROM llm_usage_log ORDER BY raw_offset") == [(PART,), (again["part"],)]
