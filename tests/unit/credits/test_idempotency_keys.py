"""Idempotency keys made of names: different names give different keys."""

from hypothesis import example, given
from hypothesis import strategies as st

from connectors.credits.idempotency_keys import key_of_parts

names = st.text(alphabet="a:1𠀀", max_size=6)


@example(["1:1"], ["1", "1"])
@given(st.lists(names, min_size=1, max_size=4), st.lists(names, min_size=1, max_size=4))
def test_two_lists_of_names_have_the_same_key_only_if_they_are_equal(one: list[str], other: list[str]) -> None:
    assert (key_of_parts(*one) == key_of_parts(*other)) == (one == other)


@given(st.sampled_from(["command", "api", "stripe"]), st.text(max_size=300).filter(str.isascii))
def test_a_callers_key_never_equals_a_key_of_the_database(space: str, key: str) -> None:
    """With the key of a call, the call would count as paid (migrations/0013_credit_functions.sql)."""
    ours = ("call:", "calls:", "settle:", "stripe:")
    assert not key_of_parts(space, key).startswith(ours) and not key_of_parts(space, f"call:{key}").startswith(ours)


def test_a_long_key_is_not_truncated() -> None:
    """Truncated to 255 characters, two accounts with a common beginning would share one customer at Stripe."""
    one, other = ("x" * 300 + end for end in "ab")
    assert key_of_parts("s", one) != key_of_parts("s", other) and len(key_of_parts("s", one)) <= 255
