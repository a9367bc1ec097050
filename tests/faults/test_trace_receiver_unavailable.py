"""A trace receiver that dies, and one that never answers: every call is billed, and every process stops in time."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from decimal import Decimal
from pathlib import Path

import pytest

from tests.support.eventually import soon
from tests.support.kafka import Kafka
from tests.support.otlp_receiver import otlp_receiver
from tests.support.ports import free_port
from tests.support.stage import Stage
from tests.support.traced_line import TracedLine, traced_line

pytestmark = [pytest.mark.faults, pytest.mark.kafka]

CALLS = 100
ROLES = ("ingress", "meter", "sink")
SERVICES = {f"meterbridge-{role}" for role in ROLES}


async def send(line: TracedLine, numbers: range) -> None:
    """Send one call per number, each of one cent, ten at a time."""
    for start in range(numbers.start, numbers.stop, 10):
        await asyncio.gather(*(line.post(call(number)) for number in range(start, start + 10)))


def call(number: int) -> dict[str, object]:
    at = time.time()
    plain = {"id": f"r{number}", "litellm_call_id": f"c{number}", "user": "customer", "spend": "0.01"}
    return {**plain, "total_tokens": 1, "startTime": at - 1, "endTime": at}


@asynccontextmanager
async def silent(port: int) -> AsyncIterator[list[int]]:
    """Yield a receiver that accepts connections and requests, and never answers; with the bytes that it got."""
    got: list[int] = []
    writers: list[asyncio.StreamWriter] = []

    async def taken(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers.append(writer)
        while data := await reader.read(1 << 16):
            got.append(len(data))

    server = await asyncio.start_server(taken, "127.0.0.1", port)
    try:
        yield got
    finally:
        server.close()
        for writer in writers:
            writer.close()


async def test_a_receiver_of_traces_that_dies_or_hangs_changes_nothing_in_billing(
    kafka: Kafka, topic_prefix: str, tmp_path: Path, figures: Callable[..., None]
) -> None:
    Stage(kafka.bootstrap, topic_prefix, partitions=1).map("customer", "org", "sub")
    environ = {"TRACING_ENABLED": "true", "OTEL_TRACES_SAMPLER": "always_on", "WINDOW_SECONDS": "0"}
    environ |= {"CUSTOMER_ID_FIELDS": "user"}
    endpoint = f"http://127.0.0.1:{(port := free_port())}"
    async with traced_line(kafka, topic_prefix, tmp_path, **environ, OTEL_EXPORTER_OTLP_ENDPOINT=endpoint) as line:
        async with otlp_receiver(port) as receiver:
            await send(line, range(CALLS))
            await line.until_billed(CALLS)
            await soon(lambda: {span.service for span in receiver.spans} == SERVICES, 60)
        await send(line, range(CALLS, 2 * CALLS))  # the receiver is dead
        await line.until_billed(2 * CALLS)
        async with silent(port) as got:
            await send(line, range(2 * CALLS, 3 * CALLS))
            events = await line.until_billed(3 * CALLS)
            await soon(lambda: bool(got), 60)
            deaths = [await line.roles.processes[role].terminate() for role in ROLES]
    cents = sum(Decimal(event["precise_total_amount_cents"]) for event in events)
    assert (len(events), cents) == (3 * CALLS, Decimal(3 * CALLS))
    assert all(death is not None and death.code == 0 for death in deaths), deaths
    assert all("traces_failed" not in line.log(role) for role in ROLES)
    figures(calls=len(events), slowest_stop_s=round(max(death.took_s for death in deaths if death), 1))
