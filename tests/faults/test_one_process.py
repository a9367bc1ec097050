"""All roles in one process: an error of one role restarts that role, and the others continue."""

import asyncio
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka.admin import AdminClient

from connectors.kafka.admin import create_topics
from schemas.moments import SECOND_US
from tests.faults.kill_at_step import worker
from tests.faults.procs import Process
from tests.support.calls import Raw, raw_value, slp
from tests.support.eventually import soon
from tests.support.kafka import Kafka
from tests.support.log_lines import log_lines
from tests.support.posting import event, limit_records, put, statuses
from tests.support.sandbox import lago_sandbox
from tests.support.stage import Stage
from tests.support.values import topics_of

pytestmark = [pytest.mark.faults, pytest.mark.kafka]

_ALL = ["connectors", "worker", "--only", "meter,sink,retry"]
_TOO_LONG = b"no event, and its dead letter is too long for the topic: " + b"x" * 500


def _lines(process: Process, name: str) -> list[dict[str, Any]]:
    return [line for line in log_lines(process.log) if line["event"] == name]


def _starts(process: Process) -> dict[str, int]:
    roles = [line["role"] for line in _lines(process, "worker_started")]
    return {role: roles.count(role) for role in sorted(set(roles))}


async def test_an_error_of_one_role_restarts_that_role_and_the_others_continue(
    kafka: Kafka, topic_prefix: str, tmp_path: Path, figures: Callable[..., None]
) -> None:
    """The broker refuses a dead letter, which ends the sink each time it reaches it, until the topic accepts it."""
    stage = await asyncio.to_thread(Stage, kafka.bootstrap, topic_prefix, 1)
    limit_records(stage, stage.topics.dlq, 200)
    now_us = int(time.time()) * SECOND_US
    stage.map("acme", "org-a", "sub", now_us - 60 * SECOND_US)
    short = {"WINDOW_SECONDS": "1", "GRACE_SECONDS": "1", "WORKER_PROCESSES": "one"}
    async with lago_sandbox(clock=time.time) as lago:
        async with worker(_ALL, stage, lago, tmp_path, **short) as process:
            process.start()
            await soon(lambda: len(_lines(process, "partitions_opened")) == 3, 30)
            put(stage, [event(0), _TOO_LONG, event(1)])
            await soon(lambda: len(_lines(process, "worker_restarted")) >= 2, 30)
            call = slp(1, at_us=now_us, end_user="acme")
            stage.put([Raw(0, now_us // 1000, b"acme", raw_value(call, received_us=now_us))])
            await soon(lambda: len(stage.read(stage.topics.events)) == 4, 30)
            failed = _starts(process)
            limit_records(stage, stage.topics.dlq, 1 << 20)
            await soon(lambda: len(statuses(stage)) == 3 and len(stage.read(stage.topics.dlq)) == 1, 60)
            assert (failed["meter"], failed["retry"], failed["sink"] > 1) == (1, 1, True), failed
            assert process.deaths == []
            await process.terminate()
            assert [death.code for death in process.deaths] == [0]
        assert set(statuses(stage).values()) == {"completed"}
        totals = (await lago.stats())["totals"]
        assert totals["events"] == 3
    figures(restarts=failed["sink"] - 1)


async def test_a_role_that_cannot_be_restarted_does_not_end_the_others(
    kafka: Kafka, topic_prefix: str, tmp_path: Path
) -> None:
    """While the sink is between two starts, a topic is deleted that every role needs at its start."""
    stage = await asyncio.to_thread(Stage, kafka.bootstrap, topic_prefix, 1)
    limit_records(stage, stage.topics.dlq, 200)
    now_us = int(time.time()) * SECOND_US
    stage.map("acme", "org-a", "sub", now_us - 60 * SECOND_US)
    short = {"WINDOW_SECONDS": "1", "GRACE_SECONDS": "1", "WORKER_PROCESSES": "one"}
    admin = AdminClient({"bootstrap.servers": kafka.bootstrap})
    async with lago_sandbox(clock=time.time) as lago, worker(_ALL, stage, lago, tmp_path, **short) as process:
        process.start()
        await soon(lambda: len(_lines(process, "partitions_opened")) == 3, 30)
        put(stage, [_TOO_LONG, event(0)])
        await soon(lambda: len(_lines(process, "worker_restarted")) >= 1, 30)
        await asyncio.to_thread(admin.delete_topics([stage.topics.audit])[stage.topics.audit].result)
        await soon(lambda: len(_lines(process, "worker_crashed")) >= 2, 60)
        stage.put(
            [Raw(0, now_us // 1000, b"acme", raw_value(slp(1, at_us=now_us, end_user="acme"), received_us=now_us))]
        )
        await soon(lambda: len(stage.read(stage.topics.events)) == 3, 30)
        limit_records(stage, stage.topics.dlq, 1 << 20)
        await asyncio.to_thread(create_topics, *topics_of(stage.settings))
        await soon(lambda: len(statuses(stage)) == 2, 60)
        crashes = [line["error"] for line in _lines(process, "worker_crashed")]
        assert all(stage.topics.audit in error for error in crashes), crashes
        await process.terminate()
        assert [death.code for death in process.deaths] == [0]
