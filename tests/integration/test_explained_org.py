"""The calls of an org are those that its events bill. A busy customer's amount is found, and a write-off is named."""

from datetime import UTC, datetime
from decimal import Decimal
from functools import partial

from connectors.cli.explain import verdict
from connectors.operations.explain import calls_of_customer, story_of_event
from connectors.postgres.pool import Database
from schemas.records import Receipt
from tests.support.database import migrated_database
from tests.support.history import PREFIX, TOPICS
from tests.support.projection import Writer, event, manifest, usage

AT = datetime(2026, 11, 20, 12, 0, 8, tzinfo=UTC)
SINCE, UNTIL = datetime(2026, 11, 1, tzinfo=UTC), datetime(2026, 12, 1, tzinfo=UTC)


async def test_usage_counted_for_another_org_is_explained_to_the_billed_org(postgres_url: str) -> None:
    """Its subscription ended before the seal, and a corrected mapping released the usage to another org."""
    calls = [
        usage(n, org_id="old", cost_usd=Decimal("0.00725"), part=f"{PREFIX}{part}") for n, part in ((1, 3), (2, 7))
    ]
    async with migrated_database(postgres_url) as url, Writer(url) as writer:
        await writer.put(TOPICS.enriched, *calls)
        await writer.put(TOPICS.events, event(org_id="new"), manifest=manifest(3))
        with Database(url, size=1) as database:
            story = await story_of_event(database, f"{PREFIX}7")
            found = (await calls_of_customer(database, "new", SINCE, UNTIL)).calls
            of_old = (await calls_of_customer(database, "old", SINCE, UNTIL)).calls
    assert of_old == [], "their sum was told to the org that does not pay them, too"
    assert story is not None and story.adds_up
    assert [(call.identity, story and story.transaction_id) for call, story in found] == [
        (calls[0].identity, f"{PREFIX}7"),
        (calls[1].identity, f"{PREFIX}7"),
    ]


async def test_an_event_of_another_program_with_a_factor_that_is_no_number_is_shown(postgres_url: str) -> None:
    """Its debits read such a factor as 1; explain ended with a traceback."""
    async with migrated_database(postgres_url) as url, Writer(url) as writer:
        await writer.put(TOPICS.enriched, usage(1, part=f"{PREFIX}7"))
        await writer.put(TOPICS.events, event(rate_factor="NaN of them"), manifest=manifest())
        with Database(url, size=1) as database:
            story = await story_of_event(database, f"{PREFIX}7")
    assert story is not None and story.factor == 1


async def test_an_amount_is_found_among_more_calls_than_are_shown(postgres_url: str) -> None:
    """Earlier only the first 5000 calls of the time were searched: "no call and no event of 0.3 USD"."""
    ends = [f"2026-11-20T12:00:{second:02}.000000Z" for second in range(12)]
    calls = [
        usage(n, end=end, cost_usd=Decimal("0.3") if n == 1 else Decimal("0.01"), part=f"{PREFIX}7")
        for n, end in enumerate(ends, 1)
    ]
    async with migrated_database(postgres_url) as url, Writer(url) as writer:
        await writer.put(TOPICS.enriched, *calls)
        await writer.put(TOPICS.events, event(), manifest=manifest())
        with Database(url, size=1) as database:
            asked = partial(calls_of_customer, database, "acme", SINCE, UNTIL, nearest_to=AT, most=5)
            shown, one, of_event, none = (
                await asked(),
                await asked(usd=Decimal("0.3")),
                await asked(usd=Decimal("0.0145")),
                await asked(usd=Decimal(7)),
            )
    assert (shown.looked_at, [call.ended_at.second for call, _ in shown.calls]) == (12, [6, 7, 8, 9, 10])
    assert (one.looked_at, [call.identity for call, _ in one.calls]) == (12, [calls[0].identity])
    assert (of_event.looked_at, len(of_event.calls)) == (12, 5)
    assert (none.looked_at, none.calls) == (0, [])


async def test_usage_that_was_written_off_does_not_wait(postgres_url: str) -> None:
    """Earlier its reason was the one for which it had been held."""
    call = usage(1, part=f"{PREFIX}7", held="no_mapping")
    async with migrated_database(postgres_url) as url, Writer(url) as writer:
        await writer.put(TOPICS.enriched, call)
        with Database(url, size=1) as database:
            held = await story_of_event(database, f"{PREFIX}7")
            await writer.put(
                TOPICS.receipts, Receipt(f"{PREFIX}7", "written_off", 1_795_176_000_000_000, reason="audit-1")
            )
            gone = await story_of_event(database, f"{PREFIX}7")
    assert held is not None and (held.status, held.reason, verdict(held)) == (
        "held",
        "no_mapping",
        "1 call, 0.000145 USD wait.",
    )
    assert gone is not None and (gone.status, gone.reason, verdict(gone)) == (
        "written_off",
        "audit-1",
        "1 call, 0.000145 USD written off: never billed.",
    )
