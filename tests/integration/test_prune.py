"""Pruning is permanent, so it deletes only rows without open work, and a deleted call is never mistaken for a new one."""

import asyncio
import random
import time
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import asyncpg
import msgspec

from connectors.operations.focus_export import export_focus
from connectors.postgres.prune import prunable, prune
from schemas.errors import Rejected
from schemas.moments import HOUR_US
from schemas.records import AuditRecord, DeliveryAttempt, Receipt, Rejection
from tests.support.calls import raw, slp
from tests.support.command import Ended, meterbridge
from tests.support.credits import give, reserve
from tests.support.database import projector_parts, rows, until
from tests.support.eventually import soon
from tests.support.history import PREFIX, TOPICS
from tests.support.projection import Writer, event, manifest, usage
from tests.support.stage import Stage

MONTHS = [datetime(2026, month, 1, tzinfo=UTC) for month in (5, 6, 7, 8)]
CALLS = "SELECT id, processed_at FROM litellm_usage_events ORDER BY 1"


def call(number: int, at: datetime, part: int | None = None, **fields: Any) -> Any:
    of_part = {"part": "", "decision": "cache_hit"} if part is None else {"part": f"{PREFIX}{part}"}
    return usage(number, start=at.isoformat(), end=at.isoformat(), **of_part, **fields)


def settled(part: int, status: str, at: datetime) -> Receipt:
    return Receipt(f"{PREFIX}{part}", status, int(at.timestamp() * 1_000_000))


async def test_reservations_are_deleted_once_they_are_over_except_those_that_mark_a_call_as_paid(url: str) -> None:
    await give(url, "user:ada", "10")
    for call_id in ("projected", "released", "open", "paid", "young"):
        await reserve(url, "user:ada", "1", call_id)
    async with Writer(url) as writer:
        await writer.put(TOPICS.enriched, usage(1, customer_id="ada", id_kind="user", call_id="projected"))
    await rows(url, "SELECT settle_reservation('paid', 1)")
    await rows(url, "UPDATE credit_reservations SET released_at = now() WHERE call_id IN ('released', 'young')")
    old = datetime.now(UTC) + timedelta(minutes=1)
    await rows(url, "UPDATE credit_reservations SET released_at = $1 WHERE call_id = 'young'", old)
    assert (await prune(url, old)).rows["credit_reservations"] == 2
    left = await rows(url, "SELECT call_id FROM credit_reservations ORDER BY 1")
    assert left == [("open",), ("paid",), ("young",)]


async def test_readers_of_calls_and_prune_lock_in_one_order(url: str) -> None:
    async with Writer(url) as writer:
        await writer.put(TOPICS.enriched, call(1, MONTHS[0]))
    reader = await asyncpg.connect(url)
    try:
        async with reader.transaction():
            await reader.execute("LOCK TABLE ONLY llm_usage_log IN ACCESS SHARE MODE")
            pruning = asyncio.create_task(prune(url, MONTHS[3]))
            await until(url, "SELECT count(*) FROM pg_locks WHERE NOT granted", lambda count: count > 0)
            assert await reader.fetchval("SELECT count(*) FROM llm_usage_log") == 1
        assert (await pruning).months == {"2026-05": 1}
    finally:
        await reader.close()


async def test_a_month_is_deleted_as_a_whole_once_its_calls_have_no_open_work(url: str) -> None:
    may, june, july, august = MONTHS
    async with Writer(url) as writer:
        await writer.put(
            TOPICS.enriched,
            *(call(1, may, 1), call(2, may + timedelta(days=30, hours=23)), call(3, june, 3, held="no_mapping")),
            *(call(4, july, 4), call(5, july, 5), call(6, august, 6)),
        )
        for part in (1, 4, 5, 6):
            await writer.put(TOPICS.events, event(part), manifest=manifest(first=part))
        await writer.put(TOPICS.receipts, settled(1, "completed", may), settled(4, "completed", july))
        await writer.put(TOPICS.receipts, settled(5, "failed", july), settled(6, "completed", august))
    before = august + timedelta(days=20)  # in the midst of August: it is no whole month yet
    expected = {"2026-05": 2}, {"2026-06": 1, "2026-07": 1}
    found = await prunable(url, before)
    assert (found.months, found.kept) == expected
    assert (await prunable(url, may + timedelta(days=30))).months == {}
    done = await prune(url, before)
    assert (done.months, done.kept) == expected and done.rows["usage_parts"] == 1
    assert await rows(url, "SELECT month::text FROM forgotten_months") == [("2026-05-01",)]
    assert await rows(url, "SELECT to_regclass('llm_usage_log_2026_05')") == [(None,)]
    assert {row[0].int for row in await rows(url, CALLS)} == {3, 4, 5, 6}
    assert (await prune(url, before)).total == 0
    async with Writer(url) as writer:  # the dead letter was requeued, and arrived
        await writer.put(TOPICS.receipts, settled(5, "completed", august))
    assert (await prune(url, before)).months == {"2026-07": 2}


async def test_an_event_is_kept_as_long_as_a_call_that_was_held_for_it(url: str) -> None:
    """
    calls    July: part 1      August: part 2, held, and released into the event of part 1
    before                                   | in the midst of August: July goes, the event not
    """
    july, august = MONTHS[2:]
    async with Writer(url) as writer:
        await writer.put(TOPICS.enriched, call(1, july, 1), call(2, august, 2, held="no_mapping"))
        await writer.put(TOPICS.events, event(1), manifest=manifest(2, first=1))
        await writer.put(TOPICS.receipts, settled(1, "completed", august + timedelta(days=1)))
    result = dict(await rows(url, CALLS))
    done = await prune(url, august + timedelta(days=20))
    assert (done.months, done.rows["usage_parts"]) == ({"2026-07": 1}, 0)
    assert [(one.int, at == result[one]) for one, at in await rows(url, CALLS)] == [(2, True)]
    done = await prune(url, august + timedelta(days=40))
    assert (done.months, done.rows["usage_parts"]) == ({"2026-08": 1}, 2)


def over_the_border(number: int, month: datetime) -> Any:
    """A call that started in the month before, and ended one second after the start of this month."""
    moments = {"start": (month - timedelta(seconds=5)).isoformat(), "end": (month + timedelta(seconds=1)).isoformat()}
    return usage(number, **moments, part="", decision="byok", cost_usd=Decimal(number))


async def focus_of(url: str, month: datetime) -> tuple[int, Decimal] | str:
    """Calls and dollars of the export, or the reason why there is none."""
    try:
        found = await export_focus(url, month.date(), "us", lambda _: None)
    except Rejected as refusal:
        return refusal.reason
    return found.calls, found.list_usd


async def summed(url: str, month: datetime) -> tuple[int, Decimal]:
    """Return the same sums from the tables of analytics, computed again."""
    await rows(
        url, "INSERT INTO usage_days_changed SELECT DISTINCT (ended_at AT TIME ZONE 'UTC')::date FROM llm_usage_log"
    )
    await rows(url, "SELECT refresh_usage_summary()")
    query = """SELECT COALESCE(sum(calls), 0)::int, COALESCE(sum(own_key_cost_usd), 0) FROM usage_by_dimension
        WHERE dimension = 'all' AND date_trunc('month', day)::date = $1"""
    [(calls, cost)] = await rows(url, query, month.date())
    return calls, cost


async def test_a_call_over_the_end_of_a_month_is_kept_as_long_as_the_month_of_its_end(url: str) -> None:
    """It was summed in the month of its end, and deleted with the month of its start.

    calls    May --1-- June --2-- July --3-- August      each border has a call, and each month one in its midst
    """
    async with Writer(url) as writer:
        await writer.put(TOPICS.enriched, *(over_the_border(n, month) for n, month in enumerate(MONTHS[1:], 1)))
        inside = (
            usage(
                n,
                start=(at := (month + timedelta(days=9)).isoformat()),
                end=at,
                part="",
                decision="byok",
                cost_usd=Decimal(n),
            )
            for n, month in enumerate(MONTHS, 10)
        )
        await writer.put(TOPICS.enriched, *inside)
    may, june, july, august = MONTHS
    before = {month: await summed(url, month) for month in MONTHS}
    assert before == {may: (1, 10), june: (2, 12), july: (2, 14), august: (2, 16)}
    assert (await prune(url, june + timedelta(days=20))).months == {"2026-05": 1}
    assert [await focus_of(url, month) for month in MONTHS] == ["usage_pruned", (2, 12), (2, 14), (2, 16)]
    assert {month: await summed(url, month) for month in MONTHS} == before
    found = await prunable(url, august + timedelta(days=20))
    done = await prune(url, august + timedelta(days=20))
    assert done.months == found.months == {"2026-06": 2, "2026-07": 2}
    assert [await focus_of(url, month) for month in MONTHS] == ["usage_pruned"] * 3 + [(2, 16)]
    assert {month: await summed(url, month) for month in MONTHS} == before
    assert await rows(url, "SELECT count(*) FROM llm_usage_log") == [(2,)]
    assert await rows(url, "SELECT to_regclass('llm_usage_log_2026_05'), to_regclass('llm_usage_log_2026_06')") == [
        (None, None)
    ]
    done = await prune(url, august + timedelta(days=40))
    assert done.months == {"2026-08": 2} and await rows(url, "SELECT count(*) FROM llm_usage_log") == [(0,)]


async def test_a_kept_month_also_keeps_its_calls_that_started_before_it(url: str) -> None:
    june, july = MONTHS[1:3]
    async with Writer(url) as writer:
        await writer.put(TOPICS.enriched, over_the_border(1, june), over_the_border(2, july))
        await writer.put(TOPICS.enriched, call(3, june, 3, held="no_mapping"), call(4, july))
    done = await prune(url, july + timedelta(days=40))
    assert (done.months, done.kept) == ({"2026-07": 1}, {"2026-06": 1}), "the table of June is kept whole"
    assert await focus_of(url, june) == (2, Decimal("1.000145")) and await focus_of(url, july) == "usage_pruned"
    assert await rows(url, "SELECT month::text FROM forgotten_months ORDER BY 1") == [("2026-07-01",)]


async def test_the_remaining_rows_are_unchanged_by_any_deletion_around_them(url: str) -> None:
    """Parts span months, are held in one and released in another, and are settled much later, or never."""
    chance = random.Random(7)
    async with Writer(url) as writer:
        for number in range(300):
            at = MONTHS[0] + timedelta(hours=chance.randrange(24 * 118))
            first = chance.randrange(44)
            held = {"held": "no_mapping"} if 20 <= first < 40 else {}
            await writer.put(TOPICS.enriched, call(number, at, first if first < 40 else None, **held))
        for part in range(20):
            await writer.put(TOPICS.events, event(part), manifest=manifest(part + 20, first=part))
        months = 0
        waiting = list(range(20))
        chance.shuffle(waiting)
        for day in range(0, 160, 8):
            now = MONTHS[0] + timedelta(days=day)
            result = dict(await rows(url, CALLS))
            done = await prune(url, now)
            left = dict(await rows(url, CALLS))
            assert left.items() <= result.items()
            assert all(result[gone] is not None for gone in result.keys() - left.keys())
            assert sum(done.months.values()) == len(result) - len(left)
            months += len(done.months)
            await writer.put(TOPICS.receipts, settled(waiting.pop(), "completed", now))
        assert months == 0  # until its last part is settled a month stays
        done = await prune(url, MONTHS[1] + timedelta(days=160))
    assert list(done.months) == ["2026-05", "2026-06", "2026-07", "2026-08"] and done.kept == {}
    assert done.rows["usage_parts"] == 40 and await rows(url, "SELECT count(*) FROM usage_parts") == [(0,)]


async def test_attempts_and_refusals_are_deleted_by_age_and_the_audit_log_is_kept(url: str) -> None:
    now = datetime.now(UTC)
    old_us, new_us = (int((now - timedelta(days=days)).timestamp() * 1_000_000) for days in (100, 80))
    async with Writer(url) as writer:
        for at in (old_us, new_us):
            await writer.put(TOPICS.deliveries, DeliveryAttempt(at, "out", "events.batch", 200, 1))
            await writer.put(TOPICS.rejected, Rejection("bad_cost", "meter", at, "", 1))
            await writer.put(TOPICS.audit, AuditRecord(f"a{at}", at, "ada", "replay", {}))
    done = await prune(url, now - timedelta(days=90))
    assert done.rows == {
        "usage_parts": 0,
        "corrected_parts": 0,
        "rejected_calls": 1,
        "webhook_delivery_logs": 1,
        "unprojected_records": 0,
        "credit_reservations": 0,
    }
    left = "SELECT (SELECT count(*) FROM rejected_calls), (SELECT count(*) FROM webhook_delivery_logs), count(*) FROM audit_log"
    assert await rows(url, left) == [(1, 1, 2)]


async def prunes(stage: Stage, database: str, *words: str) -> Ended:
    return await meterbridge(stage, "db", "prune", *words, DATABASE_URL=database)


async def test_the_command_first_prints_its_plan_and_writes_an_audit_line(stage: Stage, database: str) -> None:
    async with Writer(database) as writer:
        await writer.put(TOPICS.enriched, call(1, MONTHS[0]), call(2, MONTHS[1], 3, held="no_mapping"))
    result = await prunes(stage, database, "--older-than", "90d", "--dry-run", "--json")
    expected = {"months": {"2026-05": 1}, "kept": {"2026-06": 1}}
    assert result.code == 0 and result.json["dry_run"] and expected.items() <= result.json.items()
    assert stage.read(stage.topics.audit) == [] and len(await rows(database, CALLS)) == 2
    result = await prunes(stage, database, "--older-than", "90d", "--comment", "room", "--json")
    assert result.code == 0 and expected.items() <= result.json.items()
    [line] = stage.values(stage.topics.audit)
    assert (line["audit_id"], line["action"], line["reason"], line["count"]) == (
        result.json["audit_id"],
        "db.prune",
        "room",
        1,
    )
    assert line["target"] == {"older_than": "90d", "months": "2026-05"}
    assert len(await rows(database, CALLS)) == 1
    result = await prunes(stage, database, "--older-than", "90d")
    assert result.code == 0 and "not billed yet: the month is kept" in result.out
    assert len(stage.read(stage.topics.audit)) == 1  # nothing was done


async def test_calls_that_may_arrive_again_are_not_deleted(stage: Stage, database: str) -> None:
    for age in ("1h", "30d", "31d"):
        result = await prunes(stage, database, "--older-than", age)
        assert result.code == 2 and "must be at least 32d" in result.err
    assert (await prunes(stage, database, "--older-than", "32d")).code == 0
    assert (await prunes(stage, database, "--older-than", "old")).code == 2
    assert (await prunes(stage, "", "--older-than", "90d")).code == 2


async def test_a_call_of_a_deleted_month_is_not_billed_again(stage: Stage, database: str, tmp_path: Path) -> None:
    """Its absence from the log proves nothing any more: backfill refuses it, and a requeue leaves it where it is."""
    then_us = int(MONTHS[0].timestamp()) * 1_000_000 + 24 * HOUR_US
    calls = [slp(n, at_us=then_us + n * HOUR_US, customer="acme") for n in range(5)]
    stage.put([raw(0, slp(n, at_us=then_us), customer="acme", received_us=time.time_ns() // 1000) for n in range(3)])
    async with Writer(database) as writer:
        await writer.put(TOPICS.enriched, call(77, MONTHS[0]))
    async with (
        projector_parts(stage, database) as project,
        stage.running("meter", stage.parts()),
        stage.running("project", project),
    ):
        await until(database, "SELECT count(*) FROM rejected_calls", lambda count: count == 3)
        assert (await prunes(stage, database, "--older-than", "90d", "--json")).json["months"] == {"2026-05": 1}
        lines = tmp_path / "calls.jsonl"
        lines.write_text("\n".join(msgspec.json.encode(one).decode() for one in calls))
        words = ("--source", "jsonl", "--file", str(lines), "--json")
        filled = await meterbridge(stage, "backfill", *words, DATABASE_URL=database)
        assert filled.code == 1, filled.err
        assert (filled.json["missing"], filled.json["refused"]) == (0, {"usage_pruned": 5})
        back = await meterbridge(stage, "dlq", "requeue", "--kind", "calls", "--json", DATABASE_URL=database)
        assert back.code == 0, back.err
        assert (back.json["requeued"], back.json["impossible"]) == (0, 3), back.json
        await soon(lambda: len(stage.read(stage.topics.raw)) == 3)
    assert await rows(database, "SELECT count(*) FROM llm_usage_log") == [(0,)]
    assert Decimal(0) == sum(Decimal(one["precise_total_amount_cents"]) for one in stage.values(stage.topics.events))
    assert msgspec.json.decode(stage.read(stage.topics.audit)[0].value())["action"] == "db.prune"


async def test_a_replacement_event_is_kept_as_long_as_a_call_names_the_replaced_one(url: str) -> None:
    """Without it the call would wait forever, and its month would be kept forever."""
    old = datetime.now(UTC) - timedelta(days=100)
    failed = msgspec.structs.replace(settled(7, "failed", old), reason="unbillable_ended")
    again = msgspec.structs.replace(settled(7, "completed", old), transaction_id=f"{PREFIX}7-again")
    async with Writer(url) as writer:
        await writer.put(TOPICS.enriched, call(1, datetime.now(UTC), 7))
        instead = msgspec.structs.replace(event(7), transaction_id=f"{PREFIX}7-again")
        await writer.put(TOPICS.events, event(7), instead, manifest=manifest())
        await writer.put(TOPICS.receipts, settled(7, "completed", old), failed, again)
    await prune(url, datetime.now(UTC) - timedelta(days=90))
    assert await rows(url, "SELECT count(processed_at) FROM litellm_usage_events") == [(1,)]
