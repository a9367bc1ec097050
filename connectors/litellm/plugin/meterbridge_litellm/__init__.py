"""Meterbridge's callback for a LiteLLM proxy: every answered call is billed, even if the proxy is killed.

In config.yaml: `litellm_settings: {callbacks: ["meterbridge_litellm.handler"]}`. It needs only Python and httpx, which
every proxy has. The guide is docs/litellm-plugin.md in Meterbridge's repository.
"""

import os
import threading
from typing import Any

_lock = threading.Lock()


def __getattr__(name: str) -> Any:
    """Make `handler` when LiteLLM first asks for it. Raises: ValueError: a setting is missing or wrong."""
    if name != "handler":
        raise AttributeError(name)
    from meterbridge_litellm.callback import _PROXY_Meterbridge
    from meterbridge_litellm.settings import PluginSettings

    with _lock:
        if name not in globals():
            globals()[name] = _PROXY_Meterbridge(PluginSettings.of(os.environ))
    return globals()[name]
