"""Copies of a call are compared by their cost: a call counted without a price is billed once it has one, and never
twice.
"""

import json
import time
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from schemas.moments import HOUR_US, SECOND_US
from tests.support.calls import Raw, raw, slp
from tests.support.command import Ended, meterbridge
from tests.support.database import fresh_database, projector_parts, rows, until
from tests.support.eventually import soon
from tests.support.recorded_day import RECORDED
from tests.support.stage import Stage

BILLED = "SELECT count(*), COALESCE(sum(cost_usd), 0) FROM llm_usage_log WHERE part <> ''"


@pytest.fixture
async def litellm(postgres_url: str) -> AsyncIterator[str]:
    """LiteLLM's database with an empty table."""
    async with fresh_database(postgres_url) as url:
        schema = (RECORDED / "spendlogs__schema.sql").read_text()
        connection = await asyncpg.connect(url)
        await connection.execute("\n".join(line for line in schema.splitlines() if not line.startswith("\\")))
        await connection.close()
        yield url


@pytest.fixture
async def running(stage: Stage, database: str) -> AsyncIterator[None]:
    stage.map("acme", "org", "sub")
    async with projector_parts(stage, database) as project:
        meter = stage.parts()
        async with stage.running("meter", meter), stage.running("project", project):
            yield


class Table:
    """LiteLLM's rows about calls that its callbacks reported, in its own format."""

    def __init__(self, url: str) -> None:
        self.url = url

    async def put(self, call: dict[str, Any], **columns: Any) -> None:
        start = datetime.fromtimestamp(round(call["startTime"], 3), UTC).replace(tzinfo=None)
        row = {
            "request_id": call["id"],
            "litellm_call_id": call["litellm_call_id"],
            "call_type": "acompletion",
            "spend": float(call["response_cost"]),
            "prompt_tokens": 10,
            "completion_tokens": 12,
            "total_tokens": 22,
            "startTime": start,
            "endTime": start,
            "end_user": "acme",
            "status": "success",
            "model": call["model"],
            **columns,
        }
        names = ", ".join(f'"{name}"' for name in row)
        places = ", ".join(f"${number}" for number in range(1, len(row) + 1))
        await self.run(f'INSERT INTO public."LiteLLM_SpendLogs" ({names}) VALUES ({places})', *row.values())

    async def run(self, statement: str, *arguments: Any) -> None:
        connection = await asyncpg.connect(self.url)
        try:
            await connection.execute(statement, *arguments)
        finally:
            await connection.close()


class World:
    def __init__(self, stage: Stage, database: str, litellm: str) -> None:
        self.stage, self.database, self.table = stage, database, Table(litellm)

    async def run(self, command: str, *words: str) -> Ended:
        where = {"DATABASE_URL": self.database, "LITELLM_DATABASE_URL": self.table.url}
        return await meterbridge(self.stage, command, *words, "--json", **where)

    async def backfill(self, *words: str) -> Ended:
        return await self.run("backfill", "--source", "litellm-db", "--from", "6d", "--to", "0s", *words)

    async def reconcile(self) -> Ended:
        return await self.run("reconcile", "--litellm", "--from", "6d", "--to", "0s")

    async def webhook(self, *calls: Raw) -> None:
        before = (await rows(self.database, "SELECT count(*) FROM llm_usage_log"))[0][0]
        self.stage.put(calls)
        await until(self.database, "SELECT count(*) FROM llm_usage_log", lambda count: count == before + len(calls))

    async def billed(self) -> tuple[int, Decimal]:
        count, usd = (await rows(self.database, BILLED))[0]
        return count, usd


@pytest.fixture
def world(stage: Stage, database: str, litellm: str, running: None) -> World:
    return World(stage, database, litellm)


def call(number: int, cost: str = "2", *, hours: float = 1, **fields: Any) -> dict[str, Any]:
    at_us = time.time_ns() // 1000 - int(hours * HOUR_US)
    return slp(number, at_us=at_us - at_us % SECOND_US + 123_456, cost=cost, **fields)


def by_webhook(one: dict[str, Any]) -> Raw:
    received = time.time_ns() // 1000
    return raw(0, one, received_us=received)


async def test_a_table_without_the_call_id_bills_nothing_twice(world: World) -> None:
    """Callbacks have the call id since 1.85, the table only since August 2026."""
    one = call(1)
    await world.webhook(by_webhook(one))
    await world.table.run('ALTER TABLE public."LiteLLM_SpendLogs" DROP COLUMN litellm_call_id')
    start = datetime.fromtimestamp(round(one["startTime"], 3), UTC).replace(tzinfo=None)
    await world.table.run(
        'INSERT INTO public."LiteLLM_SpendLogs" (request_id, call_type, spend, "startTime", "endTime", end_user) '
        "VALUES ($1, 'acompletion', 2, $2, $2, 'acme')",
        one["id"],
        start,
    )
    result = await world.reconcile()
    assert (result.code, result.json["complaints"]) == (0, []), result.out + result.err
    done = await world.backfill()
    assert (done.code, done.json["known"], done.json["missing"]) == (0, 1, 0), done.out + done.err


async def test_old_rows_with_call_id_null_bill_nothing_twice_and_those_with_another_start_are_refused(
    world: World,
) -> None:
    one, moved, lost = call(1), call(2), call(3, "3")
    await world.webhook(by_webhook(one), by_webhook(moved))
    await world.table.put(one, litellm_call_id=None)
    await world.table.put({**moved, "startTime": moved["startTime"] - 7200}, litellm_call_id=None)
    await world.table.put(lost, litellm_call_id=None)
    done = await world.backfill()
    assert (done.code, done.json["known"], done.json["missing"]) == (1, 1, 1), done.out + done.err
    assert done.json["refused"] == {"no_call_id": 1} and moved["id"] in done.json["where"][0]
    assert done.json["usd"] == "3"


async def test_a_row_with_both_ids_is_the_call_for_any_start(world: World) -> None:
    """LiteLLM's table had local times until early 2025."""
    one = call(1)
    await world.webhook(by_webhook(one))
    await world.table.put({**one, "startTime": one["startTime"] - 5 * 3600})
    done = await world.backfill()
    assert (done.code, done.json["known"], done.json["missing"]) == (0, 1, 0), done.out + done.err


def by_callback(name: str, one: dict[str, Any]) -> Raw:
    """The call as another callback or sender reports it: without a call id, and only with its end or its receipt."""
    ended_us = int(one["endTime"] * SECOND_US)
    when, cost = datetime.fromtimestamp(ended_us / SECOND_US + 0.3, UTC).isoformat(), one["response_cost"]
    if name == "openmeter":
        data = {"model": "gpt-4o", "cost": cost, "total_tokens": 22}
        event = {"id": one["id"], "source": "litellm-proxy", "subject": "acme", "time": when, "data": data}
        return raw(0, {"cloud_event": event}, received_us=ended_us + 400_000, shape="cloudevent", kind="customer")
    if name.startswith("integration"):
        result = {
            "request_id": one["litellm_call_id" if name.endswith("call id") else "id"],
            "customer_id": "acme",
            "timestamp": when,
            "cost_usd": cost,
        }
        return raw(0, result, received_us=ended_us + 400_000, shape="integration", kind="customer")
    properties = {"model": "gpt-4o", "response_cost": cost, "total_tokens": 22}
    result = {"transaction_id": f"random-{one['id']}", "external_subscription_id": "acme", "properties": properties}
    return raw(0, result, received_us=ended_us + 400_000, shape="lago", kind="subscription")


@pytest.mark.parametrize("callback", ["openmeter", "integration", "integration by call id"])
async def test_a_call_reported_without_a_call_id_is_found_by_its_request_id_and_its_end(
    world: World, callback: str
) -> None:
    """LiteLLM's table has its start, the callback its end."""
    one, lost = call(1), call(2, "3")
    await world.webhook(by_callback(callback, one))
    await world.table.put(one, endTime=datetime.fromtimestamp(round(one["endTime"], 3), UTC).replace(tzinfo=None))
    await world.table.put(lost)
    result = await world.reconcile()
    assert "1 of LiteLLM's calls (3 USD) never arrived" in str(result.json["complaints"]), result.out
    done = await world.backfill()
    assert (done.code, done.json["known"], done.json["usd"]) == (0, 1, "3"), done.out + done.err


async def test_a_call_that_may_have_come_by_the_lago_callback_is_not_billed_again(world: World) -> None:
    """It has a random id: which of LiteLLM's rows it is cannot be known, so rows with its cost are reported and not
    sent.
    """
    one, lost = call(1), call(2, "3")
    await world.webhook(by_callback("lago", one))
    await world.table.put(one, endTime=datetime.fromtimestamp(round(one["endTime"], 3), UTC).replace(tzinfo=None))
    await world.table.put(lost)
    done = await world.backfill()
    assert (done.code, done.json["missing"], done.json["usd"]) == (1, 1, "3"), done.out + done.err
    assert done.json["refused"] == {"no_call_id": 1} and one["id"] in done.json["where"][0]


async def test_the_call_id_in_the_metadata_is_used_like_a_column(world: World) -> None:
    one = call(1)
    await world.webhook(by_webhook(one))
    words = json.dumps({"litellm_call_id": one["litellm_call_id"]})
    await world.table.put({**one, "startTime": one["startTime"] - 3600}, litellm_call_id=None, metadata=words)
    done = await world.backfill()
    assert (done.code, done.json["known"], done.json["missing"]) == (0, 1, 0), done.out + done.err


async def test_a_call_without_a_price_is_billed_once_when_litellm_has_one(world: World, stage: Stage) -> None:
    """It is three days old, so the ledger has forgotten it, and only the log has it."""
    one = call(1, "0", hours=72)
    then = raw(0, one, received_us=int(one["endTime"] * SECOND_US))
    await world.webhook(then)
    await world.webhook(by_webhook(call(9, hours=0)))  # three days pass on the partition's clock
    await world.table.put(one)
    done = await world.backfill()
    assert (done.code, done.json["unpriced"], done.json["priced"]) == (0, {one["model"]: 1}, 0), done.out
    result = await world.reconcile()
    assert (result.code, "backfill --source csv" in str(result.json["notes"])) == (0, True), result.out
    await world.table.run("""UPDATE public."LiteLLM_SpendLogs" SET spend = 7""")
    result = await world.reconcile()
    assert result.code == 1
    assert "1 call was counted without a price, and LiteLLM has one now (7 USD)" in result.json["complaints"][0]
    done = await world.backfill()
    assert (done.code, done.json["priced"], done.json["priced_usd"], done.json["missing"]) == (0, 1, "7", 0), done.out
    await soon(lambda: stage.sensors.calls.get("billable") == 2, limit_s=30)
    priced = json.loads(stage.read(stage.topics.raw)[-1].value())["call"]
    assert (priced["id"], priced["litellm_call_id"], priced["status"]) == (one["id"], one["litellm_call_id"], "success")
    enriched = [line for line in stage.values(stage.topics.enriched) if line["request_id"] == one["id"]]
    assert len({line["identity"] for line in enriched}) == 1 and len(enriched) == 2


async def test_a_price_list_identifies_calls_by_their_ids(world: World, stage: Stage, tmp_path: Path) -> None:
    """It has no start and no customer: both come from the log."""
    one = call(1, "0", hours=72)
    await world.webhook(raw(0, one, received_us=int(one["endTime"] * SECOND_US)))
    await world.webhook(by_webhook(call(9, hours=0)))
    file = tmp_path / "prices.csv"
    lines = [f"{one['id']},{one['litellm_call_id']},4.5", "chatcmpl-unheard-of,nobody,1"]
    file.write_text("request_id,litellm_call_id,spend\n" + "\n".join(lines) + "\n")
    done = await world.run("backfill", "--source", "csv", "--file", str(file))
    assert (done.code, done.json["priced_usd"], done.json["refused"]) == (1, "4.5", {"no_start": 1}), done.out
    await soon(lambda: stage.sensors.calls.get("billable") == 2, limit_s=30)
    (key, *_) = [one.key() for one in stage.read(stage.topics.raw) if b"4.5" in one.value()]
    assert key == b"acme"
    first, priced = (line for line in stage.values(stage.topics.enriched) if line["request_id"] == one["id"])
    price = ("offset", "decision", "cost_usd", "part", "ledger", "held", "org_id", "external_subscription_id")
    same = [{name: value for name, value in line.items() if name not in price} for line in (first, priced)]
    assert same[0] == same[1], "model, tokens, times and key stay those of the log"


async def test_another_cost_is_reported_and_never_billed(world: World) -> None:
    one, damaged = call(1, "2"), call(2)
    await world.webhook(by_webhook(one))
    await world.table.put(one, spend=2.5)
    await world.table.put(damaged, spend=-1.0)
    result = await world.reconcile()
    assert result.code == 1
    first, second = result.json["complaints"]
    assert first == "chatcmpl-1 of acme: counted at 2 USD, LiteLLM says 2.5 USD"
    assert damaged["id"] in second
    done = await world.backfill()
    other = {"call": "chatcmpl-1", "customer": "acme", "counted_usd": "2", "usd": "2.5"}
    assert (done.code, done.json["other_cost"]) == (1, {"calls": 1, "usd": "0.5", "first": [other]}), done.out
    assert (done.json["missing"], await world.billed()) == (0, (1, Decimal(2)))


@pytest.mark.parametrize(
    ("ending", "call_type"), [("_batch_cost", "aretrieve_batch"), ("_background_cost", "aget_responses")]
)
async def test_litellms_row_about_a_job_is_the_polled_job(world: World, ending: str, call_type: str) -> None:
    poll = call(1, id="batch_0123456789abcdef", call_type=call_type)
    await world.webhook(by_webhook(poll))
    earlier = {**poll, "startTime": poll["startTime"] - 600}
    row = {"request_id": poll["id"] + ending, "litellm_call_id": "x", "call_type": call_type}
    await world.table.put(earlier, **row)
    done = await world.backfill()
    assert (done.code, done.json["known"], done.json["missing"]) == (0, 1, 0), done.out + done.err


async def test_the_calls_of_a_gap_are_reported_with_their_times_and_the_command_to_send_them(world: World) -> None:
    """LiteLLM was stopped by SIGTERM: calls that it had not flushed never arrived."""
    lost = [call(n, hours=2 - n / 3600) for n in range(4)]
    for one in lost:
        await world.table.put(one)
    result = await world.reconcile()
    said = " ".join(result.json["complaints"])
    assert result.code == 1 and "never arrived, between " in said and "meterbridge backfill --source litellm-db" in said
    assert all(one["id"] in said for one in lost)


async def test_a_price_that_arrives_within_the_hour_is_billed_once_from_any_source(
    world: World, stage: Stage, tmp_path: Path
) -> None:
    """The ledger remembers the call as counted and not billed; table, price list and a second webhook all contain the
    price.
    """
    one = call(1, "0")
    await world.webhook(by_webhook(one))
    await world.table.put(one, spend=7)
    priced = {**one, "response_cost": Decimal(7)}
    file = tmp_path / "prices.csv"
    file.write_text(f"request_id,litellm_call_id,spend\n{one['id']},{one['litellm_call_id']},7\n")
    done = await world.backfill()
    assert (done.code, done.json["priced"], done.json["missing"]) == (0, 1, 0), done.out + done.err
    await until(world.database, BILLED, lambda count: count == 1)
    assert await world.billed() == (1, Decimal(7))
    stage.put([by_webhook(priced)])
    await soon(lambda: stage.sensors.calls.get("duplicate", 0) >= 1, limit_s=30)
    for words in (("--source", "csv", "--file", str(file)), ("--source", "litellm-db", "--from", "6d", "--to", "0s")):
        done = await world.run("backfill", *words)
        assert (done.json["known"], done.json["priced"], done.json["missing"]) == (1, 0, 0), done.out
    assert (await rows(world.database, "SELECT count(*), sum(cost_usd) FROM llm_usage_log"))[0] == (1, Decimal(7))
