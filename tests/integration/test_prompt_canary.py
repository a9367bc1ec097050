"""Prompts, answers and unexpected fields never reach a topic, a log line or an HTTP answer.

Every body here carries one word that exists nowhere else. Afterwards all bytes of all topics, all
logs at their most talkative, and all answers are searched for it.
"""

import gzip
import json
import logging
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, get_args

import msgspec
import pytest
from confluent_kafka.admin import AdminClient

from connectors.ingest.auth import WebhookAuth
from connectors.ingest.call_context import ContextFields
from connectors.ingest.rejection_record import MAX_RECORD_BYTES
from connectors.ingest.spool import Spool
from connectors.ingest.spooling_producer import SpooledSender
from connectors.kafka.producer import Record
from schemas.errors import Rejected, Unavailable
from schemas.wire import Call, CallMetadata, CloudEvent, CloudEventData, LagoProperties
from tests.support.eventually import PATIENCE
from tests.support.ingress import USAGE, Ingress, create_topics, read_topic, running_ingress, serving, store_in
from tests.support.kafka import Kafka
from tests.support.ports import free_port

FIXTURES = Path(__file__).parent.parent / "fixtures" / "litellm"
CANARY = "c4n4ry-7f21d6"
MAX_BODY = 8 << 20


def _recorded_with_prompts() -> dict[str, Any]:
    """A recorded StandardLoggingPayload with the marker in every field that may contain a prompt or an answer."""
    call: dict[str, Any] = json.loads((FIXTURES / "generic_api__1.109.1__batch-01.json").read_bytes())[1]
    for name in ("messages", "response", "model_parameters", "hidden_params", "error_information", "guardrail"):
        call[name] = {"content": [CANARY, {CANARY: CANARY}]}
    call["error_str"] = call["user_agent"] = call["a field of next year"] = CANARY
    call["request_tags"] = [CANARY, f"User-Agent: {CANARY}", {"team:": CANARY}, "team:" + "x" * 200 + CANARY]
    call["api_base"] = f"https://{CANARY}:{CANARY}@api.example.com/{CANARY}?{CANARY}={CANARY}#{CANARY}"
    call["cost_breakdown"] |= {"service_tier": CANARY, CANARY: 1.0, "additional_costs": {CANARY: CANARY}}
    call[CANARY] = CANARY
    names = ("requester_metadata", "spend_logs_metadata", "user_api_key_auth_metadata", CANARY)
    call["metadata"] |= {name: {"text": CANARY, CANARY: 1, "env": {"text": CANARY}} for name in names}
    call["metadata"]["usage_object"] |= {"text": CANARY, "prompt_tokens_details": {"text": CANARY}}
    return call


def _wrongly_typed() -> Iterator[dict[str, Any]]:
    """For every stored field: the marker in a place for a number or a flat value."""
    nests: list[tuple[type[msgspec.Struct], str]] = [
        (Call, ""),
        (CallMetadata, "metadata"),
        (LagoProperties, "properties"),
        (CloudEvent, ""),
        (CloudEventData, "data"),
    ]
    for struct, nest in nests:
        for field in msgspec.structs.fields(struct):
            wrong: list[Any] = [{"text": CANARY}, [CANARY]]
            if str not in get_args(field.type):
                wrong.append(CANARY)
            if any(isinstance(one, type) and issubclass(one, msgspec.Struct) for one in get_args(field.type)):
                wrong.remove({"text": CANARY})
            for value in wrong:
                call = {"id": "wrong", "messages": CANARY}
                yield {**call, nest: {field.name: value}} if nest else {**call, field.name: value}


def _in_the_context() -> Iterator[dict[str, Any]]:
    """The marker as a text of the context in a place for a number, a name or a host, and longer than any name."""
    long = CANARY * 20
    for odd in (CANARY, [CANARY], {"text": CANARY}, {CANARY: CANARY}):
        for name in ("cost_breakdown", "completionStartTime", "api_base", "request_tags"):
            yield {"id": "context", "spend": 1, name: odd, "total_tokens": "3"}
            yield {"id": "context", "spend": 1, name: odd}
        for name in ("spend_logs_metadata", "user_api_key_auth_metadata"):
            yield {"id": "context", "spend": 1, "metadata": {name: odd}}
            yield {"id": "context", "spend": 1, "metadata": {name: {"env": [odd]}}}
            yield {"id": "context", "spend": 1, "metadata": {name: {"env": long}}}
            yield {"id": "context", "spend": 1, "metadata": json.dumps({name: {CANARY: odd, "env": long}})}
        yield {"id": "context", "spend": 1, "cost_breakdown": {"input_cost": odd, "total_cost": 1}}
    yield {"id": "context", "spend": 1, "model_id": long}
    yield {"id": "context", "spend": 1, "model_id": {"text": CANARY}}
    for key in ("api_key", "api_key_hash", "key_alias"):
        yield {"id": "context", "spend": 1, key: f"sk-{CANARY}"}
    yield {"id": "context", "spend": 1, "metadata": {"user_api_key_hash": CANARY}}
    yield {"id": "context", "spend": 1, "end_user": f"sk-{CANARY}"}


def _bodies() -> Iterator[bytes]:
    whole = json.dumps(_recorded_with_prompts())
    with_nan = whole.replace('"stream": null', '"stream": null, "response_time": NaN')
    bad_cost = json.dumps({**_recorded_with_prompts(), "response_cost": float("nan")})
    deep = '{"id":"x","messages":' + f'["{CANARY}",' * 20_000 + "0" + "]" * 20_000 + "}"
    surrogate = json.dumps({"id": "x", "messages": CANARY + "\ud800"})
    good = [whole, with_nan, surrogate]
    bad = [bad_cost, deep, f'"{CANARY}"', f'["{CANARY}"]', f"{CANARY}", f'{{"{CANARY}":tru}}']
    bad += [json.dumps({"id": "x", "model": CANARY * (MAX_RECORD_BYTES // len(CANARY))})]
    assert with_nan != whole
    for element in good + bad:
        yield element.encode()
        yield f"[{whole},{element},{whole}]".encode()
        yield f"{whole}\n{element}\n{whole}".encode()
        yield f'{{"{CANARY}":1,"event":{element}}}'.encode()
        yield element[:-1].encode()
        yield f"[{whole},{element[:-3]}".encode()
    yield json.dumps(list(_wrongly_typed())).encode()
    yield json.dumps(list(_in_the_context())).encode()
    yield json.dumps({"logs": [{CANARY: [CANARY]}], "events": [json.loads(whole), {CANARY: 1}]}).encode()
    yield b'{"id":"x","messages":"' + CANARY.encode() + b' \xff\xfe \0"}'
    yield json.dumps({"messages": CANARY * (MAX_BODY // len(CANARY) + 1)}).encode()


@pytest.fixture
def logs(caplog: pytest.LogCaptureFixture) -> Iterator[pytest.LogCaptureFixture]:
    with caplog.at_level(logging.NOTSET):
        yield caplog


async def test_the_marker_is_stored_nowhere(
    kafka: Kafka, topic_prefix: str, logs: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    create_topics(kafka.bootstrap, topic_prefix)
    answers: list[str] = []
    statuses: set[int] = set()

    async def post(ingress: Ingress, body: bytes, path: str, **headers: str) -> None:
        answer = await ingress.post(body, path, **headers)
        statuses.add(answer.status)
        answers.append(f"{answer.headers} {await answer.text()}")

    auth = WebhookAuth(tokens=["token"])
    kept = ContextFields(("team:",), ("env",))
    async with running_ingress(kafka.bootstrap, topic_prefix, auth=auth, max_body_bytes=MAX_BODY, kept=kept) as ingress:
        for body in _bodies():
            for path in (USAGE, "/webhooks/litellm/batch", "/api/v1/events", "/openmeter/api/v1/events"):
                await post(ingress, body, path, Authorization="Bearer token")
        await post(ingress, CANARY.encode(), USAGE, Authorization="Bearer token", Content_Encoding="gzip")
        await post(
            ingress, gzip.compress(CANARY.encode()), USAGE, Authorization="Bearer token", Content_Encoding="gzip"
        )
        await post(ingress, CANARY.encode(), USAGE, Authorization="Bearer token", Content_Encoding=CANARY)
        await post(ingress, CANARY.encode(), USAGE, Authorization=f"Bearer {CANARY}", X_Webhook_Signature=CANARY)
        stored = len(ingress.raw())
        reasons = {rejection.reason for rejection in ingress.rejected()}
    async with running_ingress(f"127.0.0.1:{free_port()}", "", timeout_s=1.5) as ingress:
        await post(ingress, json.dumps(_recorded_with_prompts()).encode(), USAGE)
        await post(ingress, CANARY.encode(), USAGE)

    assert statuses == {202, 400, 401, 413, 415, 503}
    odd = {"not_json", "not_an_object", "wrong_type", "bad_number", "too_deep", "too_large"}
    assert reasons == odd | {"not_a_call"}
    assert stored > 50
    assert CANARY not in "".join(answers)
    topics = AdminClient({"bootstrap.servers": kafka.bootstrap}).list_topics(timeout=10 * PATIENCE).topics
    for topic in [name for name in topics if name.startswith(topic_prefix)]:
        for record in read_topic(kafka.bootstrap, topic):
            assert CANARY.encode() not in record.value
            assert CANARY not in (record.key or "")
    written = logs.text + "".join(str(vars(record)) for record in logs.records) + "".join(capfd.readouterr())
    assert CANARY not in written


async def test_the_marker_is_not_on_the_disk_that_stores_calls_while_kafka_is_unavailable(tmp_path: Path) -> None:
    class Away:
        async def send_all(self, records: Sequence[Record]) -> dict[int, Rejected]:
            raise Unavailable("kafka_unavailable")

    spool = await Spool.at(tmp_path / "spool.db", 64 << 20)
    store = store_in(SpooledSender(Away(), spool, "rejected", lambda: 0))
    async with serving(store, max_body_bytes=MAX_BODY) as ingress:
        for body in _bodies():
            await ingress.post(body)
    kept = _all_bytes(tmp_path)  # the log
    assert spool.records > 50
    await spool.close()
    kept += _all_bytes(tmp_path)  # the file
    assert len(kept) > 2 * spool.bytes
    assert CANARY.encode() not in kept


def _all_bytes(folder: Path) -> bytes:
    return b"".join(path.read_bytes() for path in folder.iterdir())
