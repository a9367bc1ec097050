"""Reads a config.yaml of LiteLLM's proxy as LiteLLM does: includes are merged, `os.environ/...` values are not resolved."""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import yaml

from connectors.litellm.misspelt_words import members_of, misspelt_words
from connectors.litellm.seen import LISTS, Callback, CallbackKind, Proxy, is_unseen, kind_of
from schemas.errors import ConfigurationError

#: Environment variables with the address of a callback, by kind, if `callback_settings` has none.
_ADDRESS: Final = {
    CallbackKind.GENERIC: "GENERIC_LOGGER_ENDPOINT",
    CallbackKind.LAGO: "LAGO_API_BASE",
    CallbackKind.OPENMETER: "OPENMETER_API_ENDPOINT",
}
_HEADERS: Final = "GENERIC_LOGGER_HEADERS"


def read_config(path: Path) -> Proxy:
    """Return the proxy that a file describes.

    Raises:
        ConfigurationError: `litellm_config`: the file cannot be read, is not YAML, or is not a mapping. The message
            contains no value of the file.
    """
    return proxy_of(_load(path, {path.resolve()}))


def proxy_of(config: Mapping[str, Any]) -> Proxy:
    """Return the proxy that a parsed config.yaml describes."""
    settings = members_of(config.get("litellm_settings"))
    environment = {name: str(value) for name, value in members_of(config.get("environment_variables")).items()}
    return Proxy(
        callbacks=tuple(_callbacks(settings, members_of(config.get("callback_settings")), environment)),
        settings=settings,
        lago_webhook_url=_names(config, "lago_webhook_url"),
        environment=environment,
        nameless=tuple(name for name in LISTS if _holds_other_than_names(settings.get(name))),
        misspelt=tuple(misspelt_words(config)),
    )


def callback_of(
    name: str, listed: tuple[str, ...], settings: Mapping[str, Any] | None, environment: Mapping[str, str | None] | None
) -> Callback:
    """Return a callback by its name. `settings` and `environment` are None if they cannot be seen."""
    kind = kind_of(name, settings)
    address = headers = None
    if settings is not None and settings.get("endpoint") is not None:
        address = str(settings["endpoint"])
    elif environment is not None:
        address = environment.get(_ADDRESS.get(kind, ""))
    if settings is not None and isinstance(settings.get("headers"), Mapping):
        headers = _texts(settings["headers"])
    elif environment is not None and kind is CallbackKind.GENERIC and environment.get(_HEADERS):
        headers = _headers(environment[_HEADERS] or "")
    hears = frozenset[str]().union(*(LISTS[name] for name in listed))
    return Callback(name, kind, hears, listed, settings, address, headers)


def _load(path: Path, known: set[Path]) -> dict[str, Any]:
    """Return a file merged with the files that it includes, which override it; each file is read once.

    LiteLLM extends lists of models, which are not read here.
    """
    config = _parsed(path)
    for name in _strings(config.pop("include", None)):
        included = (path.parent / name.replace("\0", "")).resolve()
        if included in known:
            continue
        known.add(included)
        config.update(_load(included, known))
    return config


def _parsed(path: Path) -> dict[str, Any]:
    try:
        loaded = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigurationError("litellm_config", f"{path} cannot be read: {error.strerror}") from None
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
        mark = getattr(error, "problem_mark", None)
        where = f": the error is at line {mark.line + 1}, column {mark.column + 1}" if mark is not None else ""
        raise ConfigurationError("litellm_config", f"{path} is not YAML{where}") from None
    if not isinstance(loaded, dict):
        raise ConfigurationError("litellm_config", f"{path} holds no settings")
    return loaded


def _callbacks(
    settings: Mapping[str, Any], named: Mapping[str, Any], environment: Mapping[str, str]
) -> Iterator[Callback]:
    listed: dict[str, tuple[str, ...]] = {}
    for setting in LISTS:
        for name in _strings(settings.get(setting)):
            listed[name] = (*listed.get(name, ()), setting)
    # These headers are added to every callback of this kind.
    everywhere = _texts(settings.get("generic_logger_headers"))
    for name, settings_of_it in listed.items():
        entry = named.get(name)
        # Without an entry the environment decides, and the file shows only a part of the environment.
        known = dict(environment) if name in {*CallbackKind} else None
        callback = callback_of(name, settings_of_it, entry if isinstance(entry, Mapping) else None, known)
        if callback.kind is CallbackKind.GENERIC and everywhere:
            callback = replace(callback, headers={**everywhere, **(callback.headers or {})})
        yield callback


def _strings(value: object) -> list[str]:
    if isinstance(value, str):
        return [value]
    return [item for item in value if isinstance(item, str)] if isinstance(value, list) else []


def _holds_other_than_names(value: object) -> bool:
    listed = value if isinstance(value, list) else [value]
    return value is not None and not all(isinstance(name, str) for name in listed)


def _texts(value: object) -> dict[str, str]:
    """Return the entries as texts, with names in lower case."""
    return {str(name).lower(): str(text) for name, text in members_of(value).items()}


def _headers(text: str) -> dict[str, str]:
    """Headers in LiteLLM's form: `name=value,name=value`."""
    if is_unseen(text):
        return {}
    pairs = (pair.split("=", 1) for pair in text.split(",") if "=" in pair)
    return {name.strip().lower(): value.strip() for name, value in pairs}


def _names(config: object, name: str) -> bool:
    """Return whether any mapping in `config` has this key. Each object is looked at once: with aliases, YAML can name one
    a billion times, or put it into itself.
    """
    left, seen = [config], set[int]()
    while left:
        value = left.pop()
        if not isinstance(value, Mapping | list) or id(value) in seen:
            continue
        seen.add(id(value))
        if isinstance(value, Mapping) and name in value:
            return True
        left += value.values() if isinstance(value, Mapping) else value
    return False
