"""Rate cards with real Kafka and Postgres: stored by a command, billed by the meter, and every sum verified."""

import json
from collections.abc import AsyncIterator
from decimal import Decimal
from pathlib import Path

import msgspec
import pytest

from schemas.records import AuditRecord
from tests.support.billed_day import BilledDay, calls, lago_of_org_a
from tests.support.command import Ended, meterbridge
from tests.support.database import rows
from tests.support.posting import statuses
from tests.support.sandbox import Lago
from tests.support.stage import Stage

D = Decimal
#: A call of 10 input and 12 output tokens costs 0.000034 USD by it, and 50 % more of a cost for other models.
CARD = """
id = "first"
effective_from = "2026-01-01T00:00:00Z"
[[price]]
model = "openai/gpt-4o"
input = "1"
output = "2"
[default]
markup_percent = "50"
[factors.org]
org-a = "0.5"
"""


@pytest.fixture
async def lago() -> AsyncIterator[Lago]:
    async with lago_of_org_a() as sandbox:
        yield sandbox


async def rates(stage: Stage, *words: str, **env: str) -> Ended:
    return await meterbridge(stage, "rates", *words, "--json", **env)


async def test_a_version_is_stored_once_shown_and_audited(stage: Stage, tmp_path: Path) -> None:
    file = tmp_path / "card.toml"
    file.write_text(CARD, encoding="utf-8")
    assert (await meterbridge(stage, "rates", "show")).out.startswith("There is no rate card")
    assert (await rates(stage, "show", "--at", "0s")).code == 1
    past = await rates(stage, "put", str(file), "--comment", "c")
    assert past.code == 1 and "--back-date" in past.err
    assert stage.read(stage.topics.audit) == stage.read(stage.topics.rates) == []
    done = await rates(stage, "put", str(file), "--comment", "prices", "--back-date")
    assert (done.code, done.json["written"]) == (0, True), done.err
    again = await rates(stage, "put", str(file), "--comment", "prices", "--back-date")
    assert (again.code, again.json["written"]) == (0, False), again.err
    (line,) = [msgspec.json.decode(one.value(), type=AuditRecord) for one in stage.read(stage.topics.audit)]
    assert (line.action, line.target["rate"], line.reason, line.before) == ("rates.put", "first", "prices", "")
    assert json.loads(line.after)["entries"][0]["input"] == "1"
    file.write_text(CARD.replace('"50"', '"60"'), encoding="utf-8")
    other = await rates(stage, "put", str(file), "--comment", "c", "--back-date")
    assert other.code == 1 and "never changes" in other.err
    listed = (await rates(stage, "show")).json["rates"]
    assert [(one["rate"], one["in_force"], one["until"]) for one in listed] == [("first", "yes", None)]
    assert (await rates(stage, "show", "--at", "0s")).json["id"] == "first"


async def test_a_version_with_factors_that_an_earlier_release_added_is_named_and_may_be_put_again(
    stage: Stage, tmp_path: Path
) -> None:
    """Earlier the same file came with eco 0.7 and precision 1.5: a repeat must not fail, and a successor says what it drops."""
    file = tmp_path / "card.toml"
    file.write_text(CARD + "[factors.power_level]\n", encoding="utf-8")
    assert (await rates(stage, "put", str(file), "--comment", "earlier", "--back-date")).code == 0
    file.write_text(CARD, encoding="utf-8")
    again = await rates(stage, "put", str(file), "--comment", "ci", "--back-date")
    assert (again.code, again.json["written"]) == (0, False), again.err
    said = (await meterbridge(stage, "rates", "put", str(file), "--comment", "ci", "--back-date")).out
    assert "x 1.5 for power_level precision" in said and "The stored first keeps factors" in said
    shown = await rates(stage, "show")
    assert (shown.code, shown.json["default_power_levels"]) == (0, ["first"])
    assert (
        "first: the power levels eco x 0.7 and precision x 1.5 apply" in (await meterbridge(stage, "rates", "show")).out
    )
    file.write_text(CARD.replace('"first"', '"second"').replace("2026-01-01", "2026-02-01"), encoding="utf-8")
    said = (await meterbridge(stage, "rates", "put", str(file), "--comment", "new", "--back-date")).out
    assert "no factor any more that first has: power_level eco x 0.7, power_level precision x 1.5." in said
    assert (await rates(stage, "show")).json["default_power_levels"] == []


@pytest.fixture
async def billed(stage: Stage, database: str, lago: Lago, tmp_path: Path) -> BilledDay:
    """Eleven calls with a card: seven with a cost, three held at first, one without a cost; one is free."""
    file = tmp_path / "card.toml"
    file.write_text(CARD, encoding="utf-8")
    assert (await rates(stage, "put", str(file), "--comment", "c", "--back-date")).code == 0
    day = BilledDay(stage, database, lago)
    await day.bill(
        [
            *calls(range(5), "acme", cost="0.013"),
            *calls(range(5, 7), "acme", cost="0.02", model="other/model"),
            *calls(range(7, 10), "late", cost="0.013"),
            *calls(range(10, 11), "acme", cost="0"),
            *calls(range(11, 12), "acme", cost="0", model="other/free"),
        ],
        11,
    )
    return day


async def test_every_sum_adds_up_if_the_billed_amount_is_not_the_cost(billed: BilledDay, tmp_path: Path) -> None:
    """9 calls by tokens, two with a markup, all with the org's factor."""
    expected = (9 * D("0.000034") + 2 * D("0.03")) / 2
    result = await billed.run("reconcile", "--lago")
    assert (result.code, result.json["complaints"]) == (0, [])
    assert (D(result.json["billed_usd"]), D(result.json["cost_usd"])) == (expected, 8 * D("0.013") + 2 * D("0.02"))
    cents = D(0)
    for transaction_id in statuses(billed.stage):
        story = await billed.run("explain", transaction_id)
        assert (story.code, story.json["proved"]) == (0, True), story.out
        cents += D(story.json["amount_cents"])
    assert cents == expected * 100
    for event in billed.stage.values(billed.stage.topics.events):
        assert (event["properties"]["rate"], event["properties"]["rate_factor"]) == ("first", "0.5")
        assert D(event["properties"]["billed_usd"]) * 100 == D(event["precise_total_amount_cents"])
    margin = "SELECT decision, sum(COALESCE(price_usd, billed_usd)), count(*) FROM llm_usage_log GROUP BY 1 ORDER BY 1"
    assert await rows(billed.database, margin) == [("billable", expected * 2, 11), ("unpriced", None, 1)]


async def test_a_card_is_tried_on_the_usage_log_before_it_is_stored(billed: BilledDay, tmp_path: Path) -> None:
    """The factor of another org changes what the calls of this org are billed at."""
    file = tmp_path / "next.toml"
    file.write_text(CARD.replace('"first"', '"next"').replace("org-a", "org-b"), encoding="utf-8")
    result = await billed.run("rates", "test", str(file), "--from", "1h", "--to", "0s")
    assert result.code == 0, result.err
    by_customer = {one["customer"]: one for one in result.json["customers"]}
    assert (by_customer["acme"]["calls"], D(by_customer["acme"]["would_be_usd"])) == (8, 6 * D("0.000034") + D("0.06"))
    assert D(by_customer["acme"]["change_usd"]) == (6 * D("0.000034") + D("0.06")) / 2
    assert D(result.json["cost_usd"]) == 8 * D("0.013") + 2 * D("0.02")
    file.write_text(file.read_text(encoding="utf-8").replace('"1"', '"1.05678"'), encoding="utf-8")
    coarse = await billed.run("rates", "test", str(file), "--from", "1h", "--to", "0s", COST_DECIMALS="9")
    by_customer = {one["customer"]: one for one in coarse.json["customers"]}
    # Each price is rounded as the meter does.
    assert D(by_customer["acme"]["would_be_usd"]) == 6 * D("0.000034568") + D("0.06")


async def test_costs_are_compared_with_a_price_list(billed: BilledDay, tmp_path: Path) -> None:
    prices = tmp_path / "prices.json"
    listed = {"gpt-4o": {"input_cost_per_token": 0.0001, "output_cost_per_token": 0.001}}
    prices.write_text(json.dumps(listed), encoding="utf-8")
    result = await billed.run("rates", "compare", str(prices), "--from", "1h", "--to", "0s")
    assert (result.code, result.json["calls"], result.json["unlisted"]) == (1, 9, {"other/model": 2}), result.err
    assert [(one["cost_usd"], one["listed_usd"]) for one in result.json["differs"]] == [("0", "0.013")]
    alike = await billed.run("rates", "compare", str(prices), "--from", "1h", "--to", "0s", "--bound", "1")
    assert (alike.code, alike.json["differs"]) == (0, [])
    assert (await billed.run("rates", "compare", str(prices), "--from", "1h", "--to", "0s", "--bound", "x")).code == 2
