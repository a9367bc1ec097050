"""On loopback: a provider for every kind of call that records the key of each request, and a management API that
records the plugin's requests.
"""

import json
from dataclasses import dataclass, field
from typing import Any

from aiohttp import WSMsgType, web

_USAGE = {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15}
_TEXT = {"type": "output_text", "text": "hello", "annotations": []}
_MESSAGE = {"type": "message", "id": "msg_1", "role": "assistant", "status": "completed", "content": [_TEXT]}
_BATCH = {
    "id": "batch_1",
    "object": "batch",
    "endpoint": "/v1/chat/completions",
    "input_file_id": "file-1",
    "completion_window": "24h",
}
_CHAT = {
    "id": "chatcmpl-1",
    "object": "chat.completion",
    "created": 1,
    "model": "gpt-4o-mini",
    "choices": [{"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": "hello"}}],
    "usage": _USAGE,
}
#: Answers by the end of the path.
_ANSWERS: dict[str, Any] = {
    "chat/completions": _CHAT,
    "/completions": {
        **_CHAT,
        "object": "text_completion",
        "choices": [{"index": 0, "finish_reason": "stop", "text": "hello"}],
    },
    "embeddings": {
        "object": "list",
        "model": "m",
        "data": [{"object": "embedding", "index": 0, "embedding": [0.1]}],
        "usage": _USAGE,
    },
    "responses": {
        "id": "resp_1",
        "object": "response",
        "created_at": 1,
        "status": "completed",
        "model": "gpt-4o-mini",
        "output": [_MESSAGE],
        "parallel_tool_calls": True,
        "tool_choice": "auto",
        "tools": [],
        "metadata": {},
        "usage": {"input_tokens": 10, "output_tokens": 5, "total_tokens": 15},
    },
    "images/generations": {"created": 1, "data": [{"b64_json": "aGVsbG8="}]},
    "images/edits": {"created": 1, "data": [{"b64_json": "aGVsbG8="}]},
    "transcriptions": {"text": "hello"},
    "moderations": {
        "id": "modr-1",
        "model": "omni-moderation-latest",
        "results": [{"flagged": False, "categories": {}, "category_scores": {}}],
    },
    "rerank": {
        "id": "rr-1",
        "results": [{"index": 0, "relevance_score": 0.9}],
        "meta": {"billed_units": {"search_units": 1}},
    },
    "messages": {
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "model": "claude-3-5-haiku-20241022",
        "stop_reason": "end_turn",
        "content": [{"type": "text", "text": "hello"}],
        "usage": {"input_tokens": 10, "output_tokens": 5},
    },
    "files": {
        "id": "file-1",
        "object": "file",
        "bytes": 1,
        "created_at": 1,
        "filename": "a.jsonl",
        "purpose": "batch",
        "status": "processed",
    },
    "batches": {
        **_BATCH,
        "status": "in_progress",
        "created_at": 1,
        "request_counts": {"total": 1, "completed": 0, "failed": 0},
    },
    "videos": {
        "id": "video_1",
        "object": "video",
        "status": "queued",
        "created_at": 1,
        "model": "sora-2",
        "seconds": "4",
        "progress": 0,
    },
    "client_secrets": {
        "value": "ek_1",
        "expires_at": 2000000000,
        "session": {"type": "realtime", "model": "gpt-realtime"},
    },
    "generateContent": {
        "candidates": [
            {"content": {"role": "model", "parts": [{"text": "hello"}]}, "finishReason": "STOP", "index": 0}
        ],
        "usageMetadata": {"promptTokenCount": 10, "candidatesTokenCount": 5, "totalTokenCount": 15},
    },
}


@dataclass
class Provider:
    """Answers everything. Fields: asked: path and key of each request; fails: HTTP status instead of answers, by model."""

    asked: list[tuple[str, str]] = field(default_factory=list)
    fails: dict[str, int] = field(default_factory=dict)

    def app(self) -> web.Application:
        app = web.Application(client_max_size=1 << 26)
        app.add_routes([web.route("*", "/{path:.*}", self._answer)])
        return app

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        headers = request.headers
        key = headers.get("Authorization", "").removeprefix("Bearer ") or headers.get("x-api-key", "")
        self.asked.append((request.path, key or headers.get("x-goog-api-key", "") or request.query.get("key", "")))
        if headers.get("Upgrade", "").lower() == "websocket":
            return await self._talk(request)
        body = await request.read()
        for model, status in self.fails.items():
            if model.encode() in body:
                return web.json_response({"error": {"message": "it fails", "type": "server_error"}}, status=status)
        if request.path.endswith("audio/speech"):
            return web.Response(body=b"sound", content_type="audio/mpeg")
        for ending, answer in _ANSWERS.items():
            if request.path.endswith(ending):
                return web.json_response(answer)
        return web.json_response({"id": "x", "object": "unknown", "data": []})

    async def _talk(self, request: web.Request) -> web.WebSocketResponse:
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        await socket.send_json(
            {"type": "session.created", "event_id": "e1", "session": {"id": "sess_1", "model": "gpt-realtime"}}
        )
        async for message in socket:
            if message.type == WSMsgType.TEXT:
                usage = {"input_tokens": 10, "output_tokens": 5, "total_tokens": 15}
                done = {
                    "id": "resp_1",
                    "object": "realtime.response",
                    "status": "completed",
                    "output": [],
                    "usage": usage,
                }
                await socket.send_json({"type": "response.done", "event_id": "e2", "response": done})
        return socket


@dataclass
class Api:
    """The management API's part for the plugin.

    Fields:
        reserved: call id by reservation; released: reservations that were given back.
        keys: the users' keys, by user and provider; resolved: how often one was asked for.
        status: HTTP status of every answer; 0 = a good one.
    """

    reserved: dict[str, str] = field(default_factory=dict)
    released: list[str] = field(default_factory=list)
    keys: dict[tuple[str, str], str] = field(default_factory=dict)
    resolved: int = 0
    status: int = 0

    def app(self) -> web.Application:
        app = web.Application()
        app.add_routes(
            [
                web.post("/api/v1/credits/authorize", self._authorize),
                web.delete("/api/v1/credits/authorize/{id}", self._release),
                web.post("/api/v1/provider-keys/resolve", self._resolve),
                web.get("/api/v1/power-levels", self._levels),
            ]
        )
        return app

    async def _authorize(self, request: web.Request) -> web.Response:
        if self.status:
            return web.json_response({"reason": "as the trial wants it"}, status=self.status)
        body = await request.json()
        reservation = f"reservation-{len(self.reserved)}"
        self.reserved[reservation] = body["call_id"]
        return web.json_response({"authorized": True, "reservation_id": reservation, "available": "1"})

    async def _release(self, request: web.Request) -> web.Response:
        self.released.append(request.match_info["id"])
        return web.json_response({"released": True})

    async def _resolve(self, request: web.Request) -> web.Response:
        self.resolved += 1
        body = json.loads(await request.read())
        if (key := self.keys.get((body["user_id"], body["provider"]))) is None:
            return web.json_response({"reason": "no_provider_key"}, status=404)
        return web.json_response({**body, "key_id": "pk_1", "key_name": "default", "api_key": key})

    async def _levels(self, _: web.Request) -> web.Response:
        orders = {"eco": ["openai"], "balanced": ["openai"], "precision": ["anthropic", "openai"]}
        return web.json_response(
            {"power_levels": [{"power_level": name, "provider_order": order} for name, order in orders.items()]}
        )
