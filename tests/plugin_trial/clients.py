"""Clients of a proxy that record which calls were answered completely: those must be billed."""

import asyncio
import itertools
import time
from dataclasses import dataclass, field
from typing import Any

import httpx

from tests.plugin_trial.proxies import KEY

_MESSAGES = [{"role": "user", "content": "say hello"}]
_CHAT: dict[str, Any] = {"model": "gpt-4o-mini", "messages": _MESSAGES, "user": "customer-1"}
#: Path, body, and the last thing that a client of a stream reads.
KINDS: dict[str, tuple[str, dict[str, Any], str]] = {
    "chat": ("/v1/chat/completions", _CHAT, ""),
    "chat, streamed": ("/v1/chat/completions", {**_CHAT, "stream": True}, "data: [DONE]"),
    "messages": ("/v1/messages", {**_CHAT, "max_tokens": 99}, ""),
    "messages, streamed": ("/v1/messages", {**_CHAT, "max_tokens": 99, "stream": True}, '"message_stop"'),
    "responses": ("/v1/responses", {"model": "gpt-4o-mini", "input": "say hello", "user": "customer-1"}, ""),
    "responses, streamed": (
        "/v1/responses",
        {"model": "gpt-4o-mini", "input": "say hello", "user": "customer-1", "stream": True},
        '"response.completed"',
    ),
    "embeddings": ("/v1/embeddings", {"model": "text-embedding-3-small", "input": "hello", "user": "customer-1"}, ""),
    "chat that wants no log": ("/v1/chat/completions", {**_CHAT, "no-log": True}, ""),
}


@dataclass
class Clients:
    """Several clients in turn with each kind of call.

    Fields:
        answered: kind of call by its call id, for each that was answered in full.
        refused: HTTP status of answers other than 200.
        cut: calls that ended without their answer.
    """

    answered: dict[str, str] = field(default_factory=dict)
    refused: list[int] = field(default_factory=list)
    cut: int = 0
    _turn: Any = field(default_factory=lambda: itertools.cycle(KINDS))

    async def call(self, client: httpx.AsyncClient, url: str, kind: str) -> float:
        """One call; its duration in seconds until its end was read."""
        path, body, last = KINDS[kind]
        began = time.perf_counter()
        try:
            async with client.stream("POST", url + path, json=body) as answer:
                call_id = answer.headers.get("x-litellm-call-id", "")
                read = ""
                async for text in answer.aiter_text():
                    read += text
                    if last and last in read:  # such a client does not wait for the end of the connection
                        break
        except httpx.HTTPError:
            self.cut += 1
            return 0.0
        took = time.perf_counter() - began
        if answer.status_code != httpx.codes.OK:
            self.refused.append(answer.status_code)
        elif last in read and "error" not in read[:40]:
            self.answered[call_id] = kind
        else:
            self.cut += 1
        return took

    async def load(self, url: str, clients: int, stop: asyncio.Event) -> None:
        """Send calls until `stop` is set."""
        limits = httpx.Limits(max_connections=clients)
        headers = {"Authorization": f"Bearer {KEY}"}
        async with httpx.AsyncClient(headers=headers, timeout=30, trust_env=False, limits=limits) as client:

            async def one() -> None:
                while not stop.is_set():
                    await self.call(client, url, next(self._turn))

            await asyncio.gather(*(one() for _ in range(clients)))
