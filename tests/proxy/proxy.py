"""The LiteLLM proxy: its environment, its configuration, its process, and a client's requests."""

import asyncio
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from connectors.litellm.recommended import EXCLUDED
from tests.support.eventually import PATIENCE

#: The release that is tried; its libraries come from requirements.txt.
LITELLM = "1.110.2"
FOLDER = Path(__file__).parent
VENV = FOLDER / ".venv"
KEY = "sk-trial-key"
#: Who a call belongs to that names no end user.
USER = "trial-user"
_UP_LIMIT_S = 300.0

_AUTH = f"""\
from litellm.proxy._types import UserAPIKeyAuth


async def user_api_key_auth(request, api_key):
    return UserAPIKeyAuth(api_key=api_key, user_id="{USER}", team_id="trial-team")
"""


def install() -> None:
    """Create the environment, once for each release; pip's errors end the trial."""
    mark = VENV / f"litellm-{LITELLM}"
    if mark.exists():
        return
    subprocess.run([sys.executable, "-m", "venv", "--clear", str(VENV)], check=True)
    pip = [str(VENV / "bin" / "python"), "-m", "pip", "install", "-q", "--disable-pip-version-check"]
    subprocess.run([*pip, "-r", str(FOLDER / "requirements.txt")], check=True)
    subprocess.run([*pip, "--no-deps", f"litellm=={LITELLM}"], check=True)
    mark.touch()


def migrations() -> list[Path]:
    """LiteLLM's own migrations of its database, in order.

    Raises:
        RuntimeError: the environment has none.
    """
    found = sorted((VENV / "lib").glob("python3*/site-packages/litellm_proxy_extras/migrations/*/migration.sql"))
    if not found:
        raise RuntimeError(f"LiteLLM's migrations are not in {VENV}")
    return found


@dataclass(frozen=True, slots=True)
class Configuration:
    """One way to run the proxy.

    Fields:
        plain_ids: `disable_responses_id_security`: a response has one id in all its polls.
        keep_response: leave LiteLLM's `response` in what is posted.
        database: LiteLLM has one, so that there are spend rows.
        free_reads: as beside a database, reads of a background response cost nothing.
        polled_by_litellm: LiteLLM's own poller tells the cost of a background response.
    """

    name: str
    plain_ids: bool = False
    keep_response: bool = False
    database: bool = True
    free_reads: bool = False
    polled_by_litellm: bool = False

    def yaml(self, provider: str, endpoint: str, token: str) -> str:
        """The proxy's `config.yaml`, which is also JSON; what is left out of a record is what we recommend.

        Args:
            provider: base URL of the provider, with `/v1`.
            endpoint: where usage is posted.
        """
        model = {"api_base": provider, "api_key": "sk-provider"}
        left_out = [part for part in EXCLUDED if part != "response" or not self.keep_response]
        return json.dumps(
            {
                "model_list": [
                    {"model_name": name, "litellm_params": {"model": "openai/" + name, **model}}
                    for name in ("gpt-4o-mini", "sora-2")
                ],
                "files_settings": [{"custom_llm_provider": "openai", **model}],
                "litellm_settings": {
                    "callbacks": ["meterbridge", "trial_inside.handler"] if self.database else ["meterbridge"],
                    "global_disable_no_log_param": True,
                    "standard_logging_payload_excluded_fields": left_out,
                },
                "callback_settings": {
                    "meterbridge": {
                        "callback_type": "generic_api",
                        "endpoint": endpoint,
                        "headers": {"Authorization": "Bearer " + token},
                        "max_retries": 5,
                        "retry_delay": 1,
                        "timeout": 30,
                    }
                },
                "general_settings": {
                    "master_key": "sk-trial-master",
                    "custom_auth": "trial_auth.user_api_key_auth",
                    "disable_responses_id_security": self.plain_ids,
                },
            }
        )


class Proxy:
    """One proxy process on loopback; `client` is a client of its API."""

    def __init__(self, folder: Path, port: int, config: str, environ: Mapping[str, str]) -> None:
        """`environ`: further variables of its process."""
        self.client = httpx.AsyncClient(
            base_url=f"http://127.0.0.1:{port}",
            headers={"Authorization": f"Bearer {KEY}"},
            timeout=60 * PATIENCE,
            trust_env=False,
        )
        (folder / "trial_auth.py").write_text(_AUTH)
        shutil.copy(FOLDER / "inside.py", folder / "trial_inside.py")
        (folder / "config.yaml").write_text(config)
        self._folder, self._port, self._environ = folder, port, environ
        self._process: subprocess.Popen[bytes] | None = None

    async def start(self) -> None:
        """Start it and wait until it answers.

        Raises:
            RuntimeError: it ended, or did not answer in time.
        """
        process = self._launched()
        for _ in range(int(_UP_LIMIT_S * 2)):
            if process.poll() is not None:
                break
            try:
                if (await self.client.get("/health/liveliness")).status_code == httpx.codes.OK:
                    return
            except httpx.TransportError:
                pass  # not listening yet: asked again below, a bounded number of times
            await asyncio.sleep(0.5)
        raise RuntimeError(f"LiteLLM is not up; see {self._folder / 'litellm.log'}")

    def _launched(self) -> "subprocess.Popen[bytes]":
        command = [str(VENV / "bin" / "litellm"), "--config", "config.yaml", "--host", "127.0.0.1"]
        environ: Mapping[str, str] = {
            "PATH": os.environ.get("PATH", ""),
            "LITELLM_LOCAL_MODEL_COST_MAP": "True",
            "DEFAULT_FLUSH_INTERVAL_SECONDS": "1",
            "OPENAI_API_KEY": "sk-provider",
            **self._environ,
            "PYTHONPATH": str(self._folder),
        }
        with (self._folder / "litellm.log").open("ab") as log:
            self._process = subprocess.Popen(
                [*command, "--port", str(self._port)], cwd=self._folder, env=environ, stdout=log, stderr=log
            )
        return self._process

    async def stop(self) -> None:
        """Let it flush for three seconds, then SIGTERM: this order loses nothing."""
        if self._process is None:
            return
        await asyncio.sleep(3)
        self._process.send_signal(signal.SIGTERM)
        try:
            await asyncio.to_thread(self._process.wait, 20)
        except subprocess.TimeoutExpired:
            self._process.kill()
        self._process = None

    async def kill(self) -> None:
        """SIGKILL: calls that it has not posted yet are lost."""
        if self._process is not None:
            self._process.kill()
            await asyncio.to_thread(self._process.wait)
            self._process = None

    async def make(self, path: str, **body: Any) -> str:
        """POST JSON; returns the id of the created object."""
        answer = await self.client.post(path, json=body)
        answer.raise_for_status()
        return str(answer.json()["id"])

    async def make_video(self) -> str:
        """A video of four seconds."""
        form = {"model": "sora-2", "prompt": "a boat", "seconds": "4"}
        answer = await self.client.post("/v1/videos", files={name: (None, text) for name, text in form.items()})
        answer.raise_for_status()
        return str(answer.json()["id"])

    async def look(self, response: str, model: str) -> None:
        """Let LiteLLM's own poller check a finished background response.

        Raises:
            RuntimeError: the poller did not report it.
        """
        answer = await self.client.post("/trial/poller", json={"id": response, "model": model, "user": USER})
        answer.raise_for_status()
        if answer.json()["waiting"]:
            raise RuntimeError(f"LiteLLM's poller did not report {response}; see {self._folder / 'litellm.log'}")

    async def poll(self, path: str, times: int) -> None:
        """GET the same path again and again."""
        for _ in range(times):
            (await self.client.get(path)).raise_for_status()
