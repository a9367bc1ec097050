"""For each kind of endpoint of a real proxy: is the plugin asked before the call, with which id, and is the call logged
under that id?
"""

import asyncio
import json
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import httpx
from aiohttp import web

from meterbridge_litellm.lane import frames
from tests.plugin_trial.judge import SECRET
from tests.plugin_trial.neighbours import Api, Provider
from tests.plugin_trial.proxies import KEY, build_wheel, launcher, started
from tests.proxy.forked import ForkedProxy
from tests.support.ports import free_port

_PROVIDER_KEY = "sk-operator"
_MODELS = {
    **{
        name: "openai/" + name
        for name in ("gpt-4o-mini", "gpt-3.5-turbo-instruct", "text-embedding-3-small", "gpt-image-1")
    },
    **{name: "openai/" + name for name in ("whisper-1", "tts-1", "omni-moderation-latest", "sora-2", "gpt-realtime")},
    "rerank-v3.5": "cohere/rerank-v3.5",
    "claude-3-5-haiku": "anthropic/claude-3-5-haiku-20241022",
    "gemini-2.0-flash": "gemini/gemini-2.0-flash",
}
OWN_KEY = "sk-of-the-user-0123456789"
_LOGGED_S = 1.0
#: Calls that the record names otherwise than the hook.
_OTHER_NAMES = {"aimage_generation", "atranscription", "arerank", "aanthropic_messages"}
_HELLO = [{"role": "user", "content": "hello"}]
#: What is posted: path, and JSON or a form with a file.
ENDPOINTS: dict[str, tuple[str, dict[str, Any]]] = {
    "chat": ("/v1/chat/completions", {"model": "gpt-4o-mini", "messages": _HELLO}),
    "text completion": ("/v1/completions", {"model": "gpt-3.5-turbo-instruct", "prompt": "hello"}),
    "messages": ("/v1/messages", {"model": "claude-3-5-haiku", "messages": _HELLO, "max_tokens": 9}),
    "responses": ("/v1/responses", {"model": "gpt-4o-mini", "input": "hello"}),
    "embeddings": ("/v1/embeddings", {"model": "text-embedding-3-small", "input": "hello"}),
    "images": ("/v1/images/generations", {"model": "gpt-image-1", "prompt": "a boat"}),
    "image edits": ("/v1/images/edits", {"model": "gpt-image-1", "prompt": "a boat", "FILE": ("image", "a.png")}),
    "transcription": ("/v1/audio/transcriptions", {"model": "whisper-1", "FILE": ("file", "a.wav")}),
    "speech": ("/v1/audio/speech", {"model": "tts-1", "input": "hello", "voice": "alloy"}),
    "moderation": ("/v1/moderations", {"model": "omni-moderation-latest", "input": "hello"}),
    "rerank": ("/v1/rerank", {"model": "rerank-v3.5", "query": "hello", "documents": ["hello"]}),
    "generateContent": (
        "/v1beta/models/gemini-2.0-flash:generateContent",
        {"contents": [{"parts": [{"text": "hello"}]}]},
    ),
    "videos": ("/v1/videos", {"model": "sora-2", "prompt": "a boat", "seconds": "4", "FORM": True}),
    "files": ("/v1/files", {"purpose": "batch", "FILE": ("file", "a.jsonl")}),
    "batches": (
        "/v1/batches",
        {"input_file_id": "file-1", "endpoint": "/v1/chat/completions", "completion_window": "24h"},
    ),
    "pass-through of the operator": (
        "/passing",
        {"model": "gpt-4o-mini", "messages": _HELLO, "litellm_call_id": "chosen"},
    ),
    "pass-through of LiteLLM, `/openai`": ("/openai/v1/chat/completions", {"model": "gpt-4o-mini", "messages": _HELLO}),
    "pass-through of LiteLLM, `/anthropic`": (
        "/anthropic/v1/messages",
        {"model": "claude-3-5-haiku-20241022", "messages": _HELLO, "max_tokens": 9},
    ),
    "pass-through of LiteLLM, `/gemini`": (
        "/gemini/v1beta/models/gemini-2.0-flash:generateContent",
        {"contents": [{"parts": [{"text": "hello"}]}]},
    ),
    "realtime secret": ("/v1/realtime/client_secrets", {"model": "gpt-realtime"}),
    "realtime": ("/v1/realtime?model=gpt-realtime", {"SOCKET": {"type": "response.create"}}),
}


def config(provider: str) -> dict[str, Any]:
    """A `config.yaml` in JSON. Args: provider: its base URL, without `/v1`."""

    def params(model: str) -> dict[str, Any]:
        base = provider if model.partition("/")[0] in {"anthropic", "gemini", "cohere"} else provider + "/v1"
        return {"model": model, "api_base": base, "api_key": _PROVIDER_KEY}

    passing = {
        "path": "/passing",
        "target": provider + "/v1/chat/completions",
        "headers": {"Authorization": "Bearer sk-operator"},
    }
    return {
        "model_list": [{"model_name": name, "litellm_params": params(model)} for name, model in _MODELS.items()],
        "files_settings": [{"custom_llm_provider": "openai", "api_base": provider + "/v1", "api_key": _PROVIDER_KEY}],
        "litellm_settings": {"callbacks": ["meterbridge_litellm.handler", "probe.handler"]},
        "general_settings": {
            "master_key": "sk-trial-master",
            "custom_auth": "trial_auth.user_api_key_auth",
            "pass_through_endpoints": [passing],
        },
    }


@asynccontextmanager
async def served(app: web.Application) -> AsyncIterator[str]:
    """An application on loopback; its URL."""
    runner, port = web.AppRunner(app, access_log=None), free_port()
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", port).start()
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        await runner.cleanup()


@asynccontextmanager
async def proxy_with(
    folder: Path, provider: Provider, api: Api, change: Any = None, **environ: str
) -> AsyncIterator[tuple[ForkedProxy, httpx.AsyncClient]]:
    """A proxy with the plugin and the probe, and a client of it.

    Args:
        change: takes the configuration and the provider's URL, and changes the configuration.
        environ: further variables of the plugin.
    """
    wheel = build_wheel(folder / "wheel")
    async with served(provider.app()) as at, served(api.app()) as management:
        text = config(at)
        if change is not None:
            change(text, at)
        whole = {
            "METERBRIDGE_URL": "http://127.0.0.1:9",
            "METERBRIDGE_SECRET": SECRET,
            "METERBRIDGE_RING_PATH": str(folder / "ring"),
            "METERBRIDGE_API_URL": management,
            "METERBRIDGE_API_KEY": "mb_trial",
            **{f"{name}_API_BASE": at for name in ("OPENAI", "ANTHROPIC", "GEMINI")},
            **{f"{name}_API_KEY": _PROVIDER_KEY for name in ("OPENAI", "ANTHROPIC", "GEMINI")},
            **environ,
        }
        forks = launcher(folder, wheel, whole)
        (folder / "proxy").mkdir()
        shutil.copy(Path(__file__).with_name("probe.py"), folder / "proxy" / "probe.py")
        proxy = started(forks, folder / "proxy", json.dumps(text), free_port())
        try:
            await proxy.up()
            headers = {"Authorization": f"Bearer {KEY}"}
            async with httpx.AsyncClient(base_url=proxy.url, headers=headers, timeout=60, trust_env=False) as client:
                yield proxy, client
        finally:
            await proxy.stop()
            forks.close()


async def call(client: httpx.AsyncClient, name: str, headers: dict[str, str] | None = None) -> int:
    """Call an endpoint; the HTTP status of its answer."""
    path, body = ENDPOINTS[name]
    if "SOCKET" in body:
        return await _talk(
            str(client.base_url).rstrip("/").replace("http", "ws", 1) + path, body["SOCKET"], headers or {}
        )
    if "FILE" in body:
        form, (field, filename) = dict(body), body["FILE"]
        del form["FILE"]
        kind = {"a.wav": "audio/wav", "a.png": "image/png", "a.jsonl": "application/jsonl"}[filename]
        content = b'{"custom_id":"1","method":"POST","url":"/v1/chat/completions","body":{"model":"gpt-4o-mini"}}'
        answer = await client.post(path, data=form, files={field: (filename, content, kind)}, headers=headers)
    elif "FORM" in body:
        files = {key: (None, str(value)) for key, value in body.items() if key != "FORM"}
        answer = await client.post(path, files=files, headers=headers)
    else:
        answer = await client.post(path, json=body, headers=headers)
    return answer.status_code


async def _talk(url: str, message: dict[str, Any], headers: dict[str, str]) -> int:
    async with aiohttp.ClientSession(headers={"Authorization": f"Bearer {KEY}", **headers}) as session:
        try:
            async with session.ws_connect(url, timeout=aiohttp.ClientWSTimeout(ws_close=5)) as socket:
                await asyncio.wait_for(socket.receive(), 10)
                await socket.send_json(message)
                await asyncio.wait_for(socket.receive(), 10)
                return 101
        except (aiohttp.ClientError, TimeoutError) as error:
            return getattr(error, "status", 0)


async def try_endpoints(folder: Path) -> tuple[list[str], list[str]]:
    """Try each endpoint: as it is, with an id that the client chose, by a user with an own key, and while the provider fails.

    Returns:
        What is wrong, and the rows of a Markdown table, which are printed.
    """
    provider, api = Provider(), Api()
    rows = [
        "| endpoint | `call_type` before the call | its id | logged under it | given back if it fails | own key |",
        "|---|---|---|---|---|---|",
    ]

    def marked(text: dict[str, Any], _provider: str) -> None:
        text["router_settings"] = {"num_retries": 0}
        for each in text["model_list"]:
            each["model_info"] = {"own_key_provider": each["litellm_params"]["model"].partition("/")[0]}

    environ = {"METERBRIDGE_AUTHORIZE": "on", "METERBRIDGE_OWN_KEYS": "billed", "METERBRIDGE_OWN_KEY_SECONDS": "0"}
    async with proxy_with(folder, provider, api, marked, **environ) as (_, client):
        for name in ENDPOINTS:
            rows.append(await _row(name, folder / "proxy" / "probe.jsonl", client, provider, api))
            print(rows[-1], flush=True)
    wrong = [f"{path} has a user's key" for path in files_with(OWN_KEY, folder)]
    if "chosen-by-the-client" in api.reserved.values():
        wrong.append("a client chose the id of a reservation")
    records = ring_of(folder)
    marked_own = {record["call_type"] for record in records if record.get("byok")}
    print(f"{len(records)} records, of calls on own keys: {sorted(marked_own)}", flush=True)
    taken = {row.partition("`")[2].partition("`")[0] for row in rows[2:] if row.endswith("| yes |")}
    if not marked_own <= taken | _OTHER_NAMES:
        wrong.append(f"the record says own key, and the provider saw another: {sorted(marked_own - taken)}")
    return wrong, rows


async def _row(name: str, notes: Path, client: httpx.AsyncClient, provider: Provider, api: Api) -> str:
    seen, asked = len(read(notes)), {*api.reserved}
    status = await call(client, name)
    await asyncio.sleep(_LOGGED_S)
    new, ids = read(notes)[seen:], {api.reserved[each] for each in {*api.reserved} - asked}
    before = [note for note in new if note["at"] == "before"]
    kinds = ", ".join(f"`{note['call_type']}`" for note in before) or "none"
    carried = (
        "no" if not ids else "in the data" if any(note["data_id"] in ids for note in before) else "in LiteLLM's object"
    )
    logged = bool(ids & {note["id"] for note in new if note["at"] == "logged"})

    chosen = await call(client, name, {"x-litellm-call-id": "chosen-by-the-client"})
    sent = len(provider.asked)
    api.keys = {("trial-user", provider_name): OWN_KEY for provider_name in ("openai", "anthropic", "gemini", "cohere")}
    with_key = await call(client, name)
    api.keys = {}
    own = {key for _, key in provider.asked[sent:]}

    provider.fails[""], seen, asked = 500, len(read(notes)), {*api.reserved}
    failed = await call(client, name)
    await asyncio.sleep(_LOGGED_S)
    provider.fails.clear()
    created = {*api.reserved} - asked
    back = "yes" if created and created <= {*api.released} else "no" if created else ""
    print(
        "   ",
        name,
        status,
        chosen,
        with_key,
        failed,
        sorted(own),
        [note["at"] for note in read(notes)[seen:]],
        flush=True,
    )
    return f"| {name} | {kinds} | {carried} | {'yes' if logged else 'no'} | {back} | {'yes' if own == {OWN_KEY} else 'no'} |"


def ring_of(folder: Path) -> list[dict[str, Any]]:
    """The records in the ring: nothing posts them in these trials."""
    segments = sorted((folder / "ring").glob("*.seg"))
    return [json.loads(record) for path in segments for record, _ in frames(path.read_bytes())]


def files_with(text: str, folder: Path) -> list[Path]:
    """The files below a folder that contain a text: logs, the ring, the probe's records."""
    return [path for path in folder.rglob("*") if path.is_file() and text.encode() in path.read_bytes()]


def read(notes: Path) -> list[dict[str, Any]]:
    """What the probe has recorded."""
    return [json.loads(line) for line in notes.read_text().splitlines()] if notes.exists() else []
