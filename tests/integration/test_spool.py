"""Calls answered 202 reach Kafka, whichever process was killed or unavailable meanwhile; no request waits for an
unavailable broker.
"""

import asyncio
import json
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from secrets import token_hex
from typing import Self
from uuid import uuid4

import httpx
import pytest

from connectors.config.settings import Settings
from connectors.ingest.spooling_producer import KAFKA_S
from connectors.kafka.admin import create_topics
from schemas.topics import RAW, REJECTED
from tests.support.eventually import PATIENCE, eventually
from tests.support.http_client import http_client
from tests.support.ingress import USAGE, Stored, read_topic
from tests.support.ingress_process import IngressProcess
from tests.support.kafka import MavenKafka
from tests.support.values import topics_of

pytestmark = pytest.mark.faults

_CUSTOMERS, _SENDERS = 5, 8


@pytest.fixture(scope="module")
def broker() -> Iterator[MavenKafka]:
    """This module's own broker: the others' must not be killed."""
    broker = MavenKafka()
    yield broker
    broker.stop()


@pytest.fixture
def ingress(broker: MavenKafka, tmp_path: Path) -> Iterator[IngressProcess]:
    prefix = f"t{uuid4().hex[:8]}."
    create_topics(
        *topics_of(Settings(kafka_bootstrap_servers=broker.bootstrap, kafka_partitions=3, topic_prefix=prefix))
    )
    process = IngressProcess(broker.bootstrap, prefix, tmp_path, {"SPOOL_PATH": str(tmp_path / "spool.db")})
    yield process
    process.kill()
    if broker._process is None:  # a test failed while it was killed
        broker.restart()


class Senders:
    """Several senders, each with its own customers and ordered calls; none repeats what was answered. `padding`:
    incompressible bytes in each call.

    `padding`: bytes that no compression makes fewer, in each call.
    """

    def __init__(self, ingress: IngressProcess, padding: int = 0) -> None:
        self._padding = padding
        self.answered: list[str] = []
        self.statuses: dict[int, int] = {}
        self._ingress = ingress
        self._sent = 0
        self._leave = asyncio.Event()

    async def __aenter__(self) -> Self:
        self._http = http_client(base_url=self._ingress.url, timeout=30 * PATIENCE, trust_env=False)
        self._tasks = [asyncio.ensure_future(self._send(number)) for number in range(_SENDERS)]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._leave.set()
        await asyncio.gather(*self._tasks)
        await self._http.aclose()

    async def more(self, count: int, limit_s: float = 30) -> None:
        """Returns when `count` more calls are answered 202. Without the spool each would wait for Kafka, a minute and longer."""
        wanted, deadline = len(self.answered) + count, time.monotonic() + limit_s * PATIENCE
        while len(self.answered) < wanted:
            assert time.monotonic() < deadline, f"{self.statuses} after {limit_s} s"
            await asyncio.sleep(0.02)

    async def _send(self, sender: int) -> None:
        number = 0
        while not self._leave.is_set():
            call = {"id": f"{sender}-{number}", "spend": 0.01, "end_user": f"{sender}-{number % _CUSTOMERS}"}
            call |= {"model": token_hex(self._padding)} if self._padding else {}
            try:
                await self._post(call)
            except httpx.TransportError:  # killed: the outcome is unknown, and the next call is another one
                await asyncio.sleep(0.05)
            number += 1

    async def _post(self, call: dict[str, object]) -> None:
        answer = await self._http.post(USAGE, content=json.dumps(call))
        self.statuses[answer.status_code] = self.statuses.get(answer.status_code, 0) + 1
        if answer.status_code == 202:
            self.answered.append(str(call["id"]))
        else:
            assert answer.status_code == 503
            assert int(answer.headers["Retry-After"]) > 0
            await asyncio.sleep(0.05)


def raw_of(ingress: IngressProcess) -> list[Stored]:
    return read_topic(ingress.bootstrap, ingress.prefix + RAW.name)


def ids_in(stored: list[Stored]) -> set[str]:
    return {str(record.raw().call.id) for record in stored}


def assert_in_order(stored: list[Stored]) -> None:
    """The first delivery of each call comes after those of the customer's earlier calls."""
    last: dict[str, int] = {}
    seen: set[str] = set()
    for record in stored:
        if (call_id := str(record.raw().call.id)) in seen:
            continue
        seen.add(call_id)
        assert record.key is not None
        number = int(call_id.split("-")[1])
        assert number > last.get(record.key, -1), record.key
        last[record.key] = number


async def test_every_202_is_in_kafka_although_broker_and_ingress_were_killed_under_load(
    ingress: IngressProcess, broker: MavenKafka
) -> None:
    """The hardest case for a 202: the calls were only on the disk of a killed process."""
    ingress.start()
    async with Senders(ingress) as senders:
        await senders.more(200)
        await asyncio.to_thread(broker.kill)
        await senders.more(300)
        for _ in range(2):
            await asyncio.to_thread(ingress.kill)
            await asyncio.to_thread(ingress.start)
            await senders.more(300)
        assert await asyncio.to_thread(ingress.metric, "meterbridge_spool_records") > 500
        await asyncio.to_thread(broker.restart)
        await senders.more(300)
        await asyncio.to_thread(ingress.kill)  # in the midst of the drain
        await asyncio.to_thread(ingress.start)
        await senders.more(300)
        await asyncio.to_thread(eventually, ingress.drained, 60)
    assert senders.statuses.keys() == {202}
    assert set(senders.answered) <= ids_in(raw_of(ingress))


async def test_calls_reach_a_partition_in_order_and_new_ones_do_not_overtake(
    ingress: IngressProcess, broker: MavenKafka
) -> None:
    """A partition's clock is its newest record: if new calls came first, calls that waited for a day would be beyond
    the dedupe retention.
    """
    ingress.start()
    async with Senders(ingress) as senders:
        await senders.more(100)
        await asyncio.to_thread(broker.kill)
        await senders.more(2000, 60)
        await asyncio.to_thread(broker.restart)
        await asyncio.to_thread(eventually, ingress.drained, 60)
        await senders.more(100)
    stored = raw_of(ingress)
    assert senders.statuses.keys() == {202}
    assert set(senders.answered) == ids_in(stored)
    assert_in_order(stored)
    for earlier, later in pairwise(stored):  # those under way when the broker died were put as they were given up
        assert earlier.partition != later.partition or earlier.timestamp_ms <= later.timestamp_ms + KAFKA_S * 1000
    assert ingress.metric("meterbridge_spool_drained_total") == ingress.metric("meterbridge_spooled_total") >= 1900
    assert ingress.metric("meterbridge_spool_bytes") == ingress.metric("meterbridge_spool_oldest_seconds") == 0


async def test_without_kafka_it_starts_is_ready_answers_and_stops_within_ten_seconds(
    ingress: IngressProcess, broker: MavenKafka
) -> None:
    broker.kill()
    ingress.start()
    async with Senders(ingress) as senders:
        await senders.more(50)
        await senders.more(400, 5)  # known to be away, Kafka is not waited for: 400 waits of three seconds take longer
    assert ingress.metric("meterbridge_spool_records") == len(senders.answered)
    assert ingress.metric("meterbridge_spool_max_bytes") > ingress.metric("meterbridge_spool_bytes")
    assert ingress.metric("meterbridge_spool_bytes") > 100 * len(senders.answered)
    await asyncio.to_thread(eventually, lambda: ingress.metric("meterbridge_spool_oldest_seconds") > 1)
    assert ingress.end(signal.SIGTERM, 10) == 0
    broker.restart()
    ingress.start()
    eventually(ingress.drained, 30)
    assert ids_in(raw_of(ingress)) == set(senders.answered)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 4 MiB; only root may mount one."""
    if os.geteuid():
        pytest.skip("only root may mount a small disk; tests/unit/ingest/test_spool_file.py bounds the file instead")
    disk = tmp_path / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(disk)], check=True)
    yield disk
    subprocess.run(["umount", "--lazy", str(disk)], check=True)


async def test_on_a_full_disk_the_answer_is_503_nothing_is_lost_and_it_is_drained(
    ingress: IngressProcess, broker: MavenKafka, small_disk: Path
) -> None:
    """Even a delete needs room on a disk; and a process killed on a full disk must be able to start."""
    ingress.settings["SPOOL_PATH"] = str(small_disk / "spool.db")
    await _fills_up_and_drains(ingress, broker)


async def test_a_full_spool_is_a_503_and_accepts_calls_again_once_drained(
    ingress: IngressProcess, broker: MavenKafka
) -> None:
    ingress.settings["SPOOL_MAX_BYTES"] = "1MiB"
    await _fills_up_and_drains(ingress, broker)


async def _fills_up_and_drains(ingress: IngressProcess, broker: MavenKafka) -> None:
    ingress.start()
    broker.kill()
    async with Senders(ingress, padding=2000) as senders:
        deadline = time.monotonic() + 60 * PATIENCE
        while senders.statuses.get(503, 0) < 20:
            assert time.monotonic() < deadline, senders.statuses
            await asyncio.sleep(0.02)
        ready = await asyncio.to_thread(httpx.get, f"{ingress.url}/health/ready", trust_env=False)
        assert (ready.status_code, ready.json()["reason"]) == (503, "spool_full")
    ingress.kill()
    ingress.start()
    assert ingress.metric("meterbridge_spool_records") >= len(senders.answered) > 100
    await asyncio.to_thread(broker.restart)
    await asyncio.to_thread(eventually, ingress.drained, 60)
    async with Senders(ingress) as later:
        await later.more(50)
    assert later.statuses.keys() == {202}
    assert set(senders.answered) <= ids_in(raw_of(ingress))
    broker.kill()
    async with Senders(ingress) as again:
        await again.more(50)
    broker.restart()
    eventually(ingress.drained, 30)
    assert set(again.answered) <= ids_in(raw_of(ingress))


def test_a_second_process_on_the_same_file_does_not_start(ingress: IngressProcess, broker: MavenKafka) -> None:
    ingress.start()
    second = IngressProcess(broker.bootstrap, ingress.prefix, ingress.folder / "second", dict(ingress.settings))
    second.folder.mkdir()
    assert second.spawn().wait(20 * PATIENCE) == 2
    result = second.log.read_text().splitlines()[-1]
    assert result.startswith("meterbridge: SPOOL_PATH") and "in use by another process" in result


async def test_a_record_that_kafka_refuses_as_too_large_is_rejected_and_does_not_block_the_spool(
    ingress: IngressProcess, broker: MavenKafka
) -> None:
    """An operator may have lowered a topic's limit: a record above it would block the spool forever."""
    alter_limit(broker, ingress.prefix + RAW.name, 5000)
    ingress.start()
    broker.kill()
    calls = [{"id": f"0-{number}", "spend": 0.01, "end_user": "0-0"} for number in range(9)]
    calls[4]["model"] = token_hex(50_000)  # incompressible
    async with http_client(base_url=ingress.url, timeout=30 * PATIENCE, trust_env=False) as http:
        for call in calls:
            assert (await http.post(USAGE, content=json.dumps(call))).status_code == 202
    broker.restart()
    eventually(ingress.drained, 30)
    assert ids_in(raw_of(ingress)) == {f"0-{number}" for number in range(9) if number != 4}
    rejections = [stored.rejection() for stored in read_topic(ingress.bootstrap, ingress.prefix + REJECTED.name)]
    assert {(rejection.reason, rejection.stage) for rejection in rejections} == {("too_large", "ingress")}


def alter_limit(broker: MavenKafka, topic: str, max_bytes: int) -> None:
    """Lowers a topic's `max.message.bytes`."""
    from confluent_kafka.admin import (
        AdminClient,
        AlterConfigOpType,
        ConfigEntry,
        ConfigResource,
        ResourceType,
    )

    entry = ConfigEntry("max.message.bytes", str(max_bytes), incremental_operation=AlterConfigOpType.SET)
    resource = ConfigResource(ResourceType.TOPIC, topic, incremental_configs=[entry])
    admin = AdminClient({"bootstrap.servers": broker.bootstrap})
    for altered in admin.incremental_alter_configs([resource]).values():
        altered.result()
