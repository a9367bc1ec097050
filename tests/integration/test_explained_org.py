"""The calls of an org are those that its events bill, no matter for which org they were counted."""

from datetime import UTC, datetime
from decimal import Decimal

from connectors.operations.explain import calls_of_customer, story_of_event
from connectors.postgres.pool import Database
from tests.support.database import migrated_database
from tests.support.history import PREFIX, TOPICS
from tests.support.projection import Writer, event, manifest, usage

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
            found = await calls_of_customer(database, "new", SINCE, UNTIL)
    assert story is not None and story.adds_up
    assert [(call.identity, story and story.transaction_id) for call, story in found] == [
        (calls[0].identity, f"{PREFIX}7"),
        (calls[1].identity, f"{PREFIX}7"),
    ]
