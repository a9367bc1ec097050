"""A version of the rate card is tried on the calls of the log, for those who pay: by the card in force nothing changes."""

from decimal import Decimal

import pytest

from connectors.operations.rate_test import Changed, tried_on
from connectors.postgres.pool import Database
from schemas.moments import parse_us
from schemas.rates import RateCard
from schemas.records import Receipt
from schemas.rounding import quantum
from tests.support.database import migrated_database
from tests.support.history import PREFIX, TOPICS
from tests.support.projection import Writer, event, manifest, usage
from tests.support.rate_cards import card, entry

SINCE, UNTIL = parse_us("2026-11-20T00:00:00Z"), parse_us("2026-11-21T00:00:00Z")
IN_FORCE = card(default=entry(markup_percent="100"), org={"org_new": "0.5"})


async def tried(url: str, version: RateCard) -> list[Changed]:
    with Database(url, size=1) as database:
        return await tried_on(database, version, SINCE, UNTIL, quantum())


@pytest.mark.parametrize(("org", "held"), [("", "no_mapping"), ("org_old", "no_subscription"), ("org_old", "")])
@pytest.mark.parametrize("merged", [False, True])
async def test_the_card_in_force_changes_nothing_for_the_org_that_pays(
    postgres_url: str, org: str, held: str, merged: bool
) -> None:
    """Earlier the factor was that of the org for which the call was counted or held."""
    into, windows = (9, [7]) if merged else (7, [])
    call = usage(1, org_id=org, held=held, cost_usd=Decimal(1), billed_usd=Decimal(2), rate="r1")
    rated = {"rate": "r1", "rate_factor": "0.5", "org_id": "org_new"}
    async with migrated_database(postgres_url) as url, Writer(url) as writer:
        await writer.put(TOPICS.enriched, call)
        await writer.put(TOPICS.events, event(into, **rated), manifest=manifest(*windows, first=into))
        [one] = await tried(url, IN_FORCE)
    assert (one.org_id, one.before, one.after) == ("org_new", 1, 1)


async def test_usage_that_was_written_off_is_billed_by_no_version(postgres_url: str) -> None:
    call = usage(1, held="no_mapping", cost_usd=Decimal(1), billed_usd=Decimal(2), rate="r1")
    async with migrated_database(postgres_url) as url, Writer(url) as writer:
        await writer.put(TOPICS.enriched, call)
        await writer.put(TOPICS.receipts, Receipt(f"{PREFIX}7", "written_off", 1_795_176_000_000_000))
        assert await tried(url, IN_FORCE) == []


async def test_the_minimum_bills_an_answer_from_a_cache_whoever_sent_it(postgres_url: str) -> None:
    """Only LiteLLM's request ids show a cache; other senders' answers were priced at 0. A call without a price may be free."""
    billed = {"org_id": "org", "cost_usd": Decimal(0), "billed_usd": Decimal(3), "rate": "r1", "total_tokens": 9}
    calls = [usage(1, cache_hit=True, **billed), usage(2, request_id="a_cache_hit1", **billed), usage(3, **billed)]
    async with migrated_database(postgres_url) as url, Writer(url) as writer:
        await writer.put(TOPICS.enriched, *calls)
        [one] = await tried(url, card(default=entry(minimum="2", markup_percent="0")))
    assert (one.calls, one.before, one.after) == (3, 9, 4)
