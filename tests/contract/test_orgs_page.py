"""The programs on docs/orgs.md run unchanged, with a Lago sandbox."""

from collections.abc import AsyncIterator

import pytest

from tests.support.page_programs import printed, programs
from tests.support.sandbox import KEY, Lago, lago_sandbox

SUBSCRIBES, ON_ITS_OWN_OBJECTS = programs("orgs.md")


@pytest.fixture
async def lago() -> AsyncIterator[Lago]:
    async with lago_sandbox(api_key=KEY) as running:
        await running.plan("starter", 1900)
        yield running


async def test_the_first_program_subscribes_an_org_once(lago: Lago) -> None:
    for _ in range(2):
        result = await printed(SUBSCRIBES, {"LAGO_API_URL": lago.url, "LAGO_API_KEY": KEY})
        assert "plan_code='starter'" in result
    assert len((await lago.get("/subscriptions")).json()["subscriptions"]) == 1


async def test_the_second_program_creates_every_object_that_it_uses(lago: Lago) -> None:
    result = await printed(ON_ITS_OWN_OBJECTS, {"LAGO_API_URL": lago.url, "LAGO_API_KEY": KEY})
    assert "'tokens': '150'" in result
