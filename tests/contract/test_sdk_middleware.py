"""Services with aiohttp and with Starlette, over HTTP: each answered request of an org is billed once."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Any

import httpx
import pytest
from aiohttp import web
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Mount, Route

from meterbridge_sdk import UsageEvent, UsageRecorder, get_current_org, org_billing_service
from meterbridge_sdk.aiohttp import org_billing_middleware, return_request_id
from meterbridge_sdk.asgi import OrgBillingMiddleware
from tests.support.eventually import PATIENCE, soon
from tests.support.sdk_logs import sdk_logs
from tests.support.served_asgi import served_asgi
from tests.support.usage_api import CUT, KEY, SILENT, STORED_AND_CUT, UsageApi, serving, usage_api

#: What a path answers: status and headers.
ANSWERS: dict[str, tuple[int, dict[str, str]]] = {
    "/v1/chat": (200, {"X-Tokens-Used": "150", "X-Model-Used": "gpt-4"}),
    "/v1/plain": (204, {}),
    "/v1/odd": (200, {"X-Tokens-Used": "many"}),
    "/v1/refused": (403, {}),
    "/v1/cut-off": (429, {"X-Tokens-Used": "7"}),
    "/v1/own": (200, {"X-Request-ID": "the service's"}),
    "/v1/moved": (303, {"Location": "/v1/chat"}),
}
ME = {"X-User": "user_1", "X-Org": "org_1"}


@dataclass
class Service:
    """A running service that bills its orgs.

    Fields:
        http: a client that claims to be a user of `org_1`.
    """

    http: httpx.AsyncClient
    api: UsageApi
    recorder: UsageRecorder

    async def settled(self) -> None:
        """Returns when no call waits any more."""
        await soon(lambda: self.recorder.waiting == 0)


def user_of(headers: Any) -> dict[str, str] | None:
    """The user that the service's authentication gives a request; a real one verifies a credential."""
    return {"id": headers["X-User"], "org_id": headers["X-Org"]} if "X-Org" in headers else None


@asynccontextmanager
async def on_aiohttp(api: UsageApi) -> AsyncIterator[tuple[str, UsageRecorder]]:
    @web.middleware
    async def authentication(request: web.Request, handler: Any) -> web.StreamResponse:
        request["user"] = user_of(request.headers)
        return await handler(request)  # type: ignore[no-any-return]

    async def answer(request: web.Request) -> web.StreamResponse:
        status, headers = ANSWERS[request.path]
        if status == 403:
            raise web.HTTPForbidden
        if status == 303:
            raise web.HTTPSeeOther(headers["Location"])
        return web.Response(status=status, headers=headers)

    async def broken(_: web.Request) -> web.StreamResponse:
        raise ZeroDivisionError

    async def stream(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"X-Tokens-Used": "20"})
        await response.prepare(request)
        for _ in range(50):
            await response.write(b"x" * 1000)
            await asyncio.sleep(0 if "whole" in request.query else 0.02)
        return response

    running: list[UsageRecorder] = []

    async def billing(_: web.Application) -> AsyncIterator[None]:
        async with org_billing_service(api.url, KEY) as service:
            running.append(service.recorder)
            yield

    app = web.Application(middlewares=[org_billing_middleware(), authentication])
    app.cleanup_ctx.append(billing)
    app.on_response_prepare.append(return_request_id)
    app.router.add_get("/v1/broken", broken)
    app.router.add_get("/v1/stream", stream)
    app.router.add_route("*", "/{path:.*}", answer)
    async with serving(app) as url:
        yield url, running[0]


@asynccontextmanager
async def on_starlette(api: UsageApi) -> AsyncIterator[tuple[str, UsageRecorder]]:
    class Authentication(BaseHTTPMiddleware):
        async def dispatch(self, request: Request, call_next: Any) -> Response:
            request.state.user = user_of(request.headers)
            return await call_next(request)  # type: ignore[no-any-return]

    async def answer(request: Request) -> Response:
        status, headers = ANSWERS[request.url.path]
        return Response(status_code=status, headers=headers)

    async def broken(_: Request) -> Response:
        raise ZeroDivisionError

    async def stream(request: Request) -> Response:
        async def parts() -> AsyncIterator[bytes]:
            for _ in range(50):
                yield b"x" * 1000
                await asyncio.sleep(0 if "whole" in request.query_params else 0.02)

        return StreamingResponse(parts(), headers={"X-Tokens-Used": "20"})

    running: list[UsageRecorder] = []

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        async with org_billing_service(api.url, KEY) as service:
            running.append(service.recorder)
            yield

    below = [
        Route("/broken", broken),
        Route("/stream", stream),
        Route("/{path:path}", answer, methods=["GET", "POST"]),
    ]
    layers = [Middleware(OrgBillingMiddleware), Middleware(Authentication)]
    app = Starlette(routes=[Mount("/v1", routes=below)], middleware=layers, lifespan=lifespan)
    async with served_asgi(app) as url:
        yield url, running[0]


Make = Callable[[UsageApi], Any]


@pytest.fixture(params=[on_aiohttp, on_starlette], ids=["aiohttp", "starlette"])
async def service(request: pytest.FixtureRequest) -> AsyncIterator[Service]:
    async with AsyncExitStack() as stack:
        api = await stack.enter_async_context(usage_api())
        url, recorder = await stack.enter_async_context(request.param(api))
        http = httpx.AsyncClient(base_url=url, headers=ME, trust_env=False, timeout=10 * PATIENCE)
        await stack.enter_async_context(http)
        yield Service(http, api, recorder)


async def test_an_answered_request_is_one_api_call_of_its_org_with_tokens_endpoint_user_and_model(
    service: Service,
) -> None:
    answer = await service.http.post("/v1/chat", headers={"Idempotency-Key": "k1"})
    assert answer.status_code == 200
    await service.settled()
    [usage] = service.api.stored.values()
    assert (usage["org"], usage["event_code"]) == ("org_1", "api_call")
    assert usage["properties"] == {
        "endpoint": "/v1/chat",
        "user_id": "user_1",
        "tokens": "150",
        "model": "gpt-4",
    }


@pytest.mark.parametrize("header", ["Idempotency-Key", "X-Request-ID"])
async def test_a_request_repeated_by_its_client_under_one_id_is_billed_once(service: Service, header: str) -> None:
    for _ in range(3):
        await service.http.post("/v1/chat", headers={header: "mine"})
        await service.settled()
    assert len(service.api.stored) == 1
    await service.http.post("/v1/chat", headers={header: "another"})
    await service.settled()
    assert len(service.api.stored) == 2


async def test_one_id_for_two_users_two_paths_or_two_methods_is_several_calls(service: Service) -> None:
    for path, method, me in (
        ("/v1/chat", "POST", {}),
        ("/v1/plain", "POST", {}),
        ("/v1/chat", "GET", {}),
        ("/v1/chat", "POST", {"X-User": "user_2"}),
        ("/v1/chat", "POST", {"X-Org": "org_2"}),
    ):
        await service.http.request(method, path, headers={"Idempotency-Key": "1", **me})
    await service.settled()
    assert len(service.api.stored) == 5


async def test_a_request_without_an_id_gets_one_with_which_it_can_be_repeated(service: Service) -> None:
    first = await service.http.post("/v1/chat")
    second = await service.http.post("/v1/chat")
    ids = [answer.headers["X-Request-ID"] for answer in (first, second)]
    assert ids[0] != ids[1]
    await service.settled()
    assert len(service.api.stored) == 2
    await service.http.post("/v1/chat", headers={"X-Request-ID": ids[0]})
    await service.settled()
    assert len(service.api.stored) == 2


async def test_the_services_own_request_id_is_kept_and_identifies_a_repeat(service: Service) -> None:
    answer = await service.http.get("/v1/own")
    assert answer.headers.get_list("X-Request-ID") == ["the service's"]
    await service.http.get("/v1/own", headers={"X-Request-ID": "the service's"})
    await service.settled()
    assert len(service.api.stored) == 1


async def test_requests_without_an_org_and_refusals_are_not_billed_unless_they_used_tokens(service: Service) -> None:
    for path in ("/v1/refused", "/v1/broken"):
        assert (await service.http.get(path)).status_code in (403, 500)
    async with httpx.AsyncClient(base_url=service.http.base_url, trust_env=False) as nobody:
        assert (await nobody.get("/v1/chat")).status_code == 200
    assert (await service.http.get("/v1/cut-off")).status_code == 429
    await service.settled()
    assert [(call["endpoint"], call["tokens"]) for call in service.api.calls] == [("/v1/cut-off", "7")]


async def test_a_redirect_is_an_answer(service: Service) -> None:
    """aiohttp services raise theirs as an exception."""
    answer = await service.http.get("/v1/moved")
    assert (answer.status_code, "X-Request-ID" in answer.headers) == (303, True)
    await service.settled()
    assert [call["endpoint"] for call in service.api.calls] == ["/v1/moved"]


async def test_a_client_with_its_own_id_gets_no_other(service: Service) -> None:
    answer = await service.http.post("/v1/chat", headers={"Idempotency-Key": "k"})
    assert "X-Request-ID" not in answer.headers


async def test_malformed_tokens_are_logged_and_the_call_is_billed_all_the_same(service: Service) -> None:
    with sdk_logs() as lines:
        assert (await service.http.get("/v1/odd")).status_code == 200
        await service.settled()
    assert [call["tokens"] for call in service.api.calls] == ["0"]
    assert [(line["event"], line["path"]) for line in lines] == [("invalid_token_count", "/v1/odd")]


async def test_a_streamed_answer_is_billed_with_its_id_returned(service: Service) -> None:
    answer = await service.http.get("/v1/stream?whole")
    assert len(answer.content) == 50_000
    await service.settled()
    assert [call["tokens"] for call in service.api.calls] == ["20"]
    await service.http.get("/v1/stream?whole", headers={"X-Request-ID": answer.headers["X-Request-ID"]})
    await service.settled()
    assert len(service.api.stored) == 1


async def test_a_stream_that_its_client_leaves_is_billed(service: Service) -> None:
    """Its tokens were used."""
    async with service.http.stream("GET", "/v1/stream") as answer:
        await anext(answer.aiter_bytes())
    await soon(lambda: len(service.api.stored) == 1)


async def test_a_hundred_concurrent_requests_are_a_hundred_calls(service: Service) -> None:
    asked = (service.http.post("/v1/chat", headers={"Idempotency-Key": f"k{n % 100}"}) for n in range(200))
    answers = await asyncio.gather(*asked)
    assert {answer.status_code for answer in answers} == {200}
    await service.settled()
    assert len(service.api.stored) == 100


async def test_errors_of_meterbridge_never_affect_the_client(service: Service) -> None:
    """The service's answers come at once, and each call is stored once in the end."""
    service.api.script = [503, CUT, STORED_AND_CUT, 500, 401, STORED_AND_CUT, CUT]
    answers = [await service.http.post("/v1/chat", headers={"Idempotency-Key": f"k{n}"}) for n in range(5)]
    assert {answer.status_code for answer in answers} == {200}
    await service.settled()
    assert len(service.api.stored) == 5
    assert (service.recorder.counts.recorded, service.recorder.counts.dropped) == (5, 0)


@pytest.mark.parametrize("make", [on_aiohttp, on_starlette], ids=["aiohttp", "starlette"])
async def test_no_answer_waits_for_meterbridge(make: Make) -> None:
    """Meterbridge does not answer; the service's answer comes all the same, and the call waits."""
    async with usage_api() as api:
        api.script = [SILENT] * 4
        async with make(api) as (url, recorder), httpx.AsyncClient(trust_env=False, headers=ME) as http:
            for number in range(5):
                answer = await http.post(f"{url}/v1/chat", headers={"Idempotency-Key": str(number)})
                assert answer.status_code == 200
            assert (recorder.waiting, api.stored, api.awake.is_set()) == (5, {}, False)
            api.awake.set()
            await soon(lambda: len(api.stored) == 5)


@pytest.mark.parametrize("make", [on_aiohttp, on_starlette], ids=["aiohttp", "starlette"])
async def test_a_service_that_ends_stores_the_waiting_calls(make: Make) -> None:
    async with usage_api() as api:
        api.script = [503] * 4
        async with make(api) as (url, recorder), httpx.AsyncClient(trust_env=False, headers=ME) as http:
            for number in range(20):
                await http.post(f"{url}/v1/chat", headers={"Idempotency-Key": str(number)})
            assert recorder.waiting > 0
        assert len(api.stored) == 20
        assert (recorder.waiting, recorder.counts.dropped) == (0, 0)


async def test_an_error_in_the_function_that_names_the_org_is_logged_and_harmless() -> None:
    def identify(_: Any) -> None:
        raise KeyError("no session")

    async def answer(_: web.Request) -> web.Response:
        return web.Response(text="served")

    app = web.Application(middlewares=[org_billing_middleware(identify=identify)])
    app.router.add_get("/", answer)
    with sdk_logs() as lines:
        async with serving(app) as url, httpx.AsyncClient(trust_env=False) as http:
            assert (await http.get(url)).text == "served"
    assert [line["event"] for line in lines] == ["usage_dropped"]


async def test_without_a_running_service_calls_are_lost_with_a_log_line_and_answers_are_not() -> None:
    async def answer(_: Any) -> JSONResponse:
        return JSONResponse({})

    routes = [Route("/", answer)]
    app = Starlette(routes=routes, middleware=[Middleware(OrgBillingMiddleware, identify=_somebody)])
    with sdk_logs() as lines:
        async with served_asgi(app) as url, httpx.AsyncClient(trust_env=False) as http:
            assert (await http.get(url)).status_code == 200
    assert [line["event"] for line in lines] == ["usage_dropped"]


def _somebody(_: Any) -> Any:
    return get_current_org({"user": {"org_id": "org_1"}})


@pytest.mark.parametrize("breaks_off", [False, True])
async def test_a_call_is_recorded_when_its_answer_ends_or_breaks_off(breaks_off: bool) -> None:
    """Called directly without a server, and with a service that works on a copy of the scope."""
    sent: list[UsageEvent] = []
    result: list[int] = []

    async def record(event: UsageEvent) -> None:
        sent.append(event)

    recorder = UsageRecorder(record)

    async def app(scope: Any, receive: Any, send: Any) -> None:
        own = dict(scope)
        own.setdefault("state", {})["user"] = {"org_id": "org_1"}
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"x", "more_body": True})
        result.append(recorder.waiting)
        if breaks_off:
            raise ConnectionResetError
        await send({"type": "http.response.body", "body": b"x"})
        result.append(recorder.waiting)

    async def send(_: Any) -> None: ...

    scope = {"type": "http", "method": "GET", "path": "/x", "headers": []}
    with suppress(ConnectionResetError):
        await OrgBillingMiddleware(app, recorder)(scope, send, send)  # type: ignore[arg-type]
    assert (result, recorder.waiting) == ([0] if breaks_off else [0, 1], 1)
    await recorder.close()
    assert [event.properties["endpoint"] for event in sent] == ["/x"]


async def test_a_connection_that_is_no_http_request_passes_unchanged() -> None:
    seen: list[str] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        seen.append(scope["type"])

    middleware: Callable[..., Awaitable[None]] = OrgBillingMiddleware(app)
    for kind in ("websocket", "lifespan"):
        await middleware({"type": kind}, None, None)
    assert seen == ["websocket", "lifespan"]
