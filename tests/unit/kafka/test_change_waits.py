"""No caller waits forever for a change of a shared record, even if the writer is stuck."""

import asyncio
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any, cast

import pytest

from connectors.kafka.compacted_writer import CompactedTopicWriter, _Change
from schemas.errors import Unavailable
from tests.support.virtual_time import run_virtually, virtual_now

LIMIT_S = 10.0


class StuckWriter(CompactedTopicWriter[str]):
    """Cannot even be closed: its connection does not close."""

    def __init__(self) -> None:
        view = SimpleNamespace(name="orgs", table={})
        super().__init__(cast(Any, view), {}, "t.orgs", limit_s=LIMIT_S)
        self.closes = asyncio.Event()
        self.tried: list[str] = []

    async def _until_done(self, batch: Sequence[_Change[Any]], failures: list[Any]) -> None:
        self.tried += [change.key for change in batch]
        if len(self.tried) == 1:
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                await self.closes.wait()
        for change in batch:
            if not change.done.done():
                change.done.set_result("made")


def test_a_change_is_abandoned_after_twice_the_limit_and_a_later_caller_is_served() -> None:
    async def waits() -> None:
        records = StuckWriter()
        begun = virtual_now()
        first = asyncio.ensure_future(records.change("first", lambda _: "made"))
        await asyncio.sleep(0)
        answers = await asyncio.gather(first, records.change("second", lambda _: "made"), return_exceptions=True)
        assert [isinstance(one, Unavailable) and one.reason for one in answers] == ["kafka_unavailable"] * 2
        assert virtual_now() - begun == 2 * LIMIT_S
        records.closes.set()
        assert await records.change("third", lambda _: "made") == "made"
        assert records.tried == ["first", "third"], "no caller waits for the second any more"

    run_virtually(waits())


def test_a_timeout_of_the_caller_stays_a_timeout_of_the_caller() -> None:
    class Failing(StuckWriter):
        async def _until_done(self, batch: Sequence[_Change[Any]], failures: list[Any]) -> None:
            for change in batch:
                change.done.set_exception(TimeoutError("theirs"))

    async def fails() -> None:
        with pytest.raises(TimeoutError, match="theirs"):
            await Failing().change("first", lambda _: "made")

    run_virtually(fails())
