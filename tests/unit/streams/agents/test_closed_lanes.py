"""The lanes of Lago organisations end when their partition is closed, whatever a library makes of the cancellation."""

import asyncio
from typing import Any

import pytest

from streams.agents.organization_lanes import OrganizationLanes
from tests.support.eventually import soon, within


class Own:
    """The default organisation's work."""

    def before_passing(self, _: object) -> None: ...

    async def open(self) -> int:
        return 0

    async def close(self) -> None: ...


class Lane:
    """A lane that goes on at its first cancellation."""

    begun = closed = 0

    async def run(self) -> None:
        while True:
            self.begun += 1
            try:
                await asyncio.sleep(60)
            except asyncio.CancelledError:
                if self.begun > 1:
                    raise

    async def close(self) -> None:
        self.closed += 1


@pytest.mark.parametrize("names", [["acme"], ["acme", "globex"]])
async def test_lanes_end_although_a_library_loses_their_first_cancellation(names: list[str]) -> None:
    """`asyncio.wait_for` of Python 3.11 returns a result or an error instead. An earlier version waited without an end."""
    own: Any = Own()
    made: Any = {name: Lane() for name in names}
    lanes = OrganizationLanes(own, made, (), made.__getitem__)
    await lanes.open()
    await soon(lambda: all(lane.begun for lane in made.values()))
    async with within(20):
        await lanes.close()
    assert {lane.closed for lane in made.values()} == {1}
