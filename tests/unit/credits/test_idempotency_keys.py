"""Keys that are made of names: other names, another key."""

from hypothesis import example, given
from hypothesis import strategies as st

from connectors.credits.idempotency_keys import key_of_parts

names = st.text(alphabet="a:1𠀀", max_size=6)


@example(["1:1"], ["1", "1"])
@given(st.lists(names, min_size=1, max_size=4), st.lists(names, min_size=1, max_size=4))
def test_two_lists_of_names_have_one_key_only_if_they_are_the_same(one: list[str], other: list[str]) -> None:
    assert (key_of_parts(*one) == key_of_parts(*other)) == (one == other)


@given(st.sampled_from(["command", "api", "stripe"]), st.text(max_size=300).filter(str.isascii))
def test_a_key_of_a_caller_is_never_written_like_one_of_the_database(space: str, key: str) -> None:
    """With the key of a call the call counted as paid (migrations/0013_credit_functions.sql)."""
    ours = ("call:", "calls:", "settle:", "stripe:")
    assert not key_of_parts(space, key).startswith(ours) and not key_of_parts(space, f"call:{key}").startswith(ours)


def test_a_long_key_is_not_cut() -> None:
    """Cut after 255 characters, two accounts with one beginning had one customer at Stripe."""
    one, other = ("x" * 300 + end for end in "ab")
    assert key_of_parts("s", one) != key_of_parts("s", other) and len(key_of_parts("s", one)) <= 255
