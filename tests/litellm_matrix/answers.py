"""The answers of the matrix's provider, and the cost of each."""

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from aiohttp import web

from tests.litellm_matrix import prices
from tests.proxy import jobs

if TYPE_CHECKING:
    from tests.litellm_matrix.provider import Account, Script

#: Tokens of an ordinary answer: cents, not their fractions.
INPUT, OUTPUT = 100_000, 10_000
#: A stream has this many pieces of ten tokens each.
PIECES, PIECE = 100, " hello" * 10
STREAM_TOKENS = PIECES * 10
#: The prompt of a stream: LiteLLM counts it by itself where the provider tells no usage. 20000 words and their frame.
PROMPT, PROMPT_TOKENS = " hello" * 20_000, 20_007
SECONDS, CHARACTERS, IMAGE_TOKENS = 60, 1000, 4160
_CREATED_AT = 1_795_000_000
REALTIME = {
    "input_tokens": INPUT,
    "output_tokens": OUTPUT,
    "total_tokens": INPUT + OUTPUT,
    "input_token_details": {"text_tokens": INPUT, "audio_tokens": 0, "cached_tokens": 0},
    "output_token_details": {"text_tokens": OUTPUT, "audio_tokens": 0},
}


@dataclass(frozen=True)
class Asked:
    """A request to the provider."""

    scenario: str
    tail: str
    body: Mapping[str, Any]
    raw: bytes
    script: "Script"
    id: str
    step: str
    account: "Account"

    @property
    def model(self) -> str:
        """The requested model; a pass-through has it in the path."""
        return str(self.body.get("model") or ("gemini-2.5-flash" if "gemini" in self.tail else "gpt-4o-mini"))

    def charge_tokens(self, tokens_input: int, tokens_output: int, cached: int = 0) -> None:
        """Charge a call with these tokens to the account."""
        flex = self.script.tier == "flex"
        self.account.dollars += prices.charge(self.model, tokens_input, tokens_output, cached, flex=flex)

    def charge_chat(self, usage: Mapping[str, Any]) -> None:
        """Charge an OpenAI usage."""
        cached = (usage.get("prompt_tokens_details") or {}).get("cached_tokens", 0)
        self.charge_tokens(usage["prompt_tokens"], usage["completion_tokens"], cached)

    def charge_message(self, usage: Mapping[str, Any]) -> None:
        """Charge an Anthropic usage, whose input does not include what was cached."""
        cached, written = usage.get("cache_read_input_tokens", 0), usage.get("cache_creation_input_tokens", 0)
        self.charge_tokens(usage["input_tokens"] + cached, usage["output_tokens"], cached)
        self.account.dollars += written * prices.CACHE_WRITE

    def charge_stream(self) -> None:
        """A whole stream."""
        self.charge_tokens(PROMPT_TOKENS, STREAM_TOKENS)

    def charge_part(self, tokens: int) -> None:
        """A stream of which this number of tokens was generated."""
        self.charge_tokens(PROMPT_TOKENS, tokens)


def usage_of(asked: Asked) -> dict[str, Any]:
    """The tokens of a chat completion."""
    if asked.script.usage is not None:
        return dict(asked.script.usage)
    if asked.body.get("stream"):
        return _tokens(PROMPT_TOKENS, STREAM_TOKENS)
    return _tokens(INPUT, OUTPUT)


def _tokens(tokens_input: int, tokens_output: int) -> dict[str, Any]:
    both = {"prompt_tokens": tokens_input, "completion_tokens": tokens_output}
    return {**both, "total_tokens": tokens_input + tokens_output}


def completion(asked: Asked) -> dict[str, Any]:
    """A chat completion."""
    message: dict[str, Any] = {"role": "assistant", "content": "hello"}
    if asked.script.tools:
        call = {"id": "call_1", "type": "function", "function": {"name": "weather", "arguments": '{"in":"Rome"}'}}
        message = {"role": "assistant", "content": None, "tool_calls": [call]}
    choice = {"index": 0, "message": message, "finish_reason": "tool_calls" if asked.script.tools else "stop"}
    choices = [{**choice, "index": number} for number in range(asked.script.n)]
    whole = {"id": "chatcmpl-" + asked.id, "object": "chat.completion", "created": int(time.time())}
    tier = {"service_tier": asked.script.tier} if asked.script.tier else {}
    return {**whole, "model": asked.model, "choices": choices, "usage": usage_of(asked), **tier}


def chunks(whole: Mapping[str, Any], usage: Mapping[str, Any], *, with_usage: bool) -> list[dict[str, Any]]:
    """The same answer as a stream: PIECES pieces of text."""
    head = {name: whole[name] for name in ("id", "created", "model")} | {"object": "chat.completion.chunk"}
    deltas = [{"role": "assistant", "content": PIECE}, *[{"content": PIECE}] * (PIECES - 1)]
    events = [{**head, "choices": [{"index": 0, "delta": delta, "finish_reason": None}]} for delta in deltas]
    events.append({**head, "choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]})
    return [*events, {**head, "choices": [], "usage": dict(usage)}] if with_usage else events


def message(asked: Asked) -> dict[str, Any]:
    """Anthropic's answer."""
    usage = asked.script.usage or {"input_tokens": INPUT, "output_tokens": OUTPUT}
    if asked.body.get("stream"):
        usage = {"input_tokens": PROMPT_TOKENS, "output_tokens": STREAM_TOKENS}
    whole = {"id": "msg_" + asked.id, "type": "message", "role": "assistant", "model": asked.model}
    text = {"type": "text", "text": "hello"}
    return {**whole, "stop_reason": "end_turn", "stop_sequence": None, "content": [text], "usage": dict(usage)}


def message_events(whole: dict[str, Any]) -> list[dict[str, Any]]:
    """The same answer as a stream."""
    begun = {**whole, "content": [], "stop_reason": None, "usage": {**whole["usage"], "output_tokens": 1}}
    delta = {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": PIECE}}
    end = {"stop_reason": "end_turn", "stop_sequence": None}
    return [
        {"type": "message_start", "message": begun},
        {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
        *[delta] * PIECES,
        {"type": "content_block_stop", "index": 0},
        {"type": "message_delta", "delta": end, "usage": {"output_tokens": whole["usage"]["output_tokens"]}},
        {"type": "message_stop"},
    ]


def response(job: str, *, finished: bool, background: bool) -> dict[str, Any]:
    """A response of OpenAI's."""
    usage = jobs.response_tokens(INPUT, OUTPUT)
    return jobs.response(job, usage, made_at=_CREATED_AT, finished=finished, background=background)


def batch(job: str, *, finished: bool) -> dict[str, Any]:
    """A batch of two completions."""
    return jobs.batch(job, made_at=_CREATED_AT, finished=finished)


def _batch_output() -> str:
    usage = _tokens(INPUT, OUTPUT)
    choice = {"index": 0, "message": {"role": "assistant", "content": "hello"}, "finish_reason": "stop"}
    lines = [
        {
            "id": f"line-{number}",
            "custom_id": str(number),
            "error": None,
            "response": {
                "status_code": 200,
                "body": {
                    "id": f"chatcmpl-line-{number}",
                    "object": "chat.completion",
                    "created": _CREATED_AT,
                    "model": "gpt-4o-mini",
                    "choices": [choice],
                    "usage": usage,
                },
            },
        }
        for number in range(2)
    ]
    return "\n".join(map(json.dumps, lines))


def plain(asked: Asked) -> web.Response:
    """All other endpoints, by the end of the path."""
    tail, account = asked.tail, asked.account
    if tail.endswith("completions"):
        asked.charge_tokens(INPUT, OUTPUT)
        choice = {"index": 0, "finish_reason": "stop", "text": "hello", "logprobs": None}
        created = {"id": "cmpl-" + asked.id, "object": "text_completion", "created": 1, "model": asked.model}
        return web.json_response({**created, "choices": [choice], "usage": _tokens(INPUT, OUTPUT)})
    if tail.endswith("embeddings"):
        asked.charge_tokens(10 * INPUT, 0)
        data = [{"object": "embedding", "index": 0, "embedding": [0.1, 0.2]}]
        usage = {"prompt_tokens": 10 * INPUT, "total_tokens": 10 * INPUT}
        return web.json_response({"object": "list", "model": asked.model, "data": data, "usage": usage})
    if tail.endswith("moderations"):
        result = {"flagged": False, "categories": {}, "category_scores": {}}
        return web.json_response({"id": "modr-" + asked.id, "model": asked.model, "results": [result]})
    if tail.endswith("images/generations"):
        asked.charge_tokens(100, IMAGE_TOKENS)
        details = {"text_tokens": 100, "image_tokens": 0}
        usage = {"input_tokens": 100, "output_tokens": IMAGE_TOKENS, "total_tokens": 100 + IMAGE_TOKENS}
        shape = {"size": "1024x1024", "quality": "high", "output_format": "png", "background": "opaque"}
        whole = {"created": 1, "data": [{"b64_json": "aGVsbG8="}], **shape}
        return web.json_response({**whole, "usage": {**usage, "input_tokens_details": details}})
    if tail.endswith("transcriptions"):
        account.dollars += SECONDS * prices.SECOND
        return web.json_response(
            {"task": "transcribe", "language": "english", "duration": float(SECONDS), "text": "hello", "segments": []}
        )
    if tail.endswith("speech"):
        account.dollars += len(str(asked.body.get("input", ""))) * prices.CHARACTER
        return web.Response(body=b"sound", content_type="audio/mpeg")
    if tail.endswith("rerank"):
        account.dollars += prices.SEARCH
        found = [{"index": 0, "relevance_score": 0.9}]
        return web.json_response(
            {"id": "rr-" + asked.id, "results": found, "meta": {"billed_units": {"search_units": 1}}}
        )
    if tail.endswith("generateContent"):
        asked.charge_tokens(INPUT, OUTPUT)
        part = {"content": {"role": "model", "parts": [{"text": "hello"}]}, "finishReason": "STOP", "index": 0}
        usage = {"promptTokenCount": INPUT, "candidatesTokenCount": OUTPUT, "totalTokenCount": INPUT + OUTPUT}
        return web.json_response({"candidates": [part], "usageMetadata": usage, "modelVersion": "gemini-2.5-flash"})
    if "videos" in tail:
        if "/" not in tail.partition("videos")[2]:
            account.dollars += 4 * prices.VIDEO_SECOND
        state = {"id": "video_" + asked.scenario, "object": "video", "status": "completed", "created_at": 1}
        return web.json_response({**state, "model": "sora-2", "seconds": "4", "size": "720x1280", "progress": 100})
    if tail.endswith("content"):
        return web.Response(text=_batch_output(), content_type="application/jsonl")
    if "files" in tail:
        file = {"id": "file-" + asked.id, "object": "file", "bytes": 10, "created_at": 1, "filename": "in.jsonl"}
        return web.json_response({**file, "purpose": "batch", "status": "processed"})
    return web.json_response({"id": asked.id, "object": "unknown"}, status=404)
