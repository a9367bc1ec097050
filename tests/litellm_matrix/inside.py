"""Runs inside LiteLLM's proxy: who each key belongs to, two guardrails, and planted changes of what LiteLLM reports.

A key is `sk-matrix-NAME` of a scenario. `who.json` beside this file has its owner. `MATRIX_PLANT` in the environment names a change of planted.py.
"""

import importlib
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import litellm
from litellm.integrations.custom_guardrail import CustomGuardrail
from litellm.integrations.custom_logger import CustomLogger
from litellm.litellm_core_utils import litellm_logging
from litellm.proxy._types import ProxyException, UserAPIKeyAuth

_WHO = json.loads((Path(__file__).parent / "who.json").read_text())


async def user_api_key_auth(_request: Any, api_key: str) -> Any:
    """The owner of a key. Raises: as LiteLLM does for an unknown, a blocked and an exhausted key."""
    name = api_key.removeprefix("Bearer ").removeprefix("sk-matrix-")
    who = dict(_WHO.get(name) or {})
    if not who:
        raise ProxyException("Invalid proxy server token passed", "auth_error", "key", 401)
    if who.pop("over_budget", False):
        raise litellm.BudgetExceededError(current_cost=2.0, max_budget=1.0)
    return UserAPIKeyAuth(api_key=api_key, **who)


class Before(CustomGuardrail):  # type: ignore[misc]
    """Refuses before the provider is asked."""

    async def async_pre_call_hook(self, *_args: Any, **_kwargs: Any) -> Any:
        raise ValueError("refused before the call")


class After(CustomGuardrail):  # type: ignore[misc]
    """Refuses an answer that the provider has given."""

    async def async_post_call_success_hook(self, *_args: Any, **_kwargs: Any) -> Any:
        raise ValueError("refused after the call")


class Tap(CustomLogger):  # type: ignore[misc]
    """Records what LiteLLM logs, in addition to the callbacks that post it: a call here that does not arrive was lost
    in delivery.
    """

    async def async_log_success_event(self, kwargs: Any, response_obj: Any, start_time: Any, end_time: Any) -> None:
        self._note(kwargs)

    async def async_log_failure_event(self, kwargs: Any, response_obj: Any, start_time: Any, end_time: Any) -> None:
        self._note(kwargs)

    def _note(self, kwargs: Any) -> None:
        payload = kwargs.get("standard_logging_object")
        with (Path(__file__).parent / "tap.jsonl").open("a") as notes:
            notes.write(json.dumps(payload, default=str) + "\n")


tap = Tap()


def _plant(change: Callable[[dict[str, Any]], None]) -> None:
    """Change each payload that LiteLLM builds, in every module that imported the function."""
    created = litellm_logging.get_standard_logging_object_payload

    def changed(*args: Any, **kwargs: Any) -> Any:
        payload = created(*args, **kwargs)
        if payload is not None:
            change(payload)
        return payload

    for module in [*sys.modules.values()]:
        if vars(module).get("get_standard_logging_object_payload") is created:
            vars(module)["get_standard_logging_object_payload"] = changed


# LiteLLM loads this file again for each callback that it has; the change is planted once.
if os.environ.get("MATRIX_PLANT") and not hasattr(litellm_logging, "matrix_planted"):
    litellm_logging.matrix_planted = True
    _plant(importlib.import_module("matrix_planted").PLANTS[os.environ["MATRIX_PLANT"]])
