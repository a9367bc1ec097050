"""The answer to an unknown path or a wrong method says what exists, and does not repeat the path."""

from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer

from connectors.http.middleware import RequestTracker, create_app

HERE = "there is no such path here; "


async def _taken(_: web.Request) -> web.Response:
    return web.Response()


async def _answer(method: str, path: str, *paths: str) -> tuple[int, dict[str, Any], str]:
    routes = [route for known in paths for route in (web.get(known, _taken), web.put(known, _taken))]
    async with TestClient(TestServer(create_app(RequestTracker(), routes))) as client:
        answer = await client.request(method, path)
        return answer.status, await answer.json(), answer.headers.get("Allow", "")


@pytest.mark.parametrize(
    ("paths", "where"),
    [
        (("/health", "/openapi.json"), "GET /openapi.json lists all paths"),
        (("/health",), "docs/endpoints.md lists the paths of each process"),
    ],
)
async def test_the_answer_to_an_unknown_path_says_where_the_paths_are_listed(
    paths: tuple[str, ...], where: str
) -> None:
    status, result, _ = await _answer("GET", "/sk-secret", *paths)
    assert (status, result["reason"], result["detail"]) == (404, "not_found", HERE + where)


async def test_the_answer_to_a_wrong_method_lists_the_allowed_methods() -> None:
    status, result, allow = await _answer("DELETE", "/things", "/things")
    sentence = "this path does not take DELETE; it takes GET, HEAD, PUT"
    assert (status, result["reason"], result["detail"]) == (405, "method_not_allowed", sentence)
    assert allow == "GET,HEAD,PUT"
