"""Scenarios: every other kind of endpoint."""

import io
import wave

from tests.litellm_matrix.answers import CHARACTERS, SECONDS
from tests.litellm_matrix.scenario import HELLO, LONG, Ask, Model, key_of, scenario

_CLAUDE = "anthropic/claude-sonnet-4-5-20250929"


def _sound() -> bytes:
    """A minute of silence."""
    file = io.BytesIO()
    with wave.open(file, "wb") as sound:
        sound.setnchannels(1)
        sound.setsampwidth(1)
        sound.setframerate(1000)
        sound.writeframes(b"\x80" * 1000 * SECONDS)
    return file.getvalue()


@scenario(
    "text-completion",
    "`/v1/completions`",
    "kinds",
    models=(Model("text-completion", "text-completion-openai/gpt-3.5-turbo-instruct"),),
)
async def _text(ask: Ask) -> None:
    await ask.post("/v1/completions", {"model": "text-completion", "prompt": "hello"})


@scenario("embeddings", "`/v1/embeddings`", "kinds", models=(Model("embeddings", "openai/text-embedding-3-small"),))
async def _embeddings(ask: Ask) -> None:
    await ask.post("/v1/embeddings", {"model": "embeddings", "input": "hello"})


@scenario(
    "moderation", "`/v1/moderations`, free", "kinds", models=(Model("moderation", "openai/omni-moderation-latest"),)
)
async def _moderation(ask: Ask) -> None:
    await ask.post("/v1/moderations", {"model": "moderation", "input": "hello"})


@scenario("image", "`/v1/images/generations`", "kinds", models=(Model("image", "openai/gpt-image-1"),))
async def _image(ask: Ask) -> None:
    await ask.post("/v1/images/generations", {"model": "image", "prompt": "a boat"})


@scenario(
    "transcription",
    "`/v1/audio/transcriptions`, a minute",
    "kinds",
    models=(Model("transcription", "openai/whisper-1"),),
)
async def _transcription(ask: Ask) -> None:
    files = {"file": ("a.wav", _sound(), "audio/wav")}
    await ask.post("/v1/audio/transcriptions", data={"model": "transcription"}, files=files)


@scenario("speech", "`/v1/audio/speech`, 1000 characters", "kinds", models=(Model("speech", "openai/tts-1"),))
async def _speech(ask: Ask) -> None:
    await ask.post("/v1/audio/speech", {"model": "speech", "input": "x" * CHARACTERS, "voice": "alloy"})


@scenario("rerank", "`/v1/rerank`", "kinds", models=(Model("rerank", "cohere/rerank-v3.5"),))
async def _rerank(ask: Ask) -> None:
    await ask.post("/v1/rerank", {"model": "rerank", "query": "hello", "documents": ["hello"]})


@scenario("messages", "Anthropic's `/v1/messages`", "kinds", models=(Model("messages", _CLAUDE),))
async def _messages(ask: Ask) -> None:
    await ask.post("/v1/messages", {"model": "messages", "messages": HELLO, "max_tokens": 9})


@scenario("messages-stream", "the same, streamed", "kinds", models=(Model("messages-stream", _CLAUDE),))
async def _messages_stream(ask: Ask) -> None:
    await ask.stream("/v1/messages", max_tokens=9)


@scenario("messages-bridge", "`/v1/messages` to a model of OpenAI's", "kinds")
async def _messages_bridge(ask: Ask) -> None:
    await ask.post("/v1/messages", {"model": "messages-bridge", "messages": HELLO, "max_tokens": 9})


@scenario("responses", "`/v1/responses`", "kinds")
async def _responses(ask: Ask) -> None:
    await ask.post("/v1/responses", {"model": "responses", "input": "hello"})


@scenario("responses-stream", "the same, streamed", "kinds")
async def _responses_stream(ask: Ask) -> None:
    await ask.stream("/v1/responses", input="hello", messages=None)


@scenario(
    "responses-bridge",
    "`/v1/responses` to a model of Anthropic's",
    "kinds",
    models=(Model("responses-bridge", _CLAUDE),),
)
async def _responses_bridge(ask: Ask) -> None:
    await ask.post("/v1/responses", {"model": "responses-bridge", "input": "hello"})


@scenario("background", "a response in the background, read four times", "kinds")
async def _background(ask: Ask) -> None:
    created = await ask.post("/v1/responses", {"model": "background", "input": "hello", "background": True})
    if created.is_success:
        await ask.get("/v1/responses/" + created.json()["id"], 4)


@scenario("batch", "a batch of two calls, read four times", "kinds")
async def _batch(ask: Ask) -> None:
    body = {"input_file_id": "file-in", "endpoint": "/v1/chat/completions", "completion_window": "24h"}
    created = await ask.post("/v1/batches", body)
    if created.is_success:
        await ask.get("/v1/batches/" + created.json()["id"], 4)


@scenario("files", "a file, put and listed", "kinds")
async def _files(ask: Ask) -> None:
    line = b'{"custom_id":"1","method":"POST","url":"/v1/chat/completions","body":{"model":"gpt-4o-mini"}}'
    await ask.post("/v1/files", data={"purpose": "batch"}, files={"file": ("a.jsonl", line, "application/jsonl")})


@scenario("video", "four seconds of a video, read twice", "kinds", models=(Model("video", "openai/sora-2"),))
async def _video(ask: Ask) -> None:
    form = {"model": "video", "prompt": "a boat", "seconds": "4"}
    created = await ask.post("/v1/videos", files={name: (None, text) for name, text in form.items()})
    if created.is_success:
        await ask.get("/v1/videos/" + created.json()["id"], 2)


@scenario("realtime", "a realtime session with one answer", "kinds", models=(Model("realtime", "openai/gpt-realtime"),))
async def _realtime(ask: Ask) -> None:
    await ask.talk("/v1/realtime?model=realtime")


@scenario("pass-anthropic", "LiteLLM's pass-through `/anthropic`", "kinds")
async def _pass_anthropic(ask: Ask) -> None:
    body = {"model": "claude-sonnet-4-5-20250929", "messages": HELLO, "max_tokens": 9}
    await ask.post("/anthropic/v1/messages", body)


@scenario("pass-anthropic-stream", "the same, streamed", "kinds")
async def _pass_anthropic_stream(ask: Ask) -> None:
    await ask.stream("/anthropic/v1/messages", model="claude-sonnet-4-5-20250929", messages=LONG, max_tokens=9)


@scenario("pass-gemini", "LiteLLM's pass-through `/gemini`", "kinds")
async def _pass_gemini(ask: Ask) -> None:
    body = {"contents": [{"parts": [{"text": "hello"}]}]}
    path = "/gemini/v1beta/models/gemini-2.5-flash:generateContent"
    await ask.post(path, body, headers={"x-goog-api-key": key_of(ask.scenario.name)})


@scenario("pass-own", "a pass-through endpoint of the operator's, which LiteLLM cannot price", "kinds")
async def _pass_own(ask: Ask) -> None:
    await ask.post("/passing", {"model": "gpt-4o-mini", "messages": HELLO})
