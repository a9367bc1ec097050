"""CloudEvents and envelopes: a cost in them is billed, or the answer says that it is not."""

import asyncio
import json
from base64 import b64encode
from decimal import Decimal
from typing import Any

import msgspec
import pytest
from multidict import CIMultiDict

from connectors.ingest.cloud_events import event_of
from connectors.ingest.store import ElementStore, StoreOutcome
from schemas.normalised_call import Usage
from schemas.policy import MeterPolicy
from schemas.wire import CLOUDEVENT, FLAT, RawRecord
from streams.core.metering.customer_key import CUSTOMER_ID_FIELDS
from streams.core.metering.decisions import CACHE_HIT, OWN_SUBSCRIPTION, SILENT_EXPERIMENT, decide
from streams.core.metering.normalise import normalise
from tests.support.calls import NOON, slp
from tests.unit.ingest.test_envelopes import BoundedTopic

TIMES = {"specversion": "1.0", "id": "e1", "source": "svc", "type": "usage", "time": "2026-11-20T12:00:00Z"}


def event(**changes: Any) -> dict[str, Any]:
    return {**TIMES, "subject": "acme", "data": {"cost": "0.02", "model": "m"}, **changes}


def reasons(outcome: StoreOutcome) -> list[tuple[int, str]]:
    return [(refused.place, refused.reason) for refused in outcome.rejected]


def stored(told: Any, shape: str = CLOUDEVENT) -> tuple[StoreOutcome, list[Usage]]:
    """The result in the answer, and the calls as the meter reads them."""
    kept = BoundedTopic()
    store = ElementStore(kept, "raw", "rejected", CUSTOMER_ID_FIELDS, lambda: NOON)
    outcome = asyncio.run(store.keep(json.dumps(told, default=str).encode(), shape))
    found = [(key, value) for topic, key, value, _ in kept.records if topic == "raw"]
    unit = Decimal("1e-12")
    return outcome, [normalise(msgspec.json.decode(value, type=RawRecord), key or "", unit) for key, value in found]


def test_a_structured_event_is_recognised_even_if_its_headers_repeat_it() -> None:
    """HTTP binding 3.1: the media type decides. Earlier the event was read as the data of another one, and billed at 0."""
    headers = CIMultiDict({"Content-Type": "application/cloudevents+json", "ce-id": "e1", "ce-specversion": "1.0"})
    assert event_of(headers, b"{}") is None
    assert event_of(CIMultiDict({"ce-id": "e1", "ce-specversion": "1.0"}), b"{}") is not None


@pytest.mark.parametrize(
    "data", [{}, {"total": 0.02}, {"events": [slp(1)]}, None, {"usage": {"cost": 0.02}}, {"customer_id": "acme"}]
)
def test_an_event_without_a_call_in_it_is_rejected(data: Any) -> None:
    """In an earlier version it was accepted and counted as a call without a cost."""
    outcome, usages = stored([event(data=data), event(id="e2")])
    assert (reasons(outcome), [one.request_id for one in usages]) == ([(0, "not_a_call")], ["e2"])
    result = event(cost=0.02)
    del result["data"]
    assert reasons(stored([result, event()])[0]) == [(0, "not_a_call")]


@pytest.mark.parametrize("cents", [2, "2", "2.0"])
def test_cents_in_an_event_are_read_too(cents: Any) -> None:
    assert [one.cost for one in stored(event(data={"precise_total_amount_cents": cents}))[1]] == [Decimal("0.02")]
    outcome, usages = stored([event(data={"precise_total_amount_cents": cents, "cost": 0.03})])
    assert (reasons(outcome), usages) == ([(0, "contradicting_cost")], [])


def in_base64(call: Any) -> dict[str, Any]:
    result = event(data_base64=b64encode(json.dumps(call, default=str).encode()).decode())
    del result["data"]
    return result


@pytest.mark.parametrize("shape", [CLOUDEVENT, FLAT])
@pytest.mark.parametrize(
    "wrap",
    [lambda one: event(data=one), lambda one: event(data=json.dumps(one, default=str)), in_base64],
    ids=["object", "text", "base64"],
)
def test_a_litellm_call_inside_an_event_is_read_like_any_other(shape: str, wrap: Any) -> None:
    """Its kind, its status and who paid count as on every other route: earlier each poll in an event was billed."""
    polls = [slp(n, id="batch_0123456789abcdef", call_type="aretrieve_batch", cost="0.5") for n in range(3)]
    outcome, usages = stored([{**wrap(one), "id": f"e{n}"} for n, one in enumerate(polls)], shape)
    assert (outcome.accepted, len({one.identity for one in usages})) == (3, 1)
    assert {(one.customer_id, one.cost) for one in usages} == {("acme", Decimal("0.5"))}
    own = slp(7, call_type="acompletion", metadata={"used_client_oauth_token": True}, end_user="acme")
    (usage,) = stored(wrap(own), shape)[1]
    assert (decide(usage, MeterPolicy()), usage.call_id) == (OWN_SUBSCRIPTION, "call-7")
    other = slp(8, call_type="acompletion", end_user="somebody")
    assert reasons(stored([wrap(other)], shape)[0]) == [(0, "contradicting_customer")]
    untimely = slp(9, call_type="acompletion", startTime="yesterday")
    assert reasons(stored([wrap(untimely)], shape)[0]) == [(0, "bad_time")]


@pytest.mark.parametrize("more", [{"source": "litellm"}, {"subject": "usage"}, {"spend": "10.00", "source": "x"}])
@pytest.mark.parametrize("wrapper", ["events", "records", "logs"])
def test_an_envelope_may_contain_its_source_and_its_total(more: dict[str, str], wrapper: str) -> None:
    """A sender that packs calls adds where they come from and what they cost together: earlier all of them were
    rejected.
    """
    envelope = {**more, wrapper: [slp(1, end_user="acme"), slp(2, end_user="acme")]}
    for result in (envelope, [envelope]):
        outcome, usages = stored(result, FLAT)
        assert (reasons(outcome), [one.call_id for one in usages]) == ([], ["call-1", "call-2"])


@pytest.mark.parametrize(
    "own", [{}, {"id": "evt_1"}, {"id": "evt_1", "timestamp": "2026-11-20T12:00:00Z", "status": "ok"}]
)
@pytest.mark.parametrize("name", ["payload", "items", "Records", "usage_events"])
def test_calls_under_an_unknown_member_name_are_read(name: str, own: dict[str, str]) -> None:
    """Earlier an envelope with an id of its own was accepted as a call without cost, and its content was lost."""
    two = [slp(1, end_user="acme"), slp(2, end_user="acme")]
    for result in ({**own, name: two}, [{**own, name: two[0]}, {**own, name: [two[1]]}]):
        outcome, usages = stored(result, FLAT)
        assert (reasons(outcome), [one.call_id for one in usages]) == ([], ["call-1", "call-2"])
    outcome, usages = stored([{**own, name: [{"id": "x", "content": "a prompt"}]}, slp(3)], FLAT)
    assert all(not one.cost for one in usages[:-1])


def test_a_member_that_is_null_makes_no_event() -> None:
    (usage,) = stored(slp(1, end_user="acme", specversion=None), FLAT)[1]
    assert (usage.call_id, usage.cost) == ("call-1", Decimal("0.000145"))


@pytest.mark.parametrize("empty", [[], "", " ", "[]", "{}"])
def test_empty_properties_in_any_form_do_not_prevent_billing(empty: Any) -> None:
    """PHP writes an empty object as `[]`."""
    (usage,) = stored(slp(1, end_user="acme", properties=empty), FLAT)[1]
    assert usage.cost == Decimal("0.000145")


@pytest.mark.parametrize(
    "yes", [True, 1, 1.0, "1", "1.0", "true", "True", "TRUE", " true ", "t", "T", "yes", "Y", "on"]
)
def test_a_true_flag_is_read_in_every_notation(yes: Any) -> None:
    """Earlier a flag in a string counted as absent: a call that a customer's own subscription paid was billed."""
    (cached,) = stored(slp(1, end_user="acme", cache_hit=yes), FLAT)[1]
    (byok,) = stored(slp(1, end_user="acme", byok=yes), FLAT)[1]
    (own,) = stored(slp(1, end_user="acme", metadata={"used_client_oauth_token": yes}), FLAT)[1]
    (silent,) = stored(slp(1, end_user="acme", metadata={"is_silent_experiment": yes}), FLAT)[1]
    found = [decide(one, MeterPolicy(bill_byok=False)) for one in (cached, byok, own, silent)]
    assert found == [CACHE_HIT, "byok", OWN_SUBSCRIPTION, SILENT_EXPERIMENT]


@pytest.mark.parametrize("no", [False, 0, 0.0, "0", "false", "FALSE", "f", "no", "None", "", "null", None, "nope", []])
def test_a_call_with_a_false_or_unreadable_flag_is_billed(no: Any) -> None:
    flags = {"used_client_oauth_token": no, "is_silent_experiment": no}
    (usage,) = stored(slp(1, end_user="acme", cache_hit=no, byok=no, metadata=flags), FLAT)[1]
    assert decide(usage, MeterPolicy(bill_byok=False)) == "billable"
