"""Times: the border between seconds and milliseconds, and the range of valid times, to the microsecond."""

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.errors import Rejected
from schemas.moments import HOUR_US, MAX_US, MOMENT_FORM, SECOND_US, parse_us, to_iso

MS_FROM, US_FROM, NS_FROM = 10**11, 10**14, 10**17


@pytest.mark.parametrize(
    ("number", "us"),
    [
        (0, 0),
        (MS_FROM - 1, (MS_FROM - 1) * SECOND_US),
        (MS_FROM, MS_FROM * 1000),
        (US_FROM - 1, (US_FROM - 1) * 1000),
        (US_FROM, US_FROM),
        (NS_FROM - 1, NS_FROM - 1),
        (NS_FROM, NS_FROM // 1000),
        (MAX_US * 1000 - 1, MAX_US - 1),
    ],
)
def test_from_each_border_on_a_number_is_read_in_the_next_smaller_unit(number: int, us: int) -> None:
    assert parse_us(number) == us
    assert parse_us(str(number)) == us
    if number in (0, MS_FROM, US_FROM, NS_FROM):  # a float holds others of this size less exactly
        assert parse_us(float(number)) == us


@pytest.mark.parametrize("value", [MAX_US * 1000, str(MAX_US * 1000), "1969-12-31T23:59:59.999999Z", -0.5, "-1"])
def test_times_before_1970_and_after_9999_are_refused(value: float | str) -> None:
    for _ in range(2):  # the second time its second is known
        with pytest.raises(Rejected) as refused:
            parse_us(value)
        assert refused.value.reason == "bad_time"


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("2026-11-31", "day"),
        ("2026-13-01T00:00Z", "month"),
        ("2026-11-30T25:00", "hour"),
        ("2026-11-30 10:61", "minute"),
    ],
)
def test_a_day_or_time_that_does_not_exist_is_named_and_the_text_is_not_repeated(text: str, why: str) -> None:
    """Earlier the message asked for ISO 8601 alone, which it is."""
    with pytest.raises(Rejected) as refused:
        parse_us(text)
    begin, _, end = refused.value.detail.partition(": expected ")
    assert begin.startswith(f"there is no such moment, {why} ") and end == MOMENT_FORM
    for other in ("day 12", "soon", "2026-11-1"):
        with pytest.raises(Rejected) as refused:
            parse_us(other)
        assert refused.value.detail == f"expected {MOMENT_FORM}"


def test_the_last_microsecond_of_9999_is_valid() -> None:
    assert parse_us("9999-12-31T23:59:59.999999Z") == MAX_US - 1
    assert parse_us("1970-01-01T00:00:00.000000Z") == 0


def test_a_text_may_be_as_long_as_64_characters() -> None:
    assert parse_us("1795215796." + "0" * 53) == 1_795_215_796 * SECOND_US
    with pytest.raises(Rejected):
        parse_us("1795215796." + "0" * 54)


@given(st.integers(0, MAX_US - 1))
def test_the_fast_and_the_slow_parser_read_back_what_was_written(us: int) -> None:
    """A fast parser reads LiteLLM's format; with a space instead of `T`, or another zone, the general one is used."""
    text = to_iso(us)
    assert parse_us(text) == us
    assert parse_us(text.replace("T", " ")) == us
    if us < MAX_US - HOUR_US and us >= HOUR_US:
        assert parse_us(to_iso(us + HOUR_US)[:-1] + "+01:00") == us


@given(st.decimals(0, MS_FROM - 1, places=6))
def test_seconds_with_a_fraction_keep_every_microsecond(seconds: Decimal) -> None:
    assert parse_us(str(seconds)) == int(seconds * SECOND_US)


@pytest.mark.parametrize(
    "text", ["2026-11-20T23:03:16,518726Z", "2026-11-20T23:03:16.51872xZ", "2026-11-20T23:03:61.518726Z"]
)
def test_the_fast_parser_accepts_nothing_that_the_slow_one_refuses(text: str) -> None:
    slow = text.replace("T", " ")
    try:
        expected = parse_us(slow)
    except Rejected:
        with pytest.raises(Rejected):
            parse_us(text)
    else:
        assert parse_us(text) == expected
