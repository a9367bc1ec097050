"""A key that is for some orgs sees and changes their mappings alone, whichever way it asks."""

import time
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from pydantic import SecretStr

from tests.integration.test_mapping_api import refused, said
from tests.integration.test_mapping_crud import until
from tests.support.database import migrated_database
from tests.support.kafka import Kafka
from tests.support.server import BEARER, Server, running_server, settings_for
from tests.support.stage import Stage


@pytest.fixture
async def server(kafka: Kafka, topic_prefix: str, postgres_url: str) -> AsyncIterator[Server]:
    async with migrated_database(postgres_url) as url:
        settings = settings_for(
            kafka, topic_prefix, api_port=0, api_rate_limit=0, mapping_lead_seconds=1, database_url=SecretStr(url)
        )
        async with running_server(settings, ["api"]) as running:
            yield running


@pytest.fixture
async def theirs(server: Server) -> httpx.AsyncClient:
    """Whoever holds a key for `org_1`; `mine` and `yours` are mapped to it and to `org_2`."""
    said(await server.map("mine", org="org_1"), 201)
    said(await server.map("yours", org="org_2"), 201)
    wanted = {"name": "one org", "scopes": ["mappings:read", "mappings:write"], "orgs": ["org_1"]}
    key = said(await server.http.post("/api/v1/access/keys", json=wanted, headers=BEARER), 201)
    server.http.headers["Authorization"] = f"Bearer {key['token']}"
    return server.http


def mapping(customer: str, org: str) -> dict[str, Any]:
    return {"litellm_customer_id": customer, "lago_customer_id": org, "lago_organization_id": "tenant"}


async def test_only_its_orgs_mappings_are_listed(theirs: httpx.AsyncClient) -> None:
    told = said(await theirs.get("/customers/mappings"))
    assert [one["litellm_customer_id"] for one in told["mappings"]] == ["mine"]
    assert said(await theirs.get("/customers/mappings", params={"org": "org_2"}))["mappings"] == []


async def test_what_is_another_orgs_is_neither_shown_nor_ended_nor_taken_over(
    theirs: httpx.AsyncClient, server: Server, kafka: Kafka, topic_prefix: str
) -> None:
    """To map somebody else's customer to oneself is to take its usage; to map one's own to others is to charge them."""
    asked = [
        theirs.get("/customers/yours/mapping"),
        theirs.get("/customers/yours/mapping/history"),
        theirs.delete("/customers/yours/mapping"),
        theirs.post("/customers/yours/mapping/deactivate"),
        theirs.post("/customers/mapping", json=mapping("yours", "org_1")),
        theirs.post("/customers/mapping", json=mapping("mine", "org_2")),
        theirs.post("/customers/mapping", json=mapping("nobodys", "org_2")),
        theirs.post("/customers/mapping", json={**mapping("yours", "org_1"), "effective_from": 1}),
    ]
    for number, answer in enumerate([await one for one in asked]):
        assert refused(answer, 403)["reason"] == "other_org", number
    server.http.headers.pop("Authorization")
    for customer, org in (("mine", "org_1"), ("yours", "org_2")):
        told = said(await server.mapping(customer))
        assert (told["lago_customer_id"], told["upcoming"]) == (org, [])
    stage = Stage(kafka.bootstrap, topic_prefix, partitions=3)

    async def noted() -> bool:
        lines = stage.values(stage.topics.audit)
        return sum(line["action"] == "access.refused" for line in lines) >= len(asked)

    await until(noted)


async def test_rows_of_other_orgs_are_refused_and_its_own_are_taken(theirs: httpx.AsyncClient) -> None:
    rows = [mapping("new", "org_1"), mapping("yours", "org_1"), mapping("other", "org_2")]
    for query in ({"dry_run": "true"}, {}):
        told = said(await theirs.post("/customers/mappings/import", params=query, content=_lines(rows)))
        assert (told["created"], told["refused"]) == (1, 2)
        assert [(error["line"], error["reason"]) for error in told["errors"]] == [(2, "other_org"), (3, "other_org")]


async def test_what_is_its_own_it_may_change_and_end(theirs: httpx.AsyncClient) -> None:
    changed = said(await theirs.post("/customers/mapping", json=mapping("mine", "org_1") | {"billing_plan": "big"}))
    assert changed["billing_plan"] == "big"
    said(await theirs.post("/customers/mapping", json=mapping("new", "org_1")), 201)
    assert said(await theirs.delete("/customers/mine/mapping"))["deleted"]


def _lines(rows: list[dict[str, Any]]) -> bytes:
    return b"".join(httpx.Request("POST", "http://x", json=row).content + b"\n" for row in rows)


async def test_a_subscription_of_another_org_is_not_named(theirs: httpx.AsyncClient) -> None:
    """Lago bills by the subscription: whoever named another org's would let it pay."""
    named = mapping("new", "org_1") | {"external_subscription_id": "sub_of_org_2"}
    assert refused(await theirs.post("/customers/mapping", json=named), 403)["reason"] == "other_org"
    told = said(await theirs.post("/customers/mappings/import", content=_lines([named])))
    assert [error["reason"] for error in told["errors"]] == ["other_org"]


async def test_its_own_subscription_may_be_named(theirs: httpx.AsyncClient, kafka: Kafka, topic_prefix: str) -> None:
    Stage(kafka.bootstrap, topic_prefix, partitions=3).map("other", "org_1", "sub_1")
    named = mapping("new", "org_1") | {"external_subscription_id": "sub_1"}

    async def taken() -> bool:
        return (await theirs.post("/customers/mapping", json=named)).status_code in (200, 201)

    await until(taken)


async def test_what_is_announced_for_another_org_is_not_shown(theirs: httpx.AsyncClient, server: Server) -> None:
    later = time.time() + 3600
    moved = await server.http.post(
        "/customers/mapping", json=mapping("mine", "org_2") | {"effective_from": later}, headers=BEARER
    )
    assert [one["lago_customer_id"] for one in said(moved)["upcoming"]] in ([], ["org_2"])
    whole = said(await server.http.get("/customers/mine/mapping", headers=BEARER))
    assert [one["lago_customer_id"] for one in whole["upcoming"]] == ["org_2"]
    assert said(await theirs.get("/customers/mine/mapping"))["upcoming"] == []
    [listed] = said(await theirs.get("/customers/mappings"))["mappings"]
    assert listed["upcoming"] == []
