"""A rate card that makes usage free without a word, or whose price no call can have, is named."""

from decimal import Decimal
from typing import Any

import pytest

from connectors.billing.rate_files import card_of
from connectors.billing.rate_warnings import warnings_of
from connectors.cli.rates import meaning
from schemas.rates import UNIT_PRICES, Entry
from tests.support.rate_cards import call, card, entry, price_of

HEAD = 'id = "r"\neffective_from = "2026-12-01T00:00:00Z"\n[[price]]\nmodel = "gpt"\n'


def _free(where: str, *kinds: str) -> list[str]:
    return [
        f'{where} has no {kind} price, so {kind} tokens cost nothing. If that is meant, write {kind} = "0"'
        for kind in kinds
    ]


@pytest.mark.parametrize(
    ("prices", "kinds"),
    [
        ({"input": "1", "output": "2"}, ()),
        ({"input": "1"}, ("output",)),
        ({"input": "1", "output": "0"}, ()),
        ({"output": "2"}, ("input",)),
        ({"input": "1", "reasoning": "2"}, ("output",)),
        ({"cached": "1", "output": "2"}, ("input",)),
        ({"cache_write": "1"}, ("input", "output")),
        ({"input": "1", "per_request": "1"}, ("output",)),
        ({"per_request": "1"}, ()),
        ({"per_second": "1", "per_image": "2"}, ()),
        ({"markup_percent": "20"}, ()),
        ({}, ()),
    ],
)
def test_tokens_that_cost_nothing_are_named_unless_the_price_is_an_explicit_zero(
    prices: dict[str, str], kinds: tuple[str, ...]
) -> None:
    assert warnings_of(card(entry("gpt", **prices))) == _free("price 1", *kinds)
    assert warnings_of(card(default=entry(**prices))) == _free("default", *kinds)


@pytest.mark.parametrize("kind", ["input", "output"])
def test_what_is_named_is_what_costs_nothing(kind: str) -> None:
    """The words follow the price: of all kinds of tokens only input and output have no price to fall back on."""
    counts: dict[str, Any] = {"input": {"tokens_input": 7}, "output": {"tokens_output": 7}}
    priced = {name: "1" for name in UNIT_PRICES[:5] if name != kind}
    one = card(entry(**priced))
    assert warnings_of(one) == _free("price 1", kind)
    assert price_of(one, call(**counts[kind], seconds=Decimal(0))) == 0


@pytest.mark.parametrize(
    ("first", "second", "covered"),
    [
        (("*", "*"), ("gpt", "*"), True),
        (("gpt*", "*"), ("gpt-4o*", "*"), True),
        (("gpt", "*"), ("gpt", "openai"), True),
        (("gpt", "openai"), ("gpt", "*"), False),
        (("gpt-4o*", "*"), ("gpt*", "*"), False),
        (("gpt-?", "*"), ("gpt-4", "*"), False),
        (("gpt-?", "*"), ("gpt-?", "*"), True),
    ],
)
def test_a_price_that_no_call_can_have_is_named(
    first: tuple[str, str], second: tuple[str, str], *, covered: bool
) -> None:
    words = "price 2 prices no call: price 1 matches each of its calls before it. Put price 2 first"
    assert warnings_of(card(Entry(*first), Entry(*second))) == [words] * covered


def test_the_words_of_a_card_have_its_warnings() -> None:
    assert meaning(card_of(f'{HEAD}input = "1"\noutput = "0"\n')).count("Warning") == 0
    assert meaning(card_of(f'{HEAD}input = "1"\n')).endswith(f"Warning: {_free('price 1', 'output')[0]}.")


@pytest.mark.parametrize(
    ("prices", "words"),
    [
        (
            {"input": "0.00015", "output": "0.6"},
            "price 1.input is 0.00015 USD for a million tokens. Is it the price of one token, or of a thousand?",
        ),
        (
            {"input": "0.15", "output": "0.0000006"},
            "price 1.output is 0.0000006 USD for a million tokens. Is it the price of one token, or of a thousand?",
        ),
        ({"input": "0.005", "output": "0"}, ""),
        ({"per_second": "0.0000002"}, ""),
        ({"markup_percent": "0.2"}, 'price 1.markup_percent is 0.2 %. For 20 % write "20", not "0.2"'),
        ({"markup_percent": "-0.1"}, 'price 1.markup_percent is -0.1 %. For 20 % write "20", not "0.2"'),
        ({"markup_percent": "1"}, ""),
        ({"markup_percent": "0"}, ""),
    ],
)
def test_an_amount_that_was_probably_meant_in_another_unit_is_named(prices: dict[str, str], words: str) -> None:
    assert warnings_of(card(entry("gpt", **prices))) == ([words] if words else [])


@pytest.mark.parametrize(
    ("factors", "words"),
    [
        ({"org": {"acme": "85"}}, 'factors.org.acme multiplies by 85. For 85 % write "0.85", not "85"'),
        ({"plan": {"pro": "9.9"}, "team": {"t": "0"}}, ""),
        ({"power_level": {"Eco": "0.7"}}, "factors.power_level.Eco is for no call: levels are in lower case"),
        (
            {"power_level": {"ballanced": "1"}},
            "factors.power_level.ballanced is not the level balanced: correct the name if that is meant",
        ),
        ({"power_level": {"eco": "0.7", "turbo": "2"}}, ""),
    ],
)
def test_a_factor_that_no_call_has_or_that_was_meant_as_percent_is_named(factors: dict[str, Any], words: str) -> None:
    assert warnings_of(card(**factors)) == ([words] if words else [])
