"""A key for some orgs sees and changes only their mappings, on every route."""

import time
from base64 import urlsafe_b64decode
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from pydantic import SecretStr

from connectors.billing import mapping_pages
from tests.integration.test_mapping_api import json_of, refused
from tests.integration.test_mapping_crud import until
from tests.support.database import migrated_database
from tests.support.kafka import Kafka
from tests.support.server import BEARER, Server, running_server, settings_for
from tests.support.stage import Stage


@pytest.fixture
def lago_requests() -> list[str]:
    """The requests to Lago, as paths with their queries."""
    return []


@pytest.fixture
async def lago_url(lago_requests: list[str]) -> AsyncIterator[str]:
    """A Lago without any data."""

    async def answer(request: web.Request) -> web.Response:
        lago_requests.append(str(request.rel_url))
        return web.json_response({"status": 404, "error": "Not Found", "code": "object_not_found"}, status=404)

    app = web.Application()
    app.router.add_route("*", "/{path:.*}", answer)
    async with TestServer(app) as lago:
        yield str(lago.make_url(""))


@pytest.fixture
async def server(kafka: Kafka, topic_prefix: str, postgres_url: str, lago_url: str) -> AsyncIterator[Server]:
    async with migrated_database(postgres_url) as url:
        settings = settings_for(
            kafka,
            topic_prefix,
            lago_api_url=lago_url.rstrip("/"),
            api_port=0,
            api_rate_limit=0,
            mapping_delay_seconds=1,
            database_url=SecretStr(url),
        )
        async with running_server(settings, ["api"]) as running:
            yield running


@pytest.fixture
async def org_client(server: Server) -> httpx.AsyncClient:
    """A caller with a key for `org_1` and ids that begin with `new`; `mine` and `yours` belong to `org_1` and `org_2`."""
    json_of(await server.map("mine", org="org_1"), 201)
    json_of(await server.map("yours", org="org_2"), 201)
    wanted = {"name": "one org", "scopes": ["mappings:read", "mappings:write"], "orgs": ["org_1"]}
    wanted["customer_prefixes"] = ["new"]
    key = json_of(await server.http.post("/api/v1/access/keys", json=wanted, headers=BEARER), 201)
    server.http.headers["Authorization"] = f"Bearer {key['token']}"
    return server.http


@pytest.fixture
async def without_prefixes(server: Server) -> dict[str, str]:
    """Headers of a key for `org_1` without prefixes, like all keys before prefixes existed."""
    wanted = {"name": "old", "scopes": ["mappings:read", "mappings:write"], "orgs": ["org_1"]}
    key = json_of(await server.http.post("/api/v1/access/keys", json=wanted, headers=BEARER), 201)
    return {"Authorization": f"Bearer {key['token']}"}


def mapping(customer: str, org: str) -> dict[str, Any]:
    return {"litellm_customer_id": customer, "lago_customer_id": org, "lago_organization_id": "tenant"}


async def test_only_its_own_orgs_mappings_are_listed(org_client: httpx.AsyncClient) -> None:
    result = json_of(await org_client.get("/customers/mappings"))
    assert [one["litellm_customer_id"] for one in result["mappings"]] == ["mine"]
    assert json_of(await org_client.get("/customers/mappings", params={"org": "org_2"}))["mappings"] == []


async def test_a_cursor_names_no_customer_of_another_org(
    org_client: httpx.AsyncClient, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Earlier a page without own mappings ended with a cursor that held the id of the last customer that was examined."""
    monkeypatch.setattr(mapping_pages, "SCANNED", 2)
    for name in ("a", "b", "c", "n", "o", "x"):
        json_of(await server.http.post("/customers/mapping", json=mapping(name, "org_2"), headers=BEARER), 201)
    json_of(await server.http.post("/customers/mapping", json=mapping("z", "org_1"), headers=BEARER), 201)
    for limit, pages in ((1, [["mine"], ["z"], []]), (5, [["mine", "z"]])):
        listed, cursor = [], ""
        while cursor is not None:
            page = json_of(await org_client.get("/customers/mappings", params={"limit": limit, "cursor": cursor}))
            listed.append([one["litellm_customer_id"] for one in page["mappings"]])
            cursor = page["next_cursor"]
            assert cursor is None or urlsafe_b64decode(cursor + "==").decode() in ("mine", "z")
        assert listed == pages
    every = json_of(await server.http.get("/customers/mappings", params={"limit": 1}, headers=BEARER))
    assert (every["mappings"][0]["litellm_customer_id"], every["next_cursor"] is None) == ("a", False)


async def test_another_orgs_mapping_is_neither_shown_nor_ended_nor_taken_over(
    org_client: httpx.AsyncClient, server: Server, kafka: Kafka, topic_prefix: str
) -> None:
    """Mapping another org's customer to one's own org takes its usage; mapping one's own customer to another org
    charges that org.
    """
    lago_requests = [
        org_client.get("/customers/yours/mapping"),
        org_client.get("/customers/yours/mapping/history"),
        org_client.delete("/customers/yours/mapping"),
        org_client.post("/customers/yours/mapping/deactivate"),
        org_client.post("/customers/mapping", json=mapping("yours", "org_1")),
        org_client.post("/customers/mapping", json=mapping("mine", "org_2")),
        org_client.post("/customers/mapping", json=mapping("nobodys", "org_2")),
        org_client.post("/customers/mapping", json={**mapping("yours", "org_1"), "effective_from": 1}),
    ]
    for number, answer in enumerate([await one for one in lago_requests]):
        assert refused(answer, 403)["reason"] == "other_org", number
    server.http.headers.pop("Authorization")
    for customer, org in (("mine", "org_1"), ("yours", "org_2")):
        result = json_of(await server.mapping(customer))
        assert (result["lago_customer_id"], result["upcoming"]) == (org, [])
    stage = Stage(kafka.bootstrap, topic_prefix, partitions=3)

    async def noted() -> bool:
        lines = stage.values(stage.topics.audit)
        return sum(line["action"] == "access.refused" for line in lines) >= len(lago_requests)

    await until(noted)


async def test_rows_of_other_orgs_are_refused_and_its_own_are_accepted(org_client: httpx.AsyncClient) -> None:
    rows = [mapping("new", "org_1"), mapping("yours", "org_1"), mapping("other", "org_2")]
    for query in ({"dry_run": "true"}, {}):
        result = json_of(await org_client.post("/customers/mappings/import", params=query, content=_lines(rows)))
        assert (result["created"], result["refused"]) == (1, 2)
        assert [(error["line"], error["reason"]) for error in result["errors"]] == [(2, "other_org"), (3, "other_org")]


async def test_a_caller_for_one_org_may_change_and_end_that_orgs_mappings(org_client: httpx.AsyncClient) -> None:
    changed = json_of(
        await org_client.post("/customers/mapping", json=mapping("mine", "org_1") | {"billing_plan": "big"})
    )
    assert changed["billing_plan"] == "big"
    json_of(await org_client.post("/customers/mapping", json=mapping("new", "org_1")), 201)
    assert json_of(await org_client.delete("/customers/mine/mapping"))["deleted"]


def _lines(rows: list[dict[str, Any]]) -> bytes:
    return b"".join(httpx.Request("POST", "http://x", json=row).content + b"\n" for row in rows)


async def test_a_subscription_of_another_org_cannot_be_named(org_client: httpx.AsyncClient) -> None:
    """Lago bills by the subscription: naming another org's would let that org pay."""
    named = mapping("new", "org_1") | {"external_subscription_id": "sub_of_org_2"}
    assert refused(await org_client.post("/customers/mapping", json=named), 403)["reason"] == "other_org"
    result = json_of(await org_client.post("/customers/mappings/import", content=_lines([named])))
    assert [error["reason"] for error in result["errors"]] == ["other_org"]


async def test_a_caller_for_one_org_may_name_that_orgs_subscription(
    org_client: httpx.AsyncClient, kafka: Kafka, topic_prefix: str
) -> None:
    Stage(kafka.bootstrap, topic_prefix, partitions=3).map("other", "org_1", "sub_1")
    named = mapping("new", "org_1") | {"external_subscription_id": "sub_1"}

    async def taken() -> bool:
        return (await org_client.post("/customers/mapping", json=named)).status_code in (200, 201)

    await until(taken)


async def test_an_announcement_for_another_org_is_not_shown(org_client: httpx.AsyncClient, server: Server) -> None:
    later = time.time() + 3600
    moved = await server.http.post(
        "/customers/mapping", json=mapping("mine", "org_2") | {"effective_from": later}, headers=BEARER
    )
    assert [one["lago_customer_id"] for one in json_of(moved)["upcoming"]] in ([], ["org_2"])
    whole = json_of(await server.http.get("/customers/mine/mapping", headers=BEARER))
    assert [one["lago_customer_id"] for one in whole["upcoming"]] == ["org_2"]
    assert json_of(await org_client.get("/customers/mine/mapping"))["upcoming"] == []
    [listed] = json_of(await org_client.get("/customers/mappings"))["mappings"]
    assert listed["upcoming"] == []


async def test_an_id_without_one_of_its_prefixes_cannot_be_mapped(
    org_client: httpx.AsyncClient, server: Server
) -> None:
    """Held usage of that id would belong to the org permanently, and its real owner could not map it any more."""
    customers = ("victim", "unattributed:generic_api", "New", "ne", "org_1")
    for customer in customers:
        assert refused(await org_client.post("/customers/mapping", json=mapping(customer, "org_1")), 403), customer
        for query in ({"dry_run": "true"}, {}):
            lines = _lines([mapping(customer, "org_1")])
            result = json_of(await org_client.post("/customers/mappings/import", params=query, content=lines))
            assert [error["reason"] for error in result["errors"]] == ["other_org"], customer
    server.http.headers.pop("Authorization")
    for customer in customers:
        assert refused(await server.mapping(customer), 404)["reason"] == "no_mapping", customer


async def test_unattributed_usage_is_not_changed_by_an_orgs_key_even_if_the_org_pays_for_it(
    org_client: httpx.AsyncClient,
) -> None:
    nobody = mapping("unattributed:generic_api", "org_1")
    json_of(await org_client.post("/customers/mapping", json=nobody, headers=BEARER), 201)
    refused(await org_client.post("/customers/mapping", json=nobody | {"billing_plan": "big"}), 403)
    refused(await org_client.delete("/customers/unattributed:generic_api/mapping"), 403)


async def test_a_key_without_prefixes_changes_its_orgs_mappings_and_maps_no_new_id(
    org_client: httpx.AsyncClient, without_prefixes: dict[str, str]
) -> None:
    refused(await org_client.post("/customers/mapping", json=mapping("new", "org_1"), headers=without_prefixes), 403)
    changed = mapping("mine", "org_1") | {"billing_plan": "big"}
    json_of(await org_client.post("/customers/mapping", json=changed, headers=without_prefixes))
    json_of(await org_client.delete("/customers/mine/mapping", headers=without_prefixes))

    async def closed() -> bool:  # once the end is in force
        answer = await org_client.post("/customers/mapping", json=changed, headers=without_prefixes)
        json_of(await org_client.delete("/customers/mine/mapping", headers=BEARER)) if answer.is_success else None
        return answer.status_code == 403

    await until(closed)


async def test_paying_for_calls_that_another_id_field_names_counts_as_mapping_a_new_id(
    org_client: httpx.AsyncClient,
) -> None:
    """A mapping for an id that a key sets says nothing about an id that a client chooses."""
    pinned = mapping("pinned", "org_1") | {"id_kind": "key"}
    json_of(await org_client.post("/customers/mapping", json=pinned, headers=BEARER), 201)
    refused(await org_client.post("/customers/mapping", json=pinned | {"id_kind": None}), 403)
    refused(await org_client.post("/customers/mapping", json=pinned | {"id_kind": "end_user"}), 403)
    json_of(await org_client.post("/customers/mapping", json=pinned | {"billing_plan": "big"}))


async def test_the_answer_is_the_same_for_another_orgs_id_and_for_an_unknown_one(org_client: httpx.AsyncClient) -> None:
    """Otherwise every customer id of every org could be found by trying; this also holds if the request itself is
    wrong.
    """
    result: dict[str, list[tuple[int, dict[str, str]]]] = {"yours": [], "nobodys": []}
    for customer, answers in result.items():
        one = f"/customers/{customer}/mapping"
        body = mapping(customer, "org_1")
        for lago_requests in (
            org_client.get(one),
            org_client.get(f"{one}/history"),
            org_client.delete(one),
            org_client.post(f"{one}/deactivate"),
            org_client.post(f"{one}/deactivate", json={"effective_from": 1}),
            org_client.post("/customers/mapping", json=body),
            org_client.post("/customers/mapping", json=body | {"effective_from": 1}),
            org_client.post("/customers/mapping", json=body | {"external_subscription_id": "sub_x"}),
            org_client.post("/customers/mapping", json=body, headers={"If-Match": '"1"'}),
            org_client.post("/customers/mapping", json=body, headers={"If-None-Match": "*"}),
            org_client.post("/customers/mappings/import", content=_lines([body | {"effective_from": 1}])),
        ):
            answer = await lago_requests
            shown = answer.json()
            answers.append(
                (answer.status_code, {k: v for k, v in shown.items() if k not in ("request_id", "instance")})
            )
    assert result["yours"] == result["nobodys"]
    assert {status for status, _ in result["yours"][:-1]} == {403}


async def test_a_refused_request_asks_lago_nothing(
    org_client: httpx.AsyncClient, server: Server, lago_requests: list[str]
) -> None:
    """Lago's response time must not reveal whose customer it is."""
    for customer in ("yours", "nobodys"):
        lago_requests.clear()
        refused(await org_client.post("/customers/mapping", json=mapping(customer, "org_1")), 403)
        refused(await org_client.delete(f"/customers/{customer}/mapping"), 403)
        assert [path for path in lago_requests if "org_" in path] == [], customer
    json_of(await org_client.post("/customers/mapping", json=mapping("new", "org_1")), 201)
    assert [path for path in lago_requests if "org_1" in path], "the one who may map does ask"
