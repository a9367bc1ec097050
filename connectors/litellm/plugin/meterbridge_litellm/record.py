"""Makes the stored record of a call: only the fields that the ingress stores. It contains no prompt, response, error
text or key.

So the record has the same identity, customer and money as the body of LiteLLM's `generic_api` callback, and a tenth of
its size.
"""

import json
import re
from collections.abc import Iterable, Mapping
from hashlib import sha256
from types import MappingProxyType
from typing import Any, Final
from unicodedata import normalize
from urllib.parse import urlsplit

#: Compared with the ingress's own lists by a test (schemas/wire.py).
_FIELDS: Final = (
    *("id", "litellm_call_id", "status", "call_type", "custom_llm_provider", "model", "model_group", "prompt_tokens"),
    *("completion_tokens", "total_tokens", "startTime", "endTime", "completionStartTime", "cache_hit", "end_user"),
    *("response_cost", "model_id"),
)
#: Names that a client chooses. In Meterbridge's windows and sums such a long name has the same hash.
_NAMES: Final = ("model", "model_group", "custom_llm_provider", "model_id", "call_type", "status")
_METADATA: Final = (
    *(
        "user_api_key_hash",
        "user_api_key_alias",
        "user_api_key_user_id",
        "user_api_key_team_id",
        "user_api_key_team_alias",
    ),
    *("user_api_key_org_id", "user_api_key_project_id", "user_api_key_end_user_id", "used_client_oauth_token"),
    *("is_silent_experiment", "power_level"),
)
_USAGE: Final = (
    "cache_read_input_tokens",
    "output_image_count",
    "seconds",
    "duration_seconds",
    "cache_creation_input_tokens",
)
_DETAILS: Final = (
    *("cached_tokens", "reasoning_tokens", "image_count", "character_count", "audio_length_seconds"),
    *("video_length_seconds", "cache_creation_tokens"),
)
_COSTS: Final = (
    *(
        "input_cost",
        "output_cost",
        "total_cost",
        "original_cost",
        "tool_usage_cost",
        "cache_read_cost",
        "cache_creation_cost",
    ),
    *("discount_percent", "discount_amount", "margin_percent", "margin_fixed_amount", "margin_total_amount"),
)
#: The additional costs that failed attempts of the call have reported before.
_CARRIED: Final = ("mid_stream_partial_cost", "failed_attempts_cost")
_READS: Final = (
    "get_responses",
    "aget_responses",
)  # their id changes with each read, but these parts of the response do not
#: A price can depend on the power level, so the level is kept in every place where a call may have it.
_LEVEL: Final = re.compile(r"\s*[A-Za-z0-9_-]{1,32}\s*")
#: The kinds of failures. They replace the text of the error, which may contain a prompt.
_ERROR: Final = ("error_code", "error_class")
_WORD: Final = re.compile(r"[A-Za-z0-9_.]{1,64}")
_LEVEL_TAG: Final = "power:"
_SECRET: Final = re.compile(r"\s*(?:[Bb]earer\s+)?sk-\S{4,}\s*")
#: Maximum characters of a tag, and of a text that is not replaced by its hash: a client writes `user`, and the record
#: must stay small.
_TAG_CHARS: Final = 128
_LONG: Final = 4096
_ID_BYTES: Final = 255
_HASH: Final = re.compile(r"[0-9a-fA-F]{64}|litellm_proxy_master_key|")


def record(
    payload: Mapping[str, Any],
    keep: Iterable[str] = (),
    marks: Mapping[str, Any] = MappingProxyType({}),
    level: str | None = None,
) -> bytes:
    """Return the billed fields of a StandardLoggingPayload as JSON, with the same identity as from the `generic_api`
    callback.

    Args:
        keep: `tags`, `metadata`: keep these fields too, which clients can write.
        marks: fields that the plugin itself knows, such as `byok`.
        level: the power level that the plugin gave the call, `""` = none; None = the level that the client wrote is
            used.
    """
    call = _some(payload, _FIELDS)
    if "end_user" in call:
        call["end_user"] = _safe(call["end_user"])
    for name in _NAMES:
        if isinstance(text := call.get(name), str) and len(text) > _LONG:
            call[name] = _hashed_id(text)
    metadata = payload.get("metadata")
    if isinstance(metadata, Mapping):
        kept = call["metadata"] = {name: _safe(metadata[name]) for name in _METADATA if name in metadata}
        if (key := metadata.get("user_api_key_hash")) is not None and not _HASH.fullmatch(str(key).strip()):
            kept["user_api_key_hash"] = _hash(str(key))
        usage = metadata.get("usage_object")
        if isinstance(usage, Mapping):
            kept["usage_object"] = _some(usage, _USAGE)
            for name in ("prompt_tokens_details", "completion_tokens_details"):
                if name in usage:
                    details = usage[name]
                    kept["usage_object"][name] = _some(details, _DETAILS) if isinstance(details, Mapping) else None
        if "metadata" in keep:
            kept |= _some(metadata, ("spend_logs_metadata", "user_api_key_auth_metadata"))
        elif isinstance(written := metadata.get("spend_logs_metadata"), Mapping) and _is_level(
            written.get("power_level")
        ):
            kept["spend_logs_metadata"] = {"power_level": written["power_level"]}
        if not _is_level(kept.get("power_level")):
            kept.pop("power_level", None)
    if isinstance(costs := payload.get("cost_breakdown"), Mapping):
        call["cost_breakdown"] = _some(costs, _COSTS)
        if isinstance(additional := costs.get("additional_costs"), Mapping) and (of := _some(additional, _CARRIED)):
            call["cost_breakdown"]["additional_costs"] = of
    if isinstance(base := payload.get("api_base"), str) and (host := _host(base)):
        call["api_base"] = host
    tags = payload.get("request_tags")
    if "tags" in keep and tags is not None:
        call["request_tags"] = [tag for tag in tags if _fits(tag)] if isinstance(tags, list) else tags
    elif isinstance(tags, list) and (levels := [tag for tag in tags if _is_level_tag(tag)]):
        call["request_tags"] = levels
    error = payload.get("error_information")
    if payload.get("status") == "failure" and isinstance(error, Mapping):
        words = {name: value for name, value in _some(error, _ERROR).items() if _WORD.fullmatch(str(value))}
        if words:
            call["error_information"] = words
    response = payload.get("response")
    if payload.get("call_type") in _READS and isinstance(response, Mapping):
        parts = [_some(part, ("id",)) for part in response.get("output") or () if isinstance(part, Mapping)]
        call["response"] = {"created_at": response.get("created_at"), "output": parts}
    if level is not None:
        _decide_level(call, level)
    call |= marks
    return json.dumps(call, separators=(",", ":"), default=str).encode()


def _decide_level(call: dict[str, Any], level: str) -> None:
    """Keep only the decided level and remove levels that a client wrote, because a level affects the price."""
    metadata = call.setdefault("metadata", {})
    metadata.pop("power_level", None)
    if isinstance(written := metadata.get("spend_logs_metadata"), Mapping):
        metadata["spend_logs_metadata"] = {name: value for name, value in written.items() if name != "power_level"}
    if isinstance(tags := call.get("request_tags"), list):
        call["request_tags"] = [tag for tag in tags if not (isinstance(tag, str) and tag.startswith(_LEVEL_TAG))]
    if level:
        metadata["power_level"] = level


def _is_level(value: Any) -> bool:
    return isinstance(value, str) and _LEVEL.fullmatch(value) is not None


def _is_level_tag(tag: Any) -> bool:
    return isinstance(tag, str) and tag.startswith(_LEVEL_TAG) and _is_level(tag.removeprefix(_LEVEL_TAG))


def _some(value: Mapping[str, Any], names: Iterable[str]) -> dict[str, Any]:
    return {name: value[name] for name in names if name in value}


def _fits(tag: Any) -> bool:
    """Return whether a tag is short enough. The ingress leaves longer tags out; a client can write millions of
    characters.
    """
    return not isinstance(tag, str) or len(tag) <= _TAG_CHARS


def _safe(value: Any) -> Any:
    """Return the value. A text that looks like an API key is replaced by its hash, and a very long text by the customer
    id that Meterbridge makes from it.
    """
    if isinstance(value, str) and len(value) > _LONG:
        return _hashed_id(value)
    return _hash(value) if isinstance(value, str) and "sk-" in value and _SECRET.fullmatch(value) else value


def _hash(key: str) -> str:
    return sha256(
        re.sub(r"^[Bb][Ee][Aa][Rr][Ee][Rr]\s+", "", key.strip(), count=1).encode("utf-8", "replace")
    ).hexdigest()


def _hashed_id(text: str) -> str:
    """Normalise an id like `schemas/customer_id.py`; a test compares both."""
    text = normalize("NFC", text.encode("utf-16", "surrogatepass").decode("utf-16", "replace"))
    text = text.replace("\0", "").strip()
    if _SECRET.fullmatch(text):
        return _hash(text)
    encoded = text.encode()
    return "sha256:" + sha256(encoded).hexdigest() if len(encoded) > _ID_BYTES else text


def _host(base: str) -> str:
    """Return the address without user, password, port, path and query, because these may contain a key."""
    try:
        parts = urlsplit(base.strip())
        return f"{parts.scheme}://{parts.hostname}" if parts.scheme and parts.hostname else ""
    except ValueError:
        return ""
