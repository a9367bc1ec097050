"""`meterbridge worker` as a process: its log, and how it ends when it is asked to."""

import asyncio
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest
from aiokafka.errors import KafkaConnectionError

from connectors.config.connections import kafka_connection
from connectors.kafka.client_config import aiokafka_config, faust_broker
from streams.app import ROLES
from streams.runtime.run import run_role
from tests.support import guard
from tests.support.eventually import PATIENCE, eventually, within
from tests.support.kafka import Kafka
from tests.support.log_lines import log_lines
from tests.support.ports import free_port
from tests.support.stage import Stage

_NOTHING = Path("/nonexistent")


@contextmanager
def worker(only: str, environ: Mapping[str, str]) -> Iterator[tuple[subprocess.Popen[bytes], Path]]:
    """A worker and its log file; killed at the end if it still runs."""
    with tempfile.NamedTemporaryFile(prefix="meterbridge-worker-") as result:
        process = subprocess.Popen(
            [sys.executable, "-m", "connectors", "worker", "--only", only],
            env={"PATH": os.environ["PATH"], "METRICS_PORT": "0", **environ},
            stdin=subprocess.DEVNULL,
            stdout=result,
            stderr=result,
        )
        guard.adopt(process.pid, signal.SIGKILL, _NOTHING)
        try:
            yield process, Path(result.name)
        finally:
            process.kill()
            process.wait()
            guard.release(process.pid)


def children(pid: int) -> list[str]:
    return Path(f"/proc/{pid}/task/{pid}/children").read_text().split()


@pytest.mark.skipif(sys.platform != "linux", reason="a process's children are read in /proc")
def test_a_worker_stopped_while_its_roles_are_still_starting_ends_cleanly() -> None:
    """A rolling update may stop a pod just after its start: this must not look like a failure."""
    away = {"KAFKA_BOOTSTRAP_SERVERS": f"127.0.0.1:{free_port()}"}
    with worker("sink,retry", away) as (process, log):
        eventually(lambda: len(children(process.pid)) == 2, 30)
        process.send_signal(signal.SIGTERM)
        assert process.wait(10 * PATIENCE) == 0, log.read_text()


def test_a_worker_logs_its_partitions_once_it_works_on_them(kafka: Kafka, topic_prefix: str) -> None:
    """A running process alone does not show its membership in the group."""
    stage = Stage(kafka.bootstrap, topic_prefix, partitions=2)
    environ = {
        "KAFKA_BOOTSTRAP_SERVERS": kafka.bootstrap,
        "KAFKA_PARTITIONS": str(stage.settings.kafka_partitions),
        "TOPIC_PREFIX": topic_prefix,
    }
    with worker("meter", environ) as (process, log):
        opened = eventually(lambda: [line for line in log_lines(log) if line["event"] == "partitions_opened"], 30)[-1]
        assert (opened["role"], opened["assigned"]) == ("meter", 2)
        eventually(lambda: any(line.get("opened") == [0, 1] for line in log_lines(log)))
        assert {line["role"] for line in log_lines(log) if "role" in line} == {"meter"}, "of `--only` and no other"
        process.send_signal(signal.SIGTERM)
        assert process.wait(10 * PATIENCE) == 0, log.read_text()


async def test_a_role_whose_broker_is_unavailable_at_its_start_logs_the_reason_and_ends(stage: Stage) -> None:
    nowhere = stage.settings.model_copy(update={"kafka_bootstrap_servers": f"127.0.0.1:{free_port()}"})
    kafka = kafka_connection(nowhere)
    parts = stage.parts(kafka=aiokafka_config(kafka), broker=faust_broker(kafka))
    with pytest.raises(RuntimeError, match="did not start") as failure:
        async with within(30):  # and not for ever
            await run_role(ROLES["meter"](parts), asyncio.Event())
    assert isinstance(failure.value.__cause__, KafkaConnectionError)
