"""Money stays text from input to output; times become UTC from every format; ids have one normal form."""

from datetime import UTC
from decimal import Decimal, Inexact
from hashlib import blake2b

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.customer_id import normalise_customer_id
from schemas.errors import Rejected
from schemas.moments import lago_timestamp, parse_us, to_datetime, to_iso, to_us
from schemas.money import add, cents_text, check_cost, plain
from schemas.rounding import quantise, quantum
from streams.core.metering.identity import identity_of


@given(st.decimals(min_value=0, max_value=10**6, places=12))
def test_cents_are_a_hundred_times_the_dollars_in_plain_digits(dollars: Decimal) -> None:
    text = cents_text(dollars)
    assert Decimal(text) == dollars * 100
    assert set(text) <= set("0123456789.")


def test_small_amounts_never_have_an_exponent() -> None:
    assert plain(Decimal("1E-12")) == "0.000000000001"
    assert plain(Decimal("1E+3")) == "1000"
    assert plain(Decimal("0E-12")) == "0"


def test_half_is_rounded_to_even() -> None:
    unit = quantum(2)
    assert [quantise(Decimal(text), unit) for text in ("0.005", "0.015", "0.025")] == [
        Decimal("0.00"),
        Decimal("0.02"),
        Decimal("0.02"),
    ]


@pytest.mark.parametrize(
    ("cost", "reason", "detail"),
    [
        ("-0.25", "negative_cost", "the cost is -0.25 USD, below 0"),
        ("1000000.1", "absurd_cost", "the cost is 1000000.1 USD, the limit is 1000000 USD"),
        ("1e999999999", "absurd_cost", "the cost is 1e+999999999 USD, the limit is 1000000 USD"),
        ("-1e-999999999", "negative_cost", "the cost is -1e-999999999 USD, below 0"),
        ("-" + "9" * 10_000, "negative_cost", "the cost is -1.00000000000e+10000 USD, below 0"),
        ("Infinity", "bad_cost", "not a finite number"),
    ],
)
def test_a_refused_cost_is_reported_in_few_characters(cost: str, reason: str, detail: str) -> None:
    """In full, 1e999999999 would fill the memory of the worker."""
    with pytest.raises(Rejected) as refused:
        check_cost(Decimal(cost))
    assert (refused.value.reason, refused.value.detail) == (reason, detail)


def test_a_sum_that_would_need_rounding_is_refused() -> None:
    with pytest.raises(Inexact):
        add(Decimal("1E+50"), Decimal("1E-12"))


@pytest.mark.parametrize(
    "value",
    [
        1_795_215_796,
        1_795_215_796.0,
        1_795_215_796_000,
        "1795215796",
        "1795215796000",
        "2026-11-20T23:03:16Z",
        "2026-11-20T23:03:16",
        "2026-11-21T00:03:16+01:00",
        1_795_215_796_000_000,
        1_795_215_796_000_000_000,
    ],
)
def test_every_notation_of_a_time_is_the_same_time(value: float | str) -> None:
    us = parse_us(value)
    assert to_iso(us) == "2026-11-20T23:03:16.000000Z"
    assert to_datetime(us).tzinfo is UTC
    assert to_us(to_datetime(us)) == us


@pytest.mark.parametrize(
    "value",
    [
        -1,
        float("nan"),
        float("inf"),
        "yesterday",
        "",
        1e300,
        -1e305,
        10**400,
        -(10**400),
        "9" * 400,
        "1700000000." + "3" * 108,
        True,
    ],
)
def test_a_text_that_is_no_time_is_rejected(value: float | str) -> None:
    with pytest.raises(Rejected, match="bad_time"):
        parse_us(value)


def test_lago_gets_seconds_with_milliseconds_as_text() -> None:
    assert lago_timestamp(1_741_219_251_590_999) == "1741219251.590"


@given(st.text(max_size=400))
def test_normalising_a_customer_id_twice_changes_nothing_more(text: str) -> None:
    once = normalise_customer_id(text)
    assert normalise_customer_id(once) == once
    assert once is None or 0 < len(once.encode()) <= 255


def test_all_notations_of_one_customer_id_are_normalised_to_one() -> None:
    assert normalise_customer_id(" caf\u0065\u0301\n") == normalise_customer_id("caf\u00e9")
    assert normalise_customer_id("cust\0") == "cust"
    assert normalise_customer_id(" \0 ") is None
    assert normalise_customer_id("L" * 300) == normalise_customer_id("L" * 300)
    assert normalise_customer_id("L" * 300) != normalise_customer_id("L" * 301)
    assert normalise_customer_id("a\ud800b") == "a\ufffdb"


@given(st.lists(st.text(max_size=6), max_size=6))
def test_identities_are_built_as_in_earlier_releases(parts: list[str]) -> None:
    """Others would be unknown to existing ledgers, and their calls would be billed again."""
    text = "x" + "".join(f"|{len(part)}:{part}" for part in parts)
    assert identity_of("x", *parts) == blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).digest()


@given(st.lists(st.text(max_size=6), max_size=6), st.lists(st.text(max_size=6), max_size=6))
def test_different_parts_make_different_identities(a: list[str], b: list[str]) -> None:
    assert (identity_of("x", *a) == identity_of("x", *b)) == (a == b)
