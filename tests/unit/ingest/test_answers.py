"""Answers of the ingress: `accepted` only if a call was stored, and a 401 that names the right header."""

import json
from collections.abc import Callable, Sequence
from decimal import Decimal
from typing import Any

import msgspec
import pytest
from aiohttp.test_utils import TestClient, TestServer
from prometheus_client import CollectorRegistry

from connectors.http.middleware import RequestTracker, create_app
from connectors.ingest.auth import WebhookAuth
from connectors.ingest.near_paths import naming_paths
from connectors.ingest.routes import IngressDeps, ingress_routes
from connectors.ingest.store import ElementStore
from connectors.kafka.producer import Record
from connectors.telemetry.ingress_sensors import IngressSensors
from connectors.telemetry.metrics import Metrics
from schemas.errors import Rejected, Unavailable
from schemas.moments import MOMENT_FORM
from schemas.money import AMOUNT_FORM
from schemas.wire import CLOUDEVENT, INTEGRATION, LAGO, Call, RawRecord
from streams.core.metering.customer_key import CUSTOMER_ID_FIELDS
from streams.core.metering.normalise import normalise

PATH = "/webhook/litellm/usage"
NOW_S = 1_795_215_900
CALL = '{"id": "a", "user": "acme", "spend": "0.5", "model": "m"}'
BAD = CALL.replace('"0.5"', '"1,23"')
ACCEPTED = {"status": "accepted", "message": "Event queued for processing"}
EMPTY = {**ACCEPTED, "message": "The body holds no event, so nothing was queued", "accepted": 0}
NOTHING = "no field of a call was found in the object"
SPEND = f"spend: expected {AMOUNT_FORM}"
REJECTED = {"status": "rejected", "message": "No element was stored as a call; see rejected"}


class _Topics:
    async def send_all(self, records: Sequence[Record]) -> dict[int, Rejected]:
        return {}


class _Away:
    """A topic that accepts no record."""

    def __init__(self, reason: str) -> None:
        self._reason = reason

    async def send_all(self, records: Sequence[Record]) -> dict[int, Rejected]:
        raise Unavailable(self._reason, "the inside")


async def _answer(body: str, authorization: str = "Bearer token") -> tuple[int, dict[str, Any]]:
    return await _answer_of(_Topics(), body=body, authorization=authorization)


async def _answer_of(
    topics: _Topics | _Away,
    path: str = PATH,
    body: str = CALL,
    authorization: str = "Bearer token",
    on_left_out: Callable[[int], None] = lambda _: None,
) -> tuple[int, dict[str, Any]]:
    store = ElementStore(topics, "raw", "rejected", CUSTOMER_ID_FIELDS, lambda: NOW_S * 1_000_000)
    auth = WebhookAuth(tokens=["token"])
    deps = IngressDeps(store=store, auth=auth, timeout_s=5, max_body_bytes=1 << 20, on_left_out=on_left_out)
    application = create_app(RequestTracker(), ingress_routes(deps), watching=[naming_paths])
    async with TestClient(TestServer(application)) as client:
        response = await client.post(path, data=body, headers={"Authorization": authorization})
        return response.status, await response.json()


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (CALL, ACCEPTED),
        *((body, EMPTY) for body in ("[]", "[null]", '{"events": []}', " [ ] ")),
        (
            f"[{CALL},{BAD}]",
            {**ACCEPTED, "accepted": 1, "rejected": [{"index": 1, "reason": "wrong_type", "detail": SPEND}]},
        ),
        (BAD, {**REJECTED, "accepted": 0, "rejected": [{"index": 0, "reason": "wrong_type", "detail": SPEND}]}),
        (
            "[null,{}]",
            {**REJECTED, "accepted": 0, "rejected": [{"index": 1, "reason": "not_a_call", "detail": NOTHING}]},
        ),
    ],
)
async def test_a_body_of_which_nothing_was_stored_is_not_answered_accepted(body: str, expected: dict[str, Any]) -> None:
    """The status is 202 all the same: another one would make senders repeat a body that stays wrong."""
    assert await _answer(body) == (202, expected)


OWN = '{"id": "a", "customer_id": "acme", "cost_usd": "0.5", "tokens_input": 3}'
TOKENS = "tokens_input: expected a whole number from 0 to 1000000000000"
MISSPELT = (
    "`custommer_id` is unknown and was ignored, and no other field names the customer: did you mean `customer_id`?"
)


@pytest.mark.parametrize(
    ("body", "details"),
    [
        (OWN, []),
        (OWN.replace("3", '"3"'), []),
        (OWN.replace("3", '"many"'), [TOKENS]),
        (OWN.replace("3", "-3"), [TOKENS]),
        (OWN.replace("3", "1.5"), [TOKENS]),
        (OWN.replace("customer_id", "custommer_id"), [MISSPELT]),
        (OWN.replace("customer_id", "custommer_id").replace("3", "[]"), [f"tokens_input; {MISSPELT}"]),
        (OWN.replace("customer_id", "colour"), []),
        (OWN.replace('"customer_id"', '"user": "u", "custommer_id"'), []),
    ],
)
async def test_the_answer_names_what_a_call_of_ones_own_is_kept_without(body: str, details: list[str]) -> None:
    """Without this, usage of a misspelt field is held as unattributed, or has no tokens, and its sender hears of nothing."""
    expected = {"accepted": 1, "left_out": [{"index": 0, "detail": detail} for detail in details]}
    assert await _answer(body) == (202, {**ACCEPTED, **expected} if details else ACCEPTED)


RIGHT = (
    '{"id": "a", "model": "m", "customer_id": "acme", "cost_usd": "0.5", "tokens_input": 3, "timestamp": NOW}'.replace(
        "NOW", str(NOW_S)
    )
)


def _asks(name: str, otherwise: str, meant: str) -> str:
    return f"`{name}` is unknown and was ignored, and {otherwise}: did you mean `{meant}`?"


@pytest.mark.parametrize(
    ("right", "wrong", "detail"),
    [
        *(
            ('"cost_usd"', f'"{name}"', _asks(name, "no other field holds a cost", meant))
            for name, meant in (
                *(("costusd", "cost_usd"), ("cost_usd_", "cost_usd"), ("response_costs", "response_cost")),
                *(
                    ("Cost_USD", "cost_usd"),
                    ("total_cost", "cost_usd"),
                    ("price", "cost_usd"),
                    ("spent_usd", "cost_usd"),
                ),
                ("cost_cents", "precise_total_amount_cents"),
            )
        ),
        ('"0.5"', "null", "`cost_usd` is empty, and no other field holds a cost"),
        ('"acme"', '""', "`customer_id` is empty, and no other field names the customer"),
        ('"a"', '"undefined"', "`id` is a word for a missing value: calls with one id and time are one call"),
        ('"acme"', '"None"', "`customer_id` is a word for a missing value: it names no customer"),
        (
            '"model"',
            '"status": "failed", "model"',
            "`status` is neither `success` nor `failure`: the call is taken as a success",
        ),
        ('"acme"', "null", "`customer_id` is empty, and no other field names the customer"),
        ('"timestamp"', '"end_time"', _asks("end_time", "no other field says when the call ended", "endTime")),
        ('"timestamp"', '"created_at"', _asks("created_at", "no other field says when the call ended", "timestamp")),
        ('"tokens_input"', '"input_tokens"', _asks("input_tokens", "no other field counts the input", "tokens_input")),
        ('"model"', '"curency": "EUR", "model"', _asks("curency", "the cost is taken as US dollars", "currency")),
    ],
)
async def test_the_answer_names_a_field_that_was_probably_meant_to_decide_what_is_billed(
    right: str, wrong: str, detail: str
) -> None:
    """Earlier such a call was accepted without a word, and nobody was billed for it, or in another month."""
    assert right in RIGHT
    body = RIGHT.replace(right, wrong)
    expected = {"accepted": 1, "left_out": [{"index": 0, "detail": detail}]}
    assert await _answer(body) == (202, {**ACCEPTED, **expected})


@pytest.mark.parametrize(
    "more",
    ['"colour": "x"', '"cost_center": "a-7"', '"costusd": "0.5"', '"price": 3', '"user_id": null', '"x\\ny_cost": 3'],
)
async def test_the_answer_names_no_unknown_field_of_a_call_that_has_what_it_needs(more: str) -> None:
    assert await _answer(f"{{{more}, {RIGHT[1:]}") == (202, ACCEPTED)


DAY_S = 86_400
LATE = "`{}` is later than now, so the usage is billed as of its arrival. Without an offset a time is UTC"
OLD = "`{}` is more than a year ago: is its unit right? Such usage is billed only when it is known to be no repeat"


@pytest.mark.parametrize(
    ("after_s", "sentence"),
    [(-300 * DAY_S, ""), (300, ""), (3600, LATE), (3650 * DAY_S, LATE), (-400 * DAY_S, OLD), (1 - NOW_S, OLD)],
)
@pytest.mark.parametrize(
    ("name", "body"),
    [
        ("timestamp", '{{"id": "a", "customer_id": "acme", "cost_usd": "0.5", "timestamp": {}}}'),
        ("timestamp", '{{"transaction_id": "a", "external_subscription_id": "s", "timestamp": "{}"}}'),
        ("endTime", '{{"id": "a", "end_user": "acme", "spend": 0.5, "endTime": {}}}'),
        (
            "time",
            '{{"specversion": "1.0", "id": "a", "source": "s", "subject": "c", "data": {{"cost": 1}}, "time": {}}}',
        ),
    ],
)
async def test_the_answer_names_a_time_that_no_call_has(name: str, body: str, after_s: int, sentence: str) -> None:
    """Earlier a call of 1970 or 2036 was accepted without a word."""
    expected = {"accepted": 1, "left_out": [{"index": 0, "detail": sentence.format(name)}]}
    sent = body.format(NOW_S + after_s)
    assert await _answer(sent) == (202, {**ACCEPTED, **expected} if sentence else ACCEPTED)


@pytest.mark.parametrize(
    ("body", "detail"),
    [
        (RIGHT.replace('"a"', '" \\t"'), "no id of the call: litellm_call_id, id or request_id"),
        (
            '{"transaction_id": " ", "external_subscription_id": "s", "properties": {"cost": 1}}',
            "no id of the call: transaction_id",
        ),
        ('{"specversion": "1.0", "id": " ", "source": "s", "data": {"cost": 1}}', "no id of the call: id of the event"),
    ],
)
async def test_an_id_of_blanks_is_none_for_the_ingress_and_for_the_meter(body: str, detail: str) -> None:
    """Earlier all such calls without a time were one call, and only the first one was billed."""
    refused = {"index": 0, "reason": "no_identity", "detail": detail}
    assert await _answer(body) == (202, {**REJECTED, "accepted": 0, "rejected": [refused]})
    call = json.loads(body)
    stored = {"cloud_event": call} if "specversion" in call else call
    shape = CLOUDEVENT if "specversion" in call else LAGO if "transaction_id" in call else INTEGRATION
    record = RawRecord(1, "webhook", shape, NOW_S * 1_000_000, "customer", msgspec.convert(stored, Call, strict=False))
    with pytest.raises(Rejected, match="no_identity"):
        normalise(record, "acme", Decimal("1e-12"))


@pytest.mark.parametrize("inner", ["properties", "data"])
async def test_a_misspelt_cost_is_also_found_where_other_shapes_hold_it(inner: str) -> None:
    own = {
        "properties": {"transaction_id": "a", "external_subscription_id": "s"},
        "data": {"specversion": "1.0", "id": "a", "source": "s"},
    }
    body = {**own[inner], inner: {"model": "m", "costs": "0.5"}}
    detail = _asks(f"{inner}.costs", "no other field holds a cost", f"{inner}.cost")
    status, result = await _answer(json.dumps(body))
    assert (status, result["left_out"]) == (202, [{"index": 0, "detail": detail}])


async def test_calls_with_a_probable_mistake_are_counted_for_the_operator() -> None:
    metrics = Metrics(CollectorRegistry(), "1.2.3")
    wrong = RIGHT.replace("cost_usd", "costusd")
    await _answer_of(_Topics(), body=f"[{wrong},{RIGHT},{wrong}]", on_left_out=IngressSensors(metrics).left_out)
    assert metrics.registry.get_sample_value("meterbridge_ingress_left_out_total") == 2


async def test_at_most_twenty_elements_are_listed_in_the_order_of_the_body() -> None:
    bad = OWN.replace("3", '"many"')
    _, result = await _answer(f"[{OWN},{','.join([bad] * 30)}]")
    assert [one["index"] for one in result["left_out"]] == list(range(1, 21)) and result["accepted"] == 31


@pytest.mark.parametrize("count", ['"many"', "[]", "-3"])
async def test_a_call_without_a_cost_is_refused_for_tokens_that_cannot_be_read(count: str) -> None:
    """A rate card could bill nothing else of it, and it would pass for a call that costs nothing."""
    body = OWN.replace('"cost_usd": "0.5", ', "").replace("3", count)
    rejected = [{"index": 0, "reason": "wrong_type", "detail": TOKENS}]
    assert await _answer(body) == (202, {**REJECTED, "accepted": 0, "rejected": rejected})


@pytest.mark.parametrize(
    "body",
    [
        '{"id": "x"}',
        '{"id": "x", "customer_id": "acme", "user": "u"}',
        '{"transaction_id": "x", "external_subscription_id": "acme"}',
    ],
)
@pytest.mark.parametrize("path", [PATH, "/api/v1/events", "/webhooks/litellm"])
async def test_an_element_with_nothing_but_ids_is_no_call(path: str, body: str) -> None:
    detail = "nothing but ids: no cost, tokens, model, status or time of a call"
    rejected = [{"index": 0, "reason": "not_a_call", "detail": detail}]
    assert await _answer_of(_Topics(), path, body) == (202, {**REJECTED, "accepted": 0, "rejected": rejected})


@pytest.mark.parametrize("more", ['"status": "failure"', '"model": "m"', '"timestamp": 1795215796', '"cost_usd": 0'])
async def test_a_call_with_any_field_of_a_call_is_stored(more: str) -> None:
    assert await _answer(f'{{"id": "x", {more}}}') == (202, ACCEPTED)


async def test_the_expected_form_of_at_most_five_fields_is_in_the_answer_and_no_value() -> None:
    wrong = '"spend": [7777], "cost_usd": {}, "response_cost": [], "startTime": [], "endTime": [], "id": [], "user": []'
    _, result = await _answer("{" + wrong + ', "model": "m"}')
    [refused] = result["rejected"]
    fields = refused["detail"].split("; ")
    assert len(fields) == 6 and fields[-1] == "and 2 more fields", refused
    assert SPEND in fields and f"endTime: expected {MOMENT_FORM}" in fields and "7777" not in refused["detail"]
    assert len(refused["detail"]) < 600


@pytest.mark.parametrize("authorization", ["token", "Bearer other", "Basic token"])
async def test_a_401_says_how_the_header_must_be(authorization: str) -> None:
    status, result = await _answer(CALL, authorization)
    assert (status, result["reason"]) == (401, "unknown_sender")
    assert "`Authorization: Bearer <one of WEBHOOK_TOKEN>`" in result["detail"]
    assert ("the token is known, but `Bearer` and a space are missing" in result["detail"]) == (
        "other" not in authorization
    )


@pytest.mark.parametrize("reason", ["topics_unchecked", "kafka_unavailable"])
async def test_a_503_names_a_known_cause(reason: str) -> None:
    status, result = await _answer_of(_Away(reason))
    assert (status, result["reason"]) == (503, reason)
    assert result["detail"].startswith("Kafka does not answer at KAFKA_BOOTSTRAP_SERVERS")
    assert "calls are not accepted until" in result["detail"]


async def test_a_503_with_an_unknown_cause_reveals_no_internals() -> None:
    _, result = await _answer_of(_Away("producer_down"))
    assert (result["reason"], result["detail"]) == (
        "producer_down",
        "records cannot be stored now: send the same body again",
    )


@pytest.mark.parametrize("path", ["/webhooks/litellm/usage", "/webhook/litellm", "/webhooks/litellm/batches"])
async def test_a_post_to_a_misspelt_webhook_path_is_answered_with_the_right_paths(path: str) -> None:
    status, result = await _answer_of(_Topics(), path)
    assert (status, result["reason"]) == (404, "not_found")
    assert result["detail"] == "no such path; usage is posted to /webhook/litellm/usage or /webhooks/litellm"


async def test_the_answer_to_a_post_to_any_other_path_says_where_the_paths_are_listed() -> None:
    status, result = await _answer_of(_Topics(), "/something")
    sentence = "there is no such path here; docs/endpoints.md lists the paths of each process"
    assert (status, result["reason"], result["detail"]) == (404, "not_found", sentence)
