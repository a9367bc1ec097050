"""Token counts are whole numbers from 0 to 10**12; costs in two fields must agree."""

from decimal import ROUND_HALF_DOWN, ROUND_HALF_EVEN, ROUND_HALF_UP, Decimal, localcontext
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from schemas.errors import Rejected
from schemas.money import EXACT
from schemas.wire import Call, CallMetadata, CloudEvent, CloudEventData, LagoProperties, TokenDetails, UsageObject
from streams.core.metering.cost_fields import amount_of
from streams.core.metering.token_counts import MAX_TOKENS, OddCount, count_of, with_sound_counts

MOST = 10**12


@pytest.mark.parametrize("value", [0, 1, MOST - 1, MOST])
def test_a_whole_number_is_a_count_in_every_notation(value: int) -> None:
    assert count_of(value) == count_of(float(value)) == value
    assert type(count_of(float(value))) is int
    assert count_of(None) == 0 and MAX_TOKENS == MOST


@pytest.mark.parametrize("value", [-1, -1.0, -0.5, 0.5, 1.5, MOST + 1, float(MOST + 1), 1e300])
def test_any_other_value_is_an_invalid_count(value: float) -> None:
    with pytest.raises(OddCount):
        count_of(value)


ODD: Any = {"prompt_tokens": -1, "completion_tokens": 2.5, "total_tokens": 3}
SOUND = (None, None, 3)


def counts(of: Any) -> tuple[Any, ...]:
    return of.prompt_tokens, of.completion_tokens, of.total_tokens


def test_invalid_counts_are_left_out_in_every_place_and_valid_ones_stay() -> None:
    details = TokenDetails(cached_tokens=-1, reasoning_tokens=4)
    usage = UsageObject(prompt_tokens_details=details, completion_tokens_details=details, cache_read_input_tokens=-2)
    call = Call(
        **ODD,
        metadata=CallMetadata(usage_object=usage, user_api_key_alias="a"),
        properties=LagoProperties(**ODD),
        cloud_event=CloudEvent(id="e", data=CloudEventData(**ODD, cost=Decimal(1))),
    )
    found = with_sound_counts(call)
    assert counts(found) == SOUND
    assert found.properties is not None and counts(found.properties) == SOUND
    assert found.cloud_event is not None and found.cloud_event.data is not None
    assert counts(found.cloud_event.data) == SOUND and found.cloud_event.data.cost == 1
    assert found.metadata is not None and found.metadata.user_api_key_alias == "a"
    sound = found.metadata.usage_object
    assert sound is not None and sound.cache_read_input_tokens is None
    for kept in (sound.prompt_tokens_details, sound.completion_tokens_details):
        assert kept is not None and (kept.cached_tokens, kept.reasoning_tokens) == (None, 4)


def test_without_counts_nothing_is_left_out() -> None:
    for call in (
        Call(),
        Call(metadata=CallMetadata()),
        Call(metadata=CallMetadata(usage_object=UsageObject())),
        Call(properties=LagoProperties(), cloud_event=CloudEvent()),
        Call(cloud_event=CloudEvent(data=CloudEventData())),
    ):
        assert with_sound_counts(call) == call


def money(place: str, amount: str) -> Call:
    """A call that has its cost in one place; `a.b` is `b` inside `a`."""
    value: Any = Decimal(amount)
    of, _, name = place.rpartition(".")
    if of == "properties":
        return Call(properties=LagoProperties(**{name: value}))
    if of == "data":
        return Call(cloud_event=CloudEvent(data=CloudEventData(**{name: value})))
    return Call(**{name: value})


DOLLARS = [
    *("spend", "response_cost", "cost_usd", "cost"),
    *(f"{of}.{name}" for of in ("properties", "data") for name in ("spend", "response_cost", "cost_usd", "cost")),
]


@pytest.mark.parametrize("place", DOLLARS)
def test_a_cost_is_read_in_every_place(place: str) -> None:
    assert amount_of(money(place, "0.25")) == Decimal("0.25")
    for bad, reason in (("-0.25", "negative_cost"), ("1000000.1", "absurd_cost"), ("NaN", "bad_cost")):
        with pytest.raises(Rejected) as refused:
            amount_of(money(place, bad))
        assert refused.value.reason == reason
    assert amount_of(money(place, "1000000")) == 1_000_000


def test_cents_are_a_hundredth_of_dollars() -> None:
    assert amount_of(Call(precise_total_amount_cents=Decimal("12.5"))) == Decimal("0.125")
    for bad in ("NaN", "Infinity"):
        with pytest.raises(Rejected):
            amount_of(Call(precise_total_amount_cents=Decimal(bad)))


@pytest.mark.parametrize("place", [place for place in DOLLARS if place != "spend"])
def test_two_costs_must_be_equal(place: str) -> None:
    def two(amount: str) -> Call:
        call = money(place, amount)
        call.spend = Decimal("0.25")
        return call

    assert amount_of(two("0.250000000000")) == amount_of(two("0.2500000000004")) == Decimal("0.25")
    for other in ("0.250000000001", "0", "25"):
        with pytest.raises(Rejected) as refused:
            amount_of(two(other))
        assert refused.value.reason == "contradicting_cost"
        for path, amount in (("spend", "0.25"), (place, other)):
            assert f"{path} is {amount} USD" in refused.value.detail


def test_an_amount_in_cents_that_contradicts_is_told_in_dollars() -> None:
    """`1e-12` and `1000000.000000000000` are written with all their digits, because they may differ in the last one."""
    for cents, dollars, told in (("1000", "1", "10"), ("1e-10", "1000000", "0.000000000001")):
        with pytest.raises(Rejected) as refused:
            amount_of(Call(precise_total_amount_cents=Decimal(cents), cost=Decimal(dollars)))
        said = f"precise_total_amount_cents is {told} USD and cost is {dollars} USD"
        assert refused.value.detail == f"two fields hold different amounts: {said}"


@given(st.decimals(0, 1_000_000, places=16), st.sampled_from([ROUND_HALF_EVEN, ROUND_HALF_UP, ROUND_HALF_DOWN]))
@example(Decimal("0.0000012345665"), ROUND_HALF_UP)
def test_a_cost_and_the_same_rounded_by_its_sender_are_equal(cost: Decimal, rounding: str) -> None:
    """Both were rounded half to even before they were compared, so half of a picodollar more or less made two amounts of them."""
    rounded = cost.quantize(Decimal("1E-12"), rounding)
    with localcontext(EXACT):
        assert amount_of(Call(spend=cost, response_cost=rounded)) == cost


def test_without_a_cost_there_is_none() -> None:
    for call in (Call(), Call(properties=LagoProperties()), Call(cloud_event=CloudEvent())):
        assert amount_of(call) is None
    assert amount_of(Call(spend=Decimal(0))) == 0
