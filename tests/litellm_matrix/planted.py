"""Changes of what LiteLLM reports, planted to see that they are noticed: each changes one payload.

Runs inside LiteLLM's proxy too, so it imports nothing of the project.
"""

import uuid
from collections.abc import Callable
from typing import Any


def _renamed(payload: dict[str, Any]) -> None:
    payload["total_cost"] = payload.pop("response_cost", None)


def _doubled(payload: dict[str, Any]) -> None:
    payload["response_cost"] = 2 * (payload.get("response_cost") or 0)


def _in_cents(payload: dict[str, Any]) -> None:
    payload["response_cost"] = 100 * (payload.get("response_cost") or 0)


def _moved(payload: dict[str, Any]) -> None:
    payload["metadata"] = {**(payload.get("metadata") or {}), "customer": payload.pop("end_user", None)}
    payload["metadata"].pop("user_api_key_end_user_id", None)


def _new_ids(payload: dict[str, Any]) -> None:
    payload["id"] = payload["litellm_call_id"] = uuid.uuid4().hex


def _team_as_user(payload: dict[str, Any]) -> None:
    metadata = payload["metadata"] = dict(payload.get("metadata") or {})
    metadata["user_api_key_user_id"] = metadata.get("user_api_key_team_id")


def _cost_of_hits(payload: dict[str, Any]) -> None:
    payload["cache_hit"] = None
    payload["response_cost"] = payload.get("response_cost") or payload.get("saved_cache_cost")


def _cached_apart(payload: dict[str, Any]) -> None:
    details = ((payload.get("metadata") or {}).get("usage_object") or {}).get("prompt_tokens_details") or {}
    payload["prompt_tokens"] = (payload.get("prompt_tokens") or 0) - (details.get("cached_tokens") or 0)


#: Changes of meaning that a release of LiteLLM could bring.
PLANTS: dict[str, Callable[[dict[str, Any]], None]] = {
    "renamed_cost": _renamed,
    "doubled_cost": _doubled,
    "cost_in_cents": _in_cents,
    "end_user_elsewhere": _moved,
    "new_ids": _new_ids,
    "team_as_user": _team_as_user,
    "cost_of_cache_hits": _cost_of_hits,
    "cached_tokens_apart": _cached_apart,
}
#: A scenario that must differ under each change.
SEEN_IN = {
    "renamed_cost": "chat",
    "doubled_cost": "chat",
    "cost_in_cents": "chat",
    "end_user_elsewhere": "end-user",
    "new_ids": "background",
    "team_as_user": "chat",
    "cost_of_cache_hits": "cache-hit",
    "cached_tokens_apart": "prompt-cached",
}
