"""The recipe for DuckDB in docs/downstream.md: from the topic through files to exact sums."""

import asyncio
import os
import signal
import sys
from asyncio.subprocess import PIPE, create_subprocess_exec
from datetime import date
from decimal import Decimal
from pathlib import Path
from typing import Any

import duckdb
import msgspec
import pytest

from schemas.generate import FOLDER
from tests.support.eventually import PATIENCE, soon
from tests.support.recipes import CENT, billed, recipe, write
from tests.support.stage import Stage

TO_FILES = Path(__file__).parents[2] / "docs" / "examples" / "enriched_to_files.py"
DAY = date(2026, 11, 20)


async def exported(stage: Stage, folder: Path) -> None:
    words = (stage.settings.kafka_bootstrap_servers, stage.topics.enriched, str(folder))
    process = await create_subprocess_exec(sys.executable, TO_FILES, *words, stderr=PIPE)
    _, errors = await asyncio.wait_for(process.communicate(), 120 * PATIENCE)
    assert process.returncode == 0, errors.decode()


def answer_of_page(monkeypatch: pytest.MonkeyPatch, folder: Path) -> list[Any]:
    """The answer of the page's last query."""
    monkeypatch.chdir(folder)
    with duckdb.connect() as database:
        make, ask = recipe("DuckDB")
        database.execute(make)
        return database.execute(ask).fetchall()


def write_file(folder: Path, *calls: Any) -> None:
    """A file in the format of the export."""
    folder.mkdir(exist_ok=True)
    name = f"{len(list(folder.iterdir())):04}.jsonl"
    (folder / name).write_bytes(b"".join(msgspec.json.encode(call) + b"\n" for call in calls))


async def test_the_calls_in_the_topic_become_exact_sums(
    stage: Stage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An aborted transaction and unbilled calls do not count; a second run writes only what is new."""
    write(stage, billed(range(10), model="m"))
    write(stage, billed(range(10, 20), model="m"), commit=False)
    await exported(stage, tmp_path / "usage")
    write(stage, billed(range(20, 30), model="m", decision="unpriced"))
    write(stage, billed(range(40, 50), model="m", decision="carried"))
    write(stage, billed(range(30, 40), model="m"))
    before = {path.name for path in (tmp_path / "usage").iterdir()}
    await exported(stage, tmp_path / "usage")
    assert len(before) == 2
    assert len(list((tmp_path / "usage").iterdir())) == 4
    assert answer_of_page(monkeypatch, tmp_path) == [(f"customer-{one}", DAY, "m", 10, 10 * CENT) for one in (0, 1)]


async def test_an_export_that_is_killed_loses_nothing(
    stage: Stage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(stage, billed(range(2000), model="m"))
    folder = tmp_path / "usage"
    words = (stage.settings.kafka_bootstrap_servers, stage.topics.enriched, str(folder))
    process = await create_subprocess_exec(sys.executable, TO_FILES, *words)
    try:
        await soon(lambda: folder.exists() and any(folder.iterdir()))
    finally:
        if process.returncode is None:
            os.kill(process.pid, signal.SIGKILL)
        await process.wait()
    await exported(stage, folder)
    assert answer_of_page(monkeypatch, tmp_path) == [(f"customer-{one}", DAY, "m", 1000, 1000 * CENT) for one in (0, 1)]


def test_a_call_in_two_files_counts_once_and_as_billed_if_one_copy_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = billed(range(4), customer_id="acme")
    write_file(tmp_path / "usage", *calls, *billed([4], customer_id="acme", decision="unpriced"))
    write_file(tmp_path / "usage", *calls[2:], *billed([4], customer_id="acme", decision="failed_with_cost"))
    write_file(tmp_path / "usage", *billed([4], customer_id="acme", decision="unpriced"))
    assert answer_of_page(monkeypatch, tmp_path) == [("acme", DAY, None, 5, 5 * CENT)]


def test_our_price_is_used_before_the_cost_and_no_digit_is_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    smallest = Decimal("1E-7")
    write_file(tmp_path / "usage", *billed([1], customer_id="a", cost_usd=smallest))
    write_file(tmp_path / "usage", *billed([2], customer_id="b", billed_usd=Decimal("0.12345678901234567")))
    write_file(tmp_path / "usage", *billed([3], customer_id="c", billed_usd=Decimal(0)))
    found = {row[0]: row[-1] for row in answer_of_page(monkeypatch, tmp_path)}
    assert found == {"a": smallest, "b": Decimal("0.12345678901234567"), "c": Decimal(0)}


@pytest.mark.parametrize("chapter", ["DuckDB", "ClickHouse"])
def test_a_recipe_uses_only_existing_fields_of_the_records(chapter: str) -> None:
    schema = msgspec.json.decode((FOLDER / "EnrichedUsage.schema.json").read_bytes())
    fields = set(schema["$defs"]["EnrichedUsage"]["properties"])
    columns = recipe(chapter)[0].partition("(" if chapter == "ClickHouse" else "columns = {")[2]
    listed = columns.partition("} " if chapter == "DuckDB" else ") ENGINE")[0].replace("(38, 18)", "")
    names = {part.split()[0].strip('`":') for part in listed.partition("}")[0].split(",")}
    assert len(names) > 10
    assert names <= fields
