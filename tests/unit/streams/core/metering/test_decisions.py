"""Whether a call is billed, and the reason if it is not: by its kind, by who paid, by its cost."""

from dataclasses import replace
from decimal import Decimal
from typing import Any

import msgspec
import pytest

from connectors.ingest.raw_record import strip
from schemas.ledger import Sum
from schemas.policy import MeterPolicy
from schemas.wire import FLAT
from streams.core.metering.customer_key import CUSTOMER_ID_FIELDS
from tests.support.calls import NOON, Raw, raw, slp
from tests.support.folding import Partition

NOTHING: dict[str, Any] = {"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0}


def decided(call: dict[str, Any], **policy: Any) -> str:
    (decision,) = Partition(replace(MeterPolicy(), **policy)).take(raw(0, call)).decisions
    return decision


def usage_object(**counts: Any) -> dict[str, Any]:
    return {"metadata": {"usage_object": counts}}


@pytest.mark.parametrize(
    ("call_type", "fields", "decision"),
    [
        ("aimage_generation", NOTHING, "unpriced"),
        ("aimage_generation", {}, "unpriced"),
        ("atranscription", NOTHING, "unpriced"),
        ("aspeech", NOTHING, "unpriced"),
        ("arerank", NOTHING, "unpriced"),
        ("aocr", NOTHING, "unpriced"),
        ("acreate_video", NOTHING, "unpriced"),
        ("avideo_status", NOTHING, "zero_cost"),
        ("aretrieve_batch", NOTHING, "zero_cost"),
        ("aretrieve_batch", {}, "unpriced"),
        ("amoderation", NOTHING, "zero_cost"),
        ("acompletion", {}, "unpriced"),
        ("acompletion", NOTHING, "zero_cost"),
        ("acompletion", NOTHING | usage_object(output_image_count=2), "unpriced"),
        ("acompletion", NOTHING | usage_object(output_image_count=0), "zero_cost"),
        ("aembedding", NOTHING | usage_object(prompt_tokens_details={"image_count": 1}), "unpriced"),
        ("aembedding", NOTHING | usage_object(prompt_tokens_details={"character_count": 9}), "unpriced"),
        ("acompletion", NOTHING | usage_object(completion_tokens_details={"audio_length_seconds": 1.5}), "unpriced"),
        ("acompletion", NOTHING | usage_object(seconds=4.5), "unpriced"),
        ("acompletion", NOTHING | usage_object(duration_seconds=4.5), "unpriced"),
        ("acreate_file", {}, "zero_cost"),
        ("afile_content", NOTHING, "zero_cost"),
        ("of_a_later_version", {}, "unpriced"),
        ("of_a_later_version", NOTHING, "zero_cost"),
    ],
)
def test_a_call_without_a_cost_is_unpriced_if_its_kind_normally_costs_something(
    call_type: str, fields: dict[str, Any], decision: str
) -> None:
    assert decided(slp(1, cost="0", call_type=call_type, **fields)) == decision


@pytest.mark.parametrize("call_type", ["acreate_file", "of_a_later_version", "arerank", "acreate_container"])
def test_a_call_with_a_cost_is_billed_for_any_kind(call_type: str) -> None:
    assert decided(slp(1, call_type=call_type)) == "billable"


@pytest.mark.parametrize(
    "sent", [4.123456789, 1.8808163265306122, "1.8808163265306122", 1.2345678901234567e-5, 1e-26, 12]
)
@pytest.mark.parametrize("odd", [{}, {"user_api_key_alias": ["not a text"]}])
def test_seconds_are_kept_down_to_a_picosecond(sent: Any, odd: dict[str, Any]) -> None:
    """More digits would not fit into stored records. A detail that cannot be read costs no second."""
    sound = usage_object(seconds=sent)
    part = Partition().take(raw(0, slp(1, **NOTHING, metadata={**sound["metadata"], **odd})))
    [logged] = part.enriched
    assert Decimal(str(logged.get("seconds", "0"))) == round(Decimal(str(sent)), 12)


POLICIES: list[tuple[dict[str, Any], str, str]] = [
    ({"byok": True}, "bill_byok", "byok"),
    ({"cache_hit": True}, "bill_cache_hits", "cache_hit"),
    ({"metadata": {"used_client_oauth_token": True}}, "bill_own_subscriptions", "own_subscription"),
    ({"metadata": {"used_client_oauth_token": "true"}}, "bill_own_subscriptions", "own_subscription"),
    ({"metadata": {"is_silent_experiment": True}}, "bill_silent_experiments", "silent_experiment"),
]


@pytest.mark.parametrize(("fields", "policy", "decision"), POLICIES)
@pytest.mark.parametrize(("status", "billed"), [("success", "billable"), ("failure", "failed_with_cost")])
def test_a_policy_applies_to_failed_calls_too(
    fields: dict[str, Any], policy: str, decision: str, status: str, billed: str
) -> None:
    call = slp(1, status=status, **fields)
    assert decided(call, **{policy: False}) == decision
    assert decided(call, **{policy: True}) == billed


def test_each_policy_can_exclude_a_call() -> None:
    both = slp(1, byok=True, cache_hit=True, metadata={"used_client_oauth_token": True, "is_silent_experiment": True})
    bills = dict.fromkeys(("bill_byok", "bill_cache_hits", "bill_own_subscriptions", "bill_silent_experiments"), True)
    assert decided(both, **bills) == "billable"
    for policy in bills:
        assert decided(both, **bills | {policy: False}) != "billable"


def test_by_default_calls_on_own_subscriptions_and_silent_experiments_are_not_billed() -> None:
    assert decided(slp(1, metadata={"used_client_oauth_token": True})) == "own_subscription"
    assert decided(slp(1, metadata={"is_silent_experiment": True})) == "silent_experiment"
    assert decided(slp(1, metadata={"used_client_oauth_token": False, "is_silent_experiment": None})) == "billable"


def test_a_failed_call_without_a_cost_is_only_failed() -> None:
    assert decided(slp(1, cost="0", status="failure", byok=True), bill_byok=False) == "failed_call"


@pytest.mark.parametrize(
    ("field", "decision"),
    [("used_client_oauth_token", "own_subscription"), ("is_silent_experiment", "silent_experiment")],
)
def test_the_ingress_stores_whose_money_paid(field: str, decision: str) -> None:
    body = b'{"id":"x","end_user":"c","total_tokens":3,"response_cost":0.01,"startTime":1795175999,"endTime":1795176000,"metadata":{"%b":true}}'
    kept = strip(body % field.encode(), FLAT, NOON, CUSTOMER_ID_FIELDS)
    assert kept is not None
    part = Partition().take(Raw(0, NOON // 1000, kept[0].encode(), kept[1]))
    assert part.decisions == {decision: 1}


def test_the_ingress_stores_the_units_of_media() -> None:
    details = {"image_count": 1, "character_count": 2, "audio_length_seconds": 3, "video_length_seconds": 4}
    counts = {"output_image_count": 2, "seconds": 1.5, "duration_seconds": 2, "prompt_tokens_details": details}
    body = msgspec.json.encode({"id": "x", "end_user": "c", "response_cost": 0, **usage_object(**counts)})
    kept = strip(body, FLAT, NOON, CUSTOMER_ID_FIELDS)
    assert kept is not None
    assert msgspec.json.decode(kept[1])["call"]["metadata"]["usage_object"] == counts


def test_decisions_are_counted_with_their_money_from_the_start_of_the_ledger() -> None:
    calls = [
        slp(1),
        slp(2, status="failure"),
        slp(3, cost="0"),
        slp(4, byok=True, cost="0.5"),
        slp(1),
        slp(5, cost="-1"),
    ]
    part = Partition(replace(MeterPolicy(), bill_byok=False)).take(*[raw(0, call) for call in calls], step=2).restart()
    cost = Decimal("0.000145")
    assert part.ledger.position.decisions == {
        "billable": Sum(1, cost),
        "failed_with_cost": Sum(1, cost),
        "unpriced": Sum(1),
        "byok": Sum(1, Decimal("0.5")),
    }


@pytest.mark.parametrize(
    ("cost", "fields", "decision"),
    [
        ("1000", {"total_tokens": 200}, "billable"),
        ("1000.000000000001", {"total_tokens": 200}, "rejected:implausible_cost"),
        ("220", {"total_tokens": 22}, "billable"),
        ("220.000000000001", {"total_tokens": 22}, "rejected:implausible_cost"),
        ("999", NOTHING, "billable"),
        ("999", {"total_tokens": 9, "call_type": "aimage_generation"}, "billable"),
        ("20000", {"total_tokens": 1_000_000, "call_type": "aretrieve_batch"}, "billable"),
        ("20000", {"total_tokens": 1000, "call_type": "aretrieve_batch"}, "rejected:implausible_cost"),
        ("20000", NOTHING | {"call_type": "aretrieve_batch"}, "rejected:implausible_cost"),
    ],
)
def test_an_implausible_cost_is_rejected(cost: str, fields: dict[str, Any], decision: str) -> None:
    """With the defaults: 1000 dollars a call, 10 dollars a token. A batch is thousands of calls, media have no tokens."""
    assert decided(slp(1, cost=cost, **fields)) == decision


def test_the_operator_can_set_the_limits() -> None:
    assert decided(slp(1, cost="0.5"), max_usd_per_call=Decimal("0.4")) == "rejected:implausible_cost"
    assert decided(slp(1, cost="0.5"), max_usd_per_token=Decimal("0.02")) == "rejected:implausible_cost"
    assert decided(slp(1, cost="0.5"), max_usd_per_token=Decimal("0.03")) == "billable"


def test_a_call_that_is_not_billed_anyway_is_not_checked_for_its_price() -> None:
    assert decided(slp(1, cost="87654", byok=True), bill_byok=False) == "byok"


def test_a_rejected_price_is_not_remembered_and_is_billed_when_the_operator_accepts_it() -> None:
    odd = slp(1, cost="87654")
    part = Partition().take(raw(0, odd), raw(0, odd))
    assert [(one["reason"], one["detail"]) for one in part.rejected] == [
        ("implausible_cost", "87654.000000000000 USD")
    ] * 2
    assert part.steps[0].noticed.doubtful == {"implausible_cost": Sum(2, Decimal(2 * 87654))}
    assert part.ledger.position.counters.rejected == Sum(2, Decimal(2 * 87654))
    accepted = raw(0, odd)
    accepted.value = (accepted.value or b"")[:-1] + b',"accepted":["implausible_cost"]}'
    part.take(accepted, accepted, raw(0, odd))
    assert part.billed == Sum(1, Decimal(87654))
    assert part.decisions == {"rejected:implausible_cost": 2, "billable": 1, "duplicate": 2}


def test_accepting_one_reason_overrides_no_other() -> None:
    record = raw(0, slp(1, cost="87654"))
    record.value = (record.value or b"")[:-1] + b',"accepted":["beyond_horizon"]}'
    assert Partition().take(record).decisions == {"rejected:implausible_cost": 1}


def test_unknown_call_types_and_models_without_a_price_are_reported() -> None:
    part = Partition().take(
        raw(0, slp(1, call_type="aquantum")),
        raw(0, slp(2, cost="0", call_type="aquantum" * 40, model="who-knows")),
        raw(0, slp(3, cost="0", model="who-knows")),
        raw(0, slp(4, cost="0", model="paid-elsewhere", cache_hit=True)),
    )
    (step,) = part.steps
    assert step.noticed.unpriced == {"who-knows": 2}
    assert step.noticed.unknown_types == {"aquantum": 1, ("aquantum" * 40)[:80]: 1}
