"""A call has the same alias in LiteLLM's callbacks and in its database."""

import pytest

from schemas.bounded_name import MAX_BYTES
from streams.core.metering.spend_log_ids import alias_of


@pytest.mark.parametrize(
    ("call_id", "request_id", "alias"),
    [
        ("call-1", "chatcmpl-1", "call-1"),
        ("", "chatcmpl-1", "chatcmpl-1"),
        # The callback and the database take the time of a cache hit separately.
        ("", "chatcmpl-1_cache_hit1795215634.4271846", "chatcmpl-1"),
        ("", "chatcmpl-1_cache_hit1795215634.4298775", "chatcmpl-1"),
        ("", "my_cache_hit_id", "my_cache_hit_id"),
        ("call_cache_hit1", "chatcmpl-1", "call_cache_hit1"),
        ("", "", ""),
    ],
)
def test_the_alias_is_the_call_id_or_the_request_id_without_its_cache_hit_suffix(
    call_id: str, request_id: str, alias: str
) -> None:
    assert alias_of(call_id, request_id) == alias


def test_a_long_id_gets_a_short_unique_alias() -> None:
    """A client may choose its call id; an index takes no more than 2.7 kB."""
    longest = "é" * (MAX_BYTES // 2)
    assert alias_of(longest, "") == longest
    one, two = alias_of(longest + "ab", ""), alias_of(longest + "ac", "")
    assert one != two and len(one.encode()) <= MAX_BYTES
