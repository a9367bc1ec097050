"""Finds words in a config.yaml of LiteLLM that look like one that matters to us. LiteLLM ignores words that it does not know."""

from collections.abc import Iterable, Iterator, Mapping
from difflib import SequenceMatcher
from typing import Any, Final
from urllib.parse import urlsplit

from connectors.config.misspelt_names import meant_by
from connectors.litellm.seen import LISTS, USAGE_PATH, CallbackKind, is_unseen

_SECTIONS: Final = ("litellm_settings", "callback_settings", "general_settings", "environment_variables")
_SETTINGS: Final = (
    *LISTS,
    "global_disable_no_log_param",
    "standard_logging_payload_excluded_fields",
    "turn_off_message_logging",
    "generic_logger_headers",
)
_OF_A_CALLBACK: Final = (
    "callback_type",
    "endpoint",
    "headers",
    "max_retries",
    "retry_delay",
    "timeout",
    "log_format",
    "event_types",
)
#: Words of LiteLLM that are similar to one of these.
_OTHERS: Final = frozenset({"router_settings", "input_callback", "service_callback", "service_callbacks"})
#: How similar (0 to 1) two words are if one is taken for the other.
_ALIKE: Final = 0.8


def misspelt_words(config: Mapping[str, Any]) -> Iterator[str]:
    """Yield a sentence for each word that is probably misspelt. It contains no value of the file but names and the path of an
    address."""
    yield from _near(config, _SECTIONS, "")
    settings, entries = (members_of(config.get(section)) for section in _SECTIONS[:2])
    yield from _near(settings, _SETTINGS, "litellm_settings.")
    listed = [name for setting in LISTS for name in _names(settings.get(setting))]
    for name, entry in entries.items():
        if not isinstance(entry, Mapping):
            continue
        here = f"callback_settings.{name}"
        yield from _near(entry, _OF_A_CALLBACK, f"{here}.")
        yield from _near(
            {str(one): "" for one in members_of(entry.get("headers"))}, ("Authorization",), f"{here}.headers."
        )
        yield from _of_type(entry.get("callback_type"), here)
        yield from _of_path(entry.get("endpoint"), here)
        if name not in listed and (near := meant_by(str(name), [one for one in listed if one not in entries], _ALIKE)):
            yield f"litellm_settings lists the callback {near}, callback_settings has {name}: both must be the same word."


def _near(given: Mapping[str, Any], known: Iterable[str], where: str) -> Iterator[str]:
    """Yield the words that are like a known one that is not there."""
    there = {str(word).lower() for word in given}
    missing = [word for word in known if word.lower() not in there]
    for word in map(str, given):
        if word not in known and word not in _OTHERS and (meant := meant_by(word, missing, _ALIKE)):
            yield f"{where}{word} is not known to LiteLLM: is {meant} meant?"


def _of_type(kind: object, here: str) -> Iterator[str]:
    if isinstance(kind, str) and kind != CallbackKind.GENERIC and meant_by(kind, [CallbackKind.GENERIC], _ALIKE):
        yield f"{here}.callback_type is {kind}: is {CallbackKind.GENERIC} meant?"


def _of_path(endpoint: object, here: str) -> Iterator[str]:
    if not isinstance(endpoint, str) or is_unseen(endpoint):
        return
    path = urlsplit(endpoint).path.rstrip("/")
    if not path.endswith(USAGE_PATH) and (not path or SequenceMatcher(None, path, USAGE_PATH).ratio() >= _ALIKE):
        yield f"{here}.endpoint has the path {path or '/'}, and the ingress takes usage at {USAGE_PATH}."


def members_of(value: object) -> Mapping[str, Any]:
    """Return the value if it is an object; nothing if it is not."""
    return value if isinstance(value, Mapping) else {}


def _names(value: object) -> list[str]:
    return [one for one in (value if isinstance(value, list) else [value]) if isinstance(one, str)]
