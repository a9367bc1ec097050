"""Billed amounts equal owed amounts: inputs from public bug reports, through HTTP and real Kafka, to Lago's sandbox.

Each case of the files in tests/fixtures/reports says what is posted, and what its customers then owe. A moment is
`{"$ago": seconds}`, a number, or `{"$iso": seconds}`, a text, both before now.
"""

import asyncio
import gzip
import json
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from schemas.moments import to_iso
from streams.core.metering.decisions import BILLED
from tests.support.eventually import soon
from tests.support.http_client import http_client
from tests.support.ingress import RECEIVED_AT, running_ingress
from tests.support.kafka import Kafka
from tests.support.posting import quick_delivery
from tests.support.sandbox import lago_sandbox
from tests.support.stage import QUICK, Stage

_REPORTS = Path(__file__).parents[1] / "fixtures" / "reports"
CASES: list[dict[str, Any]] = [
    case
    for name in ("cases.json", "more_cases.json")
    for case in json.loads((_REPORTS / name).read_text(encoding="utf-8"))
]
_NAMES = ("end_user", "customer_id", "user", "subject")


@dataclass(frozen=True)
class Seen:
    """The results of all cases.

    Fields:
        answers: of each case, the statuses and the number of listed rejections of its posts.
        billed: calls and cents of each customer, in the sandbox.
    """

    answers: dict[str, tuple[list[int], int]]
    billed: dict[str, tuple[int, Decimal]]


@pytest.fixture(scope="module")
def seen(kafka: Kafka) -> Seen:
    return asyncio.run(_world(kafka.bootstrap, f"owed-{uuid4().hex[:8]}."))


@pytest.mark.parametrize("case", CASES, ids=[case["name"] for case in CASES])
def test_the_billed_amounts_equal_the_owed_ones(seen: Seen, case: dict[str, Any]) -> None:
    statuses, rejected = seen.answers[case["name"]]
    owed = {customer: (calls, Decimal(cents)) for customer, (calls, cents) in case["owed"].items()}
    billed = {customer: seen.billed[customer] for customer in _customers(case) if seen.billed[customer][0]}
    assert statuses == [case.get("status", 202)] * len(statuses)
    assert rejected == case.get("rejected", 0)
    assert billed == owed, case["kind"]


async def _world(bootstrap: str, prefix: str) -> Seen:
    stage = Stage(bootstrap, prefix)
    customers = sorted({customer for case in CASES for customer in _customers(case)})
    for customer in customers:
        stage.map(customer, f"org-{customer}", f"sub-{customer}")
    async with (
        lago_sandbox(clock=lambda: RECEIVED_AT / 1e6) as lago,
        http_client(trust_env=False) as http,
        running_ingress(bootstrap, prefix) as ingress,
    ):
        await lago.plan()
        for customer in customers:
            await lago.subscribe(f"sub-{customer}", f"org-{customer}", subscription_at="2026-01-01T00:00:00Z")
        answers: dict[str, tuple[list[int], int]] = {}
        for case in CASES:
            statuses, rejected = [], 0
            for path, result, *form in case["steps"]:
                body, headers = _body(_with_moments(result), *form)
                answer = await ingress.post(body, path, **headers)
                statuses.append(answer.status)
                rejected += len((await answer.json()).get("rejected", ()))
            answers[case["name"]] = statuses, rejected
        stored = ingress.elements["accepted"]
        parts = stage.parts(QUICK, quick_delivery(lago, http))
        calls = stage.sensors.calls
        async with stage.running("meter", parts), stage.running("sink", parts):
            await soon(lambda: sum(calls.values()) >= stored, limit_s=30)
            due = sum(calls.get(decision, 0) for decision in BILLED)
            await soon(
                lambda: sum(r.calls for r in stage.sensors.receipts if r.status == "completed") >= due, limit_s=30
            )
        stats = (await lago.stats())["subscriptions"]
    found = {customer: stats.get(f"sub-{customer}", {"calls": 0, "billed_cents": "0"}) for customer in customers}
    return Seen(answers, {name: (one["calls"], Decimal(one["billed_cents"])) for name, one in found.items()})


def _body(value: Any, form: str = "") -> tuple[bytes, dict[str, str]]:
    if form == "ndjson":
        return "\n".join(one if isinstance(one, str) else json.dumps(one) for one in value).encode(), {}
    text = json.dumps(value).encode()
    if form == "gzip-half":
        packed = gzip.compress(text)
        return packed[: len(packed) // 2], {"Content_Encoding": "gzip"}
    if form in ("x-gzip", "deflate"):
        return (gzip if form == "x-gzip" else zlib).compress(text), {"Content_Encoding": form}
    assert form == "", form
    return text, {"Content_Type": "application/cloudevents+json"} if "specversion" in value else {}


def _with_moments(value: Any) -> Any:
    if isinstance(value, list):
        return [_with_moments(one) for one in value]
    if not isinstance(value, dict):
        return value
    if "$ago" in value:
        return RECEIVED_AT / 1e6 - value["$ago"]
    if "$iso" in value:
        return to_iso(RECEIVED_AT - int(value["$iso"] * 1e6))
    return {name: _with_moments(one) for name, one in value.items()}


def _customers(case: dict[str, Any]) -> set[str]:
    return set(case["owed"]) | set(_named(case["steps"]))


def _named(value: Any) -> Iterator[str]:
    for one in value.values() if isinstance(value, dict) else value:
        if isinstance(one, dict | list):
            yield from _named(one)
    if isinstance(value, dict):
        yield from (value[name] for name in _NAMES if isinstance(value.get(name), str))
