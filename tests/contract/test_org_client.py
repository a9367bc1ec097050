"""Usage recorded over HTTP: whatever happens on the way, it is stored once or its sender knows that it is not."""

from collections.abc import AsyncIterator

import httpx
import pytest
from aiohttp import web

from connectors.lago.errors import LagoIntegrationError, LagoRejected, LagoUnavailable
from connectors.lago.metered import MeteredEvent
from tests.support.usage_api import CUT, SILENT, STORED_AND_CUT, Sleeps, UsageApi, org_client, serving, usage_api

EVENT = MeteredEvent("org_1", "tx-1", "api_call", 1_741_219_251_000_000, {"tokens": "150", "org_id": "org_1"})


@pytest.fixture
async def api() -> AsyncIterator[UsageApi]:
    async with usage_api() as running:
        yield running


@pytest.fixture
async def http() -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(timeout=0.3, trust_env=False) as client:
        yield client


async def test_an_event_is_posted_to_its_orgs_path_as_agreed(api: UsageApi, http: httpx.AsyncClient) -> None:
    await org_client(api, http).record(EVENT)
    assert api.stored == {
        "tx-1": {
            "org": "org_1",
            "event_code": "api_call",
            "transaction_id": "tx-1",
            "properties": {"tokens": "150", "org_id": "org_1"},
            "timestamp": "2025-03-06T00:00:51.000000Z",
        }
    }


@pytest.mark.parametrize(
    "script", [[503], [503, 502, 504], [429], [CUT], [STORED_AND_CUT], [STORED_AND_CUT, 503, CUT], [SILENT]]
)
async def test_what_may_pass_is_tried_again_with_the_same_bytes_and_stored_once(
    api: UsageApi, http: httpx.AsyncClient, script: list[int | str]
) -> None:
    """Only the same transaction id lets Meterbridge know a repeat."""
    api.script, tries = list(script), len(script) + 1
    await org_client(api, http).record(EVENT)
    assert list(api.stored) == ["tx-1"]
    assert len(api.bodies) == tries
    assert len(set(api.bodies)) == 1


async def test_waits_grow_and_follow_what_the_answer_asks(api: UsageApi, http: httpx.AsyncClient) -> None:
    api.script, sleeps = [503, 500, CUT], Sleeps()
    await org_client(api, http, sleep=sleeps).record(EVENT)
    assert sleeps.waits == [2.0, 2.0, 2.0]
    api.script, sleeps = [CUT, CUT, CUT], Sleeps()
    await org_client(api, http, sleep=sleeps).record(EVENT)
    assert sleeps.waits == [0.5, 1.0, 2.0]


async def test_after_the_last_attempt_it_says_that_again_may_help(api: UsageApi, http: httpx.AsyncClient) -> None:
    api.script = [503] * 9
    with pytest.raises(LagoUnavailable) as caught:
        await org_client(api, http, attempts=3).record(EVENT)
    assert (caught.value.reason, caught.value.status, caught.value.retryable) == ("scripted", 503, True)
    assert len(api.bodies) == 3


@pytest.mark.parametrize("status", [400, 409, 413, 422, 404])
async def test_a_refused_event_is_not_posted_again(api: UsageApi, http: httpx.AsyncClient, status: int) -> None:
    api.script = [status]
    with pytest.raises(LagoRejected) as caught:
        await org_client(api, http).record(EVENT)
    assert (caught.value.reason, caught.value.status, caught.value.retryable) == ("scripted", status, False)
    assert len(api.bodies) == 1


@pytest.mark.parametrize("status", [403, 401])
async def test_a_key_that_is_not_taken_is_not_tried_again_at_once_but_may_be_later(
    api: UsageApi, http: httpx.AsyncClient, status: int
) -> None:
    """Somebody mends the key; the event is as good as before."""
    api.script = [status]
    with pytest.raises(LagoUnavailable) as caught:
        await org_client(api, http).record(EVENT)
    assert (caught.value.status, len(api.bodies)) == (status, 1)


async def test_a_success_that_is_not_meterbridges_is_none(http: httpx.AsyncClient) -> None:
    """A proxy's login page with status 200 has stored nothing."""

    async def page(_: web.Request) -> web.Response:
        return web.Response(text="<html>Please log in</html>", content_type="text/html")

    async def another(_: web.Request) -> web.Response:
        return web.json_response({"status": "accepted", "transaction_id": "tx-2"}, status=202)

    for handler in (page, another):
        app = web.Application()
        app.router.add_route("*", "/{path:.*}", handler)
        async with serving(app) as url:
            with pytest.raises(LagoUnavailable, match="bad_answer"):
                await org_client(UsageApi(url), http).record(EVENT)


@pytest.mark.parametrize("status", [400, 413, 422])
async def test_a_refusal_that_is_not_meterbridges_is_none(http: httpx.AsyncClient, status: int) -> None:
    """An HTTPS port that is asked in plain HTTP answers 400: the event may be recorded once the address is right."""

    async def page(_: web.Request) -> web.Response:
        return web.Response(text="<html>Bad Request</html>", content_type="text/html", status=status)

    app = web.Application()
    app.router.add_route("*", "/{path:.*}", page)
    async with serving(app) as url:
        with pytest.raises(LagoUnavailable, match=f"http_{status}"):
            await org_client(UsageApi(url), http).record(EVENT)


async def test_an_address_where_meterbridge_is_not_loses_no_event(http: httpx.AsyncClient) -> None:
    async with serving(web.Application()) as url:
        with pytest.raises(LagoUnavailable, match="http_404"):
            await org_client(UsageApi(url), http).record(EVENT)
    with pytest.raises(LagoUnavailable, match="connect"):
        await org_client(UsageApi("http://127.0.0.1:1"), http).record(EVENT)


async def test_an_orgs_id_is_one_part_of_the_path(api: UsageApi, http: httpx.AsyncClient) -> None:
    event = MeteredEvent("org/1?x=#", "tx", "api_call", 0, {})
    await org_client(api, http).record(event)
    assert api.stored["tx"]["org"] == "org/1?x=#"


async def test_the_key_is_in_no_error(api: UsageApi, http: httpx.AsyncClient) -> None:
    api.script = [401]
    with pytest.raises(LagoIntegrationError) as caught:
        await org_client(api, http, key="secret-key").record(EVENT)
    assert "secret-key" not in repr(caught.value) + str(caught.value)


async def test_limits_are_read_of_orgs_and_of_plans(api: UsageApi, http: httpx.AsyncClient) -> None:
    api.limits = {"org_1": {"tokens": 5}, "starter": {"requests": 9}}
    client = org_client(api, http)
    assert (await client.of_org("org_1"), await client.of_plan("starter")) == ({"tokens": 5}, {"requests": 9})
    assert await client.of_org("org_2") == {}
