"""Usage recorded over HTTP: for any fault it is stored once, or its sender knows that it is not."""

from collections.abc import AsyncIterator

import httpx
import pytest
from aiohttp import web

from meterbridge_sdk import (
    BillingError,
    BillingRejected,
    BillingUnauthorized,
    BillingUnavailable,
    MeterbridgeClient,
    UsageEvent,
)
from tests.support.eventually import PATIENCE
from tests.support.usage_api import CUT, SILENT, STORED_AND_CUT, Sleeps, UsageApi, sdk_client, serving, usage_api

EVENT = UsageEvent("org_1", "tx-1", "api_call", "2025-03-06T00:00:51.000000Z", {"tokens": "150"})


@pytest.fixture
async def api() -> AsyncIterator[UsageApi]:
    async with usage_api() as running:
        yield running


@pytest.fixture
async def http() -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(timeout=30 * PATIENCE, trust_env=False) as client:
        yield client


async def test_an_event_is_posted_to_its_orgs_path_in_the_agreed_form(api: UsageApi, http: httpx.AsyncClient) -> None:
    await sdk_client(api, http).send(EVENT)
    assert api.stored == {
        "tx-1": {
            "org": "org_1",
            "event_code": "api_call",
            "transaction_id": "tx-1",
            "properties": {"tokens": "150"},
            "timestamp": "2025-03-06T00:00:51.000000Z",
        }
    }


@pytest.mark.parametrize(
    "script", [[503], [503, 502, 504], [429], [CUT], [STORED_AND_CUT], [STORED_AND_CUT, 503, CUT], [SILENT]]
)
async def test_a_temporary_failure_is_retried_with_the_same_bytes_and_stored_once(
    api: UsageApi, http: httpx.AsyncClient, script: list[int | str]
) -> None:
    """Meterbridge recognises a repeat only by its transaction id."""
    api.script, tries = list(script), len(script) + 1
    if SILENT in script:
        http.timeout = 2.0
    await sdk_client(api, http).send(EVENT)
    assert list(api.stored) == ["tx-1"]
    assert len(api.bodies) == tries
    assert len(set(api.bodies)) == 1


async def test_waits_grow_and_follow_the_answers_retry_after(api: UsageApi, http: httpx.AsyncClient) -> None:
    api.script, sleeps = [503, 500, CUT], Sleeps()
    await sdk_client(api, http, sleep=sleeps).send(EVENT)
    assert sleeps.waits == [2.0, 2.0, 2.0]
    api.script, sleeps = [CUT, CUT, CUT], Sleeps()
    await sdk_client(api, http, sleep=sleeps).send(EVENT)
    assert sleeps.waits == [0.5, 1.0, 2.0]


async def test_after_the_last_attempt_the_error_says_that_a_retry_may_help(
    api: UsageApi, http: httpx.AsyncClient
) -> None:
    api.script = [503] * 9
    with pytest.raises(BillingUnavailable) as caught:
        await sdk_client(api, http, attempts=3).send(EVENT)
    assert (caught.value.reason, caught.value.status, caught.value.retryable) == ("scripted", 503, True)
    assert len(api.bodies) == 3


@pytest.mark.parametrize("status", [400, 409, 413, 422, 404])
async def test_a_refused_event_is_not_posted_again(api: UsageApi, http: httpx.AsyncClient, status: int) -> None:
    api.script = [status]
    with pytest.raises(BillingRejected) as caught:
        await sdk_client(api, http).send(EVENT)
    assert (caught.value.reason, caught.value.status, caught.value.retryable) == ("scripted", status, False)
    assert len(api.bodies) == 1


@pytest.mark.parametrize("status", [403, 401])
async def test_a_refused_key_is_its_own_error_and_is_not_retried(
    api: UsageApi, http: httpx.AsyncClient, status: int
) -> None:
    """It is certain that nothing was stored: it is no `BillingUnavailable`."""
    api.script = [status]
    with pytest.raises(BillingUnauthorized) as caught:
        await sdk_client(api, http).send(EVENT)
    assert (caught.value.status, caught.value.retryable, len(api.bodies)) == (status, False, 1)
    assert isinstance(caught.value, BillingRejected)


@pytest.mark.parametrize("status", [403, 401])
async def test_a_refusal_by_a_gateway_is_no_error_about_the_key(http: httpx.AsyncClient, status: int) -> None:
    async def page(_: web.Request) -> web.Response:
        return web.Response(text="<html>Please log in</html>", content_type="text/html", status=status)

    app = web.Application()
    app.router.add_route("*", "/{path:.*}", page)
    async with serving(app) as url:
        with pytest.raises(BillingUnavailable) as caught:
            await sdk_client(UsageApi(url), http).send(EVENT)
        assert (caught.value.reason, caught.value.retryable) == (f"http_{status}", True)
        assert f"an error of {url}/api/v1/" in caught.value.detail and "METERBRIDGE_URL" in caught.value.detail


async def test_a_server_that_does_not_answer_is_named_and_no_password_is_in_an_address(
    http: httpx.AsyncClient,
) -> None:
    async with serving(web.Application()) as url:
        free = url  # nothing listens there after the block
    with pytest.raises(BillingUnavailable, match="connection_failed") as caught:
        await sdk_client(UsageApi(f"{free}/meter"), http).send(EVENT)
    assert caught.value.detail == (
        f"cannot connect to {free}/meter: check Meterbridge's address (METERBRIDGE_URL), and that it runs there"
    )
    for address in (free.replace("//", "//user:secret@"), f"{free}/meter?key=secret"):
        with pytest.raises(ValueError, match="url must have no ") as refused:
            sdk_client(UsageApi(address), http)
        assert "secret" not in str(refused.value)


async def test_a_timeout_names_the_address_and_its_duration(api: UsageApi) -> None:
    api.script = [SILENT]
    async with httpx.AsyncClient(timeout=0.25, trust_env=False) as http:
        with pytest.raises(BillingUnavailable, match="timeout") as caught:
            await sdk_client(api, http, attempts=1).send(EVENT)
    assert caught.value.detail == f"no answer from {api.url} within 0.25 s"


async def test_a_dropped_connection_names_the_address(api: UsageApi, http: httpx.AsyncClient) -> None:
    api.script = [CUT]
    with pytest.raises(BillingUnavailable, match="connection_lost") as caught:
        await sdk_client(api, http, attempts=1).send(EVENT)
    assert caught.value.detail.startswith(f"{api.url} ended the connection before its answer (")


async def test_a_value_that_cannot_be_sent_as_json_is_named(api: UsageApi, http: httpx.AsyncClient) -> None:
    client = sdk_client(api, http)
    with pytest.raises(BillingRejected) as caught:
        await client.record_usage("org_1", object(), "tx")  # type: ignore[arg-type]
    assert (caught.value.reason, caught.value.detail) == ("bad_event", "event_code must be text, and is object")
    with pytest.raises(BillingRejected, match="bad_request: org_id cannot be a part of a path"):
        await client.get_limits(17)  # type: ignore[arg-type]
    assert api.bodies == []


async def test_a_success_answer_that_is_not_meterbridges_is_an_error(http: httpx.AsyncClient) -> None:
    """A proxy's login page with status 200 has stored nothing."""

    async def page(_: web.Request) -> web.Response:
        return web.Response(text="<html>Please log in</html>", content_type="text/html")

    async def another(_: web.Request) -> web.Response:
        return web.json_response({"status": "accepted", "transaction_id": "tx-2"}, status=202)

    for handler in (page, another):
        app = web.Application()
        app.router.add_route("*", "/{path:.*}", handler)
        async with serving(app) as url:
            with pytest.raises(BillingUnavailable, match="invalid_response"):
                await sdk_client(UsageApi(url), http).send(EVENT)


@pytest.mark.parametrize("status", [400, 413, 422])
async def test_a_refusal_that_is_not_meterbridges_counts_as_unavailable(http: httpx.AsyncClient, status: int) -> None:
    """An HTTPS port that is asked in plain HTTP answers 400: the event can be recorded once the address is right."""

    async def page(_: web.Request) -> web.Response:
        return web.Response(text="<html>Bad Request</html>", content_type="text/html", status=status)

    app = web.Application()
    app.router.add_route("*", "/{path:.*}", page)
    async with serving(app) as url:
        with pytest.raises(BillingUnavailable, match=f"http_{status}"):
            await sdk_client(UsageApi(url), http).send(EVENT)


async def test_a_wrong_address_loses_no_event(http: httpx.AsyncClient) -> None:
    async with serving(web.Application()) as url:
        with pytest.raises(BillingUnavailable, match="http_404"):
            await sdk_client(UsageApi(url), http).send(EVENT)
    with pytest.raises(BillingUnavailable, match="connection_failed"):
        await sdk_client(UsageApi("http://127.0.0.1:1"), http).send(EVENT)


async def test_an_orgs_id_is_one_segment_of_the_path(api: UsageApi, http: httpx.AsyncClient) -> None:
    event = UsageEvent("org/1?x=#", "tx", "api_call", 0, {})
    await sdk_client(api, http).send(event)
    assert api.stored["tx"]["org"] == "org/1?x=#"


async def test_no_error_contains_the_key(api: UsageApi, http: httpx.AsyncClient) -> None:
    api.script = [401]
    with pytest.raises(BillingError) as caught:
        await sdk_client(api, http, key="secret-key").send(EVENT)
    assert "secret-key" not in repr(caught.value) + str(caught.value)


@pytest.mark.parametrize(
    ("url", "key", "attempts"),
    [
        ("meterbridge:8080", "k", 1),
        ("ftp://h", "k", 1),
        ("http://", "k", 1),
        ("http://h:port", "k", 1),
        ("http://h", "", 1),
        ("http://h", "secret\nkey", 1),
        ("http://h", "schlüssel", 1),
        ("http://h", "k", 0),
    ],
)
async def test_a_client_that_could_never_work_is_refused_at_its_creation(
    http: httpx.AsyncClient, url: str, key: str, attempts: int
) -> None:
    """The mistake is visible when the service starts, and not only in its calls."""
    with pytest.raises(ValueError, match="must") as caught:
        MeterbridgeClient(http, url, key, attempts=attempts)
    assert "secret" not in str(caught.value)


async def test_a_read_request_is_tried_twice(http: httpx.AsyncClient) -> None:
    """A client of the service waits for it."""
    asked: list[str] = []

    async def away(request: web.Request) -> web.Response:
        asked.append(request.path)
        return web.Response(status=503)

    app = web.Application()
    app.router.add_route("*", "/{path:.*}", away)
    async with serving(app) as url:
        with pytest.raises(BillingUnavailable, match="http_503"):
            await sdk_client(UsageApi(url), http).get_limits("org_1")
    assert asked == ["/api/v1/billing/org/organizations/org_1/limits"] * 2


@pytest.mark.parametrize("org_id", ["", ".", "..", "\ud800"])
async def test_an_id_that_would_change_the_path_is_refused_before_it_is_sent(
    api: UsageApi, http: httpx.AsyncClient, org_id: str
) -> None:
    """`..` would read another path."""
    client = sdk_client(api, http)
    for asked in (client.get_limits, client.get_subscription, client.get_current_usage):
        with pytest.raises(BillingRejected):
            await asked(org_id)
    with pytest.raises(BillingRejected):
        await client.record_api_call(org_id, "tx", "/x")
    assert api.bodies == []
