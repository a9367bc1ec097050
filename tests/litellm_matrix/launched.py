"""The proxies of one run: forks of one process that has imported LiteLLM, with the configuration of every scenario."""

import asyncio
import json
import os
import shutil
import signal
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import httpx

from connectors.litellm.recommended import EXCLUDED, MAX_RETRIES, TIMEOUT_S
from tests.litellm_matrix.scenario import SCENARIOS, Scenario

_FOLDER = Path(__file__).parent
_FORKS = _FOLDER.parent / "plugin_trial" / "launcher.py"
_UP_LIMIT_S = 1200.0
_PROVIDER_KEY = "sk-provider"
_RETRIES = 2
MASTER_KEY = "sk-matrix-master"
TOKEN, SECRET = "a-token-of-the-matrix", "a-secret-of-the-matrix"
#: LiteLLM up to 1.85 finds a callback only in a file beside its `config.yaml`.
_PLUGIN = "from meterbridge_litellm import handler as handler\n"
#: The callbacks of each proxy, by the endpoint to which each posts, with settings of `generic_api`; None = our plugin.
PROXIES: dict[str, dict[str, dict[str, Any] | None]] = {
    "main": {
        "main": {},
        "ndjson": {"log_format": "ndjson"},
        "single": {"log_format": "single"},
        "outage": {},
        "slow": {},
    },
    "sigterm": {"sigterm": {}},
    "plugin": {"plugin": None},
    "plugin-killed": {"plugin": None},
}


def owners() -> dict[str, Any]:
    """Who each key belongs to."""
    return {
        one.name: {"user_id": "u." + one.name, "team_id": "t." + one.name, "key_alias": one.name, **one.who}
        for one in SCENARIOS.values()
        if one.who is not None
    }


def _deployments(scenario: Scenario, provider: str) -> list[dict[str, Any]]:
    found = []
    for model in scenario.deployments:
        base = f"{provider}/s/{model.at or scenario.name}"
        of_openai = model.model.partition("/")[0] in {"openai", "text-completion-openai"}
        params = {"model": model.model, "api_base": base + "/v1" * of_openai, "api_key": _PROVIDER_KEY, **model.params}
        found.append({"model_name": model.name, "litellm_params": params})
    return found


def configuration(proxy: str, provider: str, usage: str) -> dict[str, Any]:
    """The `config.yaml`, as JSON. Args: provider, usage: URLs without a path, of the provider and of the entrance."""
    generic = {
        "to_" + endpoint: {
            "callback_type": "generic_api",
            "endpoint": f"{usage}/{endpoint}/webhook/litellm/usage",
            "headers": {"Authorization": "Bearer " + TOKEN},
            "max_retries": MAX_RETRIES,
            "retry_delay": 1,
            "timeout": TIMEOUT_S,
            **settings,
        }
        for endpoint, settings in PROXIES[proxy].items()
        if settings is not None
    }
    callbacks = [*generic, "matrix_inside.tap"] if generic else ["matrix_plugin.handler"]
    target = {"target": provider + "/s/pass-own/v1/chat/completions", "headers": {"Authorization": "Bearer sk"}}
    guards = [
        {"guardrail_name": f"refuse-{when}", "litellm_params": {"guardrail": f"matrix_inside.{name}", "mode": mode}}
        for when, name, mode in (("before", "Before", "pre_call"), ("after", "After", "post_call"))
    ]
    return {
        "model_list": [each for one in SCENARIOS.values() for each in _deployments(one, provider)],
        "files_settings": [
            {"custom_llm_provider": "openai", "api_base": provider + "/s/batch/v1", "api_key": _PROVIDER_KEY}
        ],
        "guardrails": guards,
        "router_settings": {
            "num_retries": _RETRIES,
            "retry_after": 0,
            "fallbacks": [{"fallback": ["fallback-second"]}],
            "model_group_alias": {"alias": "alias-target"},
            "allowed_fails": 1000,
            "disable_cooldowns": True,
        },
        "litellm_settings": {
            "callbacks": callbacks,
            "global_disable_no_log_param": True,
            "standard_logging_payload_excluded_fields": [part for part in EXCLUDED if part != "response"],
            "cache": True,
            "cache_params": {"type": "local", "mode": "default_off"},
        },
        "callback_settings": generic,
        "general_settings": {
            "master_key": MASTER_KEY,
            "custom_auth": "matrix_inside.user_api_key_auth",
            "pass_through_endpoints": [{"path": "/passing", **target}],
        },
    }


class Launched:
    """One proxy process.

    Raises:
        RuntimeError: by `up`: it ended, or does not answer.
    """

    def __init__(self, folder: Path, port: int, pid: int) -> None:
        self.url = f"http://127.0.0.1:{port}"
        self._folder, self._pid = folder, pid

    async def up(self) -> None:
        """Wait until it answers."""
        async with httpx.AsyncClient(trust_env=False, timeout=30) as client:
            for _ in range(int(_UP_LIMIT_S)):
                if not self._lives():
                    break
                try:
                    if (await client.get(self.url + "/health/liveliness")).is_success:
                        return
                except httpx.TransportError:
                    pass  # not listening yet: asked again below, a bounded number of times
                await asyncio.sleep(1)
        raise RuntimeError(f"LiteLLM is not up; see {self._folder / 'litellm.log'}")

    async def end(self, *, kill: bool) -> None:
        """SIGKILL; or SIGTERM, and SIGKILL if it stays for twenty seconds."""
        if not kill and self._lives():
            os.kill(self._pid, signal.SIGTERM)
            for _ in range(200):
                if not self._lives():
                    return
                await asyncio.sleep(0.1)
        if self._lives():
            os.kill(self._pid, signal.SIGKILL)

    def _lives(self) -> bool:
        try:
            os.kill(self._pid, 0)
        except ProcessLookupError:
            return False
        return True


class Launcher:
    """Imports LiteLLM once, then forks a proxy for each configuration.

    Raises:
        RuntimeError: LiteLLM cannot be imported.
    """

    def __init__(self, folder: Path, python: Path, environ: Mapping[str, str]) -> None:
        self._folder = folder
        whole = {
            "PATH": os.environ.get("PATH", ""),
            "LITELLM_LOCAL_MODEL_COST_MAP": "True",
            "PYTHONPATH": str(_FOLDER.parents[1] / "connectors/litellm/plugin"),
            **environ,
        }
        with (folder / "launcher.log").open("ab") as log:
            self._process = subprocess.Popen(
                [str(python), str(_FORKS)],
                env=whole,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
            )
        while (line := self._answer()) != "ready":
            if not line:
                raise RuntimeError(f"LiteLLM cannot be imported; see {folder / 'launcher.log'}")

    def started(self, name: str, config: Mapping[str, Any], port: int) -> Launched:
        """A proxy that is starting."""
        folder = self._folder / name
        folder.mkdir(parents=True)
        for module in ("inside", "planted"):
            shutil.copy(_FOLDER / f"{module}.py", folder / f"matrix_{module}.py")
        (folder / "matrix_plugin.py").write_text(_PLUGIN)
        (folder / "who.json").write_text(json.dumps(owners()))
        (folder / "config.yaml").write_text(json.dumps(config))
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps({"folder": str(folder), "port": port}) + "\n")
        self._process.stdin.flush()
        return Launched(folder, port, int(self._answer()))

    def close(self) -> None:
        """End the process; its forks live on."""
        self._process.kill()
        self._process.wait()

    def _answer(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline().strip()
