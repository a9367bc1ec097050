"""The OpenAPI document describes everything that is served, and its page loads nothing from other servers."""

import asyncio
import base64
import html
import json
import re
from collections.abc import AsyncIterator
from hashlib import sha256
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from connectors.access.scopes import SCOPES
from connectors.api.openapi import routes
from connectors.api.openapi.document import document as document_of
from connectors.api.openapi.page import page_of
from connectors.config.settings import Settings
from connectors.ingest.routes import ROUTES
from tests.support.kafka import Kafka
from tests.support.server import BEARER, Server, running_server, settings_for

METHODS = {"get", "post", "put", "patch", "delete"}


@pytest.fixture
def settings(kafka: Kafka, topic_prefix: str) -> Settings:
    return settings_for(kafka, topic_prefix, oidc_issuer="https://id.example/", oidc_audience=("meterbridge",))


@pytest.fixture
async def server(settings: Settings) -> AsyncIterator[Server]:
    async with running_server(settings) as running:
        yield running


@pytest.fixture
async def document(server: Server) -> dict[str, Any]:
    answer = await server.http.get("/openapi.json")
    assert answer.status_code == 200
    result: dict[str, Any] = answer.json()
    return result


def operations(document: dict[str, Any]) -> list[tuple[str, str, dict[str, Any]]]:
    return [
        (method, path, result)
        for path, methods in document["paths"].items()
        for method, result in methods.items()
        if method in METHODS
    ]


async def test_every_operation_in_the_document_is_served(document: dict[str, Any], server: Server) -> None:
    """The opposite, a route without a description, is an error: see the next test."""
    assert len(operations(document)) > 40
    for method, path, result in operations(document):
        answer = await server.http.request(method, re.sub(r"{[^}]*}", "x", path))
        if any("bearer" in one for one in result["security"]):
            assert answer.status_code == 401, path
        assert answer.status_code != 405, path
        assert answer.status_code != 404 or answer.json()["reason"] != "not_found", path
        await asyncio.sleep(0.11)  # at the pace at which wrong credentials are answered with 401


def test_a_route_without_a_description_is_our_bug() -> None:
    with pytest.raises(KeyError):
        document_of([], [("GET", "/nobody/knows")])


def test_every_usage_route_is_described() -> None:
    result = document_of([], [("POST", route.path) for route in ROUTES])
    assert set(result["paths"]) == {route.path for route in ROUTES}


async def test_schemas_are_valid_references_resolve_and_examples_fit(document: dict[str, Any]) -> None:
    schemas = document["components"]["schemas"]
    for schema in schemas.values():
        jsonschema.Draft202012Validator.check_schema(schema)
    for reference in re.findall(r'"#/components/schemas/([^"]+)"', json.dumps(document)):
        assert reference in schemas
    found = 0
    for _, path, result in operations(document):
        content = result.get("requestBody", {}).get("content", {}).get("application/json", {})
        if "example" in content:
            found += 1
            jsonschema.validate(content["example"], {**content["schema"], "components": document["components"]})
            assert content["example"] is not None, path
    assert found > 5


async def test_every_needed_scope_can_be_given_and_every_scope_is_needed(
    document: dict[str, Any],
) -> None:
    needed = {
        scope for _, _, result in operations(document) for one in result["security"] for scope in one.get("bearer", ())
    }
    told_of = [result.get("description", "") for _, _, result in operations(document)]
    needed |= {scope for scope in SCOPES for description in told_of if f"the scope `{scope}` as well" in description}
    assert needed == set(SCOPES)
    page = Path(__file__).parents[2] / "docs" / "access.md"
    assert not [scope for scope in SCOPES if f"`{scope}`" not in page.read_text()]


async def test_each_operation_with_a_credential_describes_the_answer_without_one(document: dict[str, Any]) -> None:
    for _, path, result in operations(document):
        if any("bearer" in one for one in result["security"]):
            assert {"401", "403", "429", "503", "default"} <= result["responses"].keys(), path
            assert {"oidc", "bearer"} == {name for one in result["security"] for name in one}


async def test_every_part_of_a_path_is_a_parameter(document: dict[str, Any]) -> None:
    for _, path, result in operations(document):
        parts = [one["name"] for one in result.get("parameters", ()) if one["in"] == "path"]
        assert sorted(parts) == sorted(re.findall(r"{([^}]*)}", path))


async def test_every_operation_has_a_unique_name(document: dict[str, Any]) -> None:
    names = [result["operationId"] for _, _, result in operations(document)]
    assert len(names) == len(set(names))


class Page(HTMLParser):
    """The elements of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.links: list[str] = []
        self.ids: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        for name, value in attrs:
            if name in ("href", "src", "srcset", "action", "data", "poster"):
                self.links.append(value or "")
            if name == "id":
                self.ids.append(value or "")
            assert name != "style" and not name.startswith("on"), name


async def test_the_page_shows_every_operation_and_loads_nothing_from_other_servers(
    document: dict[str, Any], server: Server
) -> None:
    """It works without a network, and all its content comes from us."""
    answer = await server.http.get("/docs")
    page = Page(answer.text)
    for _, path, result in operations(document):
        assert result["operationId"] in page.ids
        assert html.escape(path) in answer.text
    assert {f"schema-{name}" for name in document["components"]["schemas"]} <= set(page.ids)
    assert len(page.ids) == len(set(page.ids))
    assert not page.tags & {"script", "link", "img", "iframe", "object", "embed", "form", "base", "svg", "video"}
    assert {link for link in page.links if not link.startswith("#")} == {"openapi.json"}
    assert {link[1:] for link in page.links if link.startswith("#")} <= set(page.ids)
    assert "@import" not in answer.text and "url(" not in answer.text
    policy = answer.headers["content-security-policy"]
    assert policy.startswith("default-src 'none'; style-src 'sha256-") and "unsafe" not in policy
    style = answer.text.partition("<style>")[2].partition("</style>")[0]
    assert base64.b64encode(sha256(style.encode()).digest()).decode() in policy


async def test_a_models_text_is_shown_as_text_and_never_as_markup() -> None:
    result = document_of([], [("GET", "/docs")])
    result["components"]["schemas"]["Problem"]["description"] = "<script>alert(1)</script>"
    result["paths"]["/docs"]["get"]["summary"] = "`<img src=x>`"
    assert not Page(page_of(result)).tags & {"script", "img"}


async def test_document_and_page_are_made_once_because_anybody_may_ask_for_them(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = [(await server.http.get(path)).content for path in ("/docs", "/openapi.json")]
    monkeypatch.delattr(routes, "page_of")
    monkeypatch.delattr(routes, "msgspec")
    assert [(await server.http.get(path)).content for path in ("/docs", "/openapi.json")] == first


async def test_neither_contains_a_secret(document: dict[str, Any], server: Server, settings: Settings) -> None:
    page = (await server.http.get("/docs")).text
    for secret in (BEARER["Authorization"].split()[1], "a-key"):
        assert secret not in json.dumps(document) and secret not in page
