"""With a real proxy: a user's own key reaches only its provider and ends when it is revoked, a power level gets its
model and its price, and if Meterbridge does not answer about credit the operator's limit applies.
"""

import asyncio
import json
import time
from pathlib import Path
from typing import Any

from tests.plugin_trial.endpoints import ENDPOINTS, OWN_KEY, call, files_with, proxy_with, ring_of
from tests.plugin_trial.neighbours import Api, Provider

_CALL: dict[str, Any] = {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "hello"}]}
_CACHED_S = 2
_LEVELS = {
    "eco": {
        "models": {"gpt-4o-mini": {"anthropic": "claude-3-5-haiku", "openai": "gpt-4o-mini"}},
        "params": {"max_tokens": 7},
    },
    "precision": {"models": {"*": {"openai": "gpt-4o-mini", "anthropic": "claude-3-5-haiku"}}},
}
_OPEN_USD = "0.02"


class Checks:
    """Collects the errors."""

    def __init__(self) -> None:
        self.wrong = list[str]()

    def that(self, is_true: bool, what: str) -> None:
        print(("ok        " if is_true else "MISMATCH  ") + what, flush=True)
        if not is_true:
            self.wrong.append(what)


def _with_fallbacks(text: dict[str, Any], _provider: str) -> None:
    text["router_settings"] = {"num_retries": 1, "retry_after": 0, "fallbacks": [{"gpt-4o-mini": ["claude-3-5-haiku"]}]}
    for each in text["model_list"]:
        each["model_info"] = {"own_key_provider": each["litellm_params"]["model"].partition("/")[0]}
    text["model_list"].append(
        {**text["model_list"][0], "model_name": "mixed"},
    )
    text["model_list"].append({**text["model_list"][0], "model_name": "mixed", "model_info": {}})


async def own_keys(folder: Path, check: Checks) -> None:
    """A key of the user's own; the provider and the model of the fallback are recorded."""
    provider, api = Provider(), Api()
    api.keys["trial-user", "openai"] = OWN_KEY
    environ = {"METERBRIDGE_OWN_KEYS": "billed", "METERBRIDGE_OWN_KEY_SECONDS": str(_CACHED_S)}
    async with proxy_with(folder, provider, api, _with_fallbacks, **environ) as (_, client):

        async def asked(**more: Any) -> tuple[int, list[tuple[str, str]]]:
            before = len(provider.asked)
            answer = await client.post("/v1/chat/completions", json={**_CALL, **more})
            return answer.status_code, provider.asked[before:]

        status, seen = await asked()
        check.that(status == 200 and [key for _, key in seen] == [OWN_KEY], "the provider sees the user's key")
        before = api.resolved
        await asyncio.gather(*(asked() for _ in range(20)))
        check.that(api.resolved - before <= 1, "twenty calls ask for the key once")
        provider.fails["gpt-4o-mini"] = 500
        status, seen = await asked(fallbacks=["claude-3-5-haiku"])
        keys, paths = {key for _, key in seen}, {path for path, _ in seen}
        check.that(
            status == 500 and keys == {OWN_KEY} and paths == {"/v1/chat/completions"},
            f"no fallback: neither the operator's key nor another provider ({status}, {sorted(paths)})",
        )
        provider.fails.clear()
        _, seen = await asked(model="mixed")
        check.that(
            {key for _, key in seen} == {"sk-operator"},
            "a model of which not every deployment is marked takes no own key",
        )
        _, seen = await asked(model="claude-3-5-haiku")
        check.that(
            {key for _, key in seen} == {"sk-operator"}, "a provider of which the user has no key gets none of its keys"
        )
        await asked()
        api.keys.clear()
        revoked = time.monotonic()
        while (await asked())[1][0][1] == OWN_KEY and time.monotonic() < revoked + 10:
            await asyncio.sleep(0.05)
        check.that(time.monotonic() - revoked < _CACHED_S + 1, f"a revoked key is used for {_CACHED_S} s at most")
        provider.fails["gpt-4o-mini"] = 500
        _, seen = await asked()
        check.that("/v1/messages" in {path for path, _ in seen}, "without an own key the fallback works")
        await asyncio.sleep(1)
    records = [record for record in ring_of(folder) if record.get("byok")]
    # 1 + 20, the failed tries of one call, and the calls until the key was forgotten
    check.that(
        len(records) >= 22 and all("4o-mini" in record["model"] for record in records), "its records say own key"
    )
    check.that(not files_with(OWN_KEY, folder), "the key stands in no log, ring or note")


async def levels(folder: Path, check: Checks) -> None:
    """The client asks for a power level."""
    provider, api = Provider(), Api()
    await asyncio.to_thread(folder.mkdir, parents=True)
    (folder / "levels.json").write_text(json.dumps(_LEVELS))
    async with proxy_with(folder, provider, api, METERBRIDGE_LEVELS=str(folder / "levels.json")) as (_, client):

        async def asked(headers: dict[str, str], **more: Any) -> tuple[int, str]:
            before = len(provider.asked)
            answer = await client.post("/v1/chat/completions", json={**_CALL, **more}, headers=headers)
            return answer.status_code, provider.asked[before][0] if len(provider.asked) > before else ""

        await asked({})  # makes it ask which levels there are
        await asyncio.sleep(1)
        check.that(
            await asked({"x-power-level": "precision"}) == (200, "/v1/messages"),
            "Meterbridge's order of providers chooses the model",
        )
        check.that(
            await asked({}, metadata={"power_level": "eco", "tags": ["power:precision"]})
            == (200, "/v1/chat/completions"),
            "a level in the metadata chooses the model, and a tag does not",
        )
        check.that((await asked({"x-power-level": "turbo"}))[0] == 400, "an unknown level is refused")
        await asked({}, metadata={"tags": ["power:eco"], "spend_logs_metadata": {"power_level": "eco"}})
        await asyncio.sleep(1)
    found = [record["metadata"].get("power_level", "") for record in ring_of(folder) if record["status"] == "success"]
    check.that(
        found == ["", "precision", "eco", ""],
        f"the records have the level that was given, not the one that was written ({found})",
    )


async def levels_everywhere(folder: Path, check: Checks) -> None:
    """At each kind of endpoint: a record with the level belongs to a call with its model. That model has its own key."""
    provider, api = Provider(), Api()
    models: dict[str, str] = {}

    def doubled(text: dict[str, Any], _provider: str) -> None:
        for each in list(text["model_list"]):
            models[each["model_name"]] = name = "eco-" + each["model_name"]
            text["model_list"].append(
                {"model_name": name, "litellm_params": {**each["litellm_params"], "api_key": "sk-eco"}}
            )
        (folder / "levels.json").write_text(json.dumps({"eco": {"models": models}}))

    await asyncio.to_thread(folder.mkdir, parents=True)
    path = str(folder / "levels.json")
    async with proxy_with(folder, provider, api, doubled, METERBRIDGE_LEVELS=path) as (_, client):
        for name in ENDPOINTS:
            before, seen = len(provider.asked), len(ring_of(folder))
            await call(client, name, {"x-power-level": "eco"})
            await asyncio.sleep(1)
            keys = {key for _, key in provider.asked[before:]}
            given = {record["metadata"].get("power_level", "") for record in ring_of(folder)[seen:]}
            check.that((given == {"eco"}) == (keys == {"sk-eco"}), f"{name}: level {given}, key {keys}")


async def credit(folder: Path, check: Checks) -> None:
    """Meterbridge answers 429 to each second request, or to all."""
    provider, api = Provider(), Api()
    environ = {"METERBRIDGE_AUTHORIZE": "on", "METERBRIDGE_FAIL": "open", "METERBRIDGE_FAIL_OPEN_USD": _OPEN_USD}
    async with proxy_with(folder, provider, api, **environ) as (_, client):
        api.status = 429
        large = await client.post("/v1/chat/completions", json={**_CALL, "max_tokens": 100_000})  # 0.06 dollars
        check.that(large.status_code == 503, "one call beyond the bound of an open proxy is refused")
        seen: list[int] = []
        for number in range(40):
            api.status = 429 if number % 2 else 0
            seen.append((await client.post("/v1/chat/completions", json={**_CALL, "max_tokens": 10_000})).status_code)
        # 10 000 tokens of answer are 0.006 dollars
        through = sum(status == 200 for status in seen[1::2])
        check.that(through == 3, f"good answers between 429 do not free the bound ({through} let through)")
        api.status = 0
        provider.fails["gpt-4o-mini"] = 500
        before = len(api.released)
        await client.post("/v1/chat/completions", json=_CALL)
        await asyncio.sleep(1)
        check.that(len(api.released) == before + 1, "a call that failed gives back what was set aside")


async def decided(folder: Path) -> list[str]:
    """Run all of it; returns the errors."""
    check = Checks()
    for trial in (own_keys, levels, levels_everywhere, credit):
        await trial(folder / trial.__name__, check)
    return check.wrong
