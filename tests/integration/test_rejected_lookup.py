"""Of the rejected calls, `explain --request` reads only the open ones with the id, as long as the rows are complete."""

import time
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest

from connectors.kafka import topic_scan
from connectors.operations import rejected_lookup
from connectors.operations.rejected_lookup import open_with_id
from connectors.postgres.pool import Database
from tests.support.calls import Raw, raw, slp
from tests.support.command import meterbridge
from tests.support.database import projector_parts, rows, until
from tests.support.eventually import soon
from tests.support.stage import Stage

COUNT = "SELECT count(*) FROM rejected_calls"
CLOSED = "SELECT count(*) FROM rejected_calls WHERE resolution = 'purged'"


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """The number of records that were read, and of those of calls."""
    counts: Counter[str] = Counter()
    scan_stretches = topic_scan.scan_stretches

    def counted(*arguments: Any) -> Iterator[Any]:
        for message in scan_stretches(*arguments):
            counts["records"] += 1
            counts["calls"] += bool(message.value())
            yield message

    for module in (topic_scan, rejected_lookup):
        monkeypatch.setattr(module, "scan_stretches", counted)
    return counts


async def rejected(stage: Stage, records: list[Raw]) -> None:
    """These calls are rejected, in addition to the earlier ones."""
    before = len(stage.read(stage.topics.rejected))
    stage.put(records)
    async with stage.running("meter", stage.parts()):
        await soon(lambda: len(stage.read(stage.topics.rejected)) == before + len(records), limit_s=20)


async def projected(stage: Stage, url: str, calls: int, closed: int) -> None:
    async with projector_parts(stage, url) as parts, stage.running("project", parts):
        await until(url, COUNT, lambda count: count == calls)
        await until(url, CLOSED, lambda count: count == closed)


def calls(numbers: range) -> list[Raw]:
    return [raw(0, slp(n, cost="-1"), received_us=time.time_ns() // 1000) for n in numbers]


async def ids(stage: Stage, url: str, call_id: str) -> list[str]:
    database = Database(url)
    try:
        return [one.call_ids[0] for one in await open_with_id(stage.deployment, database, call_id)]
    finally:
        database.terminate()


async def test_open_calls_that_are_far_apart_are_read_by_one_consumer(
    stage: Stage, database: str, reads: Counter[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each open call was read by a consumer of its own, which takes as long as reading 50,000 records."""
    monkeypatch.setattr(rejected_lookup, "_APART", 1)
    await rejected(stage, calls(range(60)))
    await projected(stage, database, 60, 0)
    await rows(database, "UPDATE rejected_calls SET resolution = 'purged' WHERE \"offset\" % 5 <> 0")
    await rows(database, "UPDATE rejected_calls SET call_ids = NULL")  # as a projector of an earlier release leaves it
    open_count = (await rows(database, "SELECT count(*) FROM open_rejected_calls"))[0][0]
    assert open_count >= 10
    consumers: Counter[str] = Counter()
    reader = topic_scan.reader

    def counted(*arguments: Any, **options: Any) -> Any:
        consumers["opened"] += 1
        return reader(*arguments, **options)

    monkeypatch.setattr(topic_scan, "reader", counted)
    assert await ids(stage, database, "none") == []
    without = consumers.pop("opened")
    assert reads["records"] == open_count
    await rows(database, "UPDATE rejected_calls SET resolution = 'purged'")
    assert await ids(stage, database, "none") == []
    assert without - consumers["opened"] == 1


async def test_only_open_calls_with_the_id_are_read_and_all_of_them_while_the_rows_are_incomplete(
    stage: Stage, database: str, reads: Counter[str]
) -> None:
    first = calls(range(20))
    await rejected(stage, first)
    assert await ids(stage, database, "call-7") == ["chatcmpl-7"]
    assert reads["calls"] >= 40  # there is no row: the topic is read twice
    dismissed = await meterbridge(stage, "dlq", "dismiss", "--until", "0s", "--comment", "a test", "--json")
    assert dismissed.json["dismissed"] == 20
    await rejected(stage, [*first[:3], *calls(range(20, 22))])  # a replay sends three of the dismissed calls again
    await projected(stage, database, 25, 20)
    for call_id, found in (
        ("call-20", ["chatcmpl-20"]),
        ("chatcmpl-21", ["chatcmpl-21"]),
        ("call-1", []),
        ("none", []),
    ):
        reads.clear()
        assert await ids(stage, database, call_id) == found
        assert reads["calls"] == len(found), call_id
    await rows(
        database, "INSERT INTO unprojected_records VALUES ($1, 0, 1, 0, 'row_refused', 'x')", stage.topics.rejected
    )
    reads.clear()
    assert await ids(stage, database, "call-20") == ["chatcmpl-20"]
    assert reads["calls"] >= 50  # a record without a row may be open
    await rows(database, "DELETE FROM unprojected_records")
    await rejected(stage, calls(range(22, 23)))
    assert await ids(stage, database, "call-22") == ["chatcmpl-22"]  # the projector is behind
    await projected(stage, database, 26, 20)
    await rows(database, "DELETE FROM rejected_calls")
    assert await ids(stage, database, "call-22") == ["chatcmpl-22"]  # the rows were pruned
