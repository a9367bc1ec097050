"""Runs in LiteLLM's environment, as a second callback: records which hook LiteLLM calls for which endpoint, and the id
in it.
"""

import json
from pathlib import Path
from typing import Any

from litellm.integrations.custom_logger import CustomLogger

_NOTES = Path(__file__).parent / "probe.jsonl"


def _note(**fields: Any) -> None:
    with _NOTES.open("a") as notes:
        notes.write(json.dumps(fields, default=str) + "\n")


class _PROXY_Probe(CustomLogger):  # noqa: N801  # as the plugin, it sees calls that want no log
    async def async_pre_call_hook(
        self, user_api_key_dict: Any, cache: Any, data: dict[str, Any], call_type: str
    ) -> None:
        logging = data.get("litellm_logging_obj")
        _note(
            at="before",
            call_type=call_type,
            data_id=data.get("litellm_call_id"),
            object_id=getattr(logging, "litellm_call_id", None),
            model=data.get("model"),
        )

    async def async_log_success_event(self, kwargs: Any, response_obj: Any, start_time: Any, end_time: Any) -> None:
        payload = kwargs.get("standard_logging_object") or {}
        _note(
            at="logged",
            id=kwargs.get("litellm_call_id"),
            call_type=payload.get("call_type"),
            cost=payload.get("response_cost"),
        )

    async def async_log_failure_event(self, kwargs: Any, response_obj: Any, start_time: Any, end_time: Any) -> None:
        _note(at="try failed", id=kwargs.get("litellm_call_id"))

    async def async_post_call_failure_hook(
        self,
        request_data: dict[str, Any],
        original_exception: Exception,
        user_api_key_dict: Any,
        traceback_str: Any = None,
    ) -> None:
        _note(at="failed", id=request_data.get("litellm_call_id"), why=type(original_exception).__name__)


handler = _PROXY_Probe()
