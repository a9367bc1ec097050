"""With a journal a restart keeps everything that was accepted; and the sandbox as a process of its own."""

import asyncio
import signal
import sys
from pathlib import Path
from typing import Any

import httpx

from tests.support.eventually import PATIENCE
from tests.support.sandbox import DAY, Clock, Lago, codes, event, lago_sandbox


async def everything(lago: Lago) -> list[Any]:
    """Everything that a client can see."""
    paths = ("/events", "/customers", "/subscriptions?status[]=active&status[]=terminated", "/plans")
    seen: list[Any] = [(await lago.http.get(f"/api/v1{path}")).json() for path in paths]
    stats = await lago.stats()
    return [*seen, stats["subscriptions"], stats["conflicts"]]


async def test_a_restart_keeps_events_customers_plans_and_subscriptions_with_their_ids(tmp_path: Path) -> None:
    clock, journal = Clock(), tmp_path / "journal"
    async with lago_sandbox(clock=clock, journal=journal) as lago:
        await lago.sell()
        await lago.save("/customers", "customer", external_id="org_1", metadata=[{"key": "k", "value": "v"}])
        await lago.plan("pro", 5000)
        clock.now += 60
        await lago.subscribe(plan="pro")
        await lago.subscribe("sub_2")
        await lago.http.delete("/api/v1/subscriptions/sub_2")
        await lago.post(event("a"), event("b", external_subscription_id=None, properties={"z": 0.10, "ü": "漢"}))
        for _ in range(2):
            await lago.post(event("a", code="other"))
        before = await everything(lago)
    clock.now += 60
    async with lago_sandbox(clock=clock, journal=journal) as lago:
        assert await everything(lago) == before
        assert journal.read_text().count('["conflict"') == 1
        assert codes(await lago.post(event("a"))) == {"0": {"transaction_id": ["value_already_exist"]}}


async def test_a_restart_keeps_which_copy_superseded_which(tmp_path: Path) -> None:
    options: dict[str, Any] = {"store": "clickhouse", "dedup": True, "journal": tmp_path / "journal"}
    async with lago_sandbox(**options) as lago:
        for cents in ("10", "30"):
            await lago.post(event(precise_total_amount_cents=cents))
        before = await everything(lago)
    async with lago_sandbox(**options) as lago:
        assert await everything(lago) == before
        stats = await lago.stats()
        assert (stats["totals"]["cents"], stats["duplicates"]) == ("30", 0)


async def test_a_replay_advances_the_clock_between_two_changes_as_it_was(tmp_path: Path) -> None:
    """
    March  pro, then basic ordered   April  basic; back to pro at once
    """
    clock, journal = Clock(), tmp_path / "journal"
    async with lago_sandbox(clock=clock, journal=journal) as lago:
        for code, amount in (("basic", 1000), ("pro", 5000)):
            await lago.plan(code, amount)
        await lago.subscribe(plan="pro")
        await lago.subscribe(plan="basic")
        clock.now += 40 * DAY
        await lago.subscribe(plan="pro")
        before = await everything(lago)
        assert before[2]["meta"]["total_count"] == 3
    async with lago_sandbox(clock=clock, journal=journal) as lago:
        assert await everything(lago) == before


async def test_a_line_truncated_by_a_kill_is_dropped_and_the_others_kept(tmp_path: Path) -> None:
    journal = tmp_path / "journal"
    async with lago_sandbox(journal=journal) as lago:
        await lago.post(event("a"))
        await lago.post(event("b"))
    journal.write_bytes(journal.read_bytes()[:-20])
    async with lago_sandbox(journal=journal) as lago:
        assert (await lago.stats())["totals"]["events"] == 1
        await lago.post(event("c"))
    async with lago_sandbox(journal=journal) as lago:
        found = (await lago.get("/events")).json()["events"]
        assert [e["transaction_id"] for e in found] == ["a", "c"]


async def test_a_refused_request_is_not_in_the_journal(tmp_path: Path) -> None:
    async with lago_sandbox(journal=tmp_path / "journal") as lago:
        await lago.post(event("a"), event("a"))
        await lago.fault(kind="status", status=500)
        await lago.post(event("b"))
    assert (tmp_path / "journal").read_bytes() == b""


async def test_a_reset_empties_the_journal(tmp_path: Path) -> None:
    journal = tmp_path / "journal"
    async with lago_sandbox(journal=journal) as lago:
        await lago.post(event("a"))
        await lago.http.post("/__reset")
        await lago.post(event("b"))
    async with lago_sandbox(journal=journal) as lago:
        assert (await lago.stats())["totals"]["events"] == 1


PROGRAM = """
import pathlib, sys
from connectors.lago_sandbox import run_sandbox
from streams.runtime.shutdown import run_until_told
run_until_told(lambda word: run_sandbox(word, "127.0.0.1", 0, journal=pathlib.Path(sys.argv[1])))
"""


async def start(journal: Path) -> tuple[asyncio.subprocess.Process, str]:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", PROGRAM, str(journal)), stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    assert process.stdout is not None
    line = (await asyncio.wait_for(process.stdout.readline(), 20 * PATIENCE)).decode()
    assert line.startswith("Lago sandbox on http://127.0.0.1:")
    return process, line.split()[-1]


async def test_the_process_prints_its_url_survives_a_kill_and_stops_on_sigterm(tmp_path: Path) -> None:
    journal, headers = tmp_path / "journal", {"Authorization": "Bearer k"}
    process, url = await start(journal)
    async with httpx.AsyncClient(headers=headers, trust_env=False) as http:
        assert (await http.post(f"{url}/api/v1/events", json={"event": event()})).status_code == 200
        process.kill()
        await process.wait()
        process, url = await start(journal)
        assert (await http.get(f"{url}/api/v1/events/t1")).status_code == 200
    process.send_signal(signal.SIGTERM)
    out, err = await asyncio.wait_for(process.communicate(), 10 * PATIENCE)
    assert (process.returncode, out, err) == (0, b"", b"")
