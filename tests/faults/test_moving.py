"""The steps on docs/moving.md, executed: a deployment moves to another Kafka, with its data or without, and bills each
call once.
"""

import asyncio
import os
import shutil
import signal
import sys
import time
from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import Producer

from tests.support.database import projector_parts, until
from tests.support.eventually import PATIENCE
from tests.support.expanded import CENTS, GHOSTS, NAMES, Growing
from tests.support.http_client import http_client
from tests.support.ingress_process import IngressProcess
from tests.support.kafka import Kafka, MavenKafka
from tests.support.page_shell import ROOT, Block, PageShell, blocks
from tests.support.ports import free_port
from tests.support.stage import Stage

pytestmark = [pytest.mark.faults, pytest.mark.kafka]

PAGE = ROOT / "docs" / "moving.md"
PREFIX, PARTITIONS = "eu.", 2


@pytest.fixture
def places() -> Iterator[tuple[MavenKafka, MavenKafka]]:
    """Yield a broker, and the address of another one that does not run and has no data."""
    brokers: list[MavenKafka] = []
    try:
        brokers += [MavenKafka(), MavenKafka()]
        brokers[1].end()
        shutil.rmtree(brokers[1].folder / "data")
        (brokers[1].folder / "data").mkdir()
        yield brokers[0], brokers[1]
    finally:
        for broker in brokers:
            broker.stop()


def blocks_of(chapter: str) -> list[Block]:
    """Return the shell blocks of a chapter of the page."""
    lines = PAGE.read_text(encoding="utf-8").splitlines()
    begin = lines.index(f"## {chapter}")
    end = next((n for n in range(begin + 1, len(lines)) if lines[n].startswith("## ")), len(lines))
    return [block for block in blocks(PAGE) if begin < int(block.place.rpartition(":")[2]) <= end]


@asynccontextmanager
async def typing(folder: Path, port: int, **environ: str) -> AsyncIterator[PageShell]:
    """Yield a shell at one of the places."""
    common = {
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "KAFKA_PARTITIONS": str(PARTITIONS),
        "ALLOW_UNAUTHENTICATED": "1",
        "PORT": str(port),
        "METRICS_PORT": str(free_port()),
        "no_proxy": "*",
    }
    shell = PageShell(folder, common | environ, {r"\b8080\b": str(port)}, "no-prefix", forked=True)
    await shell.start()
    try:
        yield shell
    finally:
        await shell.stop()


def call(number: int, customer: str) -> dict[str, Any]:
    """Return a call of 50 cents as LiteLLM reports it."""
    at = time.time()
    name = {"id": f"chatcmpl-{number}", "litellm_call_id": f"call-{number}", "end_user": customer}
    return name | {"model": "m", "status": "success", "spend": 0.5, "startTime": at - 1, "endTime": at}


async def post(port: int, calls: Iterable[dict[str, Any]]) -> None:
    async with http_client(base_url=f"http://127.0.0.1:{port}", trust_env=False) as http:
        for one in calls:
            answer = await http.post("/webhook/litellm/usage", json=one)
            assert answer.status_code == 202, answer.text


async def test_with_kafkas_data_no_call_is_refused_lost_or_billed_twice(
    places: tuple[MavenKafka, MavenKafka], tmp_path: Path
) -> None:
    """
    old ingress: calls 0-19, ghosts 20-23 | new ingress, before its Kafka: 16-19 again, 24-43 | Kafka arrives, ghosts are mapped
    """
    old, new = places
    growing = Growing(old.bootstrap, PREFIX, PARTITIONS, PARTITIONS)
    growing.clock.go()
    settings = {"KAFKA_PARTITIONS": str(PARTITIONS)}
    ingress = IngressProcess(old.bootstrap, PREFIX, tmp_path, settings)
    await asyncio.to_thread(ingress.start)
    here = [call(number, f"customer-{number % 12}") for number in range(20)]
    here += [call(20 + number, ghost) for number, ghost in enumerate(GHOSTS)]
    await post(ingress.port, here)
    await growing.meter(until=24)
    starting, saving, restoring, looking, comparing = blocks_of("Move with Kafka's data")
    at_new = {"KAFKA_BOOTSTRAP_SERVERS": new.bootstrap, "TOPIC_PREFIX": PREFIX}
    port = free_port()
    async with typing(tmp_path, port, KAFKA_DATA=str(new.folder / "data"), **at_new) as shell:
        await shell.run(starting)
        await post(port, here[16:20])
        await post(port, [call(number, f"customer-{number % 12}") for number in range(24, 44)])
        assert await asyncio.to_thread(ingress.end, signal.SIGTERM, 30) == 0
        await asyncio.to_thread(old.end)
        async with typing(tmp_path, port, KAFKA_DATA=str(old.folder / "data")) as old_shell:
            await old_shell.run(saving)
        await shell.run(restoring)
        await asyncio.to_thread(new.restart)
        await shell.run(looking)
        growing.bootstrap = new.bootstrap
        growing.stage = Stage(new.bootstrap, PREFIX, PARTITIONS)
        for ghost in GHOSTS:
            growing.stage.map(ghost, "org", "sub")
        await growing.bill(44)
        await shell.run(comparing)
        assert growing.billed() == (44, 44 * CENTS)
        await growing.sound()


def test_a_mirrored_ledger_halts_and_bills_nothing(kafka: Kafka, topic_prefix: str) -> None:
    """Raw topic and changelog are copied record by record into topics of the same form, like a mirroring tool does."""
    asyncio.run(_mirrored(kafka.bootstrap, topic_prefix))


async def _mirrored(bootstrap: str, prefix: str) -> None:
    growing = Growing(bootstrap, f"{prefix}old.", PARTITIONS, PARTITIONS)
    mirror = Growing(bootstrap, f"{prefix}new.", PARTITIONS, PARTITIONS)
    growing.clock.go()
    growing.stage.put(growing.calls(range(12)))
    await growing.meter(until=12)
    producer = Producer({"bootstrap.servers": bootstrap})
    for topic, copy in (
        (growing.stage.topics.raw, mirror.stage.topics.raw),
        (growing.stage.topics.changelog, mirror.stage.topics.changelog),
    ):
        for one in growing.stage.read(topic):
            producer.produce(copy, one.value(), one.key(), one.partition(), timestamp=one.timestamp()[1])
    assert producer.flush(10 * PATIENCE) == 0
    async with mirror.stage.running("meter", mirror.parts()):
        await mirror.halted(PARTITIONS)
    assert {reason for _, _, reason in mirror.stage.sensors.halted} == {"topic_recreated"}
    assert mirror.billed()[0] == 0


async def test_mappings_move_to_an_empty_kafka_in_a_file(
    kafka: Kafka, topic_prefix: str, database: str, tmp_path: Path
) -> None:
    old = Growing(kafka.bootstrap, f"{topic_prefix}old.", PARTITIONS, PARTITIONS)
    old.clock.go()
    old.stage.put(old.calls(range(12)))
    await old.meter(until=12)
    await old.bill(12)
    async with projector_parts(old.stage, database) as parts, old.stage.running("project", parts):
        await until(database, "SELECT count(*) FROM customer_mappings", lambda found: found == len(NAMES))
    prefix = f"{topic_prefix}new."
    making, mapping = blocks_of("Move to an empty Kafka")
    at_new = {"KAFKA_BOOTSTRAP_SERVERS": kafka.bootstrap, "TOPIC_PREFIX": prefix, "DATABASE_URL": database}
    async with typing(tmp_path, free_port(), **at_new) as shell:
        await shell.run(making)
        await shell.run(mapping)
    new = Stage(kafka.bootstrap, prefix, PARTITIONS)
    stored = {
        one["litellm_customer_id"]: one["versions"][-1]["lago_customer_id"] for one in new.values(new.topics.customers)
    }
    assert stored == dict.fromkeys(NAMES, "org")
