"""A provider on loopback that answers for OpenAI, Anthropic, Google and Cohere, and keeps account of what it charges.

The path begins with the scenario, `/s/NAME/`, because each scenario has deployments of its own in the proxy.
"""

import asyncio
import json
from collections import Counter, defaultdict
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

from aiohttp import WSMsgType, web

from tests.litellm_matrix import answers, prices
from tests.proxy import jobs

#: A provider that hangs does so for longer than the deployment's time-out.
_HANG_S = 6.0
#: How long a stream waits for a client to leave before it goes on.
_LEAVE_S = 60.0
#: Polls that a job answers as unfinished.
UNFINISHED_POLLS = 1


@dataclass(frozen=True)
class Script:
    """How the provider answers in one scenario.

    Fields:
        steps: of its requests in order, the last for all that follow: `ok`, an HTTP status, `hang`, `cut`, `leave`.
        usage: replaces the tokens of the answer.
        id: the answer's own id; `""` = another for each.
        no_usage: a stream carries no usage even if it is asked for.
        tools, n: what the answer holds.
    """

    steps: tuple[str, ...] = ("ok",)
    usage: Mapping[str, Any] | None = None
    id: str = ""
    tools: bool = False
    n: int = 1
    tier: str = ""


@dataclass
class Account:
    """The requests of a scenario, and their cost."""

    asked: list[tuple[str, str]] = field(default_factory=list)
    dollars: Decimal = Decimal(0)
    jobs: Counter[str] = field(default_factory=Counter)


class Provider:
    """All scenarios of one run. `scripts`: by scenario; a scenario without one gets plain answers."""

    def __init__(self, scripts: Mapping[str, Script]) -> None:
        self._scripts = scripts
        self.accounts: dict[str, Account] = defaultdict(Account)
        self._made = 0

    def app(self) -> web.Application:
        """The routes."""
        app = web.Application(client_max_size=1 << 26)
        app.add_routes(
            [web.route("*", "/s/{scenario}/{tail:.*}", self._answer), web.route("*", "/{tail:.*}", self._answer)]
        )
        return app

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        raw, tail = await request.read(), request.match_info["tail"]
        name = _scenario_of(request.match_info.get("scenario", ""), tail, raw)
        script, account = self._scripts.get(name, Script()), self.accounts[name]
        posted = [step for step, _ in account.asked]
        step = script.steps[min(len(posted), len(script.steps) - 1)] if request.method == "POST" else "ok"
        if request.method == "POST":
            account.asked.append((step, tail))
        if step.isdigit():
            error = {"error": {"message": "as the scenario wants it", "type": "server_error", "code": step}}
            return web.json_response(error, status=int(step), headers={"Retry-After": "0"})
        if step == "hang":
            await asyncio.sleep(_HANG_S)
            return web.json_response({"error": {"message": "too late"}}, status=504)
        body = _json(raw)
        self._made += 1
        one = answers.Asked(name, tail, body, raw, script, script.id or f"{name}-{self._made}", step, account)
        if request.headers.get("Upgrade", "").lower() == "websocket":
            return await _talk(request, account)
        handler = _handler(request.method, tail)
        return await handler(request, one)


def _scenario_of(named: str, tail: str, raw: bytes) -> str:
    """The scenario of a path; some versions drop the path of a pass-through's address, and two pass-throughs share one."""
    if "realtime" in tail:
        return "realtime"
    if "batches" in tail:  # some versions send a batch to the first deployment
        return "batch"
    name = named or ("pass-gemini" if tail.endswith("generateContent") else "pass-anthropic")
    return f"{name}-stream" if name == "pass-anthropic" and _json(raw).get("stream") else name


def _json(raw: bytes) -> dict[str, Any]:
    try:
        body = json.loads(raw)
    except ValueError:
        return {}
    return body if isinstance(body, dict) else {}


def _handler(method: str, tail: str) -> Callable[[web.Request, answers.Asked], Awaitable[web.StreamResponse]]:
    for ending, handler in _HANDLERS.items():
        if ending in tail:
            return handler
    raise web.HTTPNotFound(text=f"{method} {tail}")


async def _chat(request: web.Request, asked: answers.Asked) -> web.StreamResponse:
    whole, usage = answers.completion(asked), answers.usage_of(asked)
    if not asked.body.get("stream"):
        asked.charge_chat(usage)
        return web.json_response(whole)
    with_usage = bool((asked.body.get("stream_options") or {}).get("include_usage"))
    return await _stream(request, asked, answers.chunks(whole, usage, with_usage=with_usage), "data: [DONE]\n\n")


async def _stream(
    request: web.Request, asked: answers.Asked, events: list[dict[str, Any]], end: str
) -> web.StreamResponse:
    """Send the events. `leave`: half of them, then wait until the client has gone; `cut`: half of them, then hang up."""
    response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
    await response.prepare(request)
    half = len(events) // 2
    for sent, event in enumerate(events):
        if sent == half and asked.step == "cut":
            asked.charge_part(answers.STREAM_TOKENS // 2)
            assert request.transport is not None
            request.transport.abort()
            return response
        if sent == half and asked.step == "leave":
            for _ in range(int(_LEAVE_S * 10)):
                if request.transport is None or request.transport.is_closing():
                    asked.charge_part(answers.STREAM_TOKENS // 2)
                    return response
                await asyncio.sleep(0.1)
        named = f"event: {event['type']}\n" if "type" in event else ""
        try:
            await response.write(f"{named}data: {json.dumps(event)}\n\n".encode())
        except ConnectionResetError:
            asked.charge_part(answers.STREAM_TOKENS // 2)
            return response
        await asyncio.sleep(0)
    asked.charge_stream()
    await response.write(end.encode())
    return response


async def _messages(request: web.Request, asked: answers.Asked) -> web.StreamResponse:
    whole = answers.message(asked)
    if asked.body.get("stream"):
        return await _stream(request, asked, answers.message_events(whole), "")
    asked.charge_message(whole["usage"])
    return web.json_response(whole)


async def _responses(request: web.Request, asked: answers.Asked) -> web.StreamResponse:
    if request.method == "GET":
        job = asked.tail.rpartition("/")[2].partition("?")[0]
        asked.account.jobs[job] += 1
        done = asked.account.jobs[job] > UNFINISHED_POLLS
        return web.json_response(answers.response(job, finished=done, background=True))
    background = bool(asked.body.get("background"))
    whole = answers.response("resp_" + asked.id, finished=not background, background=background)
    asked.charge_tokens(answers.INPUT, answers.OUTPUT)
    if not asked.body.get("stream"):
        return web.json_response(whole)
    response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
    await response.prepare(request)
    for event in jobs.response_events(whole):
        await response.write(f"event: {event['type']}\ndata: {json.dumps(event)}\n\n".encode())
    return response


async def _batches(request: web.Request, asked: answers.Asked) -> web.StreamResponse:
    if request.method == "POST":
        asked.account.dollars += 2 * prices.charge("gpt-4o-mini", answers.INPUT, answers.OUTPUT) * prices.BATCH
        return web.json_response(answers.batch("batch_" + asked.id, finished=False))
    job = asked.tail.rpartition("/")[2].partition("?")[0]
    asked.account.jobs[job] += 1
    return web.json_response(answers.batch(job, finished=asked.account.jobs[job] > UNFINISHED_POLLS))


async def _plain(_: web.Request, asked: answers.Asked) -> web.StreamResponse:
    return answers.plain(asked)


async def _talk(request: web.Request, account: Account) -> web.StreamResponse:
    socket = web.WebSocketResponse()
    await socket.prepare(request)
    session = {"id": "sess_1", "model": "gpt-realtime"}
    await socket.send_json({"type": "session.created", "event_id": "e1", "session": session})
    async for message in socket:
        if message.type == WSMsgType.TEXT and json.loads(message.data).get("type") == "response.create":
            account.dollars += prices.charge("gpt-realtime", answers.INPUT, answers.OUTPUT)
            done = {"id": "resp_rt", "object": "realtime.response", "status": "completed", "output": []}
            await socket.send_json(
                {"type": "response.done", "event_id": "e2", "response": done | {"usage": answers.REALTIME}}
            )
    return socket


_HANDLERS: dict[str, Callable[[web.Request, answers.Asked], Awaitable[web.StreamResponse]]] = {
    "chat/completions": _chat,
    "responses": _responses,
    "batches": _batches,
    "messages": _messages,
    "": _plain,
}
