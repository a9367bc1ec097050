"""An org's record has one value: no update is lost between callers, processes or frozen processes."""

import asyncio
import os
import signal
import sys
import time
from asyncio.subprocess import Process
from itertools import pairwise

import msgspec
import pytest

from connectors.billing.org_records import OrgRecords, StoredIds
from schemas.customers import OrgRecord
from schemas.errors import Rejected
from tests.support.eventually import soon
from tests.support.org_changer import org_records, viewed_records, with_one_more
from tests.support.stage import Stage

copy = msgspec.structs.replace


def two(stage: Stage) -> tuple[str, str]:
    return stage.settings.kafka_bootstrap_servers, stage.settings.topic_prefix


def written(stage: Stage) -> list[OrgRecord]:
    """Every committed value of the topic, oldest first."""
    return [msgspec.json.decode(message.value(), type=OrgRecord) for message in stage.read(stage.topics.orgs)]


async def changer(stage: Stage, name: str, times: int, *more: str) -> Process:
    """Another process that increases a limit of `org_1`."""
    module = (sys.executable, "-m", "tests.support.org_changer")
    return await asyncio.create_subprocess_exec(*module, *two(stage), "org_1", name, str(times), *more)


async def test_a_change_is_durable_and_visible_on_return(stage: Stage) -> None:
    async with org_records(*two(stage)) as records:
        assert await records.get("org_1") is None
        before = time.time_ns() // 1000
        created = await records.change("org_1", lambda org: copy(org, plan="starter"))
        assert (created.org_id, created.plan) == ("org_1", "starter") and created.updated_at >= before
        assert await records.get("org_1") == created
        assert written(stage) == [created]


async def test_an_unchanged_record_is_not_written(stage: Stage) -> None:
    async with org_records(*two(stage)) as records:
        created = await records.change("org_1", lambda org: copy(org, plan="starter"))
        assert await records.change("org_1", lambda org: copy(org, plan="starter")) == created
        assert await records.change("org_2", lambda org: org) == OrgRecord("org_2")
        assert written(stage) == [created]


async def test_a_refused_change_writes_nothing_and_is_reported(stage: Stage) -> None:
    def refuse(_org: OrgRecord) -> OrgRecord:
        raise Rejected("not_like_that")

    async with org_records(*two(stage)) as records:
        with pytest.raises(Rejected, match="not_like_that"):
            await records.change("org_1", refuse)
        assert written(stage) == []


async def test_callers_in_one_process_wait_for_each_other(stage: Stage) -> None:
    async with org_records(*two(stage)) as records:
        await asyncio.gather(*(records.change("org_1", lambda org: with_one_more(org, "n")) for _ in range(20)))
        assert (await records.get("org_1") or OrgRecord("")).limits == {"n": 20}


async def test_processes_that_change_one_org_concurrently_lose_nothing(stage: Stage) -> None:
    """Each fences the other in turn; a fenced change is made again on what the other wrote."""
    others = [await changer(stage, name, 15) for name in ("a", "b")]
    async with org_records(*two(stage)) as records:
        for _ in range(15):
            await records.change("org_1", lambda org: with_one_more(org, "c"))
        assert [await other.wait() for other in others] == [0, 0]
        assert (await records.change("org_1", lambda org: org)).limits == {"a": 15, "b": 15, "c": 15}
    assert len(written(stage)) == 45


async def test_an_outdated_table_loses_nothing(stage: Stage) -> None:
    """After fencing the other process, A still has to read what that process wrote, however long its table takes."""
    async with viewed_records(*two(stage)) as (a, view), org_records(*two(stage)) as b:
        await a.change("org_1", lambda org: with_one_more(org, "a"))
        await view.stand_still()
        await b.change("org_1", lambda org: with_one_more(org, "b"))
        changing = asyncio.ensure_future(a.change("org_1", lambda org: with_one_more(org, "a")))
        await asyncio.wait({changing}, timeout=2)  # long enough to do it wrong
        view.go_on()
        assert (await changing).limits == {"a": 2, "b": 1}
    assert written(stage)[-1].limits == {"a": 2, "b": 1}


async def test_an_outdated_table_does_not_report_that_nothing_changed(stage: Stage) -> None:
    """A requests what its table has already, but B has changed it since: A's request is the last one, so it must win."""
    async with viewed_records(*two(stage)) as (a, view), org_records(*two(stage)) as b:
        await a.change("org_1", lambda org: copy(org, plan="starter"))
        await view.stand_still()
        await b.change("org_1", lambda org: copy(org, plan="professional"))
        changing = asyncio.ensure_future(a.change("org_1", lambda org: copy(org, plan="starter")))
        await asyncio.wait({changing}, timeout=2)
        view.go_on()
        assert (await changing).plan == "starter"
    assert [record.plan for record in written(stage)] == ["starter", "professional", "starter"]


async def test_a_change_is_not_refused_for_a_state_that_another_process_has_repaired(stage: Stage) -> None:
    def only_after_b(org: OrgRecord) -> OrgRecord:
        if org.name != "b was here":
            raise Rejected("too_early")
        return copy(org, plan="starter")

    async with viewed_records(*two(stage)) as (a, view), org_records(*two(stage)) as b:
        await a.change("org_1", lambda org: copy(org, name="a"))
        await view.stand_still()
        await b.change("org_1", lambda org: copy(org, name="b was here"))
        changing = asyncio.ensure_future(a.change("org_1", only_after_b))
        await asyncio.wait({changing}, timeout=2)
        view.go_on()
        assert (await changing).plan == "starter"


async def test_two_processes_that_propose_different_ids_get_one_answer(stage: Stage) -> None:
    """Two ids for one org would be two subscriptions, both billed."""
    async with org_records(*two(stage)) as a, org_records(*two(stage)) as b:
        ids = [StoredIds(a), StoredIds(b)]
        for number in range(5):
            org = f"org_{number}"
            assert await ids[0].recall(org) is None
            answers = await asyncio.gather(*(one.remember(org, f"sub_{n}") for n, one in enumerate(ids * 2)))
            assert len(set(answers)) == 1
            assert [await one.remember(org, "another") for one in ids] == answers[:2]
            assert await ids[0].recall(org) == await ids[1].recall(org) == answers[0]


async def test_a_process_frozen_between_reading_and_writing_overwrites_nothing(stage: Stage) -> None:
    """When it continues it is fenced, and makes its change again on what was written meanwhile."""
    frozen = await changer(stage, "frozen", 1, "freeze")
    await soon(lambda: _stopped(frozen.pid))
    async with org_records(*two(stage)) as records:
        for _ in range(3):
            await records.change("org_1", lambda org: with_one_more(org, "awake"))
        os.kill(frozen.pid, signal.SIGCONT)
        assert await frozen.wait() == 0
        assert [record.limits for record in written(stage)] == [
            {"awake": 1},
            {"awake": 2},
            {"awake": 3},
            {"awake": 3, "frozen": 1},
        ]
        assert (await records.change("org_1", lambda org: org)).limits == {"awake": 3, "frozen": 1}


async def test_a_cancelled_caller_leaves_no_half_change(stage: Stage) -> None:
    """Cancelled at any point, a change has happened or has not; the next one starts from the actual state."""
    async with org_records(*two(stage)) as records:
        for number in range(12):
            cancelled = asyncio.ensure_future(records.change("org_1", lambda org: with_one_more(org, "maybe")))
            await asyncio.sleep(number * 0.004)
            cancelled.cancel()
            await asyncio.wait({cancelled})
            await records.change("org_1", lambda org: with_one_more(org, "sure"))
        final = await _limits(records)
    assert final["sure"] == 12 and final.get("maybe", 0) <= 12
    seen = [record.limits for record in written(stage)]
    assert all(sum(after.values()) == sum(before.values()) + 1 for before, after in pairwise(seen))


async def _limits(records: OrgRecords) -> dict[str, int]:
    return (await records.change("org_1", lambda org: org)).limits


def _stopped(pid: int) -> bool:
    with open(f"/proc/{pid}/stat", encoding="utf-8") as stat:  # noqa: PTH123  # a kernel's table, no file
        return stat.read().rpartition(")")[2].split()[0] == "T"
