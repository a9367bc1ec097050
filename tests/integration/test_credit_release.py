"""Prepaid accounts with real Kafka and Postgres: billed and debited amounts are equal, also for usage that was held."""

import asyncio
import time
from decimal import Decimal
from pathlib import Path

from tests.support.calls import Raw, raw, slp
from tests.support.command import meterbridge
from tests.support.credits import account, balanced, give, prepaid_since
from tests.support.database import projector_parts, rows, until
from tests.support.stage import Stage

CARD = """
id = "first"
effective_from = "2026-01-01T00:00:00Z"
[default]
markup_percent = "50"
[factors.org]
org = "0.85"
"""
LOGGED = "SELECT count(*) FROM llm_usage_log"
MOVES = "SELECT count(*) FROM credit_transactions"


def call(number: int, customer: str, **envelope: str) -> Raw:
    """A call of the present that is billed at 0.0002175 USD before the factor."""
    at = time.time_ns() // 1000
    return raw(0, slp(number, at_us=at), customer=customer, received_us=at, **envelope)


def billed(stage: Stage) -> Decimal:
    """Dollars."""
    events = stage.values(stage.topics.events)
    return sum((Decimal(one["precise_total_amount_cents"]) for one in events), Decimal(0)) / 100


async def test_held_usage_is_debited_at_its_release_and_given_back_at_its_write_off(
    stage: Stage, database: str, tmp_path: Path
) -> None:
    file = tmp_path / "card.toml"
    file.write_text(CARD, encoding="utf-8")
    assert (await meterbridge(stage, "rates", "put", str(file), "--comment", "c", "--back-date")).code == 0
    await give(database, "org:org", "0.001")
    await give(database, "user:ghost", "1")
    await prepaid_since(database, "2026-01-01Z")
    stage.map("acme", "org", "sub")
    some = [*(call(n, "acme") for n in range(10)), *(call(n, "late") for n in range(10, 15))]
    stage.put([*some, *(call(n, "ghost", kind="user") for n in range(15, 20))])
    async with projector_parts(stage, database) as project, stage.running("meter", stage.parts()):
        async with stage.running("project", project):
            await until(database, LOGGED, lambda count: count == 20)
            # The ghost's calls are held, and debited at once, so that it cannot spend the same credits again.
            left = "SELECT balance FROM user_credits WHERE account = 'user:ghost'"
            await until(database, left, lambda balance: balance == 1 - 5 * Decimal("0.0002175"))
            stage.map("late", "org", "sub")
            done = await meterbridge(stage, "held", "write-off", "--customer", "ghost", "--comment", "test")
            assert done.code == 0, done.err
            await until(database, left, lambda balance: balance == 1)
            owed = 15 * Decimal("0.0002175") * Decimal("0.85")
            used = "SELECT 0.001 - balance + overdraft FROM user_credits WHERE account = 'org:org'"
            await until(database, used, lambda found: found == owed)
            assert billed(stage) == owed
            assert await rows(database, "SELECT sum(billed_usd) FROM llm_usage_log WHERE customer_id <> 'ghost'") == [
                (owed,)
            ]
        await balanced(database)
        before, moves = await account(database, "org:org"), await rows(database, MOVES)
        for emptied in ("projector_offsets", "projector_offsets, llm_usage_log, usage_parts"):
            await rows(database, f"TRUNCATE {emptied}")
            async with stage.running("project", project):
                await until(database, LOGGED, lambda count: count == 20)
                await until(database, "SELECT sum(next) FROM projector_offsets", lambda total: total is not None)
                await asyncio.sleep(1)
            assert await account(database, "org:org") == before
            assert await account(database, "user:ghost") == (Decimal(1), Decimal(0))
            assert await rows(database, MOVES) == moves
            await balanced(database)
