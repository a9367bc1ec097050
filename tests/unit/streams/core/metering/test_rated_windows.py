"""Calls with a rate card: what their windows bill, with the meter's real code and a dict as changelog."""

from decimal import Decimal
from typing import Any

import msgspec
import pytest

from schemas.customers import CustomerRecord, MappingVersion, OrgRecord, Period
from schemas.errors import TopicProblem
from schemas.ledger import RATED_VERSION, TAGGED_VERSION, Window
from schemas.moments import SECOND_US
from schemas.policy import MeterPolicy, OutOfPeriodPolicy
from schemas.rates import CARD_VERSION
from schemas.records import EnrichedUsage
from schemas.rounding import quantum
from streams.core.mapping.held_reasons import UNKNOWN_RATE
from streams.core.metering.close_window import seal
from streams.core.metering.ledger_state import verify
from streams.core.metering.read_usage import usage_of
from streams.core.metering.reconciliation import Emitted, ledger_discrepancies
from tests.support.calls import NOON, raw_value, slp
from tests.support.meter_line import LATE, ORG, Line
from tests.support.rate_cards import card, entry, price_of

D = Decimal


def line(*cards: Any, org: OrgRecord = ORG, policy: MeterPolicy | None = None, mapped: bool = True) -> Line:
    created = Line(None) if policy is None else Line(None, policy)
    created.orgs.set("org", org)
    for one in cards:
        created.rate_cards.set(one.id, one)
    if mapped:
        created.map("acme")
    return created


def billed(made: Line) -> list[tuple[str, Decimal, str]]:
    """Rate, dollars and cost of each event."""
    for _ in range(2):  # released, and quiet for long enough
        made.now_us += 10_000 * SECOND_US
        made.punctuate()
    return sorted(
        (event.properties.get("rate", ""), D(event.precise_total_amount_cents) / 100, event.properties["cost_usd"])
        for event in made.events
    )


def test_without_a_card_an_event_and_its_calls_are_unchanged() -> None:
    created = line()
    created.call(("acme", 0))
    assert billed(created) == [("", D(1), "1")]
    assert not {"billed_usd", "rate", "rate_factor"} & created.events[0].properties.keys()
    assert all(window.rated is None for window in created.windows())
    assert created.ledger.position.v == TAGGED_VERSION and created.ledger.position.margin == 0


def test_a_card_bills_its_price_and_the_event_keeps_what_the_provider_charged() -> None:
    created = line(
        card(entry(markup_percent="20"), plan={"pro": "0.5"}),
        org=OrgRecord("org", periods=(Period("tenant", 0, None, "pro"),)),
    )
    created.call(("acme", 0), ("acme", 1))
    assert billed(created) == [("r1", D("1.2"), "2")]
    properties = created.events[0].properties
    assert properties["billed_usd"] == "1.2" and properties["rate_factor"] == "0.5"
    verify(created.ledger)
    position = created.ledger.position
    assert (position.counters.sealed.cost, position.margin, position.v) == (2, D("-0.8"), RATED_VERSION)
    emitted = Emitted(1, from_the_start=True)
    emitted.take(1, 2, D(created.events[0].precise_total_amount_cents), 1)
    assert ledger_discrepancies(0, position, (), emitted) == []
    position.margin += D("0.000000000001")
    assert len(ledger_discrepancies(0, position, (), emitted)) == 1


def test_the_card_in_force_at_a_calls_end_prices_it_at_any_time_of_arrival() -> None:
    cards = (
        card(entry(markup_percent="10"), name="a"),
        card(entry(markup_percent="20"), name="b", begins=NOON + 30 * SECOND_US),
    )
    created = line(*cards)
    created.call(("acme", 30), ("acme", 29), ("acme", 31), ("acme", 0))
    assert billed(created) == [("a", D("2.2"), "2"), ("b", D("2.4"), "2")]


def test_held_usage_keeps_its_card_and_gets_the_factor_of_the_final_payer() -> None:
    created = line(card(entry(markup_percent="100"), org={"org": "0.25"}), mapped=False)
    created.call(("acme", 0), ("acme", 2))
    created.punctuate()
    assert [(window.rated.rate, window.rated.factor) for window in created.windows() if window.rated] == [("r1", 1)] * 2
    created.rate_cards.set("r2", card(entry(markup_percent="900"), name="r2", begins=NOON + 600 * SECOND_US))
    created.taken_over(LATE)
    created.map("acme")
    created.punctuate()
    assert billed(created) == [("r1", D(1), "2")]


def test_usage_is_held_while_its_card_is_missing() -> None:
    created = line(card(entry(markup_percent="100")), mapped=False)
    created.call(("acme", 0))
    created.rate_cards.set("r1", None)
    created.map("acme")
    created.punctuate()
    assert [window.held for window in created.windows()] == [UNKNOWN_RATE]
    created.rate_cards.set("r1", card(entry(markup_percent="100")))
    created.punctuate()
    assert billed(created) == [("r1", D(2), "1")]


def test_merged_held_windows_bill_the_sum_and_never_mix_two_cards() -> None:
    cards = (
        card(entry(markup_percent="10"), name="a"),
        card(entry(markup_percent="20"), name="b", begins=NOON + 3 * SECOND_US),
    )
    created = line(*cards, mapped=False)
    created.call(*(("acme", second) for second in range(6)))
    created.now_us = LATE + 7200 * SECOND_US
    created.punctuate()
    assert sorted(window.count for window in created.windows()) == [3, 3]
    created.map("acme")
    assert billed(created) == [("a", D("3.3"), "3"), ("b", D("3.6"), "3")]


@pytest.mark.parametrize("window_us", [0, 60 * SECOND_US])
def test_a_call_without_a_cost_that_the_card_prices_is_billed_and_its_copies_are_not(window_us: int) -> None:
    created = line(card(entry(input="1", output="2")), policy=MeterPolicy(window_us=window_us))
    created.call(("acme", 0), response_cost=0)
    created.number = 0
    created.call(("acme", 0))  # a copy, for which LiteLLM has a price by now
    assert billed(created) == [("r1", D("0.000034"), "0")]
    counters = created.ledger.position.counters
    assert (counters.folded.calls, counters.duplicate.calls, counters.unbilled.calls) == (1, 1, 0)
    verify(created.ledger)


@pytest.mark.parametrize(("creates", "reads"), [("aresponses", "aget_responses"), ("acreate_batch", "aretrieve_batch")])
def test_a_read_without_a_cost_is_not_billed_in_addition_to_its_job(creates: str, reads: str) -> None:
    """Its tokens are those of the answer, or some of a job's; a read under an encrypted id has its own identity."""
    created = line(card(entry(input="1", output="2")))
    created.call(("acme", 0), call_type=creates)
    before = billed(created)
    for _ in range(2):
        created.call(("acme", 0), call_type=reads, response_cost=0, id="resp_sealed" + str(created.number))
    assert billed(created) == before


def test_a_job_is_billed_by_its_report_with_a_cost_only() -> None:
    created = line(card(entry(input="1", output="2")))
    job = {"call_type": "aretrieve_batch", "id": "batch_1"}
    created.call(("acme", 0), **job, response_cost=0, prompt_tokens=10, completion_tokens=1)
    created.call(("acme", 0), **job, response_cost=5, prompt_tokens=300_000, completion_tokens=100_000)
    assert [(rate, usd) for rate, usd, _ in billed(created)] == [("r1", D("0.5"))]


def test_a_call_counted_without_a_price_is_billed_by_a_later_card() -> None:
    created = line()
    created.call(("acme", 0), response_cost=0)
    created.rate_cards.set("r1", card(entry(input="1", output="2")))
    created.number = 0
    created.call(("acme", 0), response_cost=0)
    created.number = 0
    created.call(("acme", 0))
    assert billed(created) == [("r1", D("0.000034"), "0")]


def test_a_price_beyond_the_limit_for_a_call_is_rejected() -> None:
    created = line(card(entry(input="1000000", output="0")))
    created.call(("acme", 0), prompt_tokens=10_000)
    assert created.ledger.position.counters.rejected.calls == 1 and not created.windows()


def test_calls_with_two_factors_never_share_a_window() -> None:
    """The org changes its plan within a minute."""
    periods = (Period("tenant", 0, NOON + 30 * SECOND_US, "a"), Period("tenant", NOON + 30 * SECOND_US, None, "b"))
    created = line(card(plan={"a": "2", "b": "3"}), org=OrgRecord("org", periods=periods))
    created.call(("acme", 29), ("acme", 30), ("acme", 31))
    created.punctuate()
    found = {window.rated.factor: window.count for window in created.windows() if window.rated}
    sealed = {event.properties["rate_factor"]: int(event.properties["requests"]) for event in created.events}
    assert found | {D(name): count for name, count in sealed.items()} == {D(2): 1, D(3): 2}


def test_an_older_release_reads_an_unrated_window_and_this_release_an_older_window() -> None:
    created = line()
    created.call(("acme", 0))
    (window,) = created.windows()
    written = msgspec.msgpack.decode(msgspec.msgpack.encode(window))
    assert written[-1] is None
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(written[:-1]), type=Window) == window


def test_an_enriched_record_says_which_card_priced_the_call() -> None:
    created = line(card(entry(markup_percent="20"), org={"org": "0.5"}))
    created.call(("acme", 0))
    (value,) = created.enriched
    usage = msgspec.json.decode(value, type=EnrichedUsage)
    assert (usage.cost_usd, usage.billed_usd, usage.price_usd, usage.rate) == (1, D("0.6"), D("1.2"), "r1")


def test_held_usage_has_no_factor_of_an_org_that_may_pay() -> None:
    """The customer is mapped, and its org has no subscription yet."""
    created = line(card(entry(markup_percent="100"), org={"org": "0.25"}), org=OrgRecord("org"), mapped=False)
    version = MappingVersion(0, "org", "tenant")
    created.customers.set("acme", CustomerRecord("acme", (version,), 0, 0))
    created.call(("acme", 0))
    ((window,), (value,)) = created.windows(), created.enriched
    usage = msgspec.json.decode(value, type=EnrichedUsage)
    assert window.held and window.rated is not None and window.rated.factor == 1
    assert (usage.billed_usd, usage.price_usd) == (2, None)


def test_usage_that_is_held_at_its_seal_loses_the_factor() -> None:
    """Another org may be the final payer."""
    created = line(card(entry(markup_percent="100"), org={"org": "0.25"}))
    created.call(("acme", 0))
    (window,) = created.windows()
    assert window.rated is not None and window.rated.factor == D("0.25")
    monthly = OrgRecord("org", periods=(Period("sub", 0, None, "p", "monthly", charged=("ai_usage",)),))
    policy = MeterPolicy(out_of_period_policy=OutOfPeriodPolicy.HOLD)
    changes = seal(created.ledger.position, [window], {"org": monthly}, policy, "p-", 0, LATE + 40 * 86_400 * SECOND_US)
    (kept,) = changes.windows.values()
    assert kept is not None and kept.held and kept.rated is not None
    assert (kept.rated.factor, kept.rated.usd) == (1, 2)
    assert changes.position.margin == 0


def test_a_card_version_of_a_later_release_stops_the_meter() -> None:
    created = line(card())
    created.rate_cards.set("r2", msgspec.structs.replace(card(name="r2"), v=CARD_VERSION + 1))
    with pytest.raises(TopicProblem, match="newer_rate_card"):
        created.call(("acme", 0))
    assert not created.windows() and created.ledger.position.next == 0


@pytest.mark.parametrize(
    ("counted", "written", "images", "seconds"),
    [
        ({"cache_creation_input_tokens": 3}, 3, 0, "0"),
        ({"prompt_tokens_details": {"cache_creation_tokens": 4}}, 4, 0, "0"),
        ({"cache_creation_input_tokens": 0, "prompt_tokens_details": {"cache_creation_tokens": 4}}, 0, 0, "0"),
        ({"output_image_count": 2}, 0, 2, "0"),
        ({"completion_tokens_details": {"image_count": 2}}, 0, 2, "0"),
        ({"seconds": 1.1}, 0, 0, "1.1"),
        ({"duration_seconds": 8}, 0, 0, "8"),
        ({"completion_tokens_details": {"video_length_seconds": 5}}, 0, 0, "5"),
        ({"prompt_tokens_details": {"audio_length_seconds": 2.5}}, 0, 0, "2.5"),
        ({"seconds": -1, "output_image_count": 1.5, "cache_creation_input_tokens": -3}, 0, 0, "0"),
        ({"seconds": 1e300}, 0, 0, "0"),
    ],
)
def test_used_quantities_are_read_and_a_malformed_count_is_absent(
    counted: dict[str, Any], written: int, images: int, seconds: str
) -> None:
    created = line()
    created.call(("acme", 0), metadata={"usage_object": counted})
    usage = msgspec.json.decode(created.enriched[0], type=EnrichedUsage)
    assert (usage.cache_write_tokens, usage.images, usage.seconds) == (written, images, D(seconds))


def test_the_stored_power_level_decides_the_price() -> None:
    value = msgspec.json.decode(raw_value(slp(1, cost="1"))) | {"power_level": "eco"}
    usage = usage_of(msgspec.json.encode(value), "acme", quantum())
    assert usage.power_level == "eco"
    assert price_of(card(power_level={"eco": "0.7"}), usage) == D("0.7")
    odd = value | {"rules": 0, "call": {**value["call"], "spend": "0.5", "response_cost": None}}
    assert usage_of(msgspec.json.encode(odd), "acme", quantum()).power_level == "eco"


def test_an_outdated_table_of_cards_stops_the_fold() -> None:
    """A version that is already in force may be missing."""
    created = line(card())
    waited: list[float] = []

    async def behind(limit_s: float) -> None:
        waited.append(limit_s)
        raise TimeoutError

    created.rate_cards.wait_fresh = behind  # type: ignore[method-assign]
    with pytest.raises(TimeoutError):
        created.call(("acme", 0))
    assert waited == [5.0] and created.ledger.position.next == 0
