"""Each of three brokers is killed under load and comes back, while workers scale and roll: nothing is lost or billed
twice.
"""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.faults.scale_trial import Scaled, scaled
from tests.support.eventually import PATIENCE
from tests.support.kafka import KafkaCluster

pytestmark = [pytest.mark.faults, pytest.mark.kafka, pytest.mark.xdist_group("three brokers")]

QUICK = {"WINDOW_SECONDS": "5", "GRACE_SECONDS": "1"}
RATE, PAUSE_S, DRAIN_S = 40, 1.5, 60.0


@pytest.fixture(scope="module")
def cluster() -> Iterator[KafkaCluster]:
    brokers = KafkaCluster()
    yield brokers
    brokers.stop()


async def test_workers_that_scale_and_roll_while_each_of_three_brokers_is_killed_lose_and_duplicate_nothing(
    cluster: KafkaCluster, tmp_path: Path, database: str, figures: Callable[..., None]
) -> None:
    report: Scaled = await scaled(
        cluster,
        tmp_path,
        database,
        seed=1,
        rate=RATE,
        pause_s=PAUSE_S,
        drain_limit_s=DRAIN_S * PATIENCE,
        common=QUICK,
    )
    figures(calls=report.calls, usd=report.usd, drained_s=report.drained_s, rolled=report.rolled)
    assert not report.problems, report.problems
    assert report.rolled == 3
