"""Held usage is listed with its amounts, and leaves by a mapping or by a recorded order."""

import time
from decimal import Decimal

from schemas.ledger import Sum
from streams.runtime.partition_task import PartitionTask
from tests.support.calls import Raw, raw, slp
from tests.support.command import meterbridge
from tests.support.eventually import PATIENCE, soon
from tests.support.partition_states import states_of
from tests.support.stage import Stage


def calls(numbers: range, customer: str) -> list[Raw]:
    at = time.time_ns() // 1000
    return [raw(0, slp(n, at_us=at, cost="0.5"), customer=customer, received_us=at) for n in numbers]


def written_off(partition_tasks: dict[int, PartitionTask]) -> Sum:
    sums = [state.position.counters.written_off for state in states_of(partition_tasks)]
    return Sum(sum(one.calls for one in sums), sum((one.cost for one in sums), Decimal(0)))


async def test_held_usage_is_listed_by_customer_and_reason_with_its_amounts(stage: Stage) -> None:
    stage.map("acme", "org", "sub")
    stage.put([*calls(range(3), "ghost"), *calls(range(3, 4), "spirit"), *calls(range(4, 6), "acme")])
    async with stage.running("meter", stage.parts()):
        await soon(lambda: stage.sensors.calls.get("billable") == 6, limit_s=20)
    result = (await meterbridge(stage, "held", "list", "--json")).json
    assert [(one["customer"], one["calls"], one["usd"]) for one in result["held"]] == [
        ("ghost", 3, "1.5"),
        ("spirit", 1, "0.5"),
    ]
    assert (result["calls"], result["usd"], result["held"][0]["reason"]) == (4, "2", "no_mapping")
    assert (await meterbridge(stage, "held", "list", "--customer", "spirit", "--json")).json["calls"] == 1


async def test_a_write_off_removes_the_customers_amount_from_the_ledger_and_nothing_else(stage: Stage) -> None:
    stage.put([*calls(range(3), "ghost"), *calls(range(3, 4), "spirit")])
    async with stage.running("meter", stage.parts()) as role:
        await soon(lambda: stage.sensors.calls.get("billable") == 4, limit_s=20)
        words = ("held", "write-off", "--customer", "ghost", "--comment", "load test")
        early = await meterbridge(stage, *words, "--until", "1h", "--dry-run")
        assert (early.code, "nothing is held" in early.err) == (1, True), "nothing ended by then"
        dry = await meterbridge(stage, *words, "--dry-run", "--json")
        assert (dry.json["usd"], stage.read(stage.topics.audit)) == ("1.5", [])
        done = await meterbridge(stage, *words, "--json")
        assert done.code == 0, done.err
        await soon(lambda: written_off(role.partition_tasks) == Sum(3, Decimal("1.5")), limit_s=20)  # type: ignore[arg-type]
        stage.put(calls(range(4, 5), "ghost"))
        await soon(lambda: stage.sensors.calls.get("billable") == 5, limit_s=20)
    left = (await meterbridge(stage, "held", "list", "--json")).json
    assert {one["customer"]: one["calls"] for one in left["held"]} == {"spirit": 1, "ghost": 1}
    (line,) = stage.values(stage.topics.audit)
    assert (line["audit_id"], Decimal(line["cost_usd"])) == (done.json["audit_id"], Decimal("1.5"))
    result = [one for one in stage.values(stage.topics.receipts) if one["status"] == "written_off"]
    assert sum(one["calls"] for one in result) == 3
    assert {one["reason"] for one in result} == {line["audit_id"]}


async def test_usage_that_ended_later_is_neither_written_off_nor_counted_as_written_off(stage: Stage) -> None:
    """Earlier the dry run and the audit line named the money of all of the customer's held usage."""
    at_us = time.time_ns() // 1000
    old, new = at_us - 7200 * 10**6, at_us
    stage.put(
        [raw(0, slp(n, at_us=end, cost="0.5"), customer="ghost", received_us=at_us) for n, end in enumerate((old, new))]
    )
    async with stage.running("meter", stage.parts()) as role:
        await soon(lambda: stage.sensors.calls.get("billable") == 2, limit_s=20)
        words = ("held", "write-off", "--customer", "ghost", "--until", "1h", "--comment", "trial", "--json")
        for more in (("--dry-run",), ()):
            said = await meterbridge(stage, *words, *more)
            assert (said.code, said.json["calls"], said.json["usd"]) == (0, 1, "0.5"), said.err
        await soon(lambda: written_off(role.partition_tasks) == Sum(1, Decimal("0.5")), limit_s=20)  # type: ignore[arg-type]
    (line,) = stage.values(stage.topics.audit)
    assert (line["count"], Decimal(line["cost_usd"])) == (1, Decimal("0.5"))


async def test_without_held_usage_nothing_is_written_off(stage: Stage) -> None:
    done = await meterbridge(stage, "held", "write-off", "--customer", "nobody", "--comment", "x")
    assert (done.code, "nothing is held" in done.err) == (1, True)


async def test_usage_of_a_pattern_is_listed_and_written_off_with_one_line_and_then_is_gone(stage: Stage) -> None:
    nobody = "unattributed:key-1"
    stage.put([*calls(range(3), "attack-1"), *calls(range(3, 5), "attack-2"), *calls(range(5, 6), nobody)])
    async with stage.running("meter", stage.parts()) as role:
        await soon(lambda: stage.sensors.calls.get("billable") == 6, limit_s=20)
        listed = (await meterbridge(stage, "held", "list", "--match", "*", "--json")).json
        assert (listed["customers"], listed["calls"], listed["usd"]) == (2, 5, "2.5"), "no one's is not meant"
        assert (await meterbridge(stage, "held", "list", "--json")).json["calls"] == 6
        words = ("held", "write-off", "--match", "*", "--comment", "invented", "--json")
        asked = await meterbridge(stage, *words)
        assert (asked.code, asked.json["dry_run"], stage.read(stage.topics.audit)) == (0, True, [])
        done = await meterbridge(stage, *words, "--yes")
        assert (done.code, done.json["calls"], done.json["usd"]) == (0, 5, "2.5"), done.err
        await soon(lambda: written_off(role.partition_tasks) == Sum(5, Decimal("2.5")), limit_s=20)  # type: ignore[arg-type]
        again = await meterbridge(stage, *words, "--yes")
        assert (again.code, "nothing is held" in again.err) == (1, True)
    left = (await meterbridge(stage, "held", "list", "--json")).json
    assert [one["customer"] for one in left["held"]] == [nobody]
    (line,) = stage.values(stage.topics.audit)
    assert (line["target"]["match"], line["target"]["customers"], line["count"]) == ("*", "2", 5)
    assert Decimal(line["cost_usd"]) == Decimal("2.5")


async def test_an_unreadable_order_is_refused_and_the_partition_continues(stage: Stage) -> None:
    stage.producer.produce(stage.topics.raw, b"{", b"ghost", headers=[("control", b"write_off")], partition=0)
    stage.producer.flush(10 * PATIENCE)
    stage.put(calls(range(1), "ghost"), partition=0)
    async with stage.running("meter", stage.parts()):
        await soon(lambda: stage.sensors.calls.get("billable") == 1, limit_s=20)
    assert stage.sensors.calls.get("rejected:malformed") == 1
