"""What the ingress accepts is in Kafka, word for word except for prompts, before the sender gets 202."""

import asyncio
import csv
import gzip
import hashlib
import hmac
import json
import threading
import zlib
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Sequence
from pathlib import Path

import pytest

from connectors.ingest import store
from connectors.ingest.auth import WebhookAuth
from connectors.ingest.body_splitter import Element, split
from connectors.ingest.routes import ROUTES
from connectors.kafka.client_config import producer_config
from connectors.kafka.producer import KafkaProducer, Record
from schemas.customer_id import UNATTRIBUTED, normalise_customer_id
from schemas.errors import Rejected
from tests.support.ingress import (
    RECEIVED_AT,
    USAGE,
    Ingress,
    create_topics,
    reasons,
    running_ingress,
    serving,
    store_in,
    topics_of_module,
)
from tests.support.kafka import Kafka

FIXTURES = Path(__file__).parent.parent / "fixtures" / "litellm"
ACCEPTED = {"status": "accepted", "message": "Event queued for processing"}
NOTHING = {"status": "accepted", "message": "The body holds no event, so nothing was queued", "accepted": 0}
FLAT = (
    '{"id":"request_id","user":"customer_id","model":"gpt-4o-mini","prompt_tokens":100,"completion_tokens":200,'
    '"total_tokens":300,"spend":0.00014500000000000003,"startTime":"2026-11-20T00:00:00Z",'
    '"endTime":"2026-11-20T00:00:01Z","api_key":"hashed_api_key","request_id":"unique_request_id"}'
)
INTEGRATION = (
    '{"event_type":"usage","timestamp":1795123456,"customer_id":"customer-123","model":"gpt-4o","provider":"openai",'
    '"tokens_input":100,"tokens_output":150,"total_tokens":250,"cost_usd":0.00375,"request_id":"req-abc123",'
    '"api_key_hash":"key_a1b2c3"}'
)


@pytest.fixture(scope="module")
def topics(kafka: Kafka) -> Iterator[str]:
    with topics_of_module(kafka.bootstrap) as prefix:
        yield prefix


@pytest.fixture
async def ingress(kafka: Kafka, topics: str) -> AsyncIterator[Ingress]:
    async with running_ingress(kafka.bootstrap, topics) as running:
        running.begins_here()
        yield running


async def test_a_flat_call_is_stored_with_the_original_text_of_every_number(ingress: Ingress) -> None:
    answer = await ingress.post(FLAT)
    assert (answer.status, await answer.json()) == (202, ACCEPTED)
    [stored] = ingress.raw()
    assert stored.key == "customer_id"
    assert stored.timestamp_ms == RECEIVED_AT // 1000
    assert b'"spend":0.00014500000000000003' in stored.value
    record = stored.raw()
    assert (record.v, record.source, record.shape, record.received_at) == (1, "webhook", "flat", RECEIVED_AT)
    assert (record.id_kind, record.call.request_id) == ("user", "unique_request_id")
    assert ingress.requests == [("litellm", 202)]
    assert ingress.elements == {"accepted": 1}


async def test_every_recorded_body_is_stored_completely_and_under_the_right_customer(ingress: Ingress) -> None:
    """The recorded bodies come from real LiteLLM proxies: arrays, slim arrays and NDJSON labelled as JSON."""
    rows = list(csv.DictReader((FIXTURES / "expected.csv").open(encoding="utf-8")))
    for name in dict.fromkeys(row["file"] for row in rows):
        answer = await ingress.post((FIXTURES / name).read_bytes(), Content_Type="application/json")
        assert (answer.status, await answer.json()) == (202, ACCEPTED), name
    expected = [(normalise_customer_id(row["customer_id"]) or "", row["id_kind"]) for row in rows]
    stored = ingress.raw()
    assert sorted((record.key or "", record.raw().id_kind) for record in stored) == sorted(expected)
    assert max(len(record.value) for record in stored) < 3_000


@pytest.mark.parametrize("path", ["/webhooks/litellm", "/webhooks/litellm/batch"])
async def test_the_integration_payload_is_accepted_in_every_wrapper(ingress: Ingress, path: str) -> None:
    wraps = ("%s", "[%s]", "%s\n", '{"events":[%s]}', ' {"n":1,"events": [ %s ] }\n')
    await _are_taken_as_integration_payload(ingress, path, wraps)


async def test_a_payload_posted_to_the_other_endpoint_is_recognised_by_its_fields(ingress: Ingress) -> None:
    await _are_taken_as_integration_payload(ingress, USAGE, ("%s", "[%s]", "%s\n"))


async def _are_taken_as_integration_payload(ingress: Ingress, path: str, wraps: Sequence[str]) -> None:
    """Each is stored once, under its own request id."""
    for number, wrap in enumerate(wraps):
        answer = await ingress.post(wrap % INTEGRATION.replace("req-abc123", f"req-{number}"), path)
        assert (answer.status, await answer.json()) == (202, ACCEPTED), wrap
    stored = sorted(ingress.raw(), key=lambda one: str(one.raw().call.request_id))
    assert [one.raw().call.request_id for one in stored] == [f"req-{number}" for number in range(len(wraps))]
    result = {(one.key, one.raw().shape, one.raw().id_kind) for one in stored}
    assert result == {("customer-123", "integration", "customer")}


@pytest.mark.parametrize("wrap", ['{"event":%s}', '{"events":[%s]}', '{"events":[%s]}\n'])
async def test_litellms_lago_callback_can_post_here(ingress: Ingress, wrap: str) -> None:
    event = json.loads((FIXTURES / "lago_end_user__1.109.1__01.json").read_bytes())["event"]
    path = "/api/v1/events/batch" if "events" in wrap else "/api/v1/events"
    answer = await ingress.post(wrap % json.dumps(event), path, Authorization="Bearer a-lago-key")
    assert (answer.status, await answer.json()) == (202, ACCEPTED)
    [stored] = ingress.raw()
    assert (stored.key, stored.raw().shape, stored.raw().id_kind) == ("cust_42", "lago", "subscription")
    assert b'"response_cost":8.85e-06' in stored.value


@pytest.mark.parametrize(
    ("wrap", "media_type"),
    [("%s", "application/cloudevents+json"), ("[%s]", "application/cloudevents-batch+json"), ("%s", "text/plain")],
)
async def test_litellms_openmeter_callback_can_post_here(ingress: Ingress, wrap: str, media_type: str) -> None:
    event = (
        '{"specversion":"1.0","type":"litellm_tokens","id":"chatcmpl-1","time":"2026-11-20T22:45:16.767092+00:00",'
        '"subject":"cust_42","source":"litellm-proxy",'
        '"data":{"model":"gpt-4o","cost":8.85e-06,"prompt_tokens":9,"completion_tokens":12,"total_tokens":21}}'
    )
    answer = await ingress.post(wrap % event, "/openmeter/api/v1/events", Content_Type=media_type)
    assert (answer.status, await answer.json()) == (202, ACCEPTED)
    [stored] = ingress.raw()
    assert (stored.key, stored.raw().shape, stored.raw().id_kind) == ("cust_42", "cloudevent", "customer")
    assert b'"cost":8.85e-06' in stored.value
    assert ingress.requests == [("openmeter", 202)]


async def test_nulls_and_empty_arrays_are_no_calls_and_no_errors(ingress: Ingress) -> None:
    for body in ("[]", "null", "[null]", f"[null,{FLAT},null]", f"null\n{FLAT}\n"):
        answer = await ingress.post(body)
        assert (answer.status, await answer.json()) == (202, ACCEPTED if FLAT in body else NOTHING), body
    assert len(ingress.raw()) == 2
    assert ingress.rejected() == []


async def test_a_call_without_a_customer_is_stored_as_unattributed(ingress: Ingress) -> None:
    await ingress.post('{"id":"x","spend":0.1,"end_user":"","user":null}')
    [stored] = ingress.raw()
    assert (stored.key, stored.raw().id_kind) == (UNATTRIBUTED, "unattributed")


async def test_one_customers_calls_keep_their_order_on_the_partition_that_java_would_choose(ingress: Ingress) -> None:
    """Kafka's own murmur2: a key's partition must be the same for every client."""
    calls = [{"id": str(number), "spend": 0.1, "end_user": f"customer-{number % 7}"} for number in range(700)]
    assert (await ingress.post(json.dumps(calls))).status == 202
    last: dict[str, int] = {}
    for stored in ingress.raw():
        assert stored.key is not None
        assert stored.partition == (_murmur2(stored.key.encode()) & 0x7FFFFFFF) % 3
        number = int(str(stored.raw().call.id))
        assert number > last.get(stored.key, -1)
        last[stored.key] = number
    assert len(last) == 7


class SlicesInTurns:
    """A producer that begins the next slice of a large body only once another sender has been answered."""

    def __init__(self, producer: KafkaProducer) -> None:
        self.slices: list[int] = []
        self.answered = asyncio.Semaphore(0)
        self.in_flight = 0
        self._producer = producer

    async def send_all(self, records: Sequence[Record]) -> dict[int, Rejected]:
        if len(records) == 1:
            return await self._producer.send_all(records)
        self.slices.append(len(records))
        self.in_flight += 1
        assert self.in_flight == 1, "slices come one after another"
        await self.answered.acquire()
        refused = await self._producer.send_all(records)
        self.in_flight -= 1
        return refused


async def test_others_are_answered_between_the_slices_of_64_mib(
    kafka: Kafka, topics: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A slow endpoint makes LiteLLM's next batch larger; it has no upper bound."""
    element = json.dumps(json.loads((FIXTURES / "generic_api__1.109.1__batch-01.json").read_bytes())[1])
    count = (64 << 20) // (len(element) + 1) - 1
    body = f"[{','.join([element] * count)}]"
    threads: list[threading.Thread] = []

    def split_here(body: bytes) -> list[Element]:
        if len(body) > 1 << 20:
            threads.append(threading.current_thread())
        return split(body)

    monkeypatch.setattr(store, "split", split_here)
    producer = KafkaProducer(producer_config(kafka.bootstrap, answer_within_s=300))
    slices, others = SlicesInTurns(producer), 0
    try:
        async with serving(store_in(slices, topics), timeout_s=300) as ingress:
            large = asyncio.create_task(ingress.post(body))
            while not large.done():
                assert (await ingress.post(FLAT)).status == 202
                others += 1
                slices.answered.release()
            assert (await large).status == 202
            assert ingress.elements == {"accepted": count + others}
    finally:
        await producer.close(1)
    assert len(threads) == 1 and threads[0] is not threading.main_thread(), "it is split beside the event loop"
    assert sum(slices.slices) == count
    assert max(slices.slices) * len(element) <= 4 << 20, "what is parsed without a pause"
    assert others >= len(slices.slices) >= 16


async def test_a_signature_or_a_token_is_accepted_and_a_request_without_is_refused(
    kafka: Kafka, topic_prefix: str
) -> None:
    create_topics(kafka.bootstrap, topic_prefix)
    auth = WebhookAuth(secrets=["old", "new"], tokens=["t-1", "t-2"])
    signed = "sha256=" + hmac.new(b"new", FLAT.encode(), hashlib.sha256).hexdigest()
    async with running_ingress(kafka.bootstrap, topic_prefix, auth=auth) as ingress:
        assert (await ingress.post(FLAT, Authorization="Bearer t-2")).status == 202
        assert (await ingress.post(FLAT, X_Webhook_Signature=signed)).status == 202
        assert (await ingress.post(FLAT, X_Webhook_Signature=signed, Authorization="Bearer wrong")).status == 202
        for headers in ({}, {"Authorization": "Bearer wrong"}, {"X_Webhook_Signature": signed}):
            answer = await ingress.post(FLAT + " ", **headers)
            assert answer.status == 401, headers
            assert answer.content_type == "application/problem+json"
            assert (await answer.json())["reason"] == "unknown_sender"
        assert len(ingress.raw()) == 3
        assert ingress.rejected() == []


async def test_a_gzipped_body_is_read_like_a_plain_one(ingress: Ingress) -> None:
    assert (await ingress.post(gzip.compress(FLAT.encode()), Content_Encoding="gzip")).status == 202
    assert (await ingress.post(zlib.compress(FLAT.encode()), Content_Encoding="deflate")).status == 202
    answer = await ingress.post(FLAT, Content_Encoding="compress")
    assert (answer.status, (await answer.json())["reason"]) == (415, "unknown_encoding")
    assert len(ingress.raw()) == 2


PATHS = [route.path for route in ROUTES]


WRAPS = (
    *("%s", '{"events":[%s]}', '{"event":%s}', '{"data":[%s]}', '{"records":[%s]}', '{"usage":%s}'),
    *('{"data":{"events":[%s]}}', '[{"event":%s}]', '{"batch":1,"logs":[%s]}\n', '{"id":"envelope","record":%s}'),
)


@pytest.mark.parametrize("path", PATHS)
async def test_a_known_wrapper_is_removed_on_every_path(ingress: Ingress, path: str) -> None:
    for number, wrap in enumerate(WRAPS):
        for slash in ("", "/"):
            answer = await ingress.post(wrap % FLAT.replace('"request_id"', f'"call-{number}"', 1), path + slash)
            assert (answer.status, await answer.json()) == (202, ACCEPTED), wrap
    stored = Counter((one.key, one.raw().call.id) for one in ingress.raw())
    assert stored == {("customer_id", f"call-{number}"): 2 for number in range(len(WRAPS))}


async def test_a_call_with_too_many_wrappers_is_refused_and_listed_with_its_place(ingress: Ingress) -> None:
    deep = '{"events":[' * 4 + FLAT + "]}" * 4
    result = await (await ingress.post(f"[{FLAT},{deep},{{}},{FLAT}]")).json()
    assert reasons(result) == [(1, "too_deep"), (2, "not_a_call")]
    assert len(ingress.raw()) == 2
    assert (await ingress.post(deep)).status == 400


async def test_the_place_of_an_element_in_a_wrapper_is_its_index_there(ingress: Ingress) -> None:
    result = await (await ingress.post('{"events":[%s,{},%s]}' % (FLAT, FLAT))).json()  # noqa: UP031  # braces
    assert (result["accepted"], reasons(result)) == (2, [(1, "not_a_call")])


@pytest.mark.parametrize("path", PATHS)
async def test_a_cloud_event_in_binary_mode_has_its_attributes_in_headers(ingress: Ingress, path: str) -> None:
    headers = {
        "ce_specversion": "1.0",
        "ce_id": "e-1",
        "ce_source": "/gate%20way",
        "ce_type": "usage",
        "ce_subject": "c",
    }
    result = {"Content_Type": "application/json", "ce_time": "2026-11-20T22:45:16Z", **headers}
    for body in ('{"cost":8.85e-06,"model":"gpt-4o"}', '{"cost":8.85e-06,'):
        answer = await ingress.post(body, path, **result)
    assert answer.status == 400
    [stored] = ingress.raw()
    event = stored.raw().call.cloud_event
    assert event is not None
    assert (stored.key, stored.raw().shape, event.id, event.source) == ("c", "cloudevent", "e-1", "/gate way")
    assert b'"cost":8.85e-06' in stored.value


@pytest.mark.parametrize("path", PATHS)
async def test_cloud_events_in_structured_and_batch_mode_are_recognised_on_every_path(
    ingress: Ingress, path: str
) -> None:
    event = '{"specversion":"1.0","type":"t","id":"e","source":"s","subject":"c","data":{"cost":1}}'
    for body, media in ((event, "application/cloudevents+json"), (f"[{event}]", "application/cloudevents-batch+json")):
        assert (await ingress.post(body, path, Content_Type=media)).status == 202
    assert [(stored.key, stored.raw().shape) for stored in ingress.raw()] == [("c", "cloudevent")] * 2


def _murmur2(data: bytes) -> int:
    """Kafka's DefaultPartitioner hash (`org.apache.kafka.common.utils.Utils.murmur2`)."""
    m, mask = 0x5BD1E995, 0xFFFFFFFF
    h = 0x9747B28C ^ len(data)
    whole = len(data) & ~3
    for at in range(0, whole, 4):
        k = int.from_bytes(data[at : at + 4], "little") * m & mask
        k = (k ^ k >> 24) * m & mask
        h = (h * m & mask) ^ k
    rest = data[whole:]
    if rest:
        h = (h ^ int.from_bytes(rest, "little")) * m & mask
    h = (h ^ h >> 13) * m & mask
    return h ^ h >> 15
