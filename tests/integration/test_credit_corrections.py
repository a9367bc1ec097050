"""The debit of a call is corrected when the billed amount is known: by its event, or by a write-off."""

import asyncio
from collections.abc import AsyncIterator
from decimal import Decimal
from typing import Any

import pytest

from tests.support.credits import account, balanced, give, prepaid_since
from tests.support.database import migrated_database, rows
from tests.support.history import PREFIX, TOPICS
from tests.support.projection import Writer, event, manifest, receipt, usage

PART = f"{PREFIX}7"
RATED = {"billed_usd": "x", "rate": "r1"}


@pytest.fixture
async def url(postgres_url: str) -> AsyncIterator[str]:
    async with migrated_database(postgres_url) as url:
        for name in ("user:ada", "org:org", "org:old"):
            await give(url, name, "10")
        await prepaid_since(url, "2026-11-20 00:00Z")
        yield url
        await balanced(url)


async def project(url: str, topic: str, *values: Any, **headers: bytes) -> None:
    async with Writer(url) as writer:
        assert await writer.put(topic, *values, **headers)


async def net_balances(url: str, *names: str) -> list[Decimal]:
    return [balance - owed for balance, owed in [await account(url, name) for name in names]]


def held(number: int, **fields: Any) -> Any:
    return usage(number, **{"held": "no_mapping", "cost_usd": Decimal(2), **fields})


@pytest.mark.parametrize("event_first", [False, True])
async def test_usage_held_without_an_org_is_debited_by_the_event_that_bills_it(url: str, *, event_first: bool) -> None:
    """The topics are projected in any order; a repeat of both changes nothing."""
    news = [(TOPICS.enriched, held(1), {}), (TOPICS.events, event(), {"manifest": manifest()})]
    for topic, value, headers in reversed(news) if event_first else news:
        await project(url, topic, value, **headers)
    assert await net_balances(url, "org:org") == [Decimal(8)]
    await rows(url, "TRUNCATE projector_offsets")
    for topic, value, headers in news:
        await project(url, topic, value, **headers)
    assert await rows(url, "SELECT count(*) FROM credit_transactions WHERE amount < 0") == [(1,)]


async def test_a_window_released_into_another_part_is_debited_too(url: str) -> None:
    await project(url, TOPICS.enriched, held(1, part=f"{PREFIX}3"), usage(2, org_id="org", cost_usd=Decimal(1)))
    assert await net_balances(url, "org:org") == [Decimal(9)]
    await project(url, TOPICS.events, event(), manifest=manifest(3))
    assert await net_balances(url, "org:org") == [Decimal(7)]


async def test_usage_held_for_one_org_and_billed_to_another_is_moved(url: str) -> None:
    await project(url, TOPICS.enriched, held(1, org_id="old", held="no_subscription"))
    assert await net_balances(url, "org:old", "org:org") == [Decimal(8), Decimal(10)]
    await project(url, TOPICS.events, event(), manifest=manifest())
    assert await net_balances(url, "org:old", "org:org") == [Decimal(10), Decimal(8)]
    query = "SELECT account, transaction_type, amount, idempotency_key FROM credit_transactions WHERE idempotency_key LIKE 'call:%'"
    key = f"call:{1:032x}"
    assert sorted(await rows(url, query), key=lambda row: row[3]) == [
        ("org:old", "debit", Decimal(-2), key),
        ("org:old", "refund", Decimal(2), f"{key}:1"),
        ("org:org", "debit", Decimal(-2), f"{key}:2"),
    ]


@pytest.mark.parametrize("event_first", [False, True])
@pytest.mark.parametrize("before", [{}, {"org_id": "old", "held": "no_subscription"}])
async def test_a_held_call_that_a_rebuilt_ledger_counts_for_its_payer_is_debited(
    url: str, before: dict[str, Any], *, event_first: bool
) -> None:
    """It is in another part then, and the old part has no event that would correct the debit."""
    await project(url, TOPICS.enriched, held(1, part=f"{PREFIX}3", **before))
    again = (TOPICS.enriched, usage(1, org_id="org", cost_usd=Decimal(2)), {})
    news: list[tuple[str, Any, dict[str, bytes]]] = [again, (TOPICS.events, event(), {"manifest": manifest()})]
    for topic, value, headers in reversed(news) if event_first else news:
        await project(url, topic, value, **headers)
    assert await net_balances(url, "org:old", "org:org") == [Decimal(10), Decimal(8)]


@pytest.mark.parametrize("event_first", [False, True])
@pytest.mark.parametrize("decision", ["byok", "rejected"])
@pytest.mark.parametrize("at_once", [False, True])
async def test_the_debit_of_a_call_that_a_rebuilt_ledger_does_not_bill_is_given_back(
    url: str, decision: str, *, event_first: bool, at_once: bool
) -> None:
    """BYOK_POLICY=skip was set since then, or MAX_USD_PER_CALL was lowered. A copy that is billed in the end is debited."""
    bought = {"org_id": "org", "cost_usd": Decimal(1)}
    await project(url, TOPICS.enriched, usage(7, **bought), usage(8, **bought), usage(9, **bought, part="9" * 32))
    assert await net_balances(url, "org:org") == [Decimal(7)]
    if event_first:
        await project(url, TOPICS.events, event(), manifest=manifest())
    unbilled = {"cost_usd": Decimal(1), "decision": decision, "part": "", "ledger": PREFIX}
    again = [usage(7, **bought), usage(8, **unbilled), usage(9, **unbilled)]
    copy = usage(8, **{**bought, "offset": 20, "part": f"{PREFIX}20"})
    if not at_once:
        await project(url, TOPICS.enriched, *again)
    if not event_first:
        await project(url, TOPICS.events, event(), manifest=manifest())
    if not at_once:
        assert await net_balances(url, "org:org") == [Decimal(9)]
    await project(url, TOPICS.enriched, *(again if at_once else []), copy)
    assert await net_balances(url, "org:org") == [Decimal(8)]


async def test_a_copy_that_is_billed_in_the_part_that_its_call_had_left_is_debited_at_once(url: str) -> None:
    """A rebuilt ledger counted it under BYOK_POLICY=skip. Earlier its debit waited for the event of the part, and held usage
    waits for days."""
    bought = {"org_id": "org", "cost_usd": Decimal(1)}
    await project(url, TOPICS.enriched, usage(7, **bought), usage(8, **bought))
    unbilled = {"cost_usd": Decimal(1), "decision": "byok", "part": "", "ledger": PREFIX}
    await project(url, TOPICS.enriched, usage(7, **bought), usage(8, **unbilled))
    assert await net_balances(url, "org:org") == [Decimal(9)]
    await project(url, TOPICS.enriched, usage(8, **{**bought, "offset": 20}))
    assert await net_balances(url, "org:org") == [Decimal(8)]
    await project(url, TOPICS.events, event(), manifest=manifest())
    assert await net_balances(url, "org:org") == [Decimal(8)]


@pytest.mark.parametrize("written_off", [False, True])
async def test_tables_that_are_filled_anew_move_no_credits_before_the_end_of_a_part(
    url: str, *, written_off: bool
) -> None:
    """The call is projected before the event or the write-off, as with small batches."""
    call = held(1, customer_id="ada", id_kind="user", billed_usd=Decimal(2), rate="r1")
    async with Writer(url) as writer:
        for _ in range(2):
            await rows(url, "TRUNCATE projector_offsets, llm_usage_log, usage_parts")
            assert await writer.put(TOPICS.enriched, call)
            if written_off:
                await project(url, TOPICS.receipts, receipt("written_off", 5))
            else:
                await project(url, TOPICS.events, event(**RATED, rate_factor="0.5"), manifest=manifest())
            assert await net_balances(url, "user:ada") == [Decimal(10 if written_off else 9)]
            assert await rows(url, "SELECT count(*) FROM credit_transactions WHERE account = 'user:ada'") == [(3,)]


async def test_a_user_stays_the_payer_for_any_org(url: str) -> None:
    await project(url, TOPICS.enriched, held(1, customer_id="ada", id_kind="user"))
    await project(url, TOPICS.events, event(), manifest=manifest())
    assert await net_balances(url, "user:ada", "org:org") == [Decimal(8), Decimal(10)]


@pytest.mark.parametrize("factor", ["0.85", "1.5"])
async def test_the_payers_factor_is_debited_and_logged(url: str, factor: str) -> None:
    call = held(1, org_id="org", held="no_subscription", billed_usd=Decimal(4), rate="r1")
    await project(url, TOPICS.enriched, call)
    assert await net_balances(url, "org:org") == [Decimal(6)]
    await project(url, TOPICS.events, event(**RATED, rate_factor=factor), manifest=manifest())
    assert await net_balances(url, "org:org") == [10 - 4 * Decimal(factor)]
    assert await rows(url, "SELECT billed_usd, price_usd FROM llm_usage_log") == [(4 * Decimal(factor), Decimal(4))]


async def test_the_log_has_the_factor_if_no_account_is_prepaid(postgres_url: str) -> None:
    async with migrated_database(postgres_url) as url:
        late = held(2, billed_usd=Decimal(2), rate="r1")
        await project(url, TOPICS.enriched, held(1, billed_usd=Decimal(4), rate="r1"))
        await project(url, TOPICS.events, event(**RATED, rate_factor="0.5"), manifest=manifest())
        await project(url, TOPICS.enriched, late)
        assert await rows(url, "SELECT billed_usd FROM llm_usage_log ORDER BY 1") == [(Decimal(1),), (Decimal(2),)]


async def test_the_log_has_the_factor_of_an_event_that_came_before_its_call(postgres_url: str) -> None:
    """The window was held at its seal, so the call's record does not have it."""
    async with migrated_database(postgres_url) as url:
        await project(url, TOPICS.events, event(**RATED, rate_factor="0.5"), manifest=manifest())
        await project(url, TOPICS.enriched, usage(1, org_id="org", billed_usd=Decimal(4), rate="r1"))
        assert await rows(url, "SELECT billed_usd, price_usd FROM llm_usage_log") == [(Decimal(2), Decimal(4))]


async def test_a_held_call_is_debited_by_an_event_that_agrees_with_all_calls_before_it(url: str) -> None:
    await project(url, TOPICS.enriched, usage(1, org_id="org", cost_usd=Decimal(1)))
    await project(url, TOPICS.events, event(), manifest=manifest())
    assert await rows(url, "SELECT count(*) FROM corrected_parts") == [(0,)]
    await project(url, TOPICS.enriched, held(2))
    assert await net_balances(url, "org:org") == [Decimal(7)]


async def test_a_call_without_a_price_does_not_hide_the_factor_of_its_part(url: str) -> None:
    """Its window was held at its seal, and the plan changed."""
    free = usage(1, org_id="org", billed_usd=Decimal(0), price_usd=Decimal(0), rate="r1")
    dear = usage(2, org_id="org", billed_usd=Decimal(2), price_usd=Decimal(4), rate="r1")
    await project(url, TOPICS.enriched, free, dear)
    await project(url, TOPICS.events, event(**RATED, rate_factor="0.75"), manifest=manifest())
    assert await net_balances(url, "org:org") == [Decimal(7)]


@pytest.mark.parametrize("receipt_first", [False, True])
async def test_a_written_off_debit_is_given_back(url: str, *, receipt_first: bool) -> None:
    """The debt for it is cancelled, with any overdraft policy of the account."""
    await rows(url, "UPDATE user_credits SET overdraft_policy = 'keep'")
    call = (TOPICS.enriched, held(1, org_id="org", held="no_subscription", cost_usd=Decimal(12)))
    gone = (TOPICS.receipts, receipt("written_off", 5))
    for news in (gone, call) if receipt_first else (call, gone):
        await project(url, *news)
    assert await account(url, "org:org") == (Decimal(10), Decimal(0))
    assert await rows(url, "SELECT count(*) FROM undebited_calls") == [(0,)]


async def test_a_call_and_its_event_that_are_projected_concurrently_agree(url: str) -> None:
    """The window was held at its seal and released to another org; then a projector catches up on both topics."""
    await give(url, "org:old", "90")
    async with Writer(url) as calls, Writer(url) as events:
        for n in range(40):
            both = usage(n, org_id="old", part=f"{PREFIX}{n}", cost_usd=Decimal(1)), event(n)
            await asyncio.gather(calls.put(TOPICS.enriched, both[0]), events.put(TOPICS.events, both[1]))
    assert await net_balances(url, "org:old", "org:org") == [Decimal(100), Decimal(-30)]


@pytest.mark.parametrize("event_first", [False, True])
async def test_a_call_without_a_price_does_not_hide_a_changed_factor_of_its_window(
    url: str, *, event_first: bool
) -> None:
    """A window is held again at its seal, and released to another plan of the same org."""
    calls = [usage(n, org_id="org", rate="r1", billed_usd=Decimal(price)) for n, price in ((1, 0), (2, 4))]
    news = [(TOPICS.enriched, calls), (TOPICS.events, [event(rate_factor="0.5")])]
    for topic, values in reversed(news) if event_first else news:
        await project(url, topic, *values)
    assert await net_balances(url, "org:org") == [Decimal(8)]
    assert await rows(url, "SELECT sum(billed_usd) FROM llm_usage_log") == [(Decimal(2),)]


@pytest.mark.parametrize("event_first", [False, True])
@pytest.mark.parametrize("first_org", ["org", "old"])
async def test_a_call_that_a_rebuilt_ledger_counts_at_another_cost_is_debited_at_that(
    url: str, first_org: str, *, event_first: bool
) -> None:
    """Its part keeps its name. Earlier the debit stayed that of the lost ledger if the event was projected first."""
    before, again = (
        usage(1, org_id=org, external_subscription_id="sub", cost_usd=Decimal(usd))
        for org, usd in ((first_org, 2), ("org", 3))
    )
    await project(url, TOPICS.enriched, before)
    news = [(TOPICS.enriched, again, {}), (TOPICS.events, event(), {"manifest": manifest()})]
    for topic, value, headers in reversed(news) if event_first else news:
        await project(url, topic, value, **headers)
    assert await net_balances(url, "org:org", "org:old") == [Decimal(7), Decimal(10)]
    await rows(url, "TRUNCATE projector_offsets")
    await project(url, TOPICS.enriched, before, again)
    assert await net_balances(url, "org:org", "org:old") == [Decimal(7), Decimal(10)]
