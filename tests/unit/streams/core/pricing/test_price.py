"""The price of one call: no token is priced twice, one rounding, and the order markup, factors, minimum."""

from decimal import Decimal
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.rates import Entry, check_places
from schemas.rounding import quantise, quantum
from streams.core.pricing.price import bills_without_cost, entry_of, tariff_of
from tests.support.rate_cards import call, card, entry, price_of

D = Decimal
prices = st.decimals(0, 1000, places=12, allow_nan=False)
maybe = st.none() | prices
tokens = st.integers(0, 10**9)


def test_without_an_entry_litellms_cost_is_billed_unchanged() -> None:
    assert price_of(card(), call("0.000145")) == D("0.000145")


def test_a_markup_is_added_and_a_negative_one_subtracted() -> None:
    assert price_of(card(entry(markup_percent="20")), call("0.000145")) == D("0.000174")
    assert price_of(card(entry(markup_percent="-100")), call("0.000145")) == 0


def test_the_first_entry_that_matches_model_and_provider_prices_the_call() -> None:
    created = card(
        entry("openai/*", "azure", per_request="1"),
        entry("openai/gpt-4o", per_request="2"),
        entry("openai/*", per_request="3"),
        default=entry(per_request="4"),
    )
    assert [price_of(created, call(model=name)) for name in ("openai/gpt-4o", "openai/o1", "x")] == [2, 3, 4]
    assert price_of(created, call(provider="azure")) == 1
    assert entry_of(card(), "a", "b") == Entry()
    assert price_of(card(entry("OpenAI/*", per_request="1")), call("0.5")) == D("0.5")


def test_each_kind_of_token_has_one_price() -> None:
    """LiteLLM counts cached and written tokens as input, and reasoning as output."""
    created = card(entry(input="1", cached="10", cache_write="100", output="1000", reasoning="10000"))
    used = call(
        tokens_input=1_000_000, cached_tokens=300_000, cache_write_tokens=200_000, tokens_output=50, reasoning_tokens=20
    )
    assert price_of(created, used) == D("0.5") + 3 + 20 + D("0.03") + D("0.2")


def test_tokens_without_their_own_price_cost_as_much_as_the_kind_they_are_part_of() -> None:
    created = card(entry(input="1", output="2"))
    used = call(tokens_input=10, cached_tokens=4, cache_write_tokens=3, tokens_output=6, reasoning_tokens=6)
    assert price_of(created, used) == D("0.000022")
    assert price_of(card(entry(cached="1")), used) == D("0.000004")


def test_contradictory_counts_are_limited() -> None:
    created = card(entry(input="1", cached="1", cache_write="1", output="1", reasoning="1"))
    used = call(tokens_input=5, cached_tokens=9, cache_write_tokens=9, tokens_output=2, reasoning_tokens=7)
    assert price_of(created, used) == D("0.000007")


@given(tokens, tokens, tokens, tokens, tokens, st.tuples(maybe, maybe, maybe, maybe, maybe))
def test_one_price_for_all_kinds_is_the_price_of_the_total(
    whole: int, cached: int, written: int, output: int, reasoning: int, each: tuple[Decimal | None, ...]
) -> None:
    """Summed over kinds with fractions: every token counts once, for any details."""
    names = ("input", "cached", "cache_write", "output", "reasoning")
    created = card(Entry(**dict(zip(names, each, strict=True))))
    used = call(
        tokens_input=whole,
        cached_tokens=cached,
        cache_write_tokens=written,
        tokens_output=output,
        reasoning_tokens=reasoning,
    )
    cached, reasoning = min(cached, whole), min(reasoning, output)
    written = min(written, whole - cached)
    of_input, of_cached, of_written, of_output, of_reasoning = each
    expected = sum(
        Fraction(price or 0) * count / 1_000_000
        for price, count in (
            (of_input, whole - cached - written),
            (of_input if of_cached is None else of_cached, cached),
            (of_input if of_written is None else of_written, written),
            (of_output, output - reasoning),
            (of_output if of_reasoning is None else of_reasoning, reasoning),
        )
    )
    assert abs(Fraction(price_of(created, used)) - expected) <= Fraction(1, 2 * 10**12)


def test_seconds_images_and_requests_are_added_up() -> None:
    created = card(entry(per_second="0.0002", per_image="0.04", per_request="0.001"))
    assert price_of(created, call(seconds=D("12.5"), images=2)) == D("0.0835")


def test_a_call_without_a_priced_count_is_billed_at_litellms_cost() -> None:
    """Otherwise a sender that reports no tokens would get its calls free of charge."""
    created = card(entry(input="1", output="2"))
    assert price_of(created, call("0.02")) == D("0.02")
    assert price_of(created, call("0.02", tokens_input=1)) == D("0.000001")


def test_power_level_and_team_both_apply_and_unknown_ones_do_not() -> None:
    created = card(power_level={"eco": "0.7"}, team={"t": "1.1"})
    assert price_of(created, call("1", power_level="eco")) == D("0.7")
    assert price_of(created, call("1", power_level="eco", team_id="t")) == D("0.77")
    assert price_of(created, call("1", power_level="turbo", team_id="u")) == 1
    assert price_of(card(), call("1", power_level="eco")) == 1


def test_the_minimum_comes_after_markup_and_factors() -> None:
    created = card(entry(markup_percent="100", minimum="0.01"), power_level={"eco": "0.5"})
    assert price_of(created, call("0.001")) == D("0.01")
    assert price_of(created, call("0.008")) == D("0.016")
    assert price_of(created, call("0.008", power_level="eco")) == D("0.01")


@given(st.decimals(0, "0.001", places=12, allow_nan=False), st.integers(6, 13))
def test_a_card_with_a_valid_minimum_never_bills_less_than_it(minimum: Decimal, places: int) -> None:
    """In an earlier version a minimum below the smallest stored amount was rounded to 0."""
    created = card(entry(minimum=str(minimum)))
    try:
        check_places(created, places)
    except ValueError:
        assert quantise(minimum, quantum(places)) != minimum
    else:
        assert price_of(created, call("0.0000001"), quantum(places)) >= minimum


def test_a_price_is_rounded_once_half_to_even() -> None:
    third = card(entry(markup_percent="50"))
    assert price_of(third, call("0.000000000001")) == D("0.000000000002")
    assert price_of(third, call("0.000000000003")) == D("0.000000000004")
    assert price_of(third, call("0.123"), quantum(2)) == D("0.18")
    halves = card(entry(input="0.0000005", output="0.0000005"))  # 0.5 of the last place each: together one
    assert price_of(halves, call(tokens_input=1, tokens_output=1)) == D("0.000000000001")


@pytest.mark.parametrize(
    ("prices", "fields", "bills"),
    [
        ({"input": "1"}, {"tokens_input": 5}, True),
        ({"input": "1"}, {}, False),
        ({"input": "0"}, {"tokens_input": 5}, False),
        ({"per_request": "1"}, {}, True),
        ({"per_second": "1"}, {"seconds": D(3)}, True),
        ({"per_image": "1"}, {"images": 1}, True),
        ({"markup_percent": "20"}, {"tokens_input": 5}, False),
        ({"minimum": "1"}, {"tokens_input": 5}, False),
    ],
)
def test_which_prices_bill_a_call_without_a_cost(
    prices: dict[str, str], fields: dict[str, Any], *, bills: bool
) -> None:
    assert bills_without_cost(tariff_of(entry(**prices)), call(**fields)) is bills


def test_a_price_for_requests_does_not_bill_an_answer_that_can_be_read_again() -> None:
    """The first poll of a job would settle it, and the poll with the tokens would be a duplicate."""
    assert not bills_without_cost(tariff_of(entry(per_request="1")), call(), read_again=True)
    assert bills_without_cost(tariff_of(entry(per_request="1", input="1")), call(tokens_input=1), read_again=True)
