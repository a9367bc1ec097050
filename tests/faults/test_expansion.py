"""The raw topic grows under load, and the command that grows it is killed at each of its steps: nothing is lost or
billed twice.
"""

import os
import threading
from typing import Self

import pytest

from connectors.operations.ledger_totals import positions_of
from tests.faults.mortal_expansion import AUDITED, CHANGELOG_GROWN, RAW_GROWN, STEPS
from tests.support.command import ended, meterbridge
from tests.support.expanded import CENTS, GHOSTS, Growing
from tests.support.kafka import Kafka

pytestmark = [pytest.mark.faults, pytest.mark.kafka]


class Load:
    """Clients that send calls continuously, each call twice: the second copy a moment later, or by another client."""

    def __init__(self, growing: Growing) -> None:
        self._growing = growing
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._send)
        self.sent = 0

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _send(self) -> None:
        last = self._growing.calls(range(1000, 1012))
        self._growing.stage.put(last)
        for start in range(1012, 100_000, 12):
            new = self._growing.calls(range(start, start + 12))
            self._growing.stage.put([*new, *last])  # by a producer that learns of new partitions minutes later
            self._growing.put_by_new_clients(last)
            self.sent, last = start + 12 - 1000, new
            if self._over.wait(0.05):
                return


async def killed(growing: Growing, step: str) -> int:
    """Run the command, which kills itself at `step`; returns its exit code."""
    words = ("topics", "expand", "--partitions", str(growing.new), "--yes", "--json")
    environ = {
        "PATH": os.environ["PATH"],
        "KAFKA_BOOTSTRAP_SERVERS": growing.bootstrap,
        "KAFKA_PARTITIONS": str(growing.old),
        "TOPIC_PREFIX": growing.prefix,
        "LOG_LEVEL": "error",
    }
    died = await ended(environ, step, *words, limit_s=180, module="tests.faults.mortal_expansion")
    return died.code


@pytest.mark.parametrize("step", STEPS)
async def test_an_expansion_killed_under_load_is_finished_by_the_next_run_to_the_cent(
    kafka: Kafka, topic_prefix: str, step: str
) -> None:
    growing = Growing(kafka.bootstrap, topic_prefix, 2, 4)
    early, held = growing.calls(range(24)), growing.calls(range(100, 112), GHOSTS)
    growing.stage.put([*early, *held])
    await growing.meter(until=36)
    with Load(growing) as load:
        assert await killed(growing, step) == -9
        if step not in (AUDITED, RAW_GROWN):
            for partitions in ("2", "4"):
                result = await meterbridge(growing.stage, "topics", "check", KAFKA_PARTITIONS=partitions)
                assert result.code == 1, "no worker starts before it is finished"
        ended = await growing.expand("--yes")
        assert ended.code == 0, ended.err
        assert ended.json["done"]
        growing.grown()
    growing.put_by_new_clients([*early, *held])
    for ghost in GHOSTS:
        growing.stage.map(ghost, "org", "sub")
    await growing.bill(len(growing.sent))
    assert load.sent > 12
    assert growing.billed() == (len(growing.sent), len(growing.sent) * CENTS)
    await growing.sound()


async def test_a_worker_that_starts_between_two_runs_halts_the_moved_partitions_and_bills_nothing_twice(
    kafka: Kafka, topic_prefix: str
) -> None:
    """A worker with the old number of partitions that passed its check before the changelog grew."""
    growing = Growing(kafka.bootstrap, topic_prefix, 2, 4)
    early = growing.calls(range(24))
    growing.stage.put(early)
    await growing.meter(until=24)
    assert await killed(growing, "one_moved") == -9
    later = growing.calls(range(200, 224))
    growing.stage.put([*early, *later])
    async with growing.stage.running("meter", growing.parts()):
        await growing.halted(1)
        assert growing.stage.sensors.halted[0][1:] == (0, "partitions_changed")
        await growing.meter_has_counted(12)
    moved = {number: one.partitions for number, one in positions_of(growing.stage.deployment).items()}
    assert moved == {0: 4, 1: 2, 2: 4}
    ended = await growing.expand("--yes")
    assert [one["moved"] for one in ended.json["ledgers"]] == [False, True], ended.err
    growing.grown()
    growing.put_by_new_clients([*early, *later])
    await growing.bill(48)
    assert growing.billed() == (48, 48 * CENTS)
    await growing.sound()


def test_a_kill_is_tested_at_every_step() -> None:
    """`killed` takes the name of a step; a wrong name would kill nothing."""
    assert CHANGELOG_GROWN in STEPS and len(set(STEPS)) == 8
