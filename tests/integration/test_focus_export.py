"""The FOCUS export: its columns, and sums that are the usage log's to the last digit."""

import asyncio
import csv
import io
import json
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path

import pytest

from connectors.operations.focus_export import COLUMNS, export_focus
from schemas.errors import Rejected
from tests.integration.test_analytics import at, call, some_calls
from tests.support.command import meterbridge
from tests.support.database import rows
from tests.support.history import TOPICS
from tests.support.projection import Writer
from tests.support.stage import Stage

MONTH = date(2026, 11, 1)


async def exported(url: str, month: date = MONTH) -> list[dict[str, str]]:
    text: list[str] = []
    await export_focus(url, month, "us", text.append)
    return list(csv.DictReader(io.StringIO("".join(text), newline=""), strict=True))


def in_folder(folder: Path) -> list[Path]:
    return list(folder.iterdir())


async def test_the_sums_are_the_usage_logs_to_the_last_digit(url: str) -> None:
    calls = some_calls(300, seed=7)
    outside = [
        call(1001, datetime(2026, 12, 1, tzinfo=UTC), cost_usd=Decimal(7)),
        call(1002, datetime(2026, 11, 1, tzinfo=UTC) - timedelta(microseconds=1), cost_usd=Decimal(7)),
        call(1003, datetime(2026, 11, 1, tzinfo=UTC), cost_usd=Decimal("0.1"), provider="first"),
    ]
    async with Writer(url) as writer:
        await writer.put(TOPICS.enriched, *calls, *outside)
    found = await exported(url)
    log = await rows(
        url,
        """SELECT count(*), sum(COALESCE(billed_usd, CASE WHEN decision IN ('billable', 'failed_with_cost') THEN cost_usd ELSE 0 END)),
        sum(cost_usd) FILTER (WHERE decision <> 'carried'), sum(total_tokens) FILTER (WHERE decision <> 'carried'),
        sum(tokens_output) FILTER (WHERE decision <> 'carried') FROM llm_usage_log
        WHERE ended_at >= '2026-11-01Z' AND ended_at < '2026-12-01Z'""",
    )

    def total(column: str) -> Decimal:
        return sum((Decimal(row[column]) for row in found), Decimal(0))

    columns = ("x_Calls", "BilledCost", "ListCost", "ConsumedQuantity", "x_TokensOutput")
    assert tuple(total(column) for column in columns) == log[0]
    assert log[0][0] == 301
    assert total("x_ProviderCost") + total("x_OwnKeyCost") == total("ListCost")
    assert {row["ContractedCost"] == row["BilledCost"] == row["EffectiveCost"] for row in found} == {True}
    keys = ("ChargePeriodStart", "SubAccountId", "SkuId", "SkuPriceId", "Tags")
    assert len({tuple(row[name] for name in keys) for row in found}) == len(found), "one row for each group"


async def test_a_row_has_the_columns_of_focus(url: str) -> None:
    created = call(
        1, at(20), provider="openai", model="=gpt", org_id="org_acme", rate="2026-11", power_level="eco", byok=True
    )
    async with Writer(url) as writer:
        await writer.put(TOPICS.enriched, created)
    [row] = await exported(url)
    assert tuple(row) == COLUMNS
    expected = {
        "BilledCost": "0.000145",
        "BillingAccountId": "us",
        "BillingCurrency": "USD",
        "BillingPeriodStart": "2026-11-01T00:00:00Z",
        "BillingPeriodEnd": "2026-12-01T00:00:00Z",
        "ChargeCategory": "Usage",
        "ChargeFrequency": "Usage-Based",
        "ChargePeriodStart": "2026-11-20T00:00:00Z",
        "ChargePeriodEnd": "2026-11-21T00:00:00Z",
        "ConsumedUnit": "Tokens",
        "InvoiceIssuerName": "us",
        "ProviderName": "openai",
        "PublisherName": "openai",
        "ResourceId": "'=gpt",
        "ServiceCategory": "AI and Machine Learning",
        "SkuPriceId": "2026-11",
        "SubAccountId": "org_acme",
        "x_OwnKeyCost": "0.000145",
        "x_ProviderCost": "0",
    }
    assert {name: row[name] for name in expected} == expected
    assert json.loads(row["Tags"]) == {"power_level": "eco", "own_key": "true"}


async def test_a_pruned_month_is_refused_and_an_empty_one_has_no_rows(url: str) -> None:
    assert await exported(url, date(2026, 10, 1)) == []
    await rows(url, "INSERT INTO forgotten_months VALUES ('2026-10-01')")
    with pytest.raises(Rejected, match="usage_pruned"):
        await exported(url, date(2026, 10, 1))


async def test_the_command_writes_a_file_or_stdout_and_keeps_an_old_file_if_it_fails(
    stage: Stage, url: str, tmp_path: Path
) -> None:
    async with Writer(url) as writer:
        await writer.put(TOPICS.enriched, call(1, at(20)))
    out = tmp_path / "focus.csv"
    out.write_text("old")
    failed = await meterbridge(
        stage, "export", "focus", "--month", "2026-11", "--out", str(out), DATABASE_URL=f"{url}_not_there"
    )
    assert (failed.code, out.read_text(), await asyncio.to_thread(in_folder, tmp_path)) == (1, "old", [out])
    done = await meterbridge(
        stage, "export", "focus", "--month", "2026-11", "--out", str(out), "--json", DATABASE_URL=url
    )
    assert (done.code, done.json["rows"], done.json["billed_usd"]) == (0, 1, "0.000145"), done.err
    printed = await meterbridge(stage, "export", "focus", "--month", "2026-11", "--issuer", "ACME", DATABASE_URL=url)
    assert printed.out.replace("ACME", "meterbridge").splitlines() == out.read_text().splitlines()
    wrong = await meterbridge(stage, "export", "focus", "--month", "November", DATABASE_URL=url)
    assert (wrong.code, "is not a month. Give" in wrong.err) == (2, True)
