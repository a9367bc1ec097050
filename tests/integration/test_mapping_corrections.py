"""Corrections over HTTP and by import: a mapping to an unknown org is corrected by the next one, any other by an
explicit request, and the answer says so.
"""

from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from tests.integration.test_mapping_api import json_of, refused
from tests.support.kafka import Kafka
from tests.support.sandbox import Lago, lago_sandbox
from tests.support.server import BEARER, Server, running_server, settings_for
from tests.support.stage import Stage


@pytest.fixture
async def lago() -> AsyncIterator[Lago]:
    async with lago_sandbox() as running:
        await running.usage_plan()
        yield running


@pytest.fixture
async def server(kafka: Kafka, topic_prefix: str, lago: Lago) -> AsyncIterator[Server]:
    settings = settings_for(kafka, topic_prefix, lago_api_url=lago.url, api_port=0, api_rate_limit=0)
    async with running_server(settings) as running:
        yield running


async def versions(server: Server, customer: str = "customer-1") -> list[dict[str, Any]]:
    result = json_of(await server.http.get(f"/customers/{customer}/mapping/history", headers=BEARER))
    found: list[dict[str, Any]] = result["versions"]
    return found


async def test_a_mapping_to_an_org_that_lago_does_not_know_is_corrected_by_the_next_one(
    server: Server, lago: Lago, kafka: Kafka, topic_prefix: str
) -> None:
    await lago.subscribe("sub_1", "org_1")
    typo = json_of(await server.map(org="org-typo"), 201)
    assert (typo["held_reason"], typo["corrected"]) == ("no_subscription", None)
    assert "Lago has no customer" in typo["warning"]
    right = json_of(await server.map(org="org_1"))
    assert (right["corrected"]["lago_customer_id"], right["warning"]) == ("org-typo", None)
    assert (right["subscription"], right["effective_from"]) == ("sub_1", typo["effective_from"])
    assert [one["lago_customer_id"] for one in await versions(server)] == ["org_1"]
    assert json_of(await server.map(org="org_1"))["corrected"] is None
    line = Stage(kafka.bootstrap, topic_prefix, partitions=3).values(f"{topic_prefix}billing.audit")[-1]
    assert "org-typo" in str(line["before"]) and "org_1" in str(line["after"])


async def test_a_move_from_an_org_that_lago_knows_is_no_correction(server: Server, lago: Lago) -> None:
    await lago.save("/customers", "customer", external_id="org_1", name="Acme", currency="USD")
    json_of(await server.map(org="org_1"), 201)
    assert json_of(await server.map(org="org_2"))["corrected"] is None
    assert [one["lago_customer_id"] for one in await versions(server)] == ["org_1", "org_2"]


async def test_an_explicit_request_decides_whatever_lago_knows(server: Server, lago: Lago) -> None:
    await lago.save("/customers", "customer", external_id="org_1", name="Acme", currency="USD")
    json_of(await server.map(org="org_1"), 201)
    result = json_of(await server.map(org="org_2", correct=True))
    assert result["corrected"]["lago_customer_id"] == "org_1"
    assert [one["lago_customer_id"] for one in await versions(server)] == ["org_2"]
    assert json_of(await server.map(org="org_3", correct=False))["corrected"] is None
    assert len(await versions(server)) == 2
    elsewhere = await server.map(org="org_4", correct=True, effective_from="2030-01-01T00:00:00Z")
    assert refused(elsewhere, 422)["reason"] == "correction_begins_elsewhere"


async def test_while_lago_is_unavailable_a_mapping_follows_the_one_before(kafka: Kafka, topic_prefix: str) -> None:
    async with running_server(settings_for(kafka, topic_prefix)) as server:
        json_of(await server.map(org="org-typo"), 201)
        assert json_of(await server.map(org="org_1"))["corrected"] is None
        assert [one["lago_customer_id"] for one in await versions(server)] == ["org-typo", "org_1"]


async def test_a_row_of_an_import_corrects_a_mapping_if_it_says_so(server: Server) -> None:
    json_of(await server.map(org="org-typo"), 201)
    header = "litellm_customer_id,lago_customer_id,lago_organization_id,correct\n"
    answer: httpx.Response = await server.http.post(
        "/customers/mappings/import",
        content=header + "customer-1,org_1,tenant,true\n",
        headers={**BEARER, "Content-Type": "text/csv"},
    )
    assert json_of(answer)["changed"] == 1
    assert [one["lago_customer_id"] for one in await versions(server)] == ["org_1"]
