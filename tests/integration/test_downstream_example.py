"""The example consumer of `enriched`: its sums are exact through kills, repeats and aborted transactions."""

import ast
import asyncio
import os
import signal
import sqlite3
import sys
from asyncio.subprocess import PIPE, Process, create_subprocess_exec
from decimal import Decimal
from functools import partial
from pathlib import Path

from tests.support.eventually import PATIENCE, soon
from tests.support.recipes import CENT, billed, write
from tests.support.stage import Stage

EXAMPLE = Path(__file__).parents[2] / "docs" / "examples" / "cost_per_customer.py"


async def started(stage: Stage, database: Path, *arguments: str) -> Process:
    words = (stage.settings.kafka_bootstrap_servers, stage.topics.enriched, str(database), *arguments)
    return await create_subprocess_exec(sys.executable, EXAMPLE, *words, stdout=PIPE, stderr=PIPE)


async def read_to_the_end(stage: Stage, database: Path) -> dict[str, tuple[int, Decimal]]:
    """The output of the example: calls and dollars of each customer."""
    process = await started(stage, database, "--until-end")
    output, errors = await asyncio.wait_for(process.communicate(), 120 * PATIENCE)
    assert process.returncode == 0, errors.decode()
    rows = [line.split("\t") for line in output.decode().splitlines()]
    return {customer: (int(calls), Decimal(usd)) for customer, calls, usd in rows}


def calls_in(database: Path) -> int:
    if not database.exists():
        return 0
    with sqlite3.connect(database, timeout=30) as connection:
        if not connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'calls'").fetchone():
            return 0
        found: int = connection.execute("SELECT count(*) FROM calls").fetchone()[0]
    return found


def more_than(database: Path, before: int) -> bool:
    return calls_in(database) > before


async def test_sums_are_exact_after_any_number_of_kills(stage: Stage, tmp_path: Path) -> None:
    database = tmp_path / "totals.db"
    for turn in range(3):
        write(stage, billed(range(turn * 2000, turn * 2000 + 2000)))
        process = await started(stage, database)
        try:
            await soon(partial(more_than, database, turn * 2000))
        finally:
            os.kill(process.pid, signal.SIGKILL)
            await process.wait()
    assert await read_to_the_end(stage, database) == {f"customer-{one}": (3000, 3000 * CENT) for one in (0, 1)}


async def test_repeated_aborted_and_unbilled_calls_do_not_count(stage: Stage, tmp_path: Path) -> None:
    database = tmp_path / "totals.db"
    write(stage, billed(range(10)))
    write(stage, billed(range(10, 20)), commit=False)
    write(stage, billed(range(20, 30), decision="unpriced"))
    write(stage, billed(range(30, 40), decision="carried"))
    expected = {f"customer-{one}": (5, 5 * CENT) for one in (0, 1)}
    assert await read_to_the_end(stage, database) == expected
    with sqlite3.connect(database) as connection:
        connection.execute("DELETE FROM positions")
    assert await read_to_the_end(stage, database) == expected


async def test_a_repeated_call_with_a_cost_and_our_own_price_count(stage: Stage, tmp_path: Path) -> None:
    write(stage, billed(range(2), decision="unpriced"))
    write(stage, billed(range(2)))
    write(stage, billed(range(2, 4), billed_usd=Decimal(0)))
    write(stage, billed(range(4, 6), billed_usd=Decimal(2), decision="failed_with_cost"))
    expected = {f"customer-{one}": (3, CENT + 2) for one in (0, 1)}
    assert await read_to_the_end(stage, tmp_path / "totals.db") == expected


def test_the_example_is_short_and_imports_no_module_of_meterbridge() -> None:
    text = EXAMPLE.read_text(encoding="utf-8")
    nodes = ast.walk(ast.parse(text))
    modules = {
        name
        for node in nodes
        if isinstance(node, ast.Import | ast.ImportFrom)
        for name in ([node.module] if isinstance(node, ast.ImportFrom) else [one.name for one in node.names])
    }
    assert modules - sys.stdlib_module_names == {"confluent_kafka"}
    assert len(text.splitlines()) < 100
