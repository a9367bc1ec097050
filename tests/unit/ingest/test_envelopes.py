"""Envelopes around calls: every call in one is stored, or the element is refused and the sender sees it."""

import asyncio
import json
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from connectors.ingest.store import ElementStore, StoreOutcome
from connectors.kafka.producer import Record
from schemas.errors import Rejected, Unavailable
from schemas.wire import FLAT
from streams.core.metering.customer_key import CUSTOMER_ID_FIELDS


class BoundedTopic:
    """A topic that refuses records longer than `most` bytes."""

    def __init__(self, most: int = 1 << 30) -> None:
        self.records: list[Record] = []
        self.most = most

    async def send_all(self, records: Sequence[Record]) -> dict[int, Rejected]:
        refused = {
            n: Rejected("too_large") for n, one in enumerate(records) if one[0] == "raw" and len(one[2]) > self.most
        }
        self.records += [one for n, one in enumerate(records) if n not in refused]
        return refused

    def ids(self) -> list[str]:
        return [json.loads(value)["call"].get("id", "") for topic, _, value, _ in self.records if topic == "raw"]


def stored(body: Any, most: int = 1 << 30) -> tuple[StoreOutcome, BoundedTopic]:
    kept = BoundedTopic(most)
    store = ElementStore(kept, "raw", "rejected", CUSTOMER_ID_FIELDS, lambda: 1)
    return asyncio.run(store.keep(json.dumps(body).encode(), FLAT)), kept


def call(number: int, **changes: Any) -> dict[str, Any]:
    return {"id": f"c{number}", "user": "acme", "spend": "5.00", "model": "m", **changes}


odd = st.sampled_from([None, {}, {"note": "x"}, []])
calls = st.integers(1, 4).map(lambda count: [call(n) for n in range(count)])
wrappers = st.sampled_from(["events", "records", "calls", "logs", "data"])


@given(st.lists(odd, max_size=2), calls, wrappers, st.booleans(), st.booleans())
def test_every_wrapped_call_is_stored_for_every_form_of_envelope(
    before: list[Any], inside: list[Any], wrapper: str, with_id: bool, in_an_array: bool
) -> None:
    """Whether or not the envelope has its own id, and for any first element."""
    envelope = {**({"id": "env-7"} if with_id else {}), wrapper: [*before, *inside]}
    _, kept = stored([envelope, call(9)] if in_an_array else envelope)
    assert sorted(kept.ids()) == sorted([one["id"] for one in inside] + (["c9"] if in_an_array else []))


@pytest.mark.parametrize("with_id", [False, True])
def test_calls_in_both_wrappers_of_one_object_are_stored(with_id: bool) -> None:
    _, kept = stored({**({"id": "env-7"} if with_id else {}), "events": [call(0)], "calls": [call(1), call(2)]})
    assert sorted(kept.ids()) == ["c0", "c1", "c2"]


@pytest.mark.parametrize(
    "envelope",
    [
        {"id": "evt_1", "data": {"object": call(0)}},
        {"id": "evt_1", "timestamp": 1.0, "metadata": {}, "event": {"payload": call(0)}},
        {"id": "evt_1", "events": []},
        {"id": "evt_1", "records": "none"},
    ],
)
def test_an_envelope_without_a_call_is_refused_in_the_answer(envelope: Any) -> None:
    """In an earlier version it was accepted, and its id was stored as an unattributed call without a cost."""
    outcome, kept = stored([envelope, call(1)])
    assert (outcome.accepted, [one[:2] for one in outcome.rejected]) == (1, [(0, "not_a_call")])
    assert kept.ids() == ["c1"]
    outcome, kept = stored(envelope)
    assert (outcome.accepted, kept.ids()) == (0, [])


def test_a_call_with_a_member_named_like_a_wrapper_is_a_call() -> None:
    outcome, kept = stored(call(0, usage={"prompt_tokens": 3}, data="x"))
    assert (outcome.accepted, kept.ids()) == (1, ["c0"])


def test_each_wrapped_call_that_kafka_refuses_as_too_large_is_a_rejection() -> None:
    long = "m" * 900
    outcome, kept = stored([{"events": [call(0, model=long), call(1, model=long), call(2)]}, call(3)], most=800)
    assert (outcome.accepted, sorted(kept.ids())) == (2, ["c2", "c3"])
    assert [one[:2] for one in outcome.rejected] == [(0, "too_large")] * 2
    assert len([one for one in kept.records if one[0] == "rejected"]) == 2


class Full(BoundedTopic):
    """A Kafka that refuses rejections that contain one of these words."""

    def __init__(self, words: bytes) -> None:
        super().__init__()
        self.words = words

    async def send_all(self, records: Sequence[Record]) -> dict[int, Rejected]:
        self.records += records
        return {
            n: Rejected("too_large") for n, one in enumerate(records) if one[0] == "rejected" and self.words in one[2]
        }


@pytest.mark.parametrize(
    ("empty", "words"), [(1, b"not_a_call"), (101, b"elements without anything of a call")], ids=["its own", "shared"]
)
def test_a_body_whose_rejection_kafka_refuses_is_answered_so_that_it_is_sent_again(empty: int, words: bytes) -> None:
    """Elements beyond a hundred share one rejection: earlier the answer was 202 although Kafka had refused it."""
    store = ElementStore(kept := Full(words), "raw", "rejected", CUSTOMER_ID_FIELDS, lambda: 1)
    with pytest.raises(Unavailable, match="kafka_refused"):
        asyncio.run(store.keep(json.dumps([call(0), *([{}] * empty)]).encode(), FLAT))
    assert kept.ids() == ["c0"]
