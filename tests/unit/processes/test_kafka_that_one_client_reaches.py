"""A Kafka that only one of a worker's two clients reaches does not keep the worker busy."""

import asyncio
from typing import Any

import pytest
from aiokafka.errors import KafkaConnectionError

from connectors.config.settings import load_settings
from connectors.processes import worker
from streams.runtime.shutdown import StopSignal
from tests.support.virtual_time import run_virtually, virtual_now

HOUR_S = 3600.0


def test_a_role_that_cannot_connect_begins_again_less_and_less_often(monkeypatch: pytest.MonkeyPatch) -> None:
    begun: list[float] = []

    async def cannot_connect(*_parts: Any, **_options: Any) -> BaseException:
        begun.append(virtual_now())
        assert len(begun) < HOUR_S, "it does not wait"
        return KafkaConnectionError("Unable to bootstrap")

    monkeypatch.setattr(worker, "_run_until_crash", cannot_connect)
    monkeypatch.setattr(
        worker, "forget_frozen", lambda: None
    )  # it would search all objects of this test run, each time

    async def an_hour() -> None:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(HOUR_S):
                await worker._run_role(load_settings({}), "meter", StopSignal())

    run_virtually(an_hour())
    assert begun[1] <= 1, "one failure costs no time"
    assert HOUR_S / 12 < len(begun) < HOUR_S / 9
