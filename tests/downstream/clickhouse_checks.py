"""The recipe for ClickHouse in docs/downstream.md gives exact sums: each call once, for any number of records about it."""

import json
import subprocess
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from tests.support.recipes import CENT, billed, recipe, statements, write
from tests.support.stage import Stage

HERE = Path(__file__).parent
PYTHON = HERE / ".venv" / "bin" / "python"
SMALLEST, LONG = Decimal("1E-7"), Decimal("0.12345678901234567")


@pytest.fixture
def answer(stage: Stage, tmp_path: Path) -> Any:
    """The answer of ClickHouse about calls that it read twice, and one of which was unbilled at first."""
    write(stage, billed(range(6), model="m"))
    write(stage, billed(range(100, 200), model="m"), commit=False)
    write(stage, billed([6], model="m", decision="unpriced"))
    write(stage, billed([6], model="m", decision="failed_with_cost"))
    write(stage, billed([8], customer_id="b", model="m", cost_usd=SMALLEST))
    write(stage, billed([9], customer_id="c", model="m", billed_usd=LONG))
    write(stage, billed([10], customer_id="d", model="m", billed_usd=Decimal(0)))
    stage.producer.produce(stage.topics.enriched, b"no json", partition=1)
    stage.producer.flush(30)
    make, ask = recipe("ClickHouse")
    for stands, replaced in (
        ("localhost:9092", stage.settings.kafka_bootstrap_servers),
        ("litellm.usage.enriched", stage.topics.enriched),
    ):
        assert stands in make
        make = make.replace(stands, replaced)
    job = tmp_path / "job.json"
    job.write_text(json.dumps({"make": statements(make), "ask": ask.strip().rstrip(";"), "records": 12}))
    done = subprocess.run([PYTHON, HERE / "clickhouse_recipe.py", job], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_each_call_counts_once_and_no_digit_is_lost(answer: Any, stage: Stage) -> None:
    """Also a call that was billed by its second record; an aborted transaction does not count."""
    found = {row[0]: (row[1], row[2], int(row[3]), Decimal(str(row[4]))) for row in answer["rows"]}
    expected = {"customer-0": (4, 4 * CENT), "customer-1": (3, 3 * CENT), "b": (1, SMALLEST), "c": (1, LONG)}
    assert found == {who: ("2026-11-20", "m", *sums) for who, sums in expected.items()} | {
        "d": ("2026-11-20", "m", 1, Decimal(0))
    }
    assert answer["stored"] > 10
    assert [row[:2] for row in answer["unread"]] == [[stage.topics.enriched, 1]]
    assert "Cannot parse" in answer["unread"][0][3]
