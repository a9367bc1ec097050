"""The main function with real Kafka: payloads of real LiteLLM proxies become Lago's events, once, to the cent."""

import asyncio
import csv
from collections.abc import Iterator
from dataclasses import dataclass, replace
from decimal import Decimal
from pathlib import Path

import msgspec
import pytest

from schemas.customer_id import normalise_customer_id
from schemas.rounding import quantum
from schemas.wire import RawRecord
from streams.core.metering.decisions import BILLED, decide
from streams.core.metering.normalise import normalise
from tests.support.eventually import soon
from tests.support.http_client import http_client
from tests.support.ingress import RECEIVED_AT, Ingress, running_ingress
from tests.support.kafka import Kafka
from tests.support.posting import quick_delivery
from tests.support.sandbox import lago_sandbox
from tests.support.stage import QUICK, Stage

FOLDER = Path(__file__).parents[1] / "fixtures" / "litellm"


@dataclass(frozen=True)
class Expected:
    """A row of expected.csv: the expected result of one element of one recorded body."""

    file: str
    element: int
    group: str
    id_kind: str
    customer: str
    model: str
    provider: str
    tokens: tuple[int, int, int, int, int]
    cost: Decimal
    decision: str


def rows() -> Iterator[Expected]:
    with (FOLDER / "expected.csv").open(newline="") as file:
        for row in csv.DictReader(file):
            names = ("prompt_tokens", "completion_tokens", "total_tokens", "cached_tokens", "reasoning_tokens")
            yield Expected(
                row["file"],
                int(row["element"]),
                row["identity_group"],
                row["id_kind"],
                normalise_customer_id(row["customer_id"]) or "",
                row["model"],
                row["provider"],
                tuple(int(row[name]) for name in names),  # type: ignore[arg-type]
                Decimal(row["cost_usd"]),
                row["decision"],
            )


ROWS = list(rows())
FILES = sorted({row.file for row in ROWS})


async def post_all(ingress: Ingress) -> None:
    for name in FILES:
        answer = await ingress.post((FOLDER / name).read_bytes())
        assert answer.status == 202, (name, await answer.text())
        assert "rejected" not in await answer.json(), name


async def test_every_recorded_body_is_read_as_expected(kafka: Kafka, topic_prefix: str) -> None:
    """Identity group, customer, tokens, cost and decision of each element, as stored by the ingress."""
    stage = Stage(kafka.bootstrap, topic_prefix, partitions=1)
    async with running_ingress(kafka.bootstrap, topic_prefix) as ingress:
        await post_all(ingress)
    messages = await asyncio.to_thread(stage.read, stage.topics.raw)
    assert len(messages) == len(ROWS)
    groups: dict[str, bytes] = {}
    wanted = sorted(ROWS, key=lambda row: (row.file, row.element))
    for row, message in zip(wanted, messages, strict=True):
        record = msgspec.json.decode(message.value(), type=RawRecord)
        usage = normalise(record, message.key().decode(), quantum())
        assert (usage.customer_id, usage.id_kind) == (row.customer, row.id_kind), row
        assert (usage.model, usage.provider) == (row.model, row.provider), row
        counts = (usage.tokens_input, usage.tokens_output, usage.total_tokens)
        assert (*counts, usage.cached_tokens, usage.reasoning_tokens) == row.tokens, row
        assert usage.cost == row.cost, row
        assert decide(usage, QUICK) == row.decision, row
        assert groups.setdefault(row.group, usage.identity) == usage.identity, row
    assert len(set(groups.values())) == len(groups)


@pytest.mark.parametrize("window_us", [QUICK.window_us, 0], ids=["windows", "per-call"])
async def test_recorded_bodies_sent_three_times_are_billed_once(
    kafka: Kafka, topic_prefix: str, window_us: int
) -> None:
    stage = Stage(kafka.bootstrap, topic_prefix)
    billed = {row.group: row for row in ROWS if row.decision in BILLED}
    customers = sorted({row.customer for row in billed.values()})
    for number, customer in enumerate(customers):
        stage.map(customer, f"org-{number}", f"sub-{number}")
    async with (
        lago_sandbox(clock=lambda: RECEIVED_AT / 1e6) as lago,
        http_client(trust_env=False) as http,
        running_ingress(kafka.bootstrap, topic_prefix) as ingress,
    ):
        await lago.plan()
        for number in range(len(customers)):
            await lago.subscribe(f"sub-{number}", f"org-{number}", subscription_at="2026-01-01T00:00:00Z")
        parts = stage.parts(replace(QUICK, window_us=window_us), quick_delivery(lago, http))
        for _ in range(3):
            await post_all(ingress)
        async with stage.running("meter", parts), stage.running("sink", parts):
            await soon(lambda: sum(r.calls for r in stage.sensors.receipts) == len(billed), limit_s=30)
        stats = (await lago.stats())["subscriptions"]
    for number, customer in enumerate(customers):
        own = [row for row in billed.values() if row.customer == customer]
        found = stats[f"sub-{number}"]
        assert found["calls"] == len(own), customer
        assert found["tokens"] == sum(row.tokens[2] for row in own), customer
        assert Decimal(found["billed_cents"]) == sum((row.cost for row in own), Decimal(0)) * 100, customer
    assert {receipt.status for receipt in stage.sensors.receipts} == {"completed"}
