"""A provider on loopback with OpenAI's routes: chat, files, batches, background responses, videos.

Every answer is made up; what matters is what LiteLLM reports of it. A job is finished at its fourth poll.
"""

import json
import time
from collections import Counter
from typing import Any

from aiohttp import web

from tests.proxy import jobs

#: Polls that a job answers as unfinished.
UNFINISHED_POLLS = 3
_TOKENS = {"prompt_tokens": 1000, "completion_tokens": 500, "total_tokens": 1500}
_RESPONSE_TOKENS = jobs.response_tokens(1000, 500)


class Provider:
    """State of one provider: the created objects, and how often each was polled."""

    def __init__(self) -> None:
        self._polls: Counter[str] = Counter()
        self._made: dict[str, int] = {}
        self._background: set[str] = set()

    def app(self) -> web.Application:
        """The routes below `/v1`."""
        app = web.Application(client_max_size=1 << 26)
        app.add_routes(
            [
                web.post("/v1/chat/completions", self._chat),
                web.post("/v1/embeddings", self._embeddings),
                web.post("/v1/files", self._file),
                web.get("/v1/files/{id}/content", self._content),
                web.post("/v1/batches", self._new_batch),
                web.get("/v1/batches/{id}", self._batch),
                web.post("/v1/responses", self._new_response),
                web.get("/v1/responses/{id}", self._response),
                web.post("/v1/videos", self._new_video),
                web.get("/v1/videos/{id}", self._video),
            ]
        )
        return app

    def _id(self, kind: str) -> str:
        created = f"{kind}_{len(self._made):04d}{time.time_ns():x}"
        self._made[created] = int(time.time())
        return created

    def _done(self, job: str) -> bool:
        self._polls[job] += 1
        return self._polls[job] > UNFINISHED_POLLS

    async def _chat(self, request: web.Request) -> web.StreamResponse:
        body = await request.json()
        whole = _completion(self._id("chatcmpl"), body["model"])
        return await _streamed(request, whole) if body.get("stream") else web.json_response(whole)

    async def _embeddings(self, request: web.Request) -> web.Response:
        body = await request.json()
        embedded = {"object": "embedding", "index": 0, "embedding": [0.1, 0.2]}
        usage = {"prompt_tokens": 1000, "total_tokens": 1000}
        return web.json_response({"object": "list", "model": body["model"], "data": [embedded], "usage": usage})

    async def _file(self, request: web.Request) -> web.Response:
        await request.read()
        file = {"id": self._id("file"), "object": "file", "bytes": 10, "filename": "in.jsonl", "purpose": "batch"}
        return web.json_response({**file, "created_at": int(time.time()), "status": "processed"})

    async def _content(self, _: web.Request) -> web.Response:
        lines = [
            {
                "id": f"line-{number}",
                "custom_id": str(number),
                "response": {"status_code": 200, "body": _completion(f"chatcmpl-{number}", "gpt-4o-mini")},
                "error": None,
            }
            for number in range(2)
        ]
        return web.Response(text="\n".join(map(json.dumps, lines)), content_type="application/jsonl")

    async def _new_batch(self, _: web.Request) -> web.Response:
        return web.json_response(self._as_batch(self._id("batch"), finished=False))

    async def _batch(self, request: web.Request) -> web.Response:
        job = request.match_info["id"]
        return web.json_response(self._as_batch(job, finished=self._done(job)))

    def _as_batch(self, job: str, *, finished: bool) -> dict[str, Any]:
        return jobs.batch(job, made_at=self._made[job], finished=finished)

    async def _new_response(self, request: web.Request) -> web.StreamResponse:
        body = await request.json()
        background = bool(body.get("background"))
        job = self._id("resp")
        if background:
            self._background.add(job)
        whole = self._as_response(job, finished=not background)
        if not body.get("stream"):
            return web.json_response(whole)
        return await _sent(request, jobs.response_events(whole), "")

    async def _response(self, request: web.Request) -> web.Response:
        job = request.match_info["id"]
        finished = self._done(job) or job not in self._background
        return web.json_response(self._as_response(job, finished=finished))

    def _as_response(self, job: str, *, finished: bool) -> dict[str, Any]:
        background = job in self._background
        return jobs.response(job, _RESPONSE_TOKENS, made_at=self._made[job], finished=finished, background=background)

    async def _new_video(self, request: web.Request) -> web.Response:
        await request.read()
        return web.json_response(self._as_video(self._id("video"), finished=False))

    async def _video(self, request: web.Request) -> web.Response:
        job = request.match_info["id"]
        return web.json_response(self._as_video(job, finished=self._done(job)))

    def _as_video(self, job: str, *, finished: bool) -> dict[str, Any]:
        state = {"status": "completed" if finished else "in_progress", "progress": 100 * finished}
        shape = {"model": "sora-2", "seconds": "4", "size": "720x1280"}
        return {"id": job, "object": "video", "created_at": self._made[job], **state, **shape}


def _completion(completion_id: str, model: str) -> dict[str, Any]:
    choice = {"index": 0, "message": {"role": "assistant", "content": "hello"}, "finish_reason": "stop"}
    created = {"id": completion_id, "object": "chat.completion", "created": int(time.time()), "model": model}
    return {**created, "choices": [choice], "usage": _TOKENS}


async def _streamed(request: web.Request, whole: dict[str, Any]) -> web.StreamResponse:
    """The same completion as events, word by word."""
    head = {name: whole[name] for name in ("id", "created", "model")} | {"object": "chat.completion.chunk"}
    words = [{"role": "assistant", "content": ""}, *({"content": word} for word in ("hel", "lo", "!"))]
    choices: list[list[dict[str, Any]]] = [[{"index": 0, "delta": delta, "finish_reason": None}] for delta in words]
    choices.append([{"index": 0, "delta": {}, "finish_reason": "stop"}])
    events = [{**head, "choices": choice} for choice in choices]
    return await _sent(request, [*events, {**head, "choices": [], "usage": whole["usage"]}], "data: [DONE]\n\n")


async def _sent(request: web.Request, events: list[dict[str, Any]], end: str) -> web.StreamResponse:
    response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
    await response.prepare(request)
    for event in events:
        named = f"event: {event['type']}\n" if "type" in event else ""
        await response.write(f"{named}data: {json.dumps(event)}\n\n".encode())
    await response.write(end.encode())
    return response
