"""A day's calls sent by webhook, by replay, and by backfill from LiteLLM's database and from files are billed once."""

import io
import json
import time
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from connectors.ingest.raw_record import strip
from connectors.operations.dead_letters import usage_of
from connectors.operations.usage_log import LogCheck, log_judgements
from connectors.postgres.pool import Database
from schemas.errors import Unavailable
from schemas.policy import MeterPolicy
from schemas.wire import FLAT, LAGO
from streams.components import Components
from streams.core.metering.customer_key import CUSTOMER_ID_FIELDS
from streams.core.metering.matching import KNOWN
from tests.support.calls import Raw
from tests.support.command import Ended, meterbridge
from tests.support.database import fresh_database, projector_parts, rows, until
from tests.support.eventually import soon
from tests.support.history import TOPICS
from tests.support.projection import Writer, usage
from tests.support.recorded_day import DAY, RECORDED, exported, recorded, table
from tests.support.stage import Stage

CUSTOMER_AND_USER = ("acme", "u-alice")
#: A client chose this call id for two calls, whose provider gave no id: LiteLLM's table has one of them.
COLLIDED = "emb-c267eb"


def raws(calls: list[dict[str, Any]]) -> list[Raw]:
    """Records as the ingress stores them, received now."""
    at = time.time_ns() // 1000
    found = []
    for call in calls:
        stripped = strip(json.dumps(call).encode(), FLAT, at, CUSTOMER_ID_FIELDS)
        assert stripped is not None
        found.append(Raw(0, at // 1000, stripped[0].encode(), stripped[1]))
    return found


@pytest.fixture
async def litellm(postgres_url: str) -> AsyncIterator[str]:
    """LiteLLM's database with its own table and the recorded day in it."""
    async with fresh_database(postgres_url) as url:
        connection = await asyncpg.connect(url)
        schema = (RECORDED / "spendlogs__schema.sql").read_text()
        await connection.execute("\n".join(line for line in schema.splitlines() if not line.startswith("\\")))
        await connection.execute("SET search_path TO public")
        file = io.BytesIO(table().encode())
        columns = file.readline().decode().strip().split(",")
        await connection.copy_to_table(
            "LiteLLM_SpendLogs", source=file, columns=columns, format="csv", null="", force_not_null=["end_user"]
        )
        await connection.close()
        yield url


@pytest.fixture
async def running(stage: Stage, database: str) -> AsyncIterator[Components]:
    """A meter and a projector under the names that commands look for."""
    async with projector_parts(stage, database) as project:
        meter = stage.parts()
        async with stage.running("meter", meter), stage.running("project", project):
            yield meter


def start_of(starts: dict[tuple[str, str], str], call: dict[str, Any]) -> float:
    return datetime.fromisoformat(starts[call["id"], call["litellm_call_id"]] + "+00:00").timestamp()


async def log_of(database: str) -> tuple[int, Decimal, int]:
    """Calls, dollars and tokens that count."""
    query = "SELECT count(*), sum(cost_usd), sum(total_tokens) FROM llm_usage_log"
    return (await rows(database, query))[0]


async def fill(stage: Stage, database: str, *words: str, **more: str) -> Ended:
    """The exit code is 1 only if a person has to look at something that was reported."""
    done = await meterbridge(stage, "backfill", *words, "--json", DATABASE_URL=database, **more)
    assert done.out, done.err
    assert done.code == bool(done.json["refused"] or done.json["other_cost"]["calls"]), done.out + done.err
    assert not done.json["refused"], done.out
    return done


async def test_one_day_sent_in_four_ways_is_billed_once(
    stage: Stage, database: str, litellm: str, running: Components, tmp_path: Path
) -> None:
    calls = recorded()
    assert len(calls) >= 85
    stage.put(raws(calls))
    await until(database, "SELECT count(*) FROM llm_usage_log", lambda count: count == len(calls))
    before = await log_of(database)
    await meterbridge(stage, "replay", "--from", "1h", "--to", "2100-01-01")
    await soon(lambda: stage.sensors.calls.get("duplicate") == len(calls), limit_s=20)
    from_db = await fill(stage, database, "--source", "litellm-db", *DAY, LITELLM_DATABASE_URL=litellm)
    assert (from_db.json["read"], from_db.json["missing"]) == (len(exported()), 0), from_db.json
    lines = tmp_path / "calls.jsonl"
    lines.write_text("\n".join(json.dumps(call) for call in calls))
    from_lines = await fill(stage, database, "--source", "jsonl", "--file", str(lines))
    assert (from_lines.json["read"], from_lines.json["missing"]) == (len(calls), 0)
    export = tmp_path / "export.csv"
    export.write_text(table())
    from_csv = await fill(stage, database, "--source", "csv", "--file", str(export))
    assert (from_csv.json["read"], from_csv.json["missing"]) == (len(exported()), 0), from_csv.json
    assert await log_of(database) == before


async def test_calls_that_never_arrived_are_found_in_litellms_database_and_sent_once(
    stage: Stage, database: str, litellm: str, running: Components
) -> None:
    """A third of the calls was lost in delivery; a second backfill finds nothing."""
    calls = recorded()
    arrived = [call for number, call in enumerate(calls) if number % 3]
    stage.put(raws(arrived))
    await until(database, "SELECT count(*) FROM llm_usage_log", lambda count: count == len(arrived))
    words = ("--source", "litellm-db", *DAY)
    dry = (await fill(stage, database, *words, "--dry-run", LITELLM_DATABASE_URL=litellm)).json
    first = (await fill(stage, database, *words, LITELLM_DATABASE_URL=litellm)).json
    assert (dry["missing"], dry["usd"], dry["customers"]) == (first["missing"], first["usd"], first["customers"])
    assert [one["call"] for one in first["other_cost"]["first"]] == [COLLIDED]
    assert first["missing"] >= len(calls) // 3 - 2  # LiteLLM's own table lacks two calls whose ids collided
    total = len(arrived) + first["missing"]
    await until(database, "SELECT count(*) FROM llm_usage_log", lambda count: count == total)
    assert (await fill(stage, database, *words, LITELLM_DATABASE_URL=litellm)).json["missing"] == 0
    assert [line["action"] for line in stage.values(stage.topics.audit)] == ["backfill", "backfill"]


async def test_a_repeated_backfill_starts_a_little_before_its_last_position(
    stage: Stage, database: str, litellm: str, running: Components, tmp_path: Path
) -> None:
    """A row may be written some time after its call started: `--overlap` is that time."""
    file = tmp_path / "state"
    words = ("--source", "litellm-db", *DAY, "--checkpoint", str(file))
    first = (await fill(stage, database, *words, LITELLM_DATABASE_URL=litellm)).json
    assert (first["read"], first["missing"]) == (len(exported()), len(exported()))
    starts = [datetime.fromisoformat(row["startTime"] + "+00:00") for row in exported()]
    assert datetime.fromisoformat(file.read_text().strip()) == max(starts)
    await until(database, "SELECT count(*) FROM llm_usage_log", lambda count: count == len(starts))
    for overlap, since in (("5s", max(starts) - timedelta(seconds=5)), ("24h", min(starts))):
        again = (await fill(stage, database, *words, "--overlap", overlap, LITELLM_DATABASE_URL=litellm)).json
        assert (again["read"], again["missing"]) == (sum(start >= since for start in starts), 0)


async def test_a_webhook_that_arrives_after_its_backfill_is_a_duplicate(
    stage: Stage, database: str, litellm: str, running: Components
) -> None:
    """It waited in a spool: its times have microseconds, the database's are rounded."""
    first = (await fill(stage, database, "--source", "litellm-db", *DAY, LITELLM_DATABASE_URL=litellm)).json
    assert first["missing"] == len(exported())
    await until(database, "SELECT count(*) FROM llm_usage_log", lambda count: count == first["missing"])
    before = await log_of(database)
    # Of two calls that share both ids LiteLLM's table keeps one: the other never was in it, and is billed now.
    starts = {(row["request_id"], row["litellm_call_id"]): row["startTime"] for row in exported()}
    late = [call for call in recorded() if (call["id"], call["litellm_call_id"]) in starts and call["response_cost"]]
    lost = [call for call in late if abs(start_of(starts, call) - call["startTime"]) > 0.002]
    stage.put(raws(late))
    await soon(lambda: stage.sensors.calls.get("duplicate") == len(late) - len(lost), limit_s=20)
    await until(database, "SELECT count(*) FROM llm_usage_log", lambda count: count == before[0] + len(lost))
    assert len(lost) == 1


async def test_a_post_without_a_time_that_was_lost_and_is_repeated_after_its_backfill_is_a_duplicate(
    stage: Stage, database: str, running: Components, tmp_path: Path
) -> None:
    """Two rows with the same ids and different starts stay two calls."""
    untimed = {"id": "r", "litellm_call_id": "c", "spend": 0.5, "user_id": "u-alice"}
    file = tmp_path / "rows.jsonl"
    lines = [{**untimed, "status": "success", "startTime": time.time() - ago} for ago in (60, 30)]
    file.write_text("\n".join(map(json.dumps, lines)))
    assert (await fill(stage, database, "--source", "jsonl", "--file", str(file))).json["missing"] == 2
    await until(database, "SELECT count(*) FROM llm_usage_log", lambda count: count == 2)
    stage.put(raws([untimed, {**untimed, "status": "success"}]))
    await soon(lambda: stage.sensors.calls.get("duplicate") == 2, limit_s=20)
    assert (await log_of(database))[:2] == (2, 1)


async def test_a_failed_attempt_and_its_success_both_with_cost_are_billed_as_two(
    stage: Stage, database: str, running: Components, tmp_path: Path
) -> None:
    """One call id, two statuses: by webhook, and again from a file."""
    base = {"litellm_call_id": "one", "model": "m", "endTime": time.time(), "spend": 0.5, "user_id": "u-alice"}
    tries = [
        {**base, "id": "one", "status": "failure", "startTime": time.time() - 9},
        {**base, "id": "chatcmpl-1", "status": "success", "startTime": time.time() - 5},
    ]
    stage.put(raws(tries))
    await until(database, "SELECT count(*) FROM llm_usage_log", lambda count: count == 2)
    file = tmp_path / "tries.jsonl"
    file.write_text("\n".join(map(json.dumps, tries)))
    assert (await fill(stage, database, "--source", "jsonl", "--file", str(file))).json["missing"] == 0
    assert (await log_of(database))[1] == 1


async def test_lines_that_are_no_calls_are_reported_and_do_not_affect_others(
    stage: Stage, database: str, running: Components, tmp_path: Path
) -> None:
    file = tmp_path / "mixed.jsonl"
    good = {"id": "a", "litellm_call_id": "a", "spend": 0.25, "startTime": time.time(), "user_id": "u"}
    file.write_text("\n".join(["{", json.dumps(good), "null", json.dumps({**good, "id": "b", "spend": -1})]))
    words = ("backfill", "--source", "jsonl", "--file", str(file), "--json")
    done = await meterbridge(stage, *words, DATABASE_URL=database)
    result = done.json
    assert done.code == 1, "a script has to see it"
    assert (result["missing"], result["usd"], sum(result["refused"].values())) == (1, "0.25", 3)
    assert (result["where"][0], result["where"][-1]) == (
        "line 1 (the JSON is invalid at byte 1 of the element, where it ends: was it cut off?): not_json",
        "line 4, request b (the cost is -1 USD, below 0): negative_cost",
    )
    assert done.code == 1


async def test_without_a_running_meter_nothing_is_sent(stage: Stage, database: str, tmp_path: Path) -> None:
    """A call that is not folded yet may be the same one: the command says which partition is behind."""
    stage.put(raws(recorded()[:1]))
    file = tmp_path / "one.jsonl"
    file.write_text(json.dumps(recorded()[0]))
    words = ("backfill", "--source", "jsonl", "--file", str(file), "--patience", "1s")
    done = await meterbridge(stage, *words, DATABASE_URL=database)
    assert (done.code, "the meter has 1 record to go" in done.err) == (1, True)
    assert len(stage.read(stage.topics.raw)) == 1


async def test_calls_that_litellm_logged_and_never_sent_are_reported_by_hour_with_the_command_that_fetches_them(
    stage: Stage, database: str, litellm: str, running: Components
) -> None:
    calls = recorded()
    stage.put(raws(calls[::2]))
    await until(database, "SELECT count(*) FROM llm_usage_log", lambda count: count == len(calls[::2]))
    where = {"DATABASE_URL": database, "LITELLM_DATABASE_URL": litellm}
    result = await meterbridge(stage, "reconcile", "--litellm", *DAY, "--json", **where)
    assert result.code == 1, result.err
    hours = result.json["litellm_hours"]
    assert sum(hour["known"] + hour["missing"] for hour in hours.values()) == len(exported())
    for complaint in result.json["complaints"]:
        if COLLIDED not in complaint.partition(": billed")[0]:
            words = complaint.partition(": meterbridge ")[2].split()
            assert await fill(stage, database, *words[1:], LITELLM_DATABASE_URL=litellm)
    total = len(exported())
    await until(database, "SELECT count(*) FROM llm_usage_log", lambda count: count >= total)
    result = await meterbridge(stage, "reconcile", "--litellm", *DAY, "--json", **where)
    assert [one.partition(" ")[0] for one in result.json["complaints"]] == [COLLIDED], result.out


async def test_a_log_that_has_lost_rows_since_it_was_checked_is_not_trusted(database: str) -> None:
    """A crash of Postgres reverts its latest transactions, rows and offsets together."""
    pool = Database(database, size=1)
    try:
        with pytest.raises(Unavailable, match="lost its latest rows"):
            await log_judgements(pool, [], LogCheck(0, "enriched", {0: 5}), MeterPolicy())
        assert await log_judgements(pool, [], LogCheck(0, "enriched", {}), MeterPolicy()) == []
    finally:
        pool.terminate()


async def test_a_table_from_a_spreadsheet_is_read_row_by_row_and_uncertain_rows_are_reported(
    stage: Stage, database: str, running: Components, tmp_path: Path
) -> None:
    file, at = tmp_path / "calls.csv", datetime.now(UTC).isoformat()
    lines = [
        "request_id;user;spend;startTime;messages",
        f"req-1;u;0,25;{at};",
        f"req-2;u;0.25;{at};" + "x" * 200_000,
        "req-3;u;0.25;11/28/2026 10:03;",
        f'req-4;u;0.25;{at};"an open quote',
    ]
    file.write_text("\n".join(lines))
    words = ("backfill", "--source", "csv", "--file", str(file), "--json")
    refused = await meterbridge(stage, *words, DATABASE_URL=database)
    assert (refused.code, "--delimiter ';'" in refused.err) == (1, True)
    done = await meterbridge(stage, *words, "--delimiter", ";", DATABASE_URL=database)
    assert (done.code, done.json["read"], done.json["missing"], done.json["usd"]) == (1, 4, 1, "0.25")
    cut = "a quoted cell begins here and is not closed before the end of the file: all lines up to there are refused"
    assert done.json["where"] == [
        "line 2, request req-1 (spend): bad_number",
        "line 4, request req-3 (startTime): bad_time",
        f"line 5, request req-4 ({cut}): open_quote",
    ]


@pytest.mark.parametrize(
    ("shape", "element"),
    [
        (FLAT, {"id": "batch_0123456789abcdef", "call_type": "aretrieve_batch", "response_cost": 1}),
        (FLAT, {"litellm_call_id": "untimed", "response_cost": 1}),
        (LAGO, {"transaction_id": "t", "external_subscription_id": "acme", "precise_total_amount_cents": "100"}),
    ],
    ids=["a job", "a call without a time", "an event of a sender"],
)
async def test_a_copy_of_next_month_is_found_if_its_identity_has_no_start(
    database: str, shape: str, element: dict[str, Any]
) -> None:
    """A lost ledger had counted it, so only the log knows. The log was searched in the month of the copy alone."""
    copies = []
    for at in (datetime(2026, 11, 30, 23, 59, 58, tzinfo=UTC), datetime(2026, 12, 1, 0, 0, 5, tzinfo=UTC)):
        stripped = strip(json.dumps(element).encode(), shape, round(at.timestamp() * 1e6), CUSTOMER_ID_FIELDS)
        assert stripped is not None
        one = usage_of(stripped[1], "acme", Decimal("1e-12"))
        assert one is not None
        copies.append(one)
    counted, again = copies
    assert counted.identity == again.identity
    ids = {"identity": counted.identity.hex(), "call_id": counted.call_id, "request_id": "another poll's"}
    times = {"start": "2026-11-30T23:59:58Z", "end": "2026-11-30T23:59:58Z"}
    async with Writer(database) as writer:
        assert await writer.put(TOPICS.enriched, usage(1, cost_usd=Decimal(1), **ids, **times))
    with Database(database, size=1) as pool:
        [judged] = await log_judgements(pool, [again], LogCheck(0, "enriched", {}), MeterPolicy())
    assert (judged.verdict.word, judged.sendable) == (KNOWN, False)
