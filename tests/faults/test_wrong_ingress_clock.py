"""An ingress with a wrong clock: accepted calls are stored in time, and nothing waits behind them."""

import json
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest

from connectors.config.settings import Settings
from connectors.kafka.admin import create_topics
from schemas.topics import RAW
from tests.support.eventually import PATIENCE, eventually
from tests.support.ingress import USAGE, Stored, read_topic
from tests.support.ingress_process import IngressProcess
from tests.support.kafka import Kafka
from tests.support.values import topics_of

pytestmark = [pytest.mark.faults, pytest.mark.kafka]

HOUR_S = 3600.0


@pytest.fixture
def ingress(kafka: Kafka, topic_prefix: str, tmp_path: Path) -> Iterator[IngressProcess]:
    create_topics(
        *topics_of(Settings(kafka_bootstrap_servers=kafka.bootstrap, kafka_partitions=3, topic_prefix=topic_prefix))
    )
    process = IngressProcess(kafka.bootstrap, topic_prefix, tmp_path)
    yield process
    process.kill()


def post(ingress: IngressProcess, number: int) -> httpx.Response:
    at = datetime.now(tz=UTC).isoformat()
    call: dict[str, Any] = {"id": f"call-{number}", "spend": 0.01, "end_user": f"c-{number % 5}", "endTime": at}
    return httpx.post(ingress.url + USAGE, content=json.dumps(call), timeout=30 * PATIENCE, trust_env=False)


def stored(ingress: IngressProcess) -> list[Stored]:
    return read_topic(ingress.bootstrap, ingress.prefix + RAW.name)


def health(ingress: IngressProcess) -> dict[str, Any]:
    return dict(httpx.get(f"{ingress.url}/health", timeout=30 * PATIENCE, trust_env=False).json())


@pytest.mark.parametrize(
    ("hours", "spooled"),
    [(25.0, True), (25.0, False), (24 * 100.0, False)],
    ids=["a day, with a spool", "a day", "100 days"],
)
def test_an_ingress_whose_clock_is_ahead_stores_every_call_at_once_and_reports_it(
    ingress: IngressProcess, tmp_path: Path, hours: float, *, spooled: bool
) -> None:
    """With a clock a day ahead: earlier 11 calls were stuck in a spool and health was ok; without a spool every call
    was a 503.
    """
    ingress.ahead_s = hours * HOUR_S
    if spooled:
        ingress.settings["SPOOL_PATH"] = str(tmp_path / "spool.db")
    ingress.start()
    begun_ms = time.time() * 1000
    for number in range(11):
        assert post(ingress, number).status_code == 202
    eventually(lambda: len(stored(ingress)) == 11, 20)
    late = [one for one in stored(ingress) if not begun_ms - 1000 <= one.timestamp_ms <= begun_ms + 1.1 * HOUR_S * 1000]
    # Beyond two days the first is stored under a time of the day before: days are tried before hours.
    assert len(late) <= (hours > 48)
    assert all(begun_ms - 25 * HOUR_S * 1000 < one.timestamp_ms for one in late)
    kafka = health(ingress)["dependencies"]["kafka"]
    assert (kafka["status"], kafka["last_error"]["error"].split(":")[0]) == ("down", "clock_ahead")
    assert ingress.log.read_text().count("clock_ahead_of_kafka") == 1
    assert ingress.metric("meterbridge_records_restamped_total") >= 11
    if spooled:
        assert ingress.metric("meterbridge_spool_records") == 0


def test_records_that_a_wrong_clock_left_in_the_spool_do_not_block_it(
    ingress: IngressProcess, kafka: Kafka, tmp_path: Path
) -> None:
    """Accepted a day ahead while Kafka was unavailable, drained by a process with a right clock: they came first, and
    stay first.
    """
    ingress.settings["SPOOL_PATH"] = str(tmp_path / "spool.db")
    ingress.ahead_s = 25 * HOUR_S
    ingress.bootstrap = "127.0.0.1:1"
    ingress.start()
    assert post(ingress, 0).status_code == 202
    ingress.kill()
    ingress.ahead_s, ingress.bootstrap = 0.0, kafka.bootstrap
    ingress.start()
    for number in range(1, 11):
        assert post(ingress, number).status_code == 202
    eventually(lambda: len(stored(ingress)) == 11, 20)
    assert all(one.timestamp_ms <= time.time() * 1000 for one in stored(ingress))
    assert ingress.metric("meterbridge_spool_records") == 0
    assert health(ingress)["dependencies"]["kafka"]["status"] == "ok"
