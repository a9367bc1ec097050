"""The Lago client with a scripted transport: its requests, how it reads answers, and its errors."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from typing import Any

import httpx
import pytest

from connectors.lago.client import LagoClient, LagoIntegrationError, LagoRejected, LagoUnavailable, lago_http
from connectors.lago.responses import Customer, Organization, Subscription
from schemas.errors import Rejected, Unavailable
from schemas.records import LagoEvent
from tests.support.eventually import within

Handler = Callable[[httpx.Request], httpx.Response]


class Wire:
    """Every request in order, and the client that sends them."""

    def __init__(
        self, answer: Handler | httpx.Response | Exception, base_url: str = "http://lago:3000", key: str = "secret"
    ) -> None:
        self.requests: list[httpx.Request] = []
        self.seen: list[tuple[str, int]] = []
        self._answer = answer
        http = httpx.AsyncClient(transport=httpx.MockTransport(self._handle))
        self.client = LagoClient(http, base_url, key, lambda name, _verb, status, _: self.seen.append((name, status)))

    def _handle(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        if isinstance(self._answer, Exception):
            raise self._answer
        return self._answer if isinstance(self._answer, httpx.Response) else self._answer(request)

    @property
    def target(self) -> str:
        return self.requests[-1].url.raw_path.decode()


def not_found(resource: str) -> httpx.Response:
    return httpx.Response(404, json={"status": 404, "error": "Not Found", "code": f"{resource}_not_found"})


def stored_event(**changes: Any) -> httpx.Response:
    event = {
        "lago_id": "8a",
        "transaction_id": "t/1",
        "lago_customer_id": None,
        "code": "llm_cost",
        "timestamp": "2025-03-06T00:00:51.590Z",
        "precise_total_amount_cents": "1.25",
        "properties": {"unit": "7", "count": 3},
        "external_subscription_id": "sub_1",
        "created_at": "2025-03-06T00:01:00.000Z",
    }
    return httpx.Response(200, json={"event": event | changes})


async def test_a_batch_is_posted_unchanged_with_the_key_and_every_answer_is_returned() -> None:
    for status in (200, 302, 401, 422, 500):
        wire = Wire(httpx.Response(status, headers={"X-RateLimit-Reset": "3"}, content=b"<body>"))
        answer = await wire.client.post_batch(b'{"events":[ {"a" : 1.0} ]}')
        assert (answer.status, answer.headers["x-ratelimit-reset"], answer.body) == (status, "3", b"<body>")
        [request] = wire.requests
        assert (request.method, str(request.url)) == ("POST", "http://lago:3000/api/v1/events/batch")
        assert request.content == b'{"events":[ {"a" : 1.0} ]}'
        assert request.headers["content-type"] == "application/json"
        assert request.headers["authorization"] == "Bearer secret"
        assert wire.seen == [("post_batch", status)]


@pytest.mark.parametrize("base_url", ["http://lago:3000", "http://lago:3000/", "http://lago:3000/api/v1/"])
async def test_the_base_url_may_contain_the_api_path_and_health_is_requested_at_the_root(base_url: str) -> None:
    wire = Wire(httpx.Response(200), base_url)
    await wire.client.post_batch(b"")
    assert wire.target == "/api/v1/events/batch"
    assert await wire.client.healthy()
    assert wire.target == "/health"
    assert "authorization" not in wire.requests[-1].headers


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (httpx.ConnectError("refused"), "connect"),
        (httpx.ConnectTimeout("slow"), "connect"),
        (httpx.PoolTimeout("busy"), "connect"),
        (httpx.ReadTimeout("slow"), "timeout"),
        (httpx.WriteTimeout("slow"), "timeout"),
        (httpx.ReadError("reset"), "no_answer"),
        (httpx.WriteError("reset"), "no_answer"),
        (httpx.RemoteProtocolError("disconnected"), "no_answer"),
        (httpx.DecodingError("not gzip"), "no_answer"),
    ],
)
async def test_only_a_request_that_was_never_sent_counts_as_not_sent(error: Exception, reason: str) -> None:
    wire = Wire(error)
    with pytest.raises(LagoUnavailable) as caught:
        await wire.client.post_batch(b"{}")
    assert caught.value.reason == reason
    assert "secret" not in str(caught.value)
    assert caught.value.__cause__ is error
    assert wire.seen == [("post_batch", 0)]
    assert not await wire.client.healthy()


async def test_a_stored_event_is_returned_in_the_form_in_which_it_was_sent() -> None:
    wire = Wire(stored_event())
    assert await wire.client.get_event("t/1") == LagoEvent(
        "t/1", "sub_1", "llm_cost", "1741219251.590", "1.25", {"unit": "7", "count": "3"}
    )
    assert wire.target == "/api/v1/events/t%2F1"
    assert await wire.client.get_event("t?#/../é") is None
    assert wire.target == "/api/v1/events/t%3F%23%2F..%2F%C3%A9"


async def test_only_lagos_own_404_means_not_found() -> None:
    assert await Wire(not_found("event")).client.get_event("t") is None
    assert await Wire(not_found("customer")).client.customer("c") is None
    assert await Wire(not_found("customer")).client.subscriptions("c") == []
    for answer in (
        not_found("resource"),
        httpx.Response(404, content=b"<html>nginx</html>"),
        httpx.Response(404, json=[]),
    ):
        with pytest.raises(LagoUnavailable, match="http_404"):
            await Wire(answer).client.get_event("t")
    with pytest.raises(LagoUnavailable, match="http_404"):
        await Wire(not_found("organization")).client.organization()


@pytest.mark.parametrize("status", [301, 401, 402, 403, 408, 429, 500, 503])
async def test_a_temporary_error_is_raised_as_unavailable(status: int) -> None:
    with pytest.raises(LagoIntegrationError) as caught:
        await Wire(httpx.Response(status, json={"code": "some_code"})).client.get_event("t")
    assert isinstance(caught.value, Unavailable)
    assert (caught.value.reason, caught.value.detail) == (f"http_{status}", "some_code")


@pytest.mark.parametrize("status", [400, 405, 422])
async def test_a_permanent_error_is_raised_as_rejected(status: int) -> None:
    with pytest.raises(LagoRejected) as caught:
        await Wire(httpx.Response(status, json={"status": status, "error": "No"})).client.organization()
    assert isinstance(caught.value, Rejected)


@pytest.mark.parametrize(
    ("status", "reason"),
    [(400, "not_lago"), (422, "not_lago"), (405, "http_405"), (413, "http_413"), (414, "http_414"), (415, "http_415")],
)
@pytest.mark.parametrize(
    "answer",
    [
        {"content": b"<html>The plain HTTP request was sent to HTTPS port</html>"},
        {"json": {"detail": "value is not a valid dict"}},
        {"json": {"status": 500, "error": "No", "code": "plan_not_found"}},
        {"json": []},
        {},
    ],
)
async def test_an_answer_that_is_not_lagos_is_never_a_permanent_refusal(status: int, reason: str, answer: Any) -> None:
    """The answer of a proxy, of an HTTPS port asked in plain HTTP, or of another server says nothing about the request."""
    with pytest.raises(LagoUnavailable) as caught:
        await Wire(httpx.Response(status, **answer)).client.plan("p")
    assert (caught.value.reason, caught.value.retryable) == (reason, True)


async def test_a_404_of_another_server_is_not_taken_for_lagos() -> None:
    """It contains Lago's error code, but not its status or its error text."""
    with pytest.raises(LagoUnavailable, match="http_404"):
        await Wire(httpx.Response(404, json={"code": "plan_not_found"})).client.plan("p")


@pytest.mark.parametrize(
    "answer",
    [
        httpx.Response(200, content=b"<html>"),
        httpx.Response(200, json={}),
        stored_event(timestamp="yesterday"),
        stored_event(code=None),
    ],
)
async def test_a_success_answer_that_is_not_lagos_is_an_unknown_outcome(answer: httpx.Response) -> None:
    with pytest.raises(LagoUnavailable, match="bad_answer"):
        await Wire(answer).client.get_event("t/1")


@pytest.mark.parametrize(("status", "healthy"), [(200, True), (401, True), (404, True), (500, False), (503, False)])
async def test_lago_counts_as_healthy_unless_it_answers_that_it_is_not(status: int, *, healthy: bool) -> None:
    assert await Wire(httpx.Response(status)).client.healthy() is healthy


async def test_the_organization_shows_the_event_store() -> None:
    answer = {"organization": {"lago_id": "1a", "name": "Acme", "events_store": "clickhouse", "webhook_url": None}}
    wire = Wire(httpx.Response(200, json=answer))
    assert await wire.client.organization() == Organization("1a", "Acme", "clickhouse")
    assert wire.target == "/api/v1/organizations"


async def test_subscriptions_are_read_to_the_last_page() -> None:
    def page(request: httpx.Request) -> httpx.Response:
        number = int(request.url.params["page"])
        assert request.url.params["external_customer_id"] == "org &1"
        assert request.url.params["status[]"] == "active"
        subscription = {
            "external_id": f"sub_{number}",
            "started_at": "2026-01-01T00:00:00Z",
            "terminated_at": None if number == 1 else "2026-02-01T00:00:00Z",
            "plan_code": "ai_basic",
        }
        meta = {"current_page": number, "next_page": number + 1 if number < 3 else None, "total_pages": 3}
        return httpx.Response(200, json={"subscriptions": [subscription], "meta": meta})

    started, ended = "2026-01-01T00:00:00Z", "2026-02-01T00:00:00Z"
    assert await Wire(page).client.subscriptions("org &1") == [
        Subscription("sub_1", started, "ai_basic"),
        Subscription("sub_2", started, "ai_basic", ended),
        Subscription("sub_3", started, "ai_basic", ended),
    ]


async def test_an_answer_about_another_customer_is_refused() -> None:
    """A proxy or a route may confuse two ids."""
    wire = Wire(
        httpx.Response(200, json={"customer": {"external_id": "a", "lago_id": "1", "name": "A", "currency": "EUR"}})
    )
    assert await wire.client.customer("b") is None
    assert await wire.client.customer("a") == Customer("a", "1", "A", "EUR")


async def test_redirects_are_not_followed() -> None:
    async with lago_http(timeout_s=3, connections=2) as http:
        assert http.follow_redirects is False
        assert http.timeout == httpx.Timeout(3)


def test_no_text_of_the_client_shows_the_key() -> None:
    wire = Wire(httpx.Response(200))
    assert "secret" not in json.dumps(repr(wire.client))


async def test_a_slow_answer_ends_with_the_requests_time_limit_and_its_outcome_is_unknown() -> None:
    """httpx's own timeout starts again with every byte."""

    class Trickle(httpx.AsyncByteStream):
        async def __aiter__(self) -> AsyncIterator[bytes]:
            while True:
                yield b" "
                await asyncio.sleep(0.01)

    transport = httpx.MockTransport(lambda _: httpx.Response(200, stream=Trickle()))
    client = LagoClient(httpx.AsyncClient(transport=transport, timeout=0.2), "http://lago", "secret")
    async with within(3):
        with pytest.raises(LagoUnavailable) as caught:
            await client.post_batch(b"{}")
    assert caught.value.reason == "timeout"


async def test_every_answers_headers_are_reported_and_an_answer_has_its_time() -> None:
    result: list[tuple[str, int, str]] = []
    http = httpx.AsyncClient(
        transport=httpx.MockTransport(lambda _: httpx.Response(404, headers={"X-A": "1"}, json={}))
    )
    client = LagoClient(
        http,
        "http://lago",
        "secret",
        on_headers=lambda name, status, headers: result.append((name, status, headers["x-a"])),
        now=lambda: 1_800_000_000.5,
    )
    assert (await client.post_batch(b"{}")).at == 1_800_000_000.5
    with pytest.raises(LagoUnavailable):
        await client.get_event("t")
    assert result == [("post_batch", 404, "1"), ("get_event", 404, "1")]


async def test_health_returns_the_version() -> None:
    assert (
        await Wire(httpx.Response(200, json={"version": "v1.51.0", "message": "Success"})).client.version() == "v1.51.0"
    )
    for answer in (httpx.Response(200, content=b"ok"), httpx.Response(502, content=b"<html>"), httpx.ReadTimeout("")):
        with pytest.raises(LagoUnavailable):
            await Wire(answer).client.version()


async def test_without_a_key_lagos_own_error_says_that_one_is_needed() -> None:
    """An empty key makes a header that cannot be sent, which would look as if Lago had not answered."""
    wire = Wire(httpx.Response(401, json={"status": 401, "error": "Unauthorized"}), key="")
    with pytest.raises(LagoUnavailable, match="http_401"):
        await wire.client.customer("org_1")
    assert "Authorization" not in wire.requests[-1].headers
