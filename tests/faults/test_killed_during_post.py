"""A post to Lago with the process killed at each of its steps: no event is billed twice or lost.

    sink ──> sends ──> Lago stores ──> answer ──> [ receipts, dead letters │ offset │ commit ] ──> next chunk
        │         │               │        │     │                          │        │        │
     before     sent           stored    after  before                    records  offset  committing,
      send                               answer commit                    written   sent   committed

The dead process is killed with SIGKILL; the one that takes over is the product's own worker, unchanged.
"""

import asyncio
import uuid
from collections import Counter
from collections.abc import Iterator

import pytest
from confluent_kafka.admin import AdminClient

from tests.faults import self_killing_worker
from tests.faults.kill_at_step import EVENTS, NAMES, NO_EVENT, STEPS, Found, Scenario, play
from tests.support.eventually import PATIENCE
from tests.support.kafka import Kafka

#: One group: what the module's fixture does takes half a minute, and each worker would do it.
pytestmark = [pytest.mark.faults, pytest.mark.kafka, pytest.mark.xdist_group("post_steps")]

#: The retry role is the same code on another topic; ClickHouse differs where an outcome is unknown.
SCENARIOS = (
    *(Scenario("sink", "postgres", step) for step in STEPS.values()),
    *(Scenario("retry", "postgres", STEPS[name]) for name in ("stored", self_killing_worker.OFFSET_SENT)),
    *(Scenario("sink", "clickhouse", STEPS[name]) for name in ("stored", self_killing_worker.AFTER_ANSWER)),
)
#: Scenarios at a time: each starts two Python processes, and mostly waits for the dead one's session to end.
AT_ONCE = 5


@pytest.fixture(scope="module")
def results(kafka: Kafka, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[Scenario, Found | BaseException]]:
    """Yield the result of every scenario."""
    prefix = f"k{uuid.uuid4().hex[:6]}."
    room = asyncio.Semaphore(AT_ONCE)

    async def one(scenario: Scenario) -> Found:
        async with room:
            return await play(scenario, kafka.bootstrap, prefix, tmp_path_factory.mktemp("steps"))

    async def everyone() -> list[Found | BaseException]:
        return await asyncio.gather(*map(one, SCENARIOS), return_exceptions=True)

    yield dict(zip(SCENARIOS, asyncio.run(everyone()), strict=True))
    admin = AdminClient({"bootstrap.servers": kafka.bootstrap})
    mine = [name for name in admin.list_topics(timeout=10 * PATIENCE).topics if name.startswith(prefix)]
    for deleted in admin.delete_topics(mine, operation_timeout=10 * PATIENCE).values():
        deleted.result()


@pytest.mark.parametrize("scenario", SCENARIOS, ids=str)
def test_a_process_killed_at_a_step_of_a_post_duplicates_and_loses_nothing(
    scenario: Scenario, results: dict[Scenario, Found | BaseException]
) -> None:
    """Each event is stored once with one receipt, the dead letter is written once, and the offset is after all of them."""
    result = results[scenario]
    if isinstance(result, BaseException):
        raise result
    assert result.exit_code == -9
    assert result.stored_then == scenario.step.stored
    if scenario.step.committed is not None:
        assert result.committed_then == (EVENTS + 1 if scenario.step.committed else 0)
    assert result.copies == Counter(NAMES)
    assert result.receipts == Counter((name, "completed") for name in NAMES)
    assert result.dead == [NO_EVENT]
    assert result.committed == EVENTS + 1


@pytest.mark.parametrize("name", ["sent", "stored", self_killing_worker.AFTER_ANSWER, self_killing_worker.OFFSET_SENT])
def test_the_next_owner_repeats_the_posts_with_an_unknown_outcome(
    name: str, results: dict[Scenario, Found | BaseException]
) -> None:
    """Otherwise the test above would pass for a sink that never repeats, and loses events."""
    result = results[Scenario("sink", "postgres", STEPS[name])]
    assert isinstance(result, Found)
    assert result.duplicates >= EVENTS
