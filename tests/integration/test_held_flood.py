"""A flood of invented names in real Kafka: one customer is mapped and billed exactly, the others are written off by
pattern.
"""

from decimal import Decimal

from schemas.ledger import Sum
from streams.core.metering.conservation import off_by
from streams.runtime.partition_task import PartitionTask
from tests.integration.test_held import calls, written_off
from tests.support.command import meterbridge
from tests.support.eventually import soon
from tests.support.partition_states import states_of
from tests.support.stage import Stage

ROOM = 5
FLOOD = 120


def on_disk(partition_tasks: dict[int, PartitionTask]) -> int:
    return sum(state.cold.windows for state in states_of(partition_tasks))


def in_memory(partition_tasks: dict[int, PartitionTask]) -> int:
    return sum(len(state.windows) for state in states_of(partition_tasks))


def add_up(partition_tasks: dict[int, PartitionTask]) -> bool:
    return all(
        off_by(state.position.counters, state.waiting()) == (Sum(), Sum()) for state in states_of(partition_tasks)
    )


def billed(stage: Stage, subscription: str) -> Decimal:
    events = [one for one in stage.values(stage.topics.events) if one["external_subscription_id"] == subscription]
    return sum((Decimal(one["precise_total_amount_cents"]) for one in events), Decimal(0))


async def test_one_customer_of_a_flood_is_billed_when_it_is_mapped_and_the_others_are_written_off_by_pattern(
    stage: Stage,
) -> None:
    stage.map("acme", "org", "sub")
    for n in range(FLOOD):
        stage.put(calls(range(n, n + 1), f"attack-{n}"))
    stage.put([*calls(range(FLOOD, FLOOD + 3), "acme"), *calls(range(FLOOD + 3, FLOOD + 5), "newcomer")])
    parts = stage.parts(held_in_memory=ROOM)
    async with stage.running("meter", parts) as role:
        partition_tasks: dict[int, PartitionTask] = role.partition_tasks  # type: ignore[assignment]
        await soon(lambda: stage.sensors.calls.get("billable") == FLOOD + 5, limit_s=30)
        await soon(lambda: on_disk(partition_tasks) >= FLOOD + 1 - 2 * ROOM, limit_s=20)
        await soon(lambda: in_memory(partition_tasks) <= 2 * ROOM, limit_s=20)
        assert add_up(partition_tasks)
        stage.map("attack-7", "victim", "victims")
        await soon(lambda: billed(stage, "victims") == 50, limit_s=20)
        listed = (await meterbridge(stage, "held", "list", "--match", "attack-*", "--json")).json
        assert (listed["customers"], listed["calls"], listed["usd"]) == (FLOOD - 1, FLOOD - 1, "59.5")
    async with stage.running("meter", parts) as role:
        partition_tasks = role.partition_tasks  # type: ignore[assignment]
        await soon(
            lambda: (
                len(partition_tasks) == 2
                and all(partition_task.expected is not None for partition_task in partition_tasks.values())
            ),
            limit_s=20,
        )
        assert in_memory(partition_tasks) <= 2 * ROOM and add_up(partition_tasks), (
            "what is read back keeps to the bound"
        )
        words = ("held", "write-off", "--match", "attack-*", "--comment", "invented", "--json")
        both = await meterbridge(stage, *words, "--customer", "newcomer")
        assert (both.code, "either --customer or --match" in both.err) == (2, True)
        dry = await meterbridge(stage, *words)
        assert (dry.json["dry_run"], dry.json["calls"], dry.json["usd"]) == (True, FLOOD - 1, "59.5")
        assert stage.read(stage.topics.audit) == [], "nothing is done without --yes"
        done = await meterbridge(stage, *words, "--yes")
        assert done.code == 0, done.err
        await soon(lambda: written_off(partition_tasks) == Sum(FLOOD - 1, Decimal("59.5")), limit_s=30)
        assert add_up(partition_tasks)
    (line,) = stage.values(stage.topics.audit)
    assert (line["target"]["match"], line["count"], Decimal(line["cost_usd"])) == (
        "attack-*",
        FLOOD - 1,
        Decimal("59.5"),
    )
    result = [one for one in stage.values(stage.topics.receipts) if one["status"] == "written_off"]
    assert (len({one["transaction_id"] for one in result}), sum(one["calls"] for one in result)) == (
        FLOOD - 1,
        FLOOD - 1,
    )
    async with stage.running("meter", parts) as role:
        partition_tasks = role.partition_tasks  # type: ignore[assignment]
        await soon(
            lambda: (
                len(partition_tasks) == 2
                and all(partition_task.expected is not None for partition_task in partition_tasks.values())
            ),
            limit_s=20,
        )
        assert add_up(partition_tasks)
        stage.map("newcomer", "new", "news")
        await soon(lambda: billed(stage, "news") == 100, limit_s=20)
    assert (billed(stage, "sub"), billed(stage, "victims")) == (150, 50)
    left = (await meterbridge(stage, "held", "list", "--json")).json
    assert (left["calls"], left["usd"]) == (0, "0")
