"""Bad input: the other elements of a body are billed, the refused one is recorded, and no restart is needed."""

import asyncio
import gzip
import json
import zlib
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Sequence
from hashlib import sha256

import pytest
from aiohttp import ClientResponse
from msgspec import UNSET

from connectors.ingest.rejection_record import MAX_RECORD_BYTES
from connectors.kafka.client_config import producer_config
from connectors.kafka.producer import KafkaProducer, Record
from schemas.customer_id import normalise_customer_id
from schemas.errors import Rejected
from tests.support.eventually import PATIENCE
from tests.support.ingress import (
    USAGE,
    Ingress,
    create_topics,
    reasons,
    running_ingress,
    serving,
    store_in,
    topics_of_module,
)
from tests.support.kafka import Kafka, MavenKafka
from tests.support.ports import free_port

FIRST, LAST = '{"id":"first","spend":0.1,"end_user":"a"}', '{"id":"last","spend":0.2,"end_user":"b"}'

BAD = {
    "a NaN cost": ('{"id":"x","end_user":"c","spend":NaN}', "bad_number"),
    "an infinite cost": ('{"id":"x","end_user":"c","response_cost":-Infinity}', "bad_number"),
    "a time beyond floats": ('{"id":"x","end_user":"c","startTime":1e400}', "bad_number"),
    "a cost in words": ('{"id":"x","end_user":"c","spend":"a lot"}', "wrong_type"),
    "thousands with a mark": ('{"id":"x","end_user":"c","spend":"1_000"}', "wrong_type"),
    "a cost with spaces": ('{"id":"x","end_user":"c","spend":" 1 "}', "wrong_type"),
    "a cost in other digits": ('{"id":"x","end_user":"c","spend":"١"}', "wrong_type"),
    "a hexadecimal cost": ('{"id":"x","end_user":"c","spend":"0x1"}', "wrong_type"),
    "a cost below nothing": ('{"id":"x","end_user":"c","spend":-1}', "negative_cost"),
    "a cost beyond belief": ('{"id":"x","end_user":"c","spend":1e999999999}', "absurd_cost"),
    "two costs": ('{"id":"x","end_user":"c","spend":1,"response_cost":2}', "contradicting_cost"),
    "a cost in another currency": ('{"id":"x","end_user":"c","spend":1,"currency":"EUR"}', "foreign_currency"),
    "a currency that is a number": ('{"id":"x","end_user":"c","spend":1,"currency":978}', "foreign_currency"),
    "tokens in words and no cost": ('{"id":"x","end_user":"c","total_tokens":"many"}', "wrong_type"),
    "two customers": ('{"id":"x","end_user":"c","customer_id":"d","spend":1}', "contradicting_customer"),
    "a time that is none": ('{"id":"x","end_user":"c","endTime":"yesterday"}', "bad_time"),
    "no id": ('{"end_user":"c","spend":1}', "no_identity"),
    "an empty object": ("{}", "not_a_call"),
    "nothing of a call": ('{"messages":"p","x":{"y":1}}', "not_a_call"),
    "a fractional id": ('{"id":1.5,"end_user":"c"}', "wrong_type"),
    "a list as the customer": ('{"id":"x","user":"c","end_user":[1],"team_id":"t"}', "wrong_type"),
    "endless nesting": ('{"id":"x","end_user":"c","messages":' + "[" * 50_000 + "]" * 50_000 + "}", "too_deep"),
    "a number": ("42", "not_an_object"),
    "a text": ('"a call"', "not_an_object"),
    "a list": ("[{}]", "not_an_object"),
    "a bare NaN": ("NaN", "not_an_object"),
    "a slip of the pen": ('{"id":"x","end_user":tru}', "not_json"),
    "nothing": ("", "not_json"),
    "a record above Kafka's limit": ('{"id":"x","end_user":"c","model":"%s"}' % ("m" * MAX_RECORD_BYTES), "too_large"),
}
ODD = {
    "NaN where nothing is kept": ('{"spend":0.1,"id":"x","end_user":"c","response_time":NaN}', "c"),
    "a lone surrogate in a prompt": ('{"spend":0.1,"id":"x","end_user":"c","messages":"\\ud800"}', "c"),
    "a lone surrogate in an id": ('{"spend":0.1,"id":"x","end_user":"c\\udfff"}', "c�"),
    "an escaped NUL": ('{"spend":0.1,"id":"x","end_user":"c\\u0000"}', "c"),
    "a raw NUL": ('{"spend":0.1,"id":"x","end_user":"c\0","messages":"\0"}', "c"),
    "bytes that are no UTF-8": (b'{"spend":0.1,"id":"x","end_user":"c\xff"}', "c�"),
    "an id of 300 dead letters": (json.dumps({"spend": 0.1, "id": "i" * 300, "end_user": "c" * 300}), "c" * 300),
    "a number as an id": ('{"spend":0.1,"id":7,"end_user":12345}', "12345"),
    "a count beyond integers": ('{"spend":0.1,"id":"x","end_user":"c","total_tokens":' + "9" * 5000 + "}", "c"),
    "seconds with a huge exponent": (
        '{"id":"x","end_user":"c","spend":"0.1","metadata":{"usage_object":{"seconds":"1e-30000000"}}}',
        "c",
    ),
    "a tiny cost of failed attempts": (
        '{"id":"x","end_user":"c","spend":0.1,"cost_breakdown":{"additional_costs":{"failed_attempts_cost":1e-999999}}}',
        "c",
    ),
    "a true count": ('{"spend":0.1,"id":"x","end_user":"c","prompt_tokens":true}', "c"),
    "a model that is an object": ('{"spend":0.1,"id":"x","end_user":"c","model":{"name":"gpt"}}', "c"),
    "a model that is a number": ('{"spend":0.1,"id":"x","end_user":"c","model":4}', "c"),
    "metadata in words": ('{"spend":0.1,"id":"x","end_user":"c","metadata":"none"}', "c"),
    "metadata as a number": ('{"spend":0.1,"id":"x","end_user":"c","metadata":0}', "c"),
    "a list as a nested id of less weight": (
        '{"spend":0.1,"id":"x","end_user":"c","metadata":{"user_api_key_hash":[1]}}',
        "c",
    ),
    "a status as a number": ('{"spend":0.1,"id":"x","end_user":"c","status":200}', "c"),
    "a key twice": ('{"spend":0.1,"id":"x","end_user":"b","end_user":"c"}', "c"),
    "an escaped key": ('{"spend":0.1,"id":"x","e\\u006ed_user":"c"}', "c"),
}


@pytest.fixture(scope="module")
def topics(kafka: Kafka) -> Iterator[str]:
    with topics_of_module(kafka.bootstrap) as prefix:
        yield prefix


@pytest.fixture
async def ingress(kafka: Kafka, topics: str) -> AsyncIterator[Ingress]:
    async with running_ingress(kafka.bootstrap, topics, max_body_bytes=4 << 20) as running:
        running.begins_here()
        yield running


@pytest.mark.parametrize("name", BAD)
async def test_a_bad_element_does_not_affect_the_others(ingress: Ingress, name: str) -> None:
    bad, reason = BAD[name]
    answer = await ingress.post(f"[{FIRST},{bad},{LAST}]")
    assert answer.status == 202
    result = await answer.json()
    assert (result["accepted"], reasons(result)) == (2, [(1, reason)])
    assert {stored.raw().call.id for stored in ingress.raw()} == {"first", "last"}
    [rejection] = ingress.rejected()
    assert (rejection.reason, rejection.stage) == (reason, "ingress")
    if reason not in ("not_json", "not_an_object", "too_deep", "too_large", "not_a_call"):
        assert rejection.call is not UNSET
        assert "c" in json.loads(bytes(rejection.call)).values()
    else:
        assert (rejection.call, rejection.length, rejection.sha256) == (
            UNSET,
            len(bad.encode()),
            sha256(bad.encode()).hexdigest(),
        )
    assert ingress.elements == {"accepted": 2, reason: 1}


async def test_a_bad_line_does_not_affect_the_others(ingress: Ingress) -> None:
    for bad, reason in BAD.values():
        answer = await ingress.post(f"{FIRST}\n{bad}\n{LAST}\n")
        result = await answer.json()
        if bad == "":
            assert "rejected" not in result  # an empty line is no element
        else:
            assert reasons(result) == [(1, reason)], bad[:80]
    stored = Counter(stored.raw().call.id for stored in ingress.raw())
    assert stored == {"first": len(BAD), "last": len(BAD)}


@pytest.mark.parametrize("name", ODD)
async def test_an_unusual_call_is_billed_like_any_other(ingress: Ingress, name: str) -> None:
    odd, customer = ODD[name]
    element = odd if isinstance(odd, bytes) else odd.encode()
    for body in (element, b"[" + element + b"]"):
        answer = await ingress.post(body)
        assert answer.status == 202
        assert "rejected" not in await answer.json()
    stored = ingress.raw()
    assert {record.key for record in stored} == {normalise_customer_id(customer)}
    assert all(record.raw().call.end_user for record in stored)


@pytest.mark.parametrize(
    ("body", "offset"),
    [
        (b"", 0),
        (b"usage=1", 0),
        (b'{"id":"x"', 9),
        (b'{"id":"x",}', 10),
        (b'{"id":"x"} {"id":"y"}', 11),
        (b'[{"id":"x"},{"id', 13),
        (b'[{"id":"x"}] tail', 12),
        (b'[{"id":"x"', 10),
        (b'{\n "id": "x",\n "model"', 22),
        (b'{"events":[{"id":"x"}', 21),
        (b"\xff\xfe[\x00]\x00", 0),
    ],
)
async def test_a_body_that_is_not_json_is_refused_and_its_hash_stored(
    ingress: Ingress, body: bytes, offset: int
) -> None:
    answer = await ingress.post(body, "/webhooks/litellm/batch")
    assert answer.status == 400
    assert answer.content_type == "application/problem+json"
    result = await answer.json()
    assert {name: result[name] for name in ("status", "title", "reason")} == {
        "status": 400,
        "title": "Bad Request",
        "reason": "not_json",
    }
    assert ingress.raw() == []
    [rejection] = ingress.rejected()
    assert (rejection.reason, rejection.call, rejection.length) == ("not_json", UNSET, len(body))
    assert rejection.sha256 == sha256(body).hexdigest()
    assert rejection.error_offset == offset


async def test_a_body_that_is_too_large_is_refused_in_every_form(ingress: Ingress) -> None:
    async def in_chunks() -> AsyncIterator[bytes]:
        for _ in range(5):
            yield b" " * (1 << 20)

    bomb = gzip.compress(b" " * (256 << 20), 9)
    assert len(bomb) < 1 << 20
    for answer in (
        await ingress.post(b" " * (5 << 20)),
        await ingress.client.post(USAGE, data=in_chunks()),
        await ingress.post(bomb, Content_Encoding="gzip"),
    ):
        assert (answer.status, (await answer.json())["reason"]) == (413, "body_too_large")
    assert (await ingress.post(FIRST)).status == 202


PACKED = {
    "gzip": gzip.compress,
    "x-gzip": gzip.compress,
    "deflate": zlib.compress,
    "Deflate": lambda body: zlib.compress(body, wbits=-15),
    "GZIP": lambda body: gzip.compress(body[:20]) + gzip.compress(body[20:]) + bytes(8),
}


@pytest.mark.parametrize("encoding", PACKED)
async def test_a_compressed_body_is_accepted_completely_or_not_at_all(ingress: Ingress, encoding: str) -> None:
    """A sender or a proxy that dies in the middle leaves an incomplete stream: half a batch must not be stored."""
    body = json.dumps([{"id": str(number), "end_user": "c", "spend": 0.1} for number in range(2000)]).encode()
    packed = PACKED[encoding](body)
    for cut in (packed[: len(packed) // 2], packed[:-1] if encoding != "GZIP" else packed[:-9], b"", packed + b"x"):
        answer = await ingress.post(cut, Content_Encoding=encoding)
        assert (answer.status, (await answer.json())["reason"]) == (400, "bad_encoding"), len(cut)
    assert ingress.raw() == []
    assert (await ingress.post(packed, Content_Encoding=encoding)).status == 202
    assert len(ingress.raw()) == 2000


async def test_a_body_that_is_not_gzip_is_refused(ingress: Ingress) -> None:
    answer = await ingress.post(FIRST, Content_Encoding="gzip")
    assert (answer.status, (await answer.json())["reason"]) == (400, "bad_encoding")


async def test_a_body_with_too_many_elements_is_refused(ingress: Ingress) -> None:
    answer = await ingress.post("[" + "1," * 300_000 + "1]")
    assert (answer.status, (await answer.json())["reason"]) == (413, "too_many_elements")
    [rejection] = ingress.rejected()
    assert rejection.reason == "too_many_elements"


async def test_a_body_that_arrives_too_slowly_is_abandoned_in_time(kafka: Kafka, topic_prefix: str) -> None:
    async with running_ingress(kafka.bootstrap, topic_prefix, timeout_s=0.3) as ingress:
        answer, writer = await _announce(ingress, 100)
        assert b" 408 " in await asyncio.wait_for(answer.readline(), 5 * PATIENCE)
        writer.close()
        assert ingress.requests == [("litellm", 408)]


async def test_the_announced_size_counts_as_load_and_overload_is_a_503(kafka: Kafka, topic_prefix: str) -> None:
    """Never 429: LiteLLM drops a batch that gets a 429."""
    create_topics(kafka.bootstrap, topic_prefix)
    async with running_ingress(kafka.bootstrap, topic_prefix, max_bytes_in_flight=1000) as ingress:
        answer, writer = await _announce(ingress, 980)
        refused = await _until_status(ingress, 503)
        assert refused.headers["Retry-After"] == "1"
        assert (await refused.json())["reason"] == "overloaded"
        writer.write(FIRST.encode().ljust(980))
        assert b" 202 " in await asyncio.wait_for(answer.readline(), 10 * PATIENCE)
        writer.close()
        assert (await ingress.post(FIRST)).status == 202


async def test_while_kafka_is_unavailable_the_answer_is_503_before_the_sender_times_out() -> None:
    async with running_ingress(f"127.0.0.1:{free_port()}", "", timeout_s=4) as ingress:
        bodies = (FIRST, f"[{FIRST},{LAST}]", "not JSON")
        for answer in await asyncio.gather(*[ingress.post(body) for body in bodies]):
            assert answer.status == 503
            assert answer.headers["Retry-After"] == "5"
            assert (await answer.json())["reason"] == "kafka_timeout"


async def test_a_full_queue_is_a_503_at_once() -> None:
    config = producer_config(f"127.0.0.1:{free_port()}", answer_within_s=60)
    producer = KafkaProducer({**config, "queue.buffering.max.messages": 3})
    async with serving(store_in(producer)) as ingress:
        answer = await asyncio.wait_for(ingress.post(f"[{','.join([FIRST] * 5)}]"), 5 * PATIENCE)
        assert (answer.status, (await answer.json())["reason"]) == (503, "kafka_queue_full")
    assert await producer.close(0.1) >= 3  # librdkafka counts events of its own that wait as well
    assert not producer.healthy()


async def test_a_missing_acknowledgement_is_a_503_in_time() -> None:
    class NeverAcks:
        async def send_all(self, records: Sequence[Record]) -> dict[int, Rejected]:
            await asyncio.Event().wait()
            return {}

    async with serving(store_in(NeverAcks()), timeout_s=0.2) as ingress:
        answer = await ingress.post(FIRST)
        assert (answer.status, (await answer.json())["reason"]) == (503, "ack_timeout")


async def test_a_record_that_kafka_refuses_as_too_large_does_not_affect_the_others(
    kafka: Kafka, topic_prefix: str
) -> None:
    """A deployment may lower `message.max.bytes`; the ingress then learns it from the producer."""
    create_topics(kafka.bootstrap, topic_prefix)
    producer = KafkaProducer({**producer_config(kafka.bootstrap, answer_within_s=30), "message.max.bytes": 5_000})
    long = '{"id":"x","end_user":"c","model":"%s"}' % ("m" * 6_000)
    async with serving(store_in(producer, topic_prefix), bootstrap=kafka.bootstrap, prefix=topic_prefix) as ingress:
        result = await (await ingress.post(f"[{FIRST},{long},{LAST}]")).json()
        assert (result["accepted"], reasons(result)) == (2, [(1, "too_large")])
        assert len(ingress.raw()) == 2
        [rejection] = ingress.rejected()
        assert (rejection.reason, rejection.length) == ("too_large", len(long))
    await producer.close()


@pytest.mark.faults
async def test_a_post_waits_for_a_broker_that_restarts() -> None:
    """LiteLLM's default sender never repeats a post, so a restart of Kafka is waited out."""
    broker = MavenKafka()
    try:
        create_topics(broker.bootstrap, "")
        async with running_ingress(broker.bootstrap, "", timeout_s=60) as ingress:
            assert (await ingress.post(FIRST)).status == 202
            broker.kill()
            posted = asyncio.create_task(ingress.post(LAST))
            await asyncio.to_thread(broker.restart)
            assert (await posted).status == 202
            assert [stored.raw().call.id for stored in ingress.raw()].count("last") == 1
    finally:
        broker.stop()


async def _announce(ingress: Ingress, length: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """A connection on which a body of `length` bytes was announced and has not started."""
    reader, writer = await asyncio.open_connection(ingress.client.host, ingress.client.port)
    writer.write(f"POST {USAGE} HTTP/1.1\r\nHost: x\r\nContent-Length: {length}\r\n\r\n".encode())
    await writer.drain()
    return reader, writer


async def _until_status(ingress: Ingress, status: int) -> ClientResponse:
    deadline = asyncio.get_running_loop().time() + 10
    while asyncio.get_running_loop().time() < deadline:
        answer = await ingress.post(FIRST)
        if answer.status == status:
            return answer
    raise AssertionError(f"never answered {status}")
