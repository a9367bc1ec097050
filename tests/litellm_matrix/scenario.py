"""What a scenario is, and what it can do: calls with one key through a proxy."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any, Protocol

import aiohttp
import httpx

from tests.litellm_matrix.answers import PROMPT
from tests.litellm_matrix.provider import Script

HELLO = [{"role": "user", "content": "hello"}]
LONG = [{"role": "user", "content": PROMPT}]


class Proxies(Protocol):
    """What delivery scenarios can do to a proxy."""

    def arrived_at(self, endpoint: str) -> int:
        """How many calls have arrived there."""

    async def arrived(self, endpoint: str, calls: int) -> None:
        """Wait until that many calls have arrived there."""

    async def end(self, proxy: str, *, kill: bool) -> None:
        """SIGKILL, or SIGTERM and wait."""


@dataclass(frozen=True)
class Model:
    """A deployment. Fields: name: the model group; at: the scenario whose account the provider charges."""

    name: str
    model: str = "openai/gpt-4o-mini"
    params: Mapping[str, Any] = field(default_factory=dict)
    at: str = ""


@dataclass(frozen=True)
class Scenario:
    """One kind of call.

    Fields:
        what: what happens, in a few words, for the table.
        owed: dollars owed where it is not what the provider charged.
        who: the owner of the key, as `UserAPIKeyAuth` has it; None = the proxy does not know the key.
        proxy: which proxy is called.
        route: the callback whose posts count; `""` = the proxy's only one.
        last: it ends the proxy, so it runs after the others.
    """

    name: str
    what: str
    run: "Callable[[Ask], Awaitable[None]]"
    chapter: str
    models: tuple[Model, ...] = ()
    script: Script = field(default_factory=Script)
    who: Mapping[str, Any] | None = field(default_factory=dict)
    owed: Decimal | None = None
    proxy: str = "main"
    route: str = ""
    last: bool = False

    @property
    def endpoint(self) -> str:
        """The endpoint to which its calls are posted."""
        return self.route or self.proxy

    @property
    def deployments(self) -> tuple[Model, ...]:
        """The models of the scenario; one with the scenario's name if it declares none."""
        return self.models or (Model(self.name),)


def key_of(name: str) -> str:
    """The key of a scenario's client."""
    return "sk-matrix-" + name


SCENARIOS: dict[str, Scenario] = {}


def scenario(
    name: str, what: str, chapter: str, **more: Any
) -> "Callable[[Callable[[Ask], Awaitable[None]]], Callable[[Ask], Awaitable[None]]]":
    """Register a function as a scenario."""

    def register(run: "Callable[[Ask], Awaitable[None]]") -> "Callable[[Ask], Awaitable[None]]":
        SCENARIOS[name] = Scenario(name, what, run, chapter, **more)
        return run

    return register


@dataclass
class Ask:
    """A client with the key of one scenario. `seen`: its answers, in order."""

    scenario: Scenario
    client: httpx.AsyncClient
    proxies: Proxies
    seen: list[str] = field(default_factory=list)

    async def post(self, path: str, body: Any = None, **more: Any) -> httpx.Response:
        """POST JSON, with the arguments in `more` for httpx."""
        answer = await self.client.post(path, **({"json": body} if body is not None else {}), **more)
        self.seen.append(str(answer.status_code))
        return answer

    async def get(self, path: str, times: int = 1) -> None:
        """GET the same path again and again."""
        for _ in range(times):
            self.seen.append(str((await self.client.get(path)).status_code))

    async def chat(self, model: str = "", headers: Mapping[str, str] | None = None, **more: Any) -> httpx.Response:
        """A chat completion of the scenario's own model."""
        body = {"model": model or self.scenario.name, "messages": HELLO, **more}
        return await self.post("/v1/chat/completions", body, headers=dict(headers or {}))

    async def stream(self, path: str = "/v1/chat/completions", *, leave_after: int = 0, **more: Any) -> None:
        """A stream that is read to its end, or closed after this number of events."""
        body = {"model": self.scenario.name, "messages": LONG, "stream": True, **more}
        events, end = 0, "ended"
        try:
            async with self.client.stream("POST", path, json=body) as answer:
                async for line in answer.aiter_lines():
                    events += line.startswith("data:") and "[DONE]" not in line
                    if leave_after and events >= leave_after:
                        end = "left"
                        break
                    if '"error"' in line:
                        end = "an error inside"
                self.seen.append(f"{answer.status_code}, {end}")
        except httpx.TransportError as error:
            self.seen.append(f"cut: {type(error).__name__}")

    async def talk(self, path: str) -> None:
        """A realtime session with one answer."""
        url = str(self.client.base_url).rstrip("/").replace("http", "ws", 1) + path
        headers = {"Authorization": self.client.headers["Authorization"]}
        async with aiohttp.ClientSession(headers=headers) as session:
            try:
                async with session.ws_connect(url) as socket:
                    await asyncio.wait_for(socket.receive(), 120)
                    await socket.send_json({"type": "response.create"})
                    await asyncio.wait_for(socket.receive(), 120)
                    self.seen.append("101")
            except (aiohttp.ClientError, TimeoutError) as error:
                self.seen.append(f"no session: {getattr(error, 'status', type(error).__name__)}")
