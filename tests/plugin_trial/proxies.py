"""LiteLLM proxies with the plugin, as users run it: its wheel on PYTHONPATH, nothing else of Meterbridge."""

import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from tests.proxy.forked import ForkedProxy, Launcher
from tests.proxy.proxy import VENV

ROOT = Path(__file__).parents[2]
KEY = "sk-trial-key"
#: What a call of the trial costs at LiteLLM's own prices.
MODELS = ("gpt-4o-mini", "text-embedding-3-small")
_AUTH = """\
from litellm.proxy._types import UserAPIKeyAuth


async def user_api_key_auth(request, api_key):
    return UserAPIKeyAuth(api_key=api_key, user_id="trial-user", team_id="trial-team")
"""


def build_wheel(folder: Path) -> Path:
    """The plugin's wheel, one file that Python imports from; the folder is created."""
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


def launcher(folder: Path, wheel: Path, environ: Mapping[str, str]) -> Launcher:
    """Starts proxies with the plugin of that wheel and these variables."""
    return Launcher(folder, VENV / "bin" / "python", {"PYTHONPATH": str(wheel), **environ})


def started(launcher: Launcher, folder: Path, config_text: str, port: int) -> ForkedProxy:
    """A proxy that is starting."""
    return launcher.started(folder, {"trial_auth.py": _AUTH, "config.yaml": config_text}, port)
