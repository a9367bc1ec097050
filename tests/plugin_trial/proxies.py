"""LiteLLM proxies with the plugin, as others run it: its wheel on PYTHONPATH, nothing else of Meterbridge."""

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import httpx

from tests.proxy.proxy import VENV

ROOT = Path(__file__).parents[2]
KEY = "sk-trial-key"
#: What a call of the trial costs at LiteLLM's own prices.
MODELS = ("gpt-4o-mini", "text-embedding-3-small")
_UP_LIMIT_S = 120.0
_AUTH = """\
from litellm.proxy._types import UserAPIKeyAuth


async def user_api_key_auth(request, api_key):
    return UserAPIKeyAuth(api_key=api_key, user_id="trial-user", team_id="trial-team")
"""


def build_wheel(folder: Path) -> Path:
    """The plugin's wheel, one file that Python imports from; the folder is made."""
    folder.mkdir(parents=True)
    pip = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation", "--no-index"]
    subprocess.run([*pip, "--wheel-dir", str(folder), str(ROOT / "connectors/litellm/plugin")], check=True)
    [wheel] = folder.glob("meterbridge_litellm-*.whl")
    return wheel


def config(provider: str, callbacks: list[str]) -> str:
    """A `config.yaml` in JSON. Args: provider: its base URL, with `/v1`."""
    params = {"api_base": provider, "api_key": "sk-provider"}
    return json.dumps(
        {
            "model_list": [
                {"model_name": name, "litellm_params": {"model": "openai/" + name, **params}} for name in MODELS
            ],
            "litellm_settings": {"callbacks": callbacks},
            "general_settings": {"master_key": "sk-trial-master", "custom_auth": "trial_auth.user_api_key_auth"},
        }
    )


class Launcher:
    """Starts proxies with the same environment; see launcher.py. Its end ends none of them.

    Raises: RuntimeError: LiteLLM cannot be imported.
    """

    def __init__(self, folder: Path, wheel: Path, environ: Mapping[str, str]) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        whole = {
            "PATH": os.environ.get("PATH", ""),
            "LITELLM_LOCAL_MODEL_COST_MAP": "True",
            "PYTHONPATH": str(wheel),
            **environ,
        }
        command = [str(VENV / "bin" / "python"), str(Path(__file__).with_name("launcher.py"))]
        with (folder / "launcher.log").open("ab") as log:
            self._process = subprocess.Popen(
                command, env=whole, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True
            )
        while (line := self._answer()) != "ready":
            if not line:
                raise RuntimeError(f"LiteLLM cannot be imported; see {folder / 'launcher.log'}")

    def started(self, folder: Path, config_text: str, port: int) -> "PluginProxy":
        """A proxy that is starting."""
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "trial_auth.py").write_text(_AUTH)
        (folder / "config.yaml").write_text(config_text)
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps({"folder": str(folder), "port": port}) + "\n")
        self._process.stdin.flush()
        return PluginProxy(folder, port, int(self._answer()))

    def close(self) -> None:
        """End the launcher."""
        self._process.kill()
        self._process.wait()

    def _answer(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline().strip()


class PluginProxy:
    """One proxy process on a port of its own."""

    def __init__(self, folder: Path, port: int, pid: int) -> None:
        self.url = f"http://127.0.0.1:{port}"
        self._folder, self._pid = folder, pid

    async def up(self) -> None:
        """Wait until it answers. Raises: RuntimeError: it does not."""
        async with httpx.AsyncClient(trust_env=False) as client:
            for _ in range(int(_UP_LIMIT_S * 4)):
                if not self._lives():
                    break
                try:
                    if (await client.get(self.url + "/health/liveliness")).is_success:
                        return
                except httpx.TransportError:
                    pass  # not listening yet: asked again below, a bounded number of times
                await asyncio.sleep(0.25)
        raise RuntimeError(f"LiteLLM is not up; see {self._folder / 'litellm.log'}")

    def kill(self) -> None:
        """SIGKILL."""
        os.kill(self._pid, signal.SIGKILL)

    async def stop(self) -> None:
        """SIGTERM, and SIGKILL if it stays."""
        os.kill(self._pid, signal.SIGTERM)
        for _ in range(300):
            if not self._lives():
                return
            await asyncio.sleep(0.1)
        self.kill()

    def _lives(self) -> bool:
        try:
            os.kill(self._pid, 0)
        except ProcessLookupError:
            return False
        return True
