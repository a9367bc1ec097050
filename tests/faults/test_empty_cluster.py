"""Kafka is lost with all its topics, and Postgres is not: `meterbridge recover` and a backfill bill each call once."""

import asyncio
import json
import os
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from tests.faults.calls import CUSTOMERS
from tests.faults.world import COMMANDS, MASTER_KEY, TOKEN, World, mapped_late, org_of, running_world
from tests.support.command import Ended, ended
from tests.support.database import rows, until
from tests.support.eventually import PATIENCE
from tests.support.http_client import http_client
from tests.support.kafka import MavenKafka

pytestmark = [pytest.mark.faults, pytest.mark.kafka]

PAGE = Path(__file__).parents[2] / "docs" / "disaster-recovery.md"
MAPPED = [customer for customer in CUSTOMERS if not mapped_late(customer)]
STRANGER = "a stranger"
_COUNTED = "SELECT count(*) FROM llm_usage_log"
_DONE = "SELECT COALESCE(sum(calls), 0)::int FROM lago_events WHERE status = 'completed'"
_PENDING = "SELECT COALESCE(sum(calls), 0)::int FROM lago_events WHERE status = 'pending'"
_OPEN = """
SELECT count(*) FROM llm_usage_log u
WHERE part <> '' AND NOT EXISTS (SELECT FROM lago_events e WHERE e.transaction_id = u.part)
"""
#: The projector's last step, undone: an event of which only Lago knows, and one whose calls no row shows either.
_BEHIND = "UPDATE usage_parts SET event = NULL, status = NULL WHERE part = ANY($1::text[])"
_UNSEEN = "DELETE FROM llm_usage_log WHERE part = $1"
#: All but Lago and the ingress, whose spool takes what comes meanwhile.
_STOPPED = ("api", "meter-0", "sink-0", "retry-0", "project-0")


@asynccontextmanager
async def deployment(broker: MavenKafka, folder: Path, url: str) -> AsyncIterator[World]:
    commands = {name: COMMANDS[name] for name in ("sandbox", "ingress", "api", "meter-0", "sink-0", "retry-0")}
    common = {"DATABASE_URL": url, "WINDOW_SECONDS": "5", "SPOOL_PATH": str(folder / "spool")}
    ports = {"METRICS_PORT": "0"}  # another program may take one while a process does not run
    async with running_world(
        {}, folder, broker=broker, common=common, each=lambda _: ports, prefix="eu.", commands=commands
    ) as world:
        yield world


def calls_of(numbers: range, customers: Sequence[str] = MAPPED, at: datetime | None = None) -> list[dict[str, Any]]:
    """Calls of one cent, as LiteLLM sends them, that end at `at` or now."""
    at = at or datetime.now(UTC)
    return [
        {
            "id": f"chatcmpl-{n}",
            "litellm_call_id": f"call-{n}",
            "status": "success",
            "call_type": "acompletion",
            "model": "gpt-4o",
            "custom_llm_provider": "openai",
            "end_user": customers[n % len(customers)],
            "response_cost": 0.01,
            "total_tokens": 7,
            "startTime": (at - timedelta(seconds=1)).timestamp(),
            "endTime": at.timestamp(),
        }
        for n in numbers
    ]


async def post(world: World, calls: list[dict[str, Any]]) -> None:
    async with http_client(trust_env=False, timeout=60 * PATIENCE) as http:
        headers = {"Authorization": f"Bearer {TOKEN}"}
        answer = await http.post(world.url("ingress") + "/webhook/litellm/usage", json=calls, headers=headers)
    assert answer.status_code == 202, answer.text


async def typed(world: World, *words: str) -> Ended:
    return await ended({**world.environ("command"), "LOG_LEVEL": "error"}, *words, limit_s=240)


async def billed(world: World) -> Decimal:
    """Cents at Lago."""
    async with http_client(trust_env=False, timeout=30 * PATIENCE) as http:
        stats = json.loads((await http.get(world.url("sandbox") + "/__stats")).text)
    return Decimal(stats["totals"]["billed_cents"])


async def bills(world: World, cents: int) -> None:
    """Wait until Lago has billed this amount."""
    for _ in range(1800):
        if (found := await billed(world)) >= cents:
            break
        await asyncio.sleep(0.1)
    assert found == cents


async def map_stranger(world: World) -> None:
    mapping = {"litellm_customer_id": STRANGER, "lago_customer_id": org_of(MAPPED[0]), "lago_organization_id": "t"}
    headers = {"Authorization": f"Bearer {MASTER_KEY}"}
    async with http_client(trust_env=False, timeout=60 * PATIENCE, headers=headers) as http:
        answer = await http.post(world.url("api") + "/customers/mapping", json=mapping)
    assert answer.status_code // 100 == 2, answer.text


async def lived(world: World, url: str) -> list[dict[str, Any]]:
    """Return a history: 40 calls are billed, 20 sealed and not posted, 5 held, 10 open, 10 not counted."""
    every = [*calls_of(range(40)), *calls_of(range(100, 105), [STRANGER])]
    await post(world, every)
    await bills(world, 40)
    await until(url, _DONE, lambda found: found == 40, 150)
    await until(url, _COUNTED, lambda found: found == 45, 150)
    await world.processes["sink-0"].terminate()
    sealed = calls_of(range(200, 220))
    await post(world, sealed)
    await until(url, _PENDING, lambda found: found == 20, 150)
    await rows(url, "SELECT 1")
    opened = calls_of(range(300, 310))
    await post(world, opened)
    await until(url, _COUNTED, lambda found: found == 75, 150)
    await world.processes["meter-0"].kill()
    unread = calls_of(range(400, 410))
    await post(world, unread)
    return [*every, *sealed, *opened, *unread]


async def lose(world: World, broker: MavenKafka) -> None:
    """All data of Kafka is deleted, and its topics are created again."""
    for name in _STOPPED:
        await world.processes[name].terminate()
    await asyncio.to_thread(broker.emptied)
    created = await typed(world, "topics", "create")
    assert created.code == 0, created.out + created.err


async def begin(world: World) -> None:
    for name in _STOPPED:
        world.processes[name].start()
    await asyncio.gather(*(world.processes[name].up() for name in _STOPPED))


async def backfilled(world: World, folder: Path, calls: list[dict[str, Any]], *words: str) -> Any:
    file = folder / "calls.jsonl"
    file.write_text("".join(json.dumps(call) + "\n" for call in calls))
    done = await typed(world, "backfill", "--source", "jsonl", "--file", str(file), "--json", *words)
    return done.json


async def test_each_cent_is_billed_once_after_all_topics_were_lost(
    broker: MavenKafka, database: str, tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    async with deployment(broker, tmp_path, database) as world:
        every = await lived(world, database)
        ((opened,),) = await rows(database, _OPEN)
        await lose(world, broker)
        planned = await typed(world, "recover", "--json")
        assert planned.code == 0, planned.out + planned.err
        assert await rows(database, "SELECT count(*) FROM llm_usage_log WHERE decision = 'lost'") == [(0,)]
        result = await typed(world, "recover", "--comment", "the disk was lost", "--yes", "--json")
        assert result.code == 0, result.out + result.err
        assert (result.json["lost_calls"], result.json["unknown_calls"]) == (opened, 0), result.json
        assert result.json["waiting"] and result.json["customers"] == len(MAPPED)
        assert result.json | {"done": False, "audit_id": ""} == planned.json
        await post(world, calls_of(range(500, 505)))
        await begin(world)
        first = await backfilled(world, tmp_path, every)
        again = await backfilled(world, tmp_path, every)
        assert (first["known"], first["missing"] + first["priced"]) == (len(every) - opened - 10, opened + 10), first
        assert again["missing"] + again["priced"] == 0, again
        await map_stranger(world)
        await post(world, every)  # LiteLLM sends calls again that it believes were not accepted
        await bills(world, len(every) + 5)
        await until(database, _DONE, lambda found: found == len(every) + 5, 150)
        for words in (("reconcile", "--lago"), ("audit", "verify"), ("topics", "check")):
            looked = await typed(world, *words, "--json")
            assert looked.code == 0, (words, looked.out + looked.err)
        assert await billed(world) == len(every) + 5
        refused = await typed(world, "recover", "--yes")
        assert refused.code == 1 and "topics_not_empty" in refused.err, refused.err
        for name, figure in {"calls": len(every) + 5, "lost": opened, "waiting": result.json["waiting"]}.items():
            record_property(name, figure)


async def test_events_that_only_lago_has_are_not_billed_again(
    broker: MavenKafka, database: str, tmp_path: Path
) -> None:
    """The projector was behind: Lago has events that Postgres does not have, and the calls of one of them are in no
    row.
    """
    async with deployment(broker, tmp_path, database) as world:
        every = calls_of(range(40))
        await post(world, every)
        await bills(world, 40)
        await until(database, _DONE, lambda found: found == 40, 150)
        for name in _STOPPED:
            await world.processes[name].terminate()
        parts = await rows(database, "SELECT part, calls::int FROM usage_parts ORDER BY part LIMIT 5")
        unseen = parts[0][1]
        await rows(database, _BEHIND, [part for part, _ in parts])
        await rows(database, _UNSEEN, parts[0][0])
        await lose(world, broker)
        result = await typed(world, "recover", "--json")
        assert result.code == 0, result.out + result.err
        assert (result.json["only_at_lago"], result.json["lost_calls"], result.json["unknown_calls"]) == (5, 0, unseen)
        await type_page(world)
        await begin(world)
        filled = await backfilled(world, tmp_path, every)
        assert (filled["known"], filled["missing"], filled["refused"]) == (40 - unseen, 0, {"log_incomplete": unseen})
        await post(world, every)
        await soon_refused(database, unseen)
        looked = await typed(world, "reconcile", "--lago", "--json")
        assert looked.code == 0, looked.out + looked.err
        assert (looked.json["open_usd"], looked.json["held_usd"]) == ("0", "0"), (
            "nothing waits that would be billed yet"
        )
        assert await billed(world) == 40


async def test_usage_released_into_an_event_that_only_lago_has_is_billed_once(
    broker: MavenKafka, database: str, tmp_path: Path
) -> None:
    """The event names one of two held parts. A person decides that the log is complete, and sends everything again."""
    async with deployment(broker, tmp_path, database) as world:
        seconds = int(datetime.now(UTC).timestamp()) // 5 * 5 - 10
        at = datetime.fromtimestamp(seconds, UTC)
        held = calls_of(range(3), [STRANGER], at) + calls_of(range(3, 5), [STRANGER], at + timedelta(seconds=1))
        still = calls_of(range(5, 7), [STRANGER], at + timedelta(seconds=5))
        await post(world, held)
        await until(database, _COUNTED, lambda found: found == 5, 150)
        ((parts,),) = await rows(database, "SELECT count(*) FROM held_parts")
        assert parts == 2
        await map_stranger(world)
        await bills(world, 5)
        await until(database, _DONE, lambda found: found == 5, 150)
        for name in _STOPPED:
            await world.processes[name].terminate()
        await rows(database, "UPDATE usage_parts SET event = NULL, status = NULL, released_in = NULL")
        await lose(world, broker)
        result = await typed(world, "recover", "--comment", "the disk was lost", "--yes", "--json")
        assert result.code == 0, result.out + result.err
        assert (result.json["only_at_lago"], result.json["undecided_calls"]) == (1, 0), result.json
        assert (result.json["lost_calls"], result.json["unknown_calls"]) == (0, 0), result.json
        await begin(world)
        filled = await backfilled(
            world, tmp_path, [*held, *still], "--trust-log-from", (at - timedelta(hours=1)).isoformat()
        )
        assert (filled["known"], filled["missing"]) == (5, 2), filled
        await bills(world, 7)
        await until(database, _DONE, lambda found: found == 7, 150)
        looked = await typed(world, "reconcile", "--lago", "--json")
        assert looked.code == 0, looked.out + looked.err
        assert await billed(world) == 7


async def type_page(world: World) -> None:
    """Type the commands of the page, as an operator does."""
    chapter = PAGE.read_text().split("## An empty cluster", 1)[1]
    block = chapter.split("```sh\n", 1)[1].split("```", 1)[0]
    assert "recover" in block
    environ = world.environ("command")
    environ["PATH"] += os.pathsep + os.environ["PATH"]
    run = await asyncio.create_subprocess_exec(
        *("bash", "-ec", block), env=environ, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    said, _ = await run.communicate()
    assert run.returncode == 0, said.decode()


async def soon_refused(url: str, count: int) -> None:
    """Check that all calls were found in the log, except the calls whose outcome is unknown."""
    waiting = "SELECT count(*) FROM rejected_calls WHERE resolution IS NULL"
    known = "SELECT count(*) FROM rejected_calls WHERE resolution = 'known'"
    await until(url, known, lambda found: found == 40 - count, 150)
    await until(url, waiting, lambda found: found == count, 150)
