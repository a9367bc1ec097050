"""Unexpected records: invalid ones, and those of a later release. Other records are billed, nothing is guessed."""

import hashlib
import json
import time
from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from schemas.ledger import LEDGER_VERSION, POSITION_KEY, Position
from schemas.wire import ENVELOPE_VERSION
from tests.support.calls import Raw, raw, slp
from tests.support.eventually import PATIENCE, soon
from tests.support.http_client import http_client
from tests.support.kafka import Kafka
from tests.support.posting import event, put, quick_delivery, statuses
from tests.support.sandbox import Lago
from tests.support.stage import Stage

pytestmark = pytest.mark.faults

LATER = ENVELOPE_VERSION + 1
#: The place of the version in a stored position.
_V = Position.__struct_fields__.index("v")
#: A value in the raw topic, and its reason for rejection. A tombstone has no value.
POISON: dict[str, tuple[bytes | None, str]] = {
    "nothing": (None, "malformed"),
    "no bytes": (b"", "malformed"),
    "no text": (b"\x00\xff\xfe\x80", "malformed"),
    "an Avro frame": (b"\x00\x00\x00\x00\x2a" + b"{}", "malformed"),
    "cut off": (b'{"v":1,"source":"webhook","sha', "malformed"),
    "another type": (b"[1,2,3]", "malformed"),
    "no envelope": (b'{"id":"chatcmpl-1","spend":1}', "malformed"),
    "deep": (b'{"v":1,"call":' + b"[" * 10_000 + b"]" * 10_000 + b"}", "malformed"),
    "no number": (b'{"v":1,"call":{"response_cost":NaN}}', "malformed"),
    "an unknown shape": (
        b'{"v":1,"source":"webhook","shape":"x","received_at":1,"id_kind":"end_user","call":{}}',
        "unknown_shape",
    ),
}


@pytest.fixture
def stage(kafka: Kafka, topic_prefix: str) -> Stage:
    return Stage(kafka.bootstrap, topic_prefix, partitions=1)


def call(number: int, **fields: Any) -> Raw:
    at = time.time_ns() // 1000
    return raw(0, slp(number, at_us=at, **fields), received_us=at)


def later(record: Raw, **fields: Any) -> Raw:
    """Return the same record as a later release would write it."""
    assert record.value is not None
    record.value = json.dumps({**json.loads(record.value), **fields}).encode()
    return record


def billed(stage: Stage) -> int:
    return sum(int(event["properties"]["requests"]) for event in stage.values(stage.topics.events))


async def test_invalid_records_in_the_raw_topic_are_rejected_with_their_reason_and_the_others_are_billed(
    stage: Stage, figures: Callable[..., None]
) -> None:
    """One rejection each, with length and hash if it is no envelope; the partition continues."""
    stage.map("acme", "org", "sub")
    at_ms = time.time_ns() // 1_000_000
    for number, (value, _) in enumerate(POISON.values()):
        stage.put([call(number), Raw(0, at_ms, b"acme" if number % 2 else b"\xff", value)])
    stage.put([call(len(POISON))])
    async with stage.running("meter", stage.parts()):
        await soon(lambda: billed(stage) == len(POISON) + 1, 30)
    refused = stage.values(stage.topics.rejected)
    figures(poisoned=len(refused), billed=billed(stage))
    assert [one["reason"] for one in refused] == [reason for _, reason in POISON.values()]
    for one, (value, reason) in zip(refused, POISON.values(), strict=True):
        assert one["length"] == len(value or b"")
        assert (one.get("sha256") == hashlib.sha256(value or b"").hexdigest()) is (reason == "malformed")
    assert stage.sensors.halted == []


async def test_a_call_of_a_later_release_is_stored_as_rejected_and_not_guessed(
    stage: Stage, figures: Callable[..., None]
) -> None:
    """The meaning of its fields is unknown; additional fields in our own envelope are harmless."""
    stage.map("acme", "org", "sub")
    of_later = [later(call(1), v=LATER), later(call(2), v=LATER, call="elsewhere", received_at={"s": 1})]
    stage.put([call(0), *of_later, later(call(3, new_field={"a": [1]}), new_envelope_field="x")])
    async with stage.running("meter", stage.parts()):
        await soon(lambda: billed(stage) == 2, 30)
    refused = stage.values(stage.topics.rejected)
    figures(later=len(refused), billed=billed(stage))
    assert [one["reason"] for one in refused] == ["unknown_version"] * 2
    assert [one["call"] for one in refused] == [json.loads(one.value or b"") for one in of_later]
    assert refused[0]["detail"] == f"{LATER}, this worker reads up to {ENVELOPE_VERSION}"


async def test_a_ledger_of_a_later_release_is_not_opened_and_not_changed(stage: Stage) -> None:
    """After a rollback: what the later release stores there would be lost with the next write."""
    stage.map("acme", "org", "sub")
    stage.put([call(0)])
    async with stage.running("meter", stage.parts()):
        await soon(lambda: billed(stage) == 1, 30)
    (position,) = {m.key(): m.value() for m in stage.read(stage.topics.changelog) if m.key() == POSITION_KEY}.values()
    fields = msgspec.msgpack.decode(position)
    at = Position.__struct_fields__.index("v")
    assert msgspec.msgpack.decode(position, type=Position).v == fields[at]
    newer = msgspec.msgpack.encode([*fields[:at], LEDGER_VERSION + 1, *fields[at + 1 :], "of a later release"])
    stage.producer.produce(stage.topics.changelog, newer, POSITION_KEY, partition=0)
    stage.producer.flush(10 * PATIENCE)
    stage.put([call(1)])
    async with stage.running("meter", stage.parts()):
        await soon(lambda: stage.sensors.halted, 30)
    assert [reason for _, _, reason in stage.sensors.halted] == ["newer_version"]
    assert billed(stage) == 1
    assert stage.read(stage.topics.changelog)[-1].value() == newer


async def test_an_event_with_fields_of_a_later_release_is_posted_unchanged(stage: Stage, lago: Lago) -> None:
    """Lago ignores unknown fields; leaving them out would make another event."""
    value = msgspec.json.encode({**msgspec.to_builtins(event(1)), "later": {"a": 1}})
    put(stage, [event(0), value])
    async with (
        http_client(trust_env=False) as http,
        stage.running("sink", stage.parts(delivery=quick_delivery(lago, http))),
    ):
        await soon(lambda: statuses(stage) == {"e-0": "completed", "e-1": "completed"}, 30)
    assert (await lago.stats())["totals"]["events"] == 2
