"""Imports: each row is accepted or refused by itself, and an interrupted import is repeated from its start."""

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from connectors.api.mapping_import import MAX_BYTES, MAX_ROWS
from connectors.config.settings import Settings
from schemas.topics import CUSTOMERS
from tests.integration.test_mapping_api import json_of, records, refused
from tests.support.command import Ended, meterbridge
from tests.support.kafka import Kafka
from tests.support.sandbox import Lago, lago_sandbox
from tests.support.server import BEARER, Server, running_server, settings_for
from tests.support.stage import Stage

IMPORT = "/customers/mappings/import"


@pytest.fixture
def settings(kafka: Kafka, topic_prefix: str) -> Settings:
    return settings_for(kafka, topic_prefix, api_port=0, api_rate_limit=0)


@pytest.fixture
async def server(settings: Settings) -> AsyncIterator[Server]:
    async with running_server(settings, ["api"]) as running:
        yield running


@pytest.fixture
def stage(kafka: Kafka, topic_prefix: str) -> Stage:
    return Stage(kafka.bootstrap, topic_prefix, partitions=3)


@pytest.fixture
async def lago() -> AsyncIterator[Lago]:
    async with lago_sandbox() as running:
        for code in ("small", "big"):
            await running.usage_plan(code, amount_cents={"small": 100, "big": 900}[code])
        yield running


def row(number: int, **fields: Any) -> dict[str, Any]:
    customer = {"litellm_customer_id": f"c{number}", "lago_customer_id": f"org_{number}"}
    return customer | {"lago_organization_id": "tenant"} | fields


def ndjson(*found: Any) -> bytes:
    return b"".join(json.dumps(one).encode() + b"\n" for one in found)


async def posted(server: Server, body: bytes, kind: str = "application/x-ndjson", **query: Any) -> httpx.Response:
    headers = {**BEARER, "Content-Type": kind}
    return await server.http.post(IMPORT, content=body, params=query, headers=headers)


def counts(result: dict[str, Any]) -> tuple[int, int, int, int, int]:
    return result["read"], result["created"], result["changed"], result["unchanged"], result["refused"]


async def test_mappings_are_imported_row_by_row_and_a_second_import_changes_nothing(server: Server) -> None:
    body = ndjson(*(row(number) for number in range(250)))
    assert counts(json_of(await posted(server, body))) == (250, 250, 0, 0, 0)
    assert counts(json_of(await posted(server, body))) == (250, 0, 0, 250, 0)
    assert json_of(await server.mapping("c249"))["lago_customer_id"] == "org_249"


async def test_a_bad_row_is_reported_with_its_line_and_does_not_affect_others(server: Server) -> None:
    lines = [
        json.dumps(row(1)).encode(),
        b"{nonsense",
        json.dumps(row(2, id_kind="nickname")).encode(),
        b"[]",
        json.dumps(row(3)).encode(),
    ]
    result = json_of(await posted(server, b"\n".join(lines)))
    assert counts(result) == (5, 2, 0, 0, 3)
    assert [(error["line"], error["reason"]) for error in result["errors"]] == [
        (2, "not_json"),
        (3, "invalid_fields"),
        (4, "invalid_fields"),
    ]
    assert result["errors"][1]["errors"][0]["field"] == "id_kind"
    assert "nickname" not in str(result)
    for number in (1, 3):
        json_of(await server.mapping(f"c{number}"))


async def test_csv_is_recognised_by_its_content_type_and_its_texts_are_converted(server: Server) -> None:
    body = (
        "litellm_customer_id,lago_customer_id,lago_organization_id,is_active,effective_from,id_kind,note\n"
        "a,org_a,tenant,false,2024-01-01,,x\n"
        '"b, too",org_b,tenant,true,1704067200,team,\n'
        "c,,tenant,,,,\n"
    )
    result = json_of(await posted(server, body.encode(), "text/csv; charset=utf-8"))
    assert counts(result) == (3, 2, 0, 0, 1)
    assert [error["line"] for error in result["errors"]] == [4]
    first, second = json_of(await server.mapping("a")), json_of(await server.mapping("b, too"))
    assert (first["is_active"], first["effective_from"]) == (False, "2024-01-01T00:00:00.000000Z")
    assert (second["is_active"], second["id_kind"]) == (True, "team")


async def test_rows_of_one_customer_are_processed_in_order(server: Server) -> None:
    begin = 4_000_000_000
    body = ndjson(*(row(0, lago_customer_id=f"org_{n}", effective_from=begin + n) for n in range(20)))
    assert counts(json_of(await posted(server, body))) == (20, 1, 19, 0, 0)
    result = json_of(await server.http.get("/customers/c0/mapping/history", headers=BEARER))
    assert [version["lago_customer_id"] for version in result["versions"]] == [f"org_{n}" for n in range(20)]


async def test_a_dry_run_reports_the_changes_and_makes_none(server: Server, settings: Settings) -> None:
    json_of(await server.map("c1", org="org_1"), 201)
    json_of(await server.map("c2", org="org_other"), 201)
    before = records(settings, CUSTOMERS)
    body = ndjson(row(1), row(2), row(3), row(2, effective_from=5))
    result = json_of(await posted(server, body, dry_run="true"))
    assert counts(result) == (4, 1, 1, 1, 1)
    assert result["errors"][0]["reason"] == "effective_from_too_early"
    assert records(settings, CUSTOMERS) == before


async def test_a_body_is_bounded_and_rows_before_the_bound_are_processed(server: Server) -> None:
    body = ndjson(row(1)) + b"{}\n" * MAX_ROWS
    problem = refused(await posted(server, body), 413)
    assert problem["reason"] == "too_many_rows"
    json_of(await server.mapping("c1"))
    large = ndjson(row(2)) + b" " * MAX_BYTES
    assert refused(await posted(server, large), 413)["reason"] == "body_too_large"
    json_of(await server.mapping("c2"))


async def test_create_only_rows_change_nothing_that_exists(server: Server) -> None:
    json_of(await server.map("c1", org="org_other"), 201)
    headers = {**BEARER, "If-None-Match": "*"}
    answer = await server.http.post(IMPORT, content=ndjson(row(1), row(2)), headers=headers)
    result = json_of(answer)
    assert counts(result) == (2, 1, 0, 0, 1)
    assert result["errors"][0]["reason"] == "exists_already"


async def run(stage: Stage, lago: Lago, *words: str) -> Ended:
    return await meterbridge(stage, "import", *words, LAGO_API_URL=lago.url, LAGO_API_KEY="a-key", LOG_LEVEL="error")


async def test_mappings_are_imported_by_a_command_while_the_api_runs(
    stage: Stage, lago: Lago, server: Server, settings: Settings, tmp_path: Path
) -> None:
    """Both write the same topic: they take turns."""
    file = tmp_path / "mappings.csv"
    names = "litellm_customer_id,lago_customer_id,lago_organization_id\n"
    file.write_text(names + "".join(f"c{number},org_{number},tenant\n" for number in range(120)) + "bad,,\n")
    dry = await run(stage, lago, "mappings", str(file), "--dry-run", "--json")
    assert (dry.code, counts(dry.json)) == (1, (121, 120, 0, 0, 1)), dry.err
    assert records(settings, CUSTOMERS) == []
    _, done = await asyncio.gather(
        asyncio.gather(*(server.map(f"other-{number}") for number in range(20))),
        run(stage, lago, "mappings", str(file), "--json", "--comment", "moving house"),
    )
    assert (done.code, counts(done.json)) == (1, (121, 120, 0, 0, 1)), done.err
    assert [error["line"] for error in done.json["errors"]] == [122]
    assert len(records(settings, CUSTOMERS)) == 140
    again = await run(stage, lago, "mappings", str(file), "--json")
    assert counts(again.json) == (121, 0, 0, 120, 1)
    [line] = [line for line in stage.values(stage.topics.audit) if line.get("reason") == "moving house"]
    assert line["action"] == "import.mappings"


async def test_customers_and_subscriptions_are_created_in_lago_once(stage: Stage, lago: Lago, tmp_path: Path) -> None:
    customers, subscriptions = tmp_path / "customers.json", tmp_path / "subscriptions.ndjson"
    customers.write_text(
        json.dumps([{"external_id": f"org_{n}", "name": f"Org {n}", "email": f"{n}@example.org"} for n in range(3)])
    )
    plans = [{"org_id": f"org_{n}", "plan_code": "small"} for n in range(3)] + [
        {"org_id": "org_9", "plan_code": "small"},
        {"org_id": "org_0", "plan_code": "none"},
    ]
    subscriptions.write_bytes(ndjson(*plans))
    fast = ("--json", "--rate", "100")
    created = await run(stage, lago, "customers", str(customers), *fast)
    assert (created.code, counts(created.json)) == (0, (3, 3, 0, 0, 0)), created.err
    assert (await lago.get("/customers/org_2")).json()["customer"]["name"] == "Org 2"
    first = await run(stage, lago, "subscriptions", str(subscriptions), *fast)
    assert (first.code, counts(first.json)) == (1, (5, 3, 0, 0, 2)), first.err
    assert [(error["line"], error["reason"]) for error in first.json["errors"]] == [
        (4, "unknown_customer"),
        (5, "plan_not_found"),
    ]
    again = await run(stage, lago, "subscriptions", str(subscriptions), *fast)
    assert counts(again.json) == (5, 0, 0, 3, 2)
    answer = await lago.get("/subscriptions")
    assert len(answer.json()["subscriptions"]) == 3


async def test_an_import_changes_a_plan_and_keeps_the_subscriptions_id(
    stage: Stage, lago: Lago, tmp_path: Path
) -> None:
    await lago.save("/customers", "customer", external_id="org_1", name="Acme")
    file = tmp_path / "subscriptions.csv"
    ids = []
    for plan, outcome in (("small", 1), ("big", 2), ("big", 3)):
        file.write_text(f"org_id,plan_code\norg_1,{plan}\n")
        done = await run(stage, lago, "subscriptions", str(file), "--json")
        assert counts(done.json)[outcome] == 1, done.err
        [running] = (await lago.get("/subscriptions", external_customer_id="org_1")).json()["subscriptions"]
        assert running["plan_code"] == plan
        ids.append(running["external_id"])
    assert len(set(ids)) == 1


async def test_without_a_file_or_a_key_there_is_one_sentence(stage: Stage, lago: Lago, tmp_path: Path) -> None:
    missing = await run(stage, lago, "mappings", str(tmp_path / "none.csv"))
    assert missing.code == 2
    assert "no such file" in missing.err
    keyless = await meterbridge(stage, "import", "customers", "-")
    assert (keyless.code, "LAGO_API_KEY is not set" in keyless.err) == (2, True)
    empty = await run(stage, lago, "mappings", "-", "--format", "csv")
    assert (empty.code, "bad_csv" in empty.err) == (1, True)


async def test_all_errors_are_counted_although_the_list_of_errors_is_bounded(server: Server) -> None:
    result = json_of(await posted(server, b"{}\n" * 1200))
    assert (result["refused"], len(result["errors"])) == (1200, 1000)
